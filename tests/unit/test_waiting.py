"""Watching one host, and what hosts that are watched at once ask the database together."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet.deployment import reports, waiting
from fleet.deployment.gate import Look, Standing
from fleet.deployment.health import Health
from fleet.deployment.shared_records import shared
from fleet.deployment.waiting import Cancelled, Expected, Watch, WatchedHost, running
from fleet.errors import RemoteError
from fleet.hosts.hostsfile import Update
from fleet.reach.facts import Program, States, Supervisord
from fleet.reach.remote import CommandResult, ConnectionLost, NotNow, UnreachableError
from puffin.errors import DatabaseUnavailable
from puffin.records import WorkerRecord

PROGRAM = Program("n-1", "RUNNING", 100, "", "", 0, 1, 0, 2)
SUPERVISORD = Supervisord(True, True, 1, "/run/sv.sock", "4.3.0", None, (PROGRAM,))
STATES = States(SUPERVISORD, False, frozenset(), frozenset(), {}, "new", 0.0)


class Scripted:
    """A remote that gives one answer after the other; the last one again and again."""

    name = "n"
    python = "python3"
    round_trips = 0
    trouble: Exception | None = None
    """What keeps streams from being read."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)

    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        self.round_trips += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        marker = re.search(r"puffin-[0-9a-f]{24}", program)
        assert marker
        return CommandResult(0, f"\n{marker[0]} {json.dumps(answer)}\n".encode(), b"")

    def connect(self) -> None:
        pass

    def stream(self, program: str) -> Iterator[bytes]:
        if self.trouble:
            raise self.trouble
        yield b""

    def close(self) -> None:
        pass


def watch(remote: Scripted, update: Update | None = None, cancelled: Callable[[], bool] = lambda: False) -> Watch:
    return Watch(
        place=WatchedHost("n", "/f", "/f/hosts/n"),
        update=update or Update(),
        remote=remote,
        read_records=list,
        say=lambda _: None,
        cancelled=cancelled,
    )


def reply(*, reachable: bool = True) -> dict[str, Any]:
    program = {"name": "n-1", "state": "RUNNING", "pid": 100, "description": "", "spawnerr": "", "exitstatus": 0}
    supervisord = {
        "running": True,
        "reachable": reachable,
        "pid": 1,
        "socket": "/run/sv.sock",
        "version": "4.3.0" if reachable else None,
        "problem": None if reachable else "no answer at /run/sv.sock: timed out",
        "programs": [{**program, "start": 1, "stop": 0, "now": 2}] if reachable else [],
    }
    looked = {"stop": False, "stopped": [], "drained": None, "recycling": [], "ending": [], "pids": {}}
    return {"ok": True, "supervisord": supervisord, **looked, "current": "r", "clock": 0.0, "free": 1, "pending": []}


def test_a_supervisord_that_is_silent_for_a_moment_is_asked_again() -> None:
    """Else all its workers would count as failed, or as ended."""
    remote = Scripted(reply(reachable=False), reply())
    assert [program.name for program in watch(remote).states().supervisord.programs] == ["n-1"]
    remote = Scripted(reply(reachable=False), reply())
    assert [program.name for program in watch(remote).supervise().states.supervisord.programs] == ["n-1"]
    assert remote.round_trips == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    monkeypatch.setattr(waiting, "LONGEST_TROUBLE_S", 0.05)


AWAY = UnreachableError("n", "connect", "no route to host")


@pytest.mark.parametrize("trouble", [AWAY, ConnectionLost("n", "run", "lost"), NotNow("n", "supervise", "silent")])
@pytest.mark.usefixtures("quick")
def test_a_host_that_is_away_for_a_while_is_asked_again(trouble: Exception) -> None:
    """A few seconds without network must not put a healthy host back."""
    patient = Update(progress_deadline=600)
    for ask in (lambda it: it.ask("good", operation="keep"), Watch.states, Watch.supervise):
        remote = Scripted(*[trouble] * 20, reply())
        assert ask(watch(remote, patient))
        assert remote.round_trips == 21


@pytest.mark.usefixtures("quick")
def test_what_is_tried_again_is_said_and_for_how_long() -> None:
    def read() -> list[WorkerRecord]:
        raise DatabaseUnavailable("no answer")

    said: list[str] = []
    place, update = WatchedHost("n", "/f", "/f/hosts/n"), Update(progress_deadline=0.1, min_healthy_time=0)
    watched = Watch(place=place, update=update, remote=Scripted(reply()), read_records=read, say=said.append)
    with pytest.raises(DatabaseUnavailable):
        watched.records()
    assert set(said) == {"trying again, for 0 s at most: no answer"}


@pytest.mark.usefixtures("quick")
def test_a_host_that_stays_away_is_given_up() -> None:
    for ask in (lambda it: it.ask("good", operation="keep"), Watch.states, Watch.supervise):
        with pytest.raises(UnreachableError):
            ask(watch(Scripted(AWAY), Update(progress_deadline=0.1, min_healthy_time=0)))


@pytest.mark.usefixtures("quick")
def test_a_host_that_is_away_hears_at_once_that_it_shall_give_up() -> None:
    remote = Scripted(AWAY)
    with pytest.raises(Cancelled):
        watch(remote, cancelled=lambda: remote.round_trips > 0).ask("good", operation="keep")
    assert remote.round_trips == 1


def test_a_log_that_cannot_be_read_does_not_hide_what_a_worker_failed_of() -> None:
    answer = reply()
    answer["supervisord"]["programs"][0] |= {"state": "FATAL", "spawnerr": "no such file"}
    remote = Scripted(answer)
    remote.trouble = AWAY
    with pytest.raises(RemoteError) as caught:
        watch(remote).wait_until_healthy(Expected("r", {"n-1": "c"}))
    advice = "its log could not be read; see 'puffin-fleet logs --host n'"
    assert str(caught.value) == f"n: waiting for workers: n-1: no such file\n  {advice}"


class Reporting:
    """The registry: nothing when it is first read, then one set of reports after the other, the last for ever."""

    def __init__(self, *sets: list[WorkerRecord]) -> None:
        self.sets = [[], *sets]

    def __call__(self) -> list[WorkerRecord]:
        return self.sets.pop(0) if len(self.sets) > 1 else self.sets[0]


def reported(pid: int = 100) -> WorkerRecord:
    return WorkerRecord("u", "f", "n", "n-1", "r", "c", pid, 1, 1.0, 1.0, (), (), "idle")


class Clock:
    """In the place of the module `time`: who sleeps on it makes it go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(waiting, "time", made)
    monkeypatch.setattr(reports, "time", made)
    return made


def look_until_healthy(
    registry: Reporting, states: States | None = None, remote: Scripted | None = None, healthy_for: float = 10
) -> tuple[int, list[Look]]:
    """How often the host was looked at, and what was told of that."""
    remote = remote or Scripted(reply())
    looks: list[Look] = []
    place, update = WatchedHost("n", "/f", "/f/hosts/n"), Update(min_healthy_time=healthy_for)
    watched = Watch(place=place, update=update, remote=remote, read_records=registry, say=lambda _: None)
    found = watched.wait_until_healthy(Expected("r", {"n-1": "c"}), looks.append, states)
    assert [worker.health for worker in found] == [Health.HEALTHY]
    return remote.round_trips, looks


def test_a_host_is_looked_at_when_its_workers_have_reported_for_long_enough(clock: Clock) -> None:
    """A look costs a process there: one before anything was heard of them, one when it decides."""
    begun = clock.now
    often, looks = look_until_healthy(Reporting([], [], [reported()]))
    assert often == 2
    # That they have reported is progress; that they have proven something it is not yet.
    assert [(look.standing, look.proven) for look in looks] == [
        (Standing.WAIT, False),
        (Standing.WAIT, False),
        (Standing.PASSED, True),
    ]
    # Reported after two looks into the registry, a second each, and then well for ten.
    assert clock.now - begun == pytest.approx(3 + 10, abs=0.5)
    # Who has just said what its workers do is not asked at once.
    assert look_until_healthy(Reporting([], [], [reported()]), STATES)[0] == 1


def test_workers_that_have_reported_before_supervisord_calls_them_running_are_not_left_alone(clock: Clock) -> None:
    starting = reply()
    starting["supervisord"]["programs"][0]["state"] = "STARTING"
    begun = clock.now
    remote = Scripted(starting, starting, reply())
    assert look_until_healthy(Reporting([reported()]), remote=remote, healthy_for=0)[0] == 3
    assert clock.now - begun == pytest.approx(2, abs=0.5)


def test_workers_that_are_silent_are_looked_at_all_the_same(clock: Clock) -> None:
    silent: list[list[WorkerRecord]] = [[]] * 12
    assert look_until_healthy(Reporting(*silent, [reported()]))[0] == 3


def test_a_worker_that_starts_again_while_it_proves_itself_is_looked_at_and_begins_anew(clock: Clock) -> None:
    begun = clock.now
    assert look_until_healthy(Reporting(*[[reported(99)]] * 6, [reported()]))[0] == 3
    assert clock.now - begun > 6 + 10


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (STATES, ["n-1"]),
        (replace(STATES, supervisord=replace(SUPERVISORD, programs=())), []),
        (replace(STATES, supervisord=replace(SUPERVISORD, programs=()), pids={"n-1": 100, "n-3": 7}), ["n-1"]),
        (replace(STATES, supervisord=replace(SUPERVISORD, programs=(replace(PROGRAM, state="EXITED"),))), []),
    ],
)
def test_who_runs_by_supervisord_or_by_the_lock_on_its_pid_file(states: States, expected: list[str]) -> None:
    assert running(states, ["n-1", "n-2"]) == expected


def test_what_one_host_has_read_the_others_take_over() -> None:
    reads: list[int] = []

    def read() -> list[WorkerRecord]:
        reads.append(1)
        return []

    together, alone = shared(read, age_s=3600), shared(read, age_s=0)
    for _ in range(3):
        assert together() == []
    assert len(reads) == 1
    for _ in range(3):
        alone()
    assert len(reads) == 4


def test_that_the_database_is_away_is_found_out_once_for_all() -> None:
    reads: list[int] = []

    def read() -> list[WorkerRecord]:
        reads.append(1)
        raise DatabaseUnavailable("no answer")

    together = shared(read, age_s=3600)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable, match="no answer"):
            together()
    assert len(reads) == 1
