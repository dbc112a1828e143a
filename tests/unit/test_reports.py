"""What the workers of a host say, and since when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.deployment import reports
from fleet.deployment.reports import Reports
from puffin.records import WorkerRecord

ONE = WorkerRecord(
    uuid="u1",
    fleet="f",
    host="n",
    worker="n-1",
    release="r",
    configuration="c",
    pid=100,
    cores=1,
    memory=1.0,
    disk=1.0,
    programs=(),
    jobs=(),
    state="idle",
)
WANTED = {"n-1": "c"}


class Registry:
    """What is to be read, and when; in the place of the module `time`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records: list[WorkerRecord] = []
        self.now = 0.0
        self.reports = Reports("n", lambda: self.records)
        monkeypatch.setattr(reports, "time", self)

    def monotonic(self) -> float:
        return self.now

    def at(self, now: float, *records: WorkerRecord) -> dict[str, float]:
        self.now, self.records = now, list(records)
        self.reports.read()
        return self.reports.up_since("r", WANTED, {})


def test_what_is_said_again_has_been_so_since_it_was_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(monkeypatch)
    assert registry.at(1, ONE) == {"n-1": 1}
    # What it computes is another matter.
    assert registry.at(5, replace(ONE, state="running", calculation="1", done=3)) == {"n-1": 1}


def test_another_process_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(monkeypatch)
    registry.at(1, ONE)
    assert registry.at(2, replace(ONE, pid=101)) == {"n-1": 2}
    # The first one again: as far as anybody knows it is a new one with its number.
    assert registry.at(3, ONE) == {"n-1": 3}


def test_who_does_not_say_what_he_shall_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(monkeypatch)
    for other in ({"release": "s"}, {"configuration": "d"}, {"state": "starting"}, {"state": "stopped"}, {"host": "m"}):
        assert registry.at(1, replace(ONE, **other)) == {}  # type: ignore[arg-type]  # fields by name
    assert registry.at(2, replace(ONE, worker="n-2")) == {}
    registry.at(3, ONE)
    assert registry.reports.up_since("r", WANTED, leaving={"n-1": 100}) == {}
    assert registry.reports.up_since("r", WANTED, leaving={"n-1": 99}) == {"n-1": 3}
