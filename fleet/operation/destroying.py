"""Takes hosts out of a fleet: lets their workers finish, then removes what deploys have put there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.errors import RemoteError
from fleet.hosts.inventory import Fleet, Host
from fleet.operation.host_control import HostControl, StopOptions, ToldHost
from fleet.reach.execute import Say, ask
from fleet.reach.facts import Facts
from fleet.reach.remote import Remote
from fleet.reach.reply import Reader
from puffin.records import WorkerRecord

_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Left:
    """Something that stays on a host.

    Parameters
    ----------
    path
        Where it is.
    what
        What it is, in a few words.
    files
        How many files.
    """

    path: str
    what: str
    files: int


@dataclass(frozen=True)
class Destroyed:
    """A host that is no longer part of the fleet.

    Parameters
    ----------
    left
        What stays there.
    shared
        Hosts that still use the installations, which therefore stay.
    changed
        Whether there was anything to remove.
    """

    left: tuple[Left, ...]
    shared: tuple[str, ...]
    changed: bool


class HostDestroyer:
    """Takes one host out of a fleet. Done again after an interruption, it goes on where that was.

    Parameters
    ----------
    fleet
        The fleet.
    host
        The host.
    facts
        What its probe found.
    remote
        The connection to it.
    token
        Of its lock.
    say
        Told what is being done.
    """

    def __init__(self, *, fleet: Fleet, host: Host, facts: Facts, remote: Remote, token: str, say: Say) -> None:
        self._host = host
        self._facts = facts
        self._remote = remote
        self._known = {"host_root": facts.host_root, "lock": token}
        self._say = say
        self._control = HostControl(fleet, host, remote, say)

    def tell(self, now: bool) -> ToldHost:
        """Tell the workers to end when their jobs are done, or at once.

        Parameters
        ----------
        now
            Whether running calculations are given back instead of finished.

        Raises
        ------
        RemoteError
            The host cannot be reached.
        """
        return self._control.tell(StopOptions(now=now))

    def finish(self, told: ToldHost, timeout_s: float | None) -> Destroyed:
        """Wait until the workers have ended, then remove everything but what calculations left.

        Parameters
        ----------
        told
            What `tell` returned.
        timeout_s
            For how long to wait, in seconds; None for as long as it takes.

        Raises
        ------
        RemoteError
            Workers still run, or something cannot be removed.
        """
        self._wait(told, timeout_s)
        self._say("removing the entry that starts the workers at boot")
        was_at_boot = self._remove_boot_entry()
        self._say("removing files")
        scratch = self._facts.scratch or f"{self._facts.base_dir}/scratch"
        request = {**self._known, "fleet_root": self._facts.fleet_root, "scratch": scratch}
        reader = Reader(self._host.name, "", ask(self._remote, "destroy", request, _TIMEOUT_S))
        return Destroyed(
            tuple(Left(item.text("path"), item.text("what"), item.whole("files")) for item in reader.items("left")),
            reader.texts("shared"),
            was_at_boot or bool(reader.texts("removed")),
        )

    def _remove_boot_entry(self) -> bool:
        reader = Reader(self._host.name, "", ask(self._remote, "boot", {**self._known, "remove": True}))
        # Where there is no cron it says so, too; that matters only where an entry may be left.
        if reader.text("why") and self._facts.boot.kind != "none":
            hint = "remove the line of 'crontab -l' that names this fleet, then run it again"
            raise RemoteError(self._host.name, "removing the start at boot", reader.text("why"), hint)
        return reader.flag("changed")

    def _wait(self, told: ToldHost, timeout_s: float | None) -> None:
        # Without supervisord there is nothing to end but workers that it left behind.
        how = StopOptions(timeout_s=timeout_s, supervisord=self._facts.supervisord.running)
        running = self._control.see_off(told, how).running
        if running:
            what = f"{', '.join(running)} still run{'s' if len(running) == 1 else ''}"
            hint = "they end when their calculations are done; run it again then, or with --now"
            raise RemoteError(self._host.name, "waiting for workers", what, hint)


def workers_of(host: str, records: Sequence[WorkerRecord]) -> list[str]:
    """The uuids of the workers of a host, for the registry to forget.

    Parameters
    ----------
    host
        The host.
    records
        Of all workers of the fleet.
    """
    return [record.uuid for record in records if record.host == host]
