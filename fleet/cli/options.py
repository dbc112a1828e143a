"""Options that many verbs share, and what they stand for."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import click

from fleet.cli import completion
from fleet.deployment.manner import Manner
from fleet.errors import Declined, UsageError
from fleet.hosts.inventory import Fleet, Host, parse_inventory, select

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_FILE = "hosts.yaml"
_NAMED = 3


@dataclass(frozen=True)
class Chosen:
    """A fleet, and the hosts of it that a command is about."""

    fleet: Fleet
    hosts: tuple[Host, ...]

    @property
    def whole(self) -> bool:
        """Whether these are all of its hosts."""
        return len(self.hosts) == len(self.fleet.hosts)


class _Seconds(click.FloatRange):
    """A time of at least 0; nan is none, though neither less than that nor more."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


SECONDS = _Seconds(min=0)


def hosts_file(command: Command) -> Command:
    """Add HOSTS_FILE and --host; the command gets ``hosts_file`` and ``patterns``, which `choose` reads."""
    command = host_patterns(command)
    return click.argument("hosts_file", required=False, metavar="[HOSTS_FILE]")(command)


def host_patterns(command: Command) -> Command:
    """Add --host."""
    return click.option(
        "--host",
        "patterns",
        metavar="PATTERN",
        multiple=True,
        shell_complete=completion.hosts,
        help="Only hosts that match, such as node*.",
    )(command)


def parallel(command: Command) -> Command:
    """Add --parallel."""
    return _parallel(20, "Hosts at a time.")(command)


def parallel_preparing(command: Command) -> Command:
    """Add --parallel, for what changes hosts as hosts.yaml says, and only looks and prepares in parallel."""
    meaning = "Hosts looked at and installed on at a time; how many change at a time says update.max_parallel."
    return _parallel(20, meaning)(command)


def parallel_looking(command: Command) -> Command:
    """Add --parallel, for what changes hosts as hosts.yaml says, and only looks in parallel."""
    return _parallel(20, "Hosts looked at at a time; how many change at a time says update.max_parallel.")(command)


def parallel_telling(command: Command) -> Command:
    """Add --parallel, for what must reach all hosts as nearly at once as can be."""
    return _parallel(64, "Hosts told at a time.")(command)


def parallel_or_all(command: Command) -> Command:
    """Add --parallel, for what is quick and better done on all hosts at once."""
    return _parallel(64, "Hosts at a time.")(command)


def _parallel(default: int, meaning: str) -> Callable[[Command], Command]:
    kind = click.IntRange(1, 256)
    return click.option("--parallel", type=kind, default=default, show_default=True, help=meaning)


def workers(command: Command) -> Command:
    """Add --worker."""
    return click.option(
        "--worker",
        "workers",
        metavar="PATTERN",
        multiple=True,
        shell_complete=completion.workers,
        help="Only workers that match, such as node7-*.",
    )(command)


def as_json(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "json_lines", is_flag=True, help="Print JSON lines instead of a table.")(command)


def timeout(command: Command) -> Command:
    """Add --timeout, for what waits for workers."""
    return click.option("--timeout", type=SECONDS, metavar="SECONDS", help="Wait for workers no longer than this.")(
        command
    )


def lock_timeout(command: Command) -> Command:
    """Add --lock-timeout."""
    return click.option(
        "--lock-timeout",
        type=SECONDS,
        default=0.0,
        metavar="SECONDS",
        help="Wait this long for somebody else who changes the same hosts.",
    )(command)


def manner_of(*, rolling: bool = False, when_idle: bool = False, now: bool = False) -> Manner:
    """How workers change, by the options of that name.

    Raises
    ------
    UsageError
        More than one is given.
    """
    given = {Manner.ROLLING: rolling, Manner.WHEN_IDLE: when_idle, Manner.NOW: now}
    chosen = [manner for manner, is_given in given.items() if is_given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(f'--{manner.value}' for manner in chosen)} exclude each other")
    return chosen[0] if chosen else Manner.ROLLING


def yes(command: Command) -> Command:
    """Add --yes; the command passes it on to :func:`confirm`."""
    return click.option("--yes", "-y", is_flag=True, help="Do it without asking.")(command)


def yes_to_now(command: Command) -> Command:
    """Add --yes, for what asks only where it gives calculations back."""
    return click.option("--yes", "-y", is_flag=True, help="With --now, do it without asking.")(command)


def confirm(question: str, yes: bool, nothing: str) -> None:
    """Ask whether to do what has been shown.

    Parameters
    ----------
    question
        What would be done.
    yes
        Whether that was agreed to beforehand.
    nothing
        What does not happen otherwise, as in "nothing was changed".

    Raises
    ------
    UsageError
        Nobody can be asked.
    Declined
        The answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"nothing was {nothing}: nobody can be asked here, so say --yes to go ahead")
    if not click.confirm(question, err=True):
        raise Declined(f"nothing was {nothing}")


def affected(chosen: Chosen, workers: Sequence[str] = ()) -> str:
    """Which workers a command is about, for a question.

    Parameters
    ----------
    chosen
        The hosts.
    workers
        Patterns of their workers; none for all.
    """
    which = f"workers {', '.join(workers)}" if workers else "all workers"
    if len(chosen.hosts) <= _NAMED:
        return f"{which} of {', '.join(host.name for host in chosen.hosts)}"
    return f"{which} of {count_of(len(chosen.hosts))}"


def count_of(hosts: int) -> str:
    """How many hosts, in words.

    Parameters
    ----------
    hosts
        How many.
    """
    return f"{hosts} host{'' if hosts == 1 else 's'}"


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name matches any of the patterns.

    Parameters
    ----------
    name
        Of a worker, say.
    patterns
        Shell patterns.
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def refuse_unknown(workers: Sequence[str], matched: Sequence[bool | None]) -> None:
    """Refuse patterns that no worker matches; whether one of a host that did not answer does, nobody knows.

    Parameters
    ----------
    workers
        The patterns; none for all workers.
    matched
        For each host, whether it has such a worker; None for one that did not answer.

    Raises
    ------
    UsageError
        No worker of any host matches.
    """
    if workers and matched and all(one is False for one in matched):
        patterns = ", ".join(f"'{pattern}'" for pattern in workers)
        raise UsageError(f"no worker matches {patterns}: 'puffin-fleet status' shows the workers")


def choose(path: str | None, patterns: tuple[str, ...]) -> Chosen:
    """Read hosts.yaml and choose from it.

    Parameters
    ----------
    path
        The file; None for ``$PUFFIN_FLEET``, else ``hosts.yaml`` here.
    patterns
        Patterns for hosts; none for all.

    Raises
    ------
    UsageError
        There is no such file, or a pattern matches no host.
    InventoryError
        The file is not as it should be.
    """
    file = Path(path or os.environ.get("PUFFIN_FLEET") or DEFAULT_FILE)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "name it, set $PUFFIN_FLEET, or write one with 'puffin-fleet init'"
        raise UsageError(f"no file {file}: {hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
    fleet = parse_inventory(text, str(file), read_file=_read_included, environment=os.environ)
    return Chosen(fleet, select(fleet, patterns))


def _read_included(path: str) -> str:
    return Path(path).expanduser().read_text(encoding="utf-8")
