"""No interleaving of whatever may happen lets two workers run one calculation, or loses it.

The filters and updates are those that go to the database. That the machine would notice if one of them were wrong is
shown by making each of them wrong.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from puffin import calculations, lease, losses
from puffin.calculations import Claim, Claimant, Document, Status, Usage, Verdict
from puffin.judge import judge
from puffin.lease import Hold, Lease
from puffin.losses import Loss, Pending

NOON = datetime(2026, 1, 1, 12)
DURATION = 12.0
ID = "a" * 24
NEVER_TOO_OFTEN = 1000
DONE = Verdict(Status.COMPLETE, "", None, Usage(1.0, 1.0, 0.1))
WALKS = 2000
CHOICES: dict[str, tuple[Any, ...]] = {
    "who": (0, 1, 2),
    "seconds": (0.5, 2.0, 4.0, 9.0, 13.0),
    "delay": (0.0, 0.0, 5.0, 20.0),
    "happens": (False, False, False, True),
    "unanswered": (False, False, False, True),
    "is_lost": (False, False, False, True),
    "newest": (False, True),
    "at_once": (False, True),
}


def of(name: str) -> Any:
    return st.sampled_from(CHOICES[name])


class Server:
    """One calculation as the server has it, and the little that is used of the server's language."""

    def __init__(self) -> None:
        self.now = 0.0
        job = {"order": "sleep", "cores": 1, "memory": 1.0, "disk": 1.0}
        self.document: Document = {"_id": ID, "status": "new", "executor": "", "job": job, "_lastmodified": NOON}

    @property
    def time(self) -> datetime:
        return NOON + timedelta(seconds=self.now)

    def matches(self, selection: Mapping[str, Any]) -> bool:
        return all(_is(self.get(path), wanted) for path, wanted in selection.items())

    def get(self, path: str) -> Any:
        inner: Any = self.document
        for key in path.split("."):
            inner = inner.get(key) if isinstance(inner, dict) else None
        return inner

    def update(self, selection: Mapping[str, Any], update: Mapping[str, Any]) -> bool:
        if not self.matches(selection):
            return False
        for operator, fields in update.items():
            for path, value in fields.items():
                *above, key = path.split(".")
                inner = self.document
                for name in above:
                    inner = inner.setdefault(name, {})
                _CHANGES[operator](inner, key, self.time if operator == "$currentDate" else value)
        return True


def _is(value: Any, wanted: Any) -> bool:
    return value in wanted["$in"] if isinstance(wanted, dict) else value == wanted


_CHANGES = {
    "$set": lambda inner, key, value: inner.__setitem__(key, value),
    "$currentDate": lambda inner, key, value: inner.__setitem__(key, value),
    "$unset": lambda inner, key, _: inner.pop(key, None),
    "$inc": lambda inner, key, value: inner.__setitem__(key, inner.get(key, 0) + value),
    "$push": lambda inner, key, value: inner.setdefault(key, []).append(value),
}


@dataclass
class Worker:
    """A worker: what it holds, what is on its way to the server, and whether it stands still."""

    number: str
    executor: str
    claim: Claim | None = None
    held: Lease | None = None
    freeze_at: float = 0.0
    paused: bool = False
    connected: bool = True
    connected_since: float = -math.inf
    sent: list[tuple[float, Claim]] = field(default_factory=list)
    seen: Pending | None = None
    result: Claim | None = None

    @property
    def claimant(self) -> Claimant:
        # All on one host: only their locks tell those of the same name apart.
        return Claimant(self.executor, DURATION, "host", self.number, "", lock=f"/run/{self.number}.pid")


def chosen(among: list[Worker], who: int) -> Worker:
    """One of those that can do it: a step that does nothing would find nothing."""
    return among[who % len(among)]


class Leases(RuleBasedStateMachine):
    """Several workers, two of them with the same name by mistake; a network that delays, loses and partitions.

    A job's right to run is what its keeper enforces: it runs until ``freeze_at``, whatever becomes of the worker.
    The server stamps a renewal when it executes it, which is after it was sent, and perhaps long after.
    """

    names = ("a", "b", "a")

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.workers = [Worker(str(number), name) for number, name in enumerate(self.names)]
        self.finished: list[int] = []

    # What is asked of the server; broken variants ask less.

    def to_renew(self, claim: Claim) -> Document:
        return calculations.owned(claim, ID)

    def to_finish(self, claim: Claim) -> Document:
        return calculations.owned(claim, ID)

    def to_reset(self, seen: Pending) -> Document:
        return losses.as_seen(seen, ID)

    def is_own(self, worker: Worker, pending: Pending) -> bool:
        return pending.is_proven_dead(worker.claimant)

    # What happens.

    @property
    def now(self) -> float:
        return self.server.now

    def is_pending(self) -> bool:
        return bool(self.server.document["status"] == "pending")

    def running(self) -> list[Worker]:
        return [
            worker
            for worker in self.workers
            if worker.held is not None and worker.held.hold is not Hold.LOST and self.now < worker.freeze_at
        ]

    def idle(self) -> list[Worker]:
        return [w for w in self.awake() if w.held is None and w.result is None]

    def awake(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.connected and not worker.paused]

    def due(self) -> list[Worker]:
        return [w for w in self.awake() if w.held is not None and lease.is_due(w.held, self.now)]

    @rule(seconds=of("seconds"))
    def time_passes(self, seconds: float) -> None:
        self.server.now += seconds

    @rule(who=of("who"), happens=of("happens"))
    def is_paused_or_goes_on(self, who: int, happens: bool) -> None:
        """SIGSTOP and SIGCONT; the keeper is a process of its own and goes on."""
        worker = chosen(self.workers, who)
        worker.paused = not worker.paused and happens

    @rule(who=of("who"), happens=of("happens"))
    def is_cut_off_or_reconnected(self, who: int, happens: bool) -> None:
        worker = chosen(self.workers, who)
        if worker.connected and happens:
            worker.connected, worker.connected_since = False, math.inf
        elif not worker.connected:
            worker.connected, worker.connected_since = True, self.now

    @precondition(lambda self: self.server.document["status"] == "new" and self.idle())
    @rule(who=of("who"), delay=of("delay"), unanswered=of("unanswered"))
    def claims(self, who: int, delay: float, unanswered: bool) -> None:
        worker = chosen(self.idle(), who)
        sent = self.now
        self.server.now += delay
        self.server.update({"status": "new"}, calculations.claim_update(worker.claimant))
        if not unanswered:
            worker.claim = calculations.to_claim("db", copy.deepcopy(self.server.document))
            worker.held = lease.claimed(DURATION, sent)
            worker.freeze_at = worker.held.freeze_at

    @precondition(due)
    @rule(who=of("who"))
    def sends_a_renewal(self, who: int) -> None:
        worker = chosen(self.due(), who)
        assert worker.held is not None
        assert worker.claim is not None
        worker.held = lease.trying(worker.held, self.now)
        worker.sent.append((self.now, worker.claim))

    @precondition(lambda self: any(worker.sent for worker in self.workers))
    @rule(who=of("who"), is_lost=of("is_lost"), unanswered=of("unanswered"), newest=of("newest"))
    def a_renewal_arrives(self, who: int, is_lost: bool, unanswered: bool, newest: bool) -> None:
        """In any order, at any time after it was sent, or never; so does the answer."""
        worker = chosen([worker for worker in self.workers if worker.sent], who)
        sent, claim = worker.sent.pop(-1 if newest else 0)
        if is_lost:
            return
        ours = self.server.update(self.to_renew(claim), calculations.renew_update())
        if unanswered or worker.paused or worker.held is None or worker.claim != claim:
            return
        worker.held = lease.granted(worker.held, sent) if ours else lease.refused(worker.held)
        if worker.held.hold is not Hold.LOST:
            worker.freeze_at = max(worker.freeze_at, worker.held.freeze_at)

    @precondition(lambda self: self.is_pending() and self.awake())
    @rule(who=of("who"), at_once=of("at_once"))
    def judges(self, who: int, at_once: bool) -> None:
        """Look, then reset as seen; the second half may come much later."""
        worker = chosen(self.awake(), who)
        if not lease.may_judge(worker.connected_since, self.now, DURATION):
            return
        for lost in judge([losses.to_pending(self.server.document)], self.server.time, 7200.0).lost:
            worker.seen = lost
            if at_once:
                self.reset(worker)

    @precondition(lambda self: any(worker.seen for worker in self.workers))
    @rule(who=of("who"))
    def resets_what_it_saw(self, who: int) -> None:
        self.reset(chosen([worker for worker in self.workers if worker.seen], who))

    def reset(self, worker: Worker) -> None:
        seen, worker.seen = worker.seen, None
        assert seen is not None
        loss = losses.loss_update(seen.lost_on, Loss(seen.host, "lapsed", NEVER_TOO_OFTEN))
        self.server.update(self.to_reset(seen), loss)

    @rule(who=of("who"), happens=of("happens"))
    def dies_and_starts_again(self, who: int, happens: bool) -> None:
        """Its job dies with it, its result waits on disk, and it gives back what it left pending."""
        worker = chosen(self.workers, who)
        if not happens:
            return
        worker.held, worker.claim, worker.sent, worker.seen, worker.paused = None, None, [], None, False
        if not worker.connected or not self.is_pending() or worker.result is not None:
            return
        pending = losses.to_pending(self.server.document)
        if self.is_own(worker, pending):
            self.server.update(losses.as_seen(pending, ID), calculations.requeue_update())

    @precondition(lambda self: self.running())
    @rule(who=of("who"), happens=of("happens"))
    def its_job_ends(self, who: int, happens: bool) -> None:
        """What it found is on its way to the server, or on disk if that is away."""
        worker = chosen(self.running(), who)
        if happens:
            worker.result, worker.held, worker.claim, worker.sent = worker.claim, None, None, []

    @precondition(lambda self: any(worker.result for worker in self.awake()))
    @rule(who=of("who"), happens=of("happens"), unanswered=of("unanswered"))
    def a_result_arrives(self, who: int, happens: bool, unanswered: bool) -> None:
        """Sooner or later; it is written again if there was no answer."""
        worker = chosen([worker for worker in self.awake() if worker.result], who)
        if not happens:
            return
        assert worker.result is not None
        if self.server.update(self.to_finish(worker.result), calculations.finish_update(DONE)):
            self.finished.append(worker.result.attempt)
        if not unanswered:
            worker.result = None

    @precondition(lambda self: any(w.held is not None and w.held.hold is Hold.LOST for w in self.workers))
    @rule()
    def lets_go_of_what_was_lost(self) -> None:
        for worker in self.workers:
            if worker.held is not None and worker.held.hold is Hold.LOST:
                worker.held = worker.claim = None

    # What must never be.

    @invariant()
    def nobody_runs_beside_another(self) -> None:
        assert len(self.running()) <= 1, [worker.number for worker in self.running()]

    @invariant()
    def who_runs_owns_it(self) -> None:
        for worker in self.running():
            assert worker.claim is not None
            owned = calculations.owned(worker.claim, ID)
            assert self.server.matches(owned), "a job runs whose calculation is somebody else's"

    @invariant()
    def it_is_finished_once(self) -> None:
        assert len(self.finished) <= 1, "a result was written over another one"

    @invariant()
    def what_was_finished_stays_finished(self) -> None:
        assert not self.finished or self.server.document["status"] == "complete", "a result was thrown away"

    def teardown(self) -> None:
        """Once faults end, whatever had happened, the calculation is soon free to run again: it is never lost."""
        self.server.now += 2 * DURATION
        for worker in self.workers:
            worker.connected, worker.connected_since, worker.paused = True, self.now - 1.5 * DURATION, False
        if self.is_pending():
            self.judges(0, at_once=True)
        assert self.server.document["status"] in {"new", "complete"}, "the calculation is lost"


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=200, stateful_step_count=60)


# Each of them asks the server for less than the protocol does -------------------------------------------


def without(selection: Document, *keys: str) -> Document:
    return {key: value for key, value in selection.items() if key not in keys}


class UnconditionalReset(Leases):
    def to_reset(self, seen: Pending) -> Document:
        return {"_id": ID}


class ResetOfAnotherAttempt(Leases):
    def to_reset(self, seen: Pending) -> Document:
        return without(super().to_reset(seen), "executor", "puffin.attempt", "puffin.renewed")


class ResetOfWhatWasRenewed(Leases):
    def to_reset(self, seen: Pending) -> Document:
        return without(super().to_reset(seen), "puffin.renewed")


class UnconditionalFinish(Leases):
    def to_finish(self, claim: Claim) -> Document:
        return {"_id": ID}


class FinishByAnotherAttempt(Leases):
    def to_finish(self, claim: Claim) -> Document:
        return without(super().to_finish(claim), "puffin.attempt")


class UnconditionalRenewal(Leases):
    def to_renew(self, claim: Claim) -> Document:
        return {"_id": ID}


class RenewalByAnotherAttempt(Leases):
    def to_renew(self, claim: Claim) -> Document:
        return without(super().to_renew(claim), "puffin.attempt")


class RequeueWithoutProof(Leases):
    def is_own(self, worker: Worker, pending: Pending) -> bool:
        return pending.executor == worker.executor


def walk(machine: Leases, steps: Random) -> None:
    """Take steps at random, as hypothesis does, but a hundred times faster and without looking for the shortest."""
    for _ in range(60):
        possible = [step for step in machine.rules if all(holds(machine) for holds in step.preconditions)]
        step = steps.choice(possible)
        step.function(machine, **{name: steps.choice(CHOICES[name]) for name in step.arguments})
        for never in machine.invariants:
            never.function(machine)
    machine.teardown()


def walk_about(kind: type[Leases]) -> None:
    for seed in range(WALKS):
        walk(kind(), Random(seed))


@pytest.mark.parametrize(
    "broken",
    [
        UnconditionalReset,
        ResetOfAnotherAttempt,
        ResetOfWhatWasRenewed,
        UnconditionalFinish,
        FinishByAnotherAttempt,
        UnconditionalRenewal,
        RenewalByAnotherAttempt,
        RequeueWithoutProof,
    ],
)
def test_the_machine_finds_what_is_broken(broken: type[Leases]) -> None:
    with pytest.raises(AssertionError):
        walk_about(broken)


def test_it_finds_nothing_where_nothing_is_broken() -> None:
    walk_about(Leases)
