"""Runs a command of the operator's on hosts, and lists the fleet's processes there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fleet.errors import RemoteError
from fleet.hosts.inventory import Fleet, Host
from fleet.reach.execute import ask, follow
from fleet.reach.remote import Remote
from fleet.reach.reply import Reader

Hear = Callable[[str, str], None]
"""Told the stream, ``out`` or ``err``, and a piece of text as the command wrote it."""


@dataclass(frozen=True)
class Command:
    """What to run.

    Parameters
    ----------
    words
        The command and its arguments, as they are; one text for /bin/sh with `shell`.
    shell
        Whether it is such a text.
    as_worker
        The worker whose environment, settings and release it gets; None for that of a login.
    timeout_s
        After which it is ended, in seconds; None for as long as it takes.
    """

    words: tuple[str, ...]
    shell: bool = False
    as_worker: str | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class CommandEnd:
    """How a command ended.

    Parameters
    ----------
    status
        Its exit code; below 0 the number of the signal that ended it.
    seconds
        How long it took.
    timed_out
        Whether it was ended because its time was over.
    """

    status: int
    seconds: float
    timed_out: bool

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with 0."""
        return self.status == 0 and not self.timed_out

    def __str__(self) -> str:
        if self.timed_out:
            return f"ended after {self.seconds:.0f} s (--timeout)"
        return f"ended by signal {-self.status}" if self.status < 0 else f"exit code {self.status}"


def run_command(fleet: Fleet, host: Host, remote: Remote, command: Command, hear: Hear) -> CommandEnd:
    """Run a command on a host to its end.

    Parameters
    ----------
    fleet, host, remote
        Where.
    command
        What.
    hear
        Told what it says, as it says it.

    Raises
    ------
    RemoteError
        The host cannot be reached, or cannot start it.
    """
    request = {
        **_place(fleet, host),
        "words": list(command.words),
        "shell": command.shell,
        "as_worker": command.as_worker,
        "timeout": command.timeout_s,
    }
    for entry in follow(remote, "command", request):
        reader = Reader(host.name, "", entry)
        if "ok" in entry:
            return CommandEnd(reader.whole("status"), reader.number("seconds"), reader.flag("timed_out"))
        if "stream" in entry:
            hear(reader.text("stream"), reader.text("text"))
    raise RemoteError(host.name, "command", "the program on the host ended without saying how the command did")


@dataclass(frozen=True)
class Process:
    """One process of the fleet on a host.

    Parameters
    ----------
    pid, parent
        Its number and its parent's.
    kind
        supervisord, worker, helper, job or stray.
    worker, calculation
        Whom and what it serves; empty where that is not known.
    orphan
        Whether nobody looks after it.
    cpu
        Percent of one core, since it began.
    memory
        Resident, in GB.
    age_s
        Seconds since it began.
    state
        The kernel's letter for it; T is frozen.
    command
        Its command line.
    """

    pid: int
    parent: int
    kind: str
    worker: str
    calculation: str
    orphan: bool
    cpu: float
    memory: float
    age_s: float
    state: str
    command: str


def list_processes(fleet: Fleet, host: Host, remote: Remote) -> tuple[Process, ...]:
    """Every process of the fleet on a host; none where nothing is deployed.

    Parameters
    ----------
    fleet, host, remote
        Where.

    Raises
    ------
    RemoteError
        The host cannot be reached.
    """
    reply = ask(remote, "listing", _place(fleet, host))
    return tuple(_process(item) for item in Reader(host.name, "", reply).items("processes"))


def _process(item: Reader) -> Process:
    return Process(
        pid=item.whole("pid"),
        parent=item.whole("parent"),
        kind=item.text("kind"),
        worker=item.text("worker"),
        calculation=item.text("calculation"),
        orphan=item.flag("orphan"),
        cpu=item.number("cpu"),
        memory=item.number("memory"),
        age_s=item.number("age"),
        state=item.text("state"),
        command=item.text("command"),
    )


def _place(fleet: Fleet, host: Host) -> dict[str, str]:
    return {"base_dir": host.base_dir, "fleet": fleet.name, "host": host.name}
