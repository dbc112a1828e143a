"""What the action `examine` replies beyond a probe, as frozen records. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.reach.facts import Facts
from fleet.reach.probing import parse
from fleet.reach.reply import Reader
from puffin.severity import Severity

ACTION = "examine"
UNLIMITED = -1


@dataclass(frozen=True)
class TriedDirectory:
    """A directory and what was tried there; `write`, `link` and `run` say what went wrong, or are empty.

    Parameters
    ----------
    path, tried
        The directory, and the nearest one above it that is there.
    file_system
        Its type, as the kernel calls it.
    """

    path: str
    tried: str
    file_system: str
    write: str
    link: str
    run: str


@dataclass(frozen=True)
class Limit:
    """What the kernel allows; `UNLIMITED` for no limit."""

    soft: int
    hard: int


@dataclass(frozen=True)
class Reached:
    """An address of the database, and why it cannot be reached; empty if it can."""

    address: str
    problem: str


@dataclass(frozen=True)
class WorkerFinding:
    """What a worker's own `check` found."""

    check: str
    severity: Severity
    what: str


@dataclass(frozen=True)
class Examination:
    """What was examined on a host.

    Parameters
    ----------
    clock_first, clock_last
        The host's time when it began and when it ended, seconds since 1970.
    python_home
        Environment that the host's Python belongs to; empty for one of the system.
    base, scratch
        Directories; scratch is None where none is configured.
    limits
        By name: nofile, nproc, core.
    release_problem
        Why the present release does not work; empty if it does or there is none.
    unfinished
        Files that something killed midway left.
    logs
        By worker that is down, the last lines that it wrote.
    reachable
        Addresses of the database that were tried, where no worker could be asked.
    members
        Addresses to which the database's replica set sends its clients, the primary's first.
    worker, worker_findings, worker_problem
        The worker whose own check was asked, what it found, and why it could not be asked.
    """

    clock_first: float
    clock_last: float
    python_home: str
    base: TriedDirectory
    scratch: TriedDirectory | None
    limits: Mapping[str, Limit]
    release_problem: str
    unfinished: tuple[str, ...]
    logs: Mapping[str, tuple[str, ...]]
    reachable: tuple[Reached, ...]
    members: tuple[Reached, ...]
    worker: str | None
    worker_findings: tuple[WorkerFinding, ...]
    worker_problem: str


@dataclass(frozen=True)
class Examined:
    """A host as it was found.

    Parameters
    ----------
    facts, examination
        What was found.
    asked, answered
        When it was asked and when the answer was there, by this machine's clock, seconds since 1970.
    """

    facts: Facts
    examination: Examination
    asked: float
    answered: float

    @property
    def clock_offset(self) -> float:
        """By how many seconds the host's clock is ahead of ours, at best knowledge."""
        seen = self.examination
        return ((seen.clock_first - self.asked) + (seen.clock_last - self.answered)) / 2

    @property
    def clock_doubt(self) -> float:
        """How far off that may be: half of the time that question and answer travelled."""
        seen = self.examination
        return max(0.0, ((self.answered - self.asked) - (seen.clock_last - seen.clock_first)) / 2)


def parse_examined(host: str, reply: Mapping[str, Any], asked: float, answered: float) -> Examined:
    """Read the reply of `examine`.

    Parameters
    ----------
    host
        Name of the host in hosts.yaml.
    reply
        What it replied.
    asked, answered
        When, by this machine's clock, seconds since 1970.

    Raises
    ------
    RemoteError
        It is not what `examine` replies; the message names the entry.
    """
    reader = Reader(host, "", reply).inner("examination")
    return Examined(parse(host, reply), _examination(reader), asked, answered)


def _examination(reader: Reader) -> Examination:
    limits, logs = reader.inner("limits"), reader.inner("logs")
    return Examination(
        clock_first=reader.number("clock_first"),
        clock_last=reader.number("clock_last"),
        python_home=reader.text("python_home"),
        base=_place(reader.inner("base")),
        scratch=reader.optional("scratch", lambda key: _place(reader.inner(key))),
        limits={name: Limit(*limits.wholes(name)) for name in limits.names()},
        release_problem=reader.text("release_problem"),
        unfinished=reader.texts("unfinished"),
        logs={name: logs.texts(name) for name in logs.names()},
        reachable=_all_reached(reader, "reachable"),
        members=_all_reached(reader, "members"),
        worker=reader.optional("worker", reader.text),
        worker_findings=tuple(
            WorkerFinding(item.text("check"), Severity(item.text("severity")), item.text("what"))
            for item in reader.items("worker_findings")
        ),
        worker_problem=reader.text("worker_problem"),
    )


def _all_reached(reader: Reader, key: str) -> tuple[Reached, ...]:
    return tuple(Reached(item.text("address"), item.text("problem")) for item in reader.items(key))


def _place(reader: Reader) -> TriedDirectory:
    return TriedDirectory(
        path=reader.text("path"),
        tried=reader.text("tried"),
        file_system=reader.text("file_system"),
        write=reader.text("write"),
        link=reader.text("link"),
        run=reader.text("run"),
    )
