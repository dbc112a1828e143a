"""Options that the verbs of ``puffin-fleet queue`` share, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from fleet.cli import completion, times
from fleet.cli.options import choose
from fleet.errors import UsageError
from fleet.hosts.access import connection
from puffin.calculations import Status
from puffin.entries import Entry, Selection
from puffin.hints import nearest
from puffin.settings import DatabaseSettings
from puffin.store import Queue, Store

Command = TypeVar("Command", bound=Callable[..., Any])

_TIMEOUT_S = 10.0
_ID = re.compile(r"[0-9a-f]{1,24}")
_STATUSES = [status.value for status in Status]


@dataclass(frozen=True)
class QueueTarget:
    """Where the calculations are.

    Parameters
    ----------
    store
        The database server.
    settings
        How it is reached.
    names
        The databases that are meant.
    fleet
        The fleet's name; empty without a hosts.yaml.
    """

    store: Store
    settings: DatabaseSettings
    names: tuple[str, ...]
    fleet: str

    @property
    def queues(self) -> tuple[Queue, ...]:
        """The calculations of each of the databases."""
        return tuple(self.store.queue(name) for name in self.names)


def target(command: Command) -> Command:
    """Add --hosts-file, --uri and --database; the command passes them on to :func:`opened`."""
    for option in (
        click.option("--database", "databases", metavar="NAME", multiple=True, help="One of those in hosts.yaml."),
        click.option("--uri", metavar="URI", help="Connection string of the database server; no hosts.yaml is read."),
        click.option("--hosts-file", metavar="FILE", help="Default: $PUFFIN_FLEET, else hosts.yaml here."),
    ):
        command = option(command)
    return command


def hosts_file(command: Command) -> Command:
    """Add HOSTS_FILE, as other verbs have it; the command passes it on to :func:`named_file`."""
    return click.argument("file", required=False, metavar="[HOSTS_FILE]")(command)


def named_file(file: str | None, option: str | None, uri: str | None) -> str | None:
    """The hosts.yaml that is named, whichever way; None if none is.

    Parameters
    ----------
    file
        HOSTS_FILE.
    option, uri
        The options of :func:`target`.

    Raises
    ------
    UsageError
        It is named twice, or is something else.
    """
    if file is None:
        return option
    if file in _STATUSES and not Path(file).exists():
        raise UsageError(f"{file} is no hosts.yaml: calculations of a status are listed with --status {file}")
    if _ID.fullmatch(file) and not Path(file).exists():
        raise UsageError(f"{file} is no hosts.yaml: 'puffin-fleet queue show {file}' shows one calculation")
    if option is not None or uri is not None:
        other = "--hosts-file" if uri is None else "--uri"
        raise UsageError(f"{file} and {other} do not go together: each says where the database is")
    return file


def is_hosts_file(word: str) -> bool:
    """Whether a word that stands for something else is more likely a hosts.yaml.

    Parameters
    ----------
    word
        From the command line.
    """
    return word.lower().endswith((".yaml", ".yml"))


@contextmanager
def opened(hosts_file: str | None, uri: str | None, databases: Sequence[str]) -> Iterator[QueueTarget]:
    """The target of a command, closed at the end.

    Parameters
    ----------
    hosts_file, uri, databases
        The options.

    Raises
    ------
    UsageError
        There is no such database in hosts.yaml, or none is named.
    """
    settings, fleet = _settings(hosts_file, uri, databases)
    lost = [name for name in databases if name not in settings.names]
    if lost:
        hints = "".join(nearest(name, settings.names) for name in lost)
        raise UsageError(f"no database {', '.join(lost)} in hosts.yaml{hints}; it has {', '.join(settings.names)}")
    store = Store(settings, _TIMEOUT_S)
    try:
        yield QueueTarget(store, settings, tuple(databases) or settings.names, fleet)
    finally:
        store.close()


def _settings(hosts_file: str | None, uri: str | None, databases: Sequence[str]) -> tuple[DatabaseSettings, str]:
    if uri is None:
        fleet = choose(hosts_file, ()).fleet
        return connection(fleet), fleet.name
    if hosts_file is not None:
        raise UsageError("--uri and --hosts-file do not go together: each says where the database is")
    name = ",".join(databases) or urlsplit(uri).path.strip("/")
    if not name:
        raise UsageError("--uri needs --database, or the database's name at its end: mongodb://host:27017/name")
    return DatabaseSettings(uri=uri, name=name), ""


def selection(*statuses: Status) -> Callable[[Command], Command]:
    """Add the filters; the command passes them on to :func:`selected`.

    Parameters
    ----------
    *statuses
        What is meant without --status; none for all.
    """
    usual = ", ".join(status.value for status in statuses) or "all"

    def decorate(command: Command) -> Command:
        status_help = f"{', '.join(_STATUSES)}; default: {usual}."
        for option in (
            times.since("Changed"),
            click.option(
                "--worker",
                "workers",
                metavar="PATTERN",
                multiple=True,
                shell_complete=completion.workers,
                help="Last run by this worker.",
            ),
            click.option("--program", "programs", metavar="PATTERN", multiple=True, help="Program, such as sparrow."),
            click.option("--job", "orders", metavar="PATTERN", multiple=True, help="Job, such as scine_*."),
            click.option("--status", "statuses", metavar="STATUS", multiple=True, help=status_help),
        ):
            command = option(command)
        return command

    return decorate


def selected(
    statuses: Sequence[str],
    orders: Sequence[str],
    programs: Sequence[str],
    workers: Sequence[str],
    since: str | None,
    usual: Sequence[Status] = (),
) -> Selection:
    """The calculations that are meant.

    Parameters
    ----------
    statuses, orders, programs, workers, since
        The options.
    usual
        The states without --status.

    Raises
    ------
    UsageError
        There is no such state, or ``since`` is no time.
    """
    unknown = [word for word in statuses if word not in {*_STATUSES, "all"}]
    if unknown:
        hints = nearest(unknown[0], _STATUSES)
        raise UsageError(f"--status: no status '{unknown[0]}'{hints}; there are {', '.join(_STATUSES)} and all")
    chosen = tuple(usual)
    if statuses:
        chosen = () if "all" in statuses else tuple(Status(word) for word in statuses)
    return Selection(chosen, tuple(orders), tuple(programs), tuple(workers), times.utc("--since", since))


def entry_of(target: QueueTarget, prefix: str) -> Entry:
    """The one calculation that an id, or its beginning, stands for.

    Parameters
    ----------
    target
        Where to look.
    prefix
        The id or its beginning.

    Raises
    ------
    UsageError
        There is none, or more than one.
    """
    word = prefix.strip().lower()
    if is_hosts_file(word):
        raise UsageError(f"{prefix}: no id; which hosts.yaml is said with --hosts-file {prefix}")
    if not _ID.fullmatch(word):
        raise UsageError(f"{prefix}: no id: ids are 24 hexadecimal digits, or the first of them")
    found = [entry for queue in target.queues for entry in queue.find(word)]
    if not found:
        raise UsageError(f"{prefix}: no such calculation in {', '.join(target.names)}")
    if len(found) > 1:
        raise UsageError(f"{prefix}: stands for more than one, such as {found[0].id} and {found[1].id}: say more of it")
    return found[0]
