"""The lease: its times, and that no interleaving of whatever may happen lets two workers run one attempt."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from puffin import lease
from puffin.calculations import Status
from puffin.judge import ServerClock, judge
from puffin.lease import Hold, Lease
from puffin.losses import Pending

NOON = datetime(2026, 1, 1, 12)


# Times -------------------------------------------------------------------------------------------------


def test_the_times_of_a_lease() -> None:
    held = lease.claimed(60.0, 1000.0)
    assert (held.next_try, held.freeze_at, held.expires_at) == (1020.0, 1045.0, 1060.0)
    assert held.hold is Hold.RUNNING


def test_it_is_renewed_earlier_where_touches_are_asked_for_more_often() -> None:
    assert lease.claimed(60.0, 0.0, touch_every=5.0).next_try == 5.0
    assert lease.claimed(60.0, 0.0, touch_every=1500.0).next_try == 20.0


@pytest.mark.parametrize(("duration", "pause"), [(2.0, 2 / 12), (60.0, 5.0), (600.0, 5.0)])
def test_a_renewal_without_an_answer_is_tried_again_soon(duration: float, pause: float) -> None:
    held = lease.trying(lease.claimed(duration, 0.0), 300.0)
    assert held.next_try == pytest.approx(300.0 + pause)


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    held = lease.granted(lease.trying(lease.claimed(60.0, 0.0), 20.0), 20.0)
    assert (held.freeze_at, held.next_try) == (65.0, 40.0)


def test_an_answer_that_comes_late_never_shortens_the_lease() -> None:
    held = lease.granted(lease.claimed(60.0, 50.0), 20.0)
    assert held.renewed == 50.0


def test_it_freezes_in_time_and_thaws() -> None:
    held = lease.claimed(60.0, 0.0)
    assert lease.at(held, 44.9).hold is Hold.RUNNING
    frozen = lease.at(held, 45.0)
    assert frozen.hold is Hold.FROZEN
    assert lease.is_due(frozen, 45.0)
    assert lease.granted(frozen, 50.0).hold is Hold.RUNNING


def test_what_is_lost_stays_lost() -> None:
    lost = lease.refused(lease.claimed(60.0, 0.0))
    assert lease.granted(lost, 10.0) is lost
    assert lease.at(lost, 1000.0) is lost
    assert not lease.is_due(lost, 1000.0)


@pytest.mark.parametrize(("age", "lapsed"), [(59.9, False), (60.0, False), (60.1, True)])
def test_a_lease_lapses_by_the_servers_clock(age: float, lapsed: bool) -> None:
    assert lease.has_lapsed(NOON, 60.0, NOON + timedelta(seconds=age)) is lapsed


@pytest.mark.parametrize(
    ("connected_since", "may"), [(None, False), (100.0, False), (40.0, False), (39.9, True), (-math.inf, True)]
)
def test_only_who_was_connected_for_a_full_lease_may_judge(connected_since: float | None, may: bool) -> None:
    assert lease.may_judge(connected_since, 100.0, 60.0) is may


# Judging -----------------------------------------------------------------------------------------------


def pending(age: float | None, lease_s: float | None = 60.0, untouched: float = 0.0) -> Pending:
    return Pending(
        id="a",
        executor="worker",
        host="host",
        attempt=1,
        renewed=None if age is None else NOON - timedelta(seconds=age),
        lease_s=lease_s if age is not None else None,
        modified=NOON - timedelta(seconds=untouched),
        lost_on=(),
    )


def test_a_judge_tells_the_lost_from_the_living() -> None:
    lost, alive, foreign_lost, foreign = pending(61), pending(20), pending(None, untouched=7201), pending(None)
    sentence = judge([lost, alive, foreign_lost, foreign], NOON, reset_time_s=7200)
    assert sentence.lost == (lost, foreign_lost)
    assert sentence.next_lapse == NOON + timedelta(seconds=40)


def test_without_anything_pending_there_is_nothing_to_wait_for() -> None:
    assert judge([], NOON, 7200).next_lapse is None


@pytest.mark.parametrize(("step", "steady_since"), [(0.0, 0.0), (10.0, 0.0), (16.0, 30.0), (-3600.0, 30.0)])
def test_a_server_clock_that_was_set_starts_the_waiting_anew(step: float, steady_since: float) -> None:
    clock = ServerClock().tick(NOON, 0.0, 60.0).tick(NOON + timedelta(seconds=30 + step), 30.0, 60.0)
    assert clock.steady_since == steady_since


# Everything that may happen, in any order --------------------------------------------------------------

DURATION = 12.0
RARELY = st.sampled_from([False, False, False, True])


@dataclass
class Document:
    """A calculation as the server has it, with the server's own time of the last renewal."""

    status: Status = Status.NEW
    executor: str = ""
    attempt: int = 0
    renewed: float = 0.0


@dataclass
class Worker:
    """A worker: what it holds, what is on its way to the server, and whether it stands still."""

    name: str
    held: Lease | None = None
    attempt: int = 0
    freeze_at: float = 0.0
    paused: bool = False
    connected: bool = True
    connected_since: float = -math.inf
    sent: list[tuple[float, int]] = field(default_factory=list)
    seen: Document | None = None


class Leases(RuleBasedStateMachine):
    """Several workers, one calculation, and a network that delays, loses and partitions.

    A job's right to run is what its keeper enforces: it runs until ``freeze_at``, whatever becomes of the worker.
    The server stamps a renewal when it executes it, which is after it was sent, and perhaps long after.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.document = Document()
        self.workers = [Worker(name) for name in ("a", "b")]
        self.finished: list[int] = []

    def running(self) -> list[Worker]:
        return [
            worker
            for worker in self.workers
            if worker.held is not None and worker.held.hold is not Hold.LOST and self.now < worker.freeze_at
        ]

    def owns(self, worker: Worker, attempt: int) -> bool:
        document = self.document
        return (document.status, document.executor, document.attempt) == (Status.PENDING, worker.name, attempt)

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0, 9.0, 13.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(who=st.integers(0, 1), happens=RARELY)
    def is_paused_or_goes_on(self, who: int, happens: bool) -> None:
        """SIGSTOP and SIGCONT; the keeper is a process of its own and goes on."""
        worker = self.workers[who]
        worker.paused = not worker.paused and happens

    @rule(who=st.integers(0, 1), happens=RARELY)
    def is_cut_off_or_reconnected(self, who: int, happens: bool) -> None:
        worker = self.workers[who]
        if worker.connected and happens:
            worker.connected, worker.connected_since = False, math.inf
        elif not worker.connected:
            worker.connected, worker.connected_since = True, self.now

    @precondition(lambda self: self.document.status is Status.NEW)
    @rule(who=st.integers(0, 1), delay=st.sampled_from([0.0, 5.0, 20.0]), answered=st.booleans())
    def claims(self, who: int, delay: float, answered: bool) -> None:
        worker = self.workers[who]
        if worker.paused or not worker.connected or worker.held is not None:
            return
        sent = self.now
        self.now += delay
        self.document = Document(Status.PENDING, worker.name, self.document.attempt + 1, self.now)
        if answered:
            worker.held = lease.claimed(DURATION, sent)
            worker.attempt = self.document.attempt
            worker.freeze_at = worker.held.freeze_at

    @precondition(lambda self: any(w.held is not None and lease.is_due(w.held, self.now) for w in self.workers))
    @rule(who=st.integers(0, 1))
    def sends_a_renewal(self, who: int) -> None:
        worker = self.workers[who]
        if worker.paused or worker.held is None or not lease.is_due(worker.held, self.now):
            return
        worker.held = lease.trying(worker.held, self.now)
        if worker.connected:
            worker.sent.append((self.now, worker.attempt))

    @precondition(lambda self: any(worker.sent for worker in self.workers))
    @rule(who=st.integers(0, 1), arrives=st.booleans(), answered=st.booleans(), newest=st.booleans())
    def a_renewal_arrives(self, who: int, arrives: bool, answered: bool, newest: bool) -> None:
        """In any order, at any time after it was sent, or never; so does the answer."""
        worker = self.workers[who]
        if not worker.sent:
            return
        sent, attempt = worker.sent.pop(-1 if newest else 0)
        if not arrives:
            return
        ours = self.owns(worker, attempt)
        if ours:
            self.document.renewed = self.now
        if not answered or worker.paused or worker.held is None or worker.attempt != attempt:
            return
        worker.held = lease.granted(worker.held, sent) if ours else lease.refused(worker.held)
        if worker.held.hold is not Hold.LOST:
            worker.freeze_at = max(worker.freeze_at, worker.held.freeze_at)

    @precondition(lambda self: self.document.status is Status.PENDING)
    @rule(who=st.integers(0, 1), at_once=st.booleans())
    def judges(self, who: int, at_once: bool) -> None:
        """Look, then reset as seen; the second half may come much later."""
        worker, document = self.workers[who], self.document
        if worker.paused or not worker.connected:
            return
        if not lease.may_judge(worker.connected_since, self.now, DURATION):
            return
        if lease.has_lapsed(_at(document.renewed), DURATION, _at(self.now)):
            worker.seen = dataclasses.replace(document)
            if at_once:
                self.resets_what_it_saw(who)

    @precondition(lambda self: any(worker.seen for worker in self.workers))
    @rule(who=st.integers(0, 1))
    def resets_what_it_saw(self, who: int) -> None:
        worker = self.workers[who]
        if worker.seen == self.document:
            self.document.status, self.document.executor = Status.NEW, ""
        worker.seen = None

    @rule(who=st.integers(0, 1), happens=RARELY)
    def dies_and_starts_again(self, who: int, happens: bool) -> None:
        """Its job dies with it, and it gives back what it left pending."""
        worker = self.workers[who]
        if not happens:
            return
        worker.held, worker.sent, worker.seen, worker.paused = None, [], None, False
        if worker.connected and self.document.status is Status.PENDING and self.document.executor == worker.name:
            self.document.status, self.document.executor = Status.NEW, ""

    @precondition(lambda self: self.running())
    @rule(who=st.integers(0, 1), happens=RARELY)
    def its_job_ends(self, who: int, happens: bool) -> None:
        worker = self.workers[who]
        if not happens or worker.paused or not worker.connected or worker not in self.running():
            return
        if self.owns(worker, worker.attempt):
            self.document.status = Status.COMPLETE
            self.finished.append(worker.attempt)
        worker.held = None

    @precondition(lambda self: any(w.held is not None and w.held.hold is Hold.LOST for w in self.workers))
    @rule(who=st.integers(0, 1))
    def lets_go_of_what_was_lost(self, who: int) -> None:
        worker = self.workers[who]
        if worker.held is not None and worker.held.hold is Hold.LOST:
            worker.held = None

    @invariant()
    def nobody_runs_beside_another(self) -> None:
        assert len(self.running()) <= 1, [worker.name for worker in self.running()]

    @invariant()
    def who_runs_owns_it(self) -> None:
        for worker in self.running():
            assert self.owns(worker, worker.attempt), "a job runs whose calculation is somebody else's"

    @invariant()
    def it_is_finished_once(self) -> None:
        assert len(self.finished) <= 1

    def teardown(self) -> None:
        """Once faults end, whatever had happened, the calculation is soon free to run again: it is never lost."""
        self.now += 2 * DURATION
        for worker in self.workers:
            worker.connected, worker.connected_since, worker.paused = True, self.now - 1.5 * DURATION, False
        if self.document.status is Status.PENDING:
            self.workers[0].seen = None
            self.judges(0, at_once=True)
        assert self.document.status in {Status.NEW, Status.COMPLETE}


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=400, stateful_step_count=60)
