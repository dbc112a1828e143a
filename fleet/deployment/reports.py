"""What the workers of one host have reported, and since when each of them says so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.deployment.shared_records import ReadRecords
from puffin.records import WorkerRecord


@dataclass(frozen=True)
class Statement:
    """What of a worker's report a judgement depends on; not what it computes, which changes all the time.

    Parameters
    ----------
    worker, pid
        Who says it.
    release, configuration
        What it runs.
    up
        Whether it is past its start, and has not ended.
    """

    worker: str
    pid: int
    release: str
    configuration: str
    up: bool


class Reports:
    """Reads them, again and again.

    Parameters
    ----------
    host
        The host.
    read
        Reads what the workers of the fleet reported.
    """

    def __init__(self, host: str, read: ReadRecords) -> None:
        self._host = host
        self._read = read
        self._since: dict[Statement, float] = {}

    def read(self) -> list[WorkerRecord]:
        """The newest ones.

        Raises
        ------
        DatabaseUnavailable
            They cannot be had.
        """
        records = [record for record in self._read() if record.host == self._host]
        now = time.monotonic()
        self._since = {said: self._since.get(said, now) for said in map(_statement, records)}
        return records

    @property
    def statements(self) -> frozenset[Statement]:
        """What they said when they were last read."""
        return frozenset(self._since)

    def up_since(self, release: str, configurations: Mapping[str, str], leaving: Mapping[str, int]) -> dict[str, float]:
        """Since when workers have been saying that they run what they shall; those that do not say so are not in it.

        It is when that was first read, on the monotonic clock, so it may be a little later than it was.

        Parameters
        ----------
        release
            What they shall run.
        configurations
            By worker, the hash of its settings.
        leaving
            By worker, a process that does not count: it makes room for another.
        """
        return {
            said.worker: since
            for said, since in self._since.items()
            if said.up
            and (said.release, said.configuration) == (release, configurations.get(said.worker))
            and said.pid != leaving.get(said.worker)
        }


def _statement(record: WorkerRecord) -> Statement:
    up = record.state not in {"starting", "stopped"}
    return Statement(record.worker, record.pid, record.release, record.configuration, up)
