"""Why and how a worker stops."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from puffin.settings import DaemonSettings
from puffin.stopping import Orders, Signals, Stop, StopOrder


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def orders(
    tmp_path: Path, clock: Clock, signals: Signals | None = None, stopped: bool = False, **daemon: object
) -> Orders:
    files = {"stop": str(tmp_path / "stop"), "recycle": str(tmp_path / "recycle"), "timeout_in_h": -1.0}
    settings = DaemonSettings(**{**files, **daemon})
    return Orders(settings, signals or Signals(), lambda: stopped, clock)


def test_nothing_stops_a_worker_by_itself(tmp_path: Path, clock: Clock) -> None:
    given = orders(tmp_path, clock)
    clock.now = 1e9
    assert given.idle() == StopOrder(Stop.NO)


@pytest.mark.parametrize(
    ("daemon", "hours", "jobs", "stop"),
    [
        ({"timeout_in_h": 2.0}, 1.9, 0, Stop.NO),
        ({"timeout_in_h": 2.0}, 2.1, 0, Stop.NOW),
        ({"timeout_in_h": 0.0}, 1e6, 0, Stop.NO),
        ({"idle_timeout_in_h": 2.0}, 1.9, 0, Stop.NO),
        ({"idle_timeout_in_h": 2.0}, 2.1, 0, Stop.DRAIN),
        ({"idle_timeout_in_h": 0.0}, 1e6, 0, Stop.NO),
        ({"max_number_of_jobs": 2}, 0.0, 1, Stop.NO),
        ({"max_number_of_jobs": 2}, 0.0, 2, Stop.DRAIN),
        ({"max_number_of_jobs": 0}, 0.0, 99, Stop.NO),
    ],
)
def test_times_and_counts(
    tmp_path: Path, clock: Clock, daemon: dict[str, object], hours: float, jobs: int, stop: Stop
) -> None:
    given = orders(tmp_path, clock, **daemon)
    for _ in range(jobs):
        given.job_ended()
    clock.now = hours * 3600
    assert given.idle().stop is stop


def test_a_job_starts_the_idle_time_anew(tmp_path: Path, clock: Clock) -> None:
    given = orders(tmp_path, clock, idle_timeout_in_h=1.0)
    clock.now = 3000
    given.job_ended()
    clock.now = 6000
    assert given.idle().stop is Stop.NO
    clock.now = 6601
    assert given.idle().stop is Stop.DRAIN


@pytest.mark.parametrize(("name", "stop"), [("stop", Stop.DRAIN), ("recycle", Stop.RECYCLE)])
def test_files(tmp_path: Path, clock: Clock, name: str, stop: Stop) -> None:
    given = orders(tmp_path, clock)
    (tmp_path / name).touch()
    assert given.current.stop is stop
    assert str(tmp_path / name) in given.current.reason
    (tmp_path / name).unlink()
    assert given.current.stop is Stop.NO, "who starts a worker that still drains wants it to go on"


def test_a_stop_is_more_than_a_recycle_and_both_files_go(tmp_path: Path, clock: Clock) -> None:
    given = orders(tmp_path, clock)
    (tmp_path / "recycle").touch()
    assert given.current.stop is Stop.RECYCLE
    given.obeyed()
    assert not (tmp_path / "recycle").exists()
    (tmp_path / "stop").touch()
    assert given.current.stop is Stop.DRAIN
    given.obeyed()
    assert not (tmp_path / "stop").exists()


def test_files_that_are_not_the_workers_to_remove_stay(tmp_path: Path, clock: Clock) -> None:
    given = orders(tmp_path, clock, remove_stop_file=False, stop_shared=str(tmp_path / "shared"))
    for name in ("stop", "shared"):
        (tmp_path / name).touch()
    assert given.current.stop is Stop.DRAIN
    given.obeyed()
    assert {path.name for path in tmp_path.iterdir()} == {"stop", "shared"}


@pytest.mark.parametrize(
    ("settings", "there", "gone", "taken_back"),
    [
        ({"remove_stop_file": False}, ["stop"], ["stop"], True),
        ({"remove_stop_file": False}, ["stop", "shared"], ["stop"], False),
        ({"remove_stop_file": False}, ["stop"], [], False),
        ({"remove_stop_file": True}, ["stop"], [], False),  # the worker itself removed it
        ({"remove_stop_file": True}, ["stop", "shared"], ["shared"], True),
        ({"remove_stop_file": False}, [], [], False),
    ],
)
def test_a_stop_file_that_somebody_takes_away_after_it_was_obeyed(
    tmp_path: Path, clock: Clock, settings: dict[str, bool], there: list[str], gone: list[str], taken_back: bool
) -> None:
    given = orders(tmp_path, clock, stop_shared=str(tmp_path / "shared"), **settings)
    for name in there:
        (tmp_path / name).touch()
    assert given.current.stop is (Stop.DRAIN if there else Stop.NO)
    given.obeyed()
    for name in gone:
        (tmp_path / name).unlink()
    assert given.taken_back is taken_back


def test_a_stop_file_that_is_taken_away_once_it_was_decided_to_obey_it(tmp_path: Path, clock: Clock) -> None:
    given = orders(tmp_path, clock, remove_stop_file=False)
    (tmp_path / "stop").touch()
    assert given.current.stop is Stop.DRAIN
    (tmp_path / "stop").unlink()
    given.obeyed()
    assert given.taken_back, "else the worker ends, and nobody starts it again"


def test_a_stop_of_the_fleet_that_is_lifted_after_it_was_obeyed(tmp_path: Path, clock: Clock) -> None:
    """Whoever lifts it starts the workers as well, and finds this one running still."""
    fleet = [True]
    settings = DaemonSettings(stop=str(tmp_path / "stop"), recycle=str(tmp_path / "recycle"), timeout_in_h=-1.0)
    given = Orders(settings, Signals(), lambda: fleet[0], clock)
    assert given.current.stop is Stop.DRAIN
    given.obeyed()
    assert not given.taken_back
    fleet[0] = False
    assert given.taken_back


def test_the_fleet_is_told_to_stop(tmp_path: Path, clock: Clock) -> None:
    assert orders(tmp_path, clock, stopped=True).current == StopOrder(Stop.DRAIN, "the fleet was told to stop")


@pytest.mark.parametrize(
    ("numbers", "stop"),
    [
        ([], Stop.NO),
        ([signal.SIGTERM], Stop.DRAIN),
        ([signal.SIGINT], Stop.DRAIN),
        ([signal.SIGTERM, signal.SIGTERM], Stop.NOW),
        ([signal.SIGTERM, signal.SIGINT], Stop.NOW),
        ([signal.SIGQUIT], Stop.NOW),
    ],
)
def test_signals(numbers: list[signal.Signals], stop: Stop) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    signals = Signals()
    try:
        signals.install()
        for number in numbers:
            os.kill(os.getpid(), number)
        assert signals.order.stop is stop
        assert bool(select.select([signals.wake], [], [], 0)[0]) is bool(numbers)
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_nudge_wakes_and_is_taken_note_of() -> None:
    signals = Signals()
    for _ in range(100_000):  # more than a pipe holds
        signals.nudge()
    assert select.select([signals.wake], [], [], 0)[0]
    signals.clear()
    assert not select.select([signals.wake], [], [], 0)[0]
