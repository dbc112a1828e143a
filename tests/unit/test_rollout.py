"""The rollout's rules, one by one and over a thousand simulated hosts."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import signal
import threading
from dataclasses import dataclass, field, replace

import pytest

from fleet.deployment.health import Health, WorkerHealth
from fleet.deployment.host_deploy import Deployed
from fleet.deployment.revert import GoodState
from fleet.deployment.roller import HostSigns, NotBegun, NotPutBack, PutBack, Roller
from fleet.deployment.rollout import Instruction, Order, Policy, Rollout, Stage, policy_of
from fleet.deployment.waiting import Cancelled
from fleet.errors import RemoteError
from fleet.hosts.hostsfile import Share, Update
from fleet.reach.execute import Interrupted

POLICY = Policy(max_parallel=2, canary=1, failure_budget=1, progress_deadline=100)
DONE = Deployed(True)


def begun(commands: tuple[Instruction, ...]) -> list[str]:
    return [command.host for command in commands if command.order is Order.BEGIN]


def orders(commands: tuple[Instruction, ...], order: Order) -> list[str]:
    return [command.host for command in commands if command.order is order]


def test_the_canary_comes_first_and_alone() -> None:
    rollout = Rollout(POLICY, ["a", "b", "c", "d"])
    assert begun(rollout.advance(0)) == ["a"]
    assert rollout.advance(1) == ()
    rollout.changing("a", 1)
    rollout.done("a", 2)
    assert begun(rollout.advance(2)) == ["b", "c"]
    rollout.done("b", 3)
    assert begun(rollout.advance(3)) == ["d"]


def test_a_canary_that_has_proven_the_release_lets_the_others_begin_while_it_computes() -> None:
    rollout = Rollout(POLICY, ["a", "b", "c", "d"])
    rollout.advance(0)
    rollout.draining("a", 1)
    assert begun(rollout.advance(1)) == []
    rollout.proved("a", 2)
    assert begun(rollout.advance(2)) == ["b"]
    assert begun(rollout.advance(61)) == ["c"]


def overdue(budget: int) -> Rollout:
    """Of two hosts one makes no progress."""
    rollout = Rollout(replace(POLICY, canary=0, failure_budget=budget), ["a", "b", "c", "d"])
    rollout.advance(0)
    rollout.changing("a", 1)
    rollout.progressed("b", 90)
    assert "a" in orders(rollout.advance(101), Order.CANCEL)
    return rollout


def test_a_host_that_is_overdue_and_done_all_the_same_has_not_failed() -> None:
    rollout = overdue(budget=1)
    rollout.done("a", 102)
    rollout.advance(102)
    assert (rollout.hosts["a"].stage, rollout.hosts["a"].reason) == (Stage.DONE, "")
    rollout.failed("b", "full disk", 103)  # the first failure, which the budget allows
    rollout.advance(103)
    assert rollout.halted == ""


def test_a_halt_for_a_host_that_is_overdue_puts_it_back_although_it_is_done() -> None:
    rollout = overdue(budget=0)
    rollout.done("a", 102)
    assert orders(rollout.advance(102), Order.REVERT) == ["a"]
    assert "no progress for 100 s" in rollout.hosts["a"].reason
    assert rollout.hosts["c"].stage is Stage.HELD


def test_short_calculations_keep_their_host_in_its_place() -> None:
    """Else all hosts would be marked at once, and all be without workers a moment later."""
    rollout = Rollout(replace(POLICY, canary=0), ["a", "b", "c", "d"])
    assert begun(rollout.advance(0)) == ["a", "b"]
    rollout.draining("a", 1)
    rollout.draining("b", 1)
    assert begun(rollout.advance(1)) == []
    assert rollout.next_look(1) == POLICY.patience
    rollout.working("a", 3)
    assert begun(rollout.advance(100)) == ["c"]  # for b, which has computed for long; a is still without its workers
    rollout.done("a", 101)
    assert begun(rollout.advance(101)) == ["d"]


def test_calculations_hold_up_no_one() -> None:
    rollout = Rollout(replace(POLICY, canary=0), ["a", "b", "c", "d"])
    assert begun(rollout.advance(0)) == ["a", "b"]
    rollout.draining("a", 1)
    rollout.draining("b", 1)
    assert begun(rollout.advance(61)) == ["c", "d"]
    rollout.working("a", 62)
    assert rollout.hosts["a"].stage is Stage.WORKING


def test_a_canary_on_which_the_release_does_not_run_halts_everything() -> None:
    rollout = Rollout(replace(POLICY, failure_budget=10), ["a", "b", "c"])
    rollout.advance(0)
    rollout.changing("a", 1)
    rollout.failed("a", "it ended again and again", 2)
    assert orders(rollout.advance(2), Order.REVERT) == ["a"]
    assert rollout.halted == "canary a failed"
    rollout.reverted("a", 3)
    assert rollout.finished
    assert [state.stage for state in rollout.hosts.values()] == [Stage.REVERTED, Stage.HELD, Stage.HELD]
    assert rollout.hosts["b"].reason == "canary a failed"


def test_a_canary_with_a_full_disk_gives_its_place_to_the_next() -> None:
    rollout = Rollout(POLICY, ["a", "b", "c"])
    rollout.advance(0)
    rollout.failed("a", "No space left", 1)
    assert begun(rollout.advance(1)) == ["b"]
    assert rollout.hosts["a"].stage is Stage.FAILED


def test_a_canary_whose_workers_are_all_stopped_proves_nothing() -> None:
    rollout = Rollout(POLICY, ["a", "b", "c"])
    rollout.advance(0)
    rollout.changing("a", 0)
    rollout.done("a", 1, proven=False)
    assert begun(rollout.advance(1)) == ["b"]
    rollout.changing("b", 1)
    rollout.failed("b", "it ended again and again", 2)
    assert set(orders(rollout.advance(2), Order.REVERT)) == {"a", "b"}
    assert rollout.halted == "canary b failed"


def test_a_host_without_an_earlier_state_stays_as_it_is_where_all_is_well() -> None:
    rollout = Rollout(replace(POLICY, no_way_back=frozenset("ab")), ["a", "b", "c"])
    rollout.advance(0)
    rollout.changing("a", 0)
    rollout.done("a", 1, proven=False)
    rollout.advance(1)
    rollout.changing("b", 1)
    rollout.failed("b", "it ended again and again", 2)
    assert orders(rollout.advance(2), Order.REVERT) == ["b"], "so that it says that there is no such state"
    rollout.revert_failed("b", "there is no earlier good state", 3)
    assert rollout.finished
    assert [state.stage for state in rollout.hosts.values()] == [Stage.DONE, Stage.STUCK, Stage.HELD]


def test_a_host_without_an_earlier_state_goes_on_while_the_others_are_put_back() -> None:
    rollout = Rollout(replace(POLICY, canary=0, failure_budget=0, no_way_back=frozenset("a")), ["a", "b"])
    rollout.advance(0)
    for host in ("a", "b"):
        rollout.changing(host, 1)
    rollout.draining("a", 2)
    rollout.failed("b", "it ended again and again", 3)
    commands = rollout.advance(3)
    assert (orders(commands, Order.CANCEL), orders(commands, Order.REVERT)) == ([], ["b"])
    rollout.reverted("b", 4)
    rollout.done("a", 5)
    assert rollout.finished
    assert rollout.hosts["a"].stage is Stage.DONE


def test_more_failures_than_the_budget_allows_put_all_back() -> None:
    rollout = Rollout(POLICY, ["a", "b", "c", "d", "e"])
    rollout.advance(0)
    rollout.changing("a", 0)
    rollout.done("a", 1)
    rollout.advance(1)
    for host in ("b", "c"):
        rollout.changing(host, 2)
    rollout.failed("b", "x", 3)
    assert not rollout.halted
    assert orders(rollout.advance(3), Order.REVERT) == ["b"]
    rollout.failed("c", "y", 4)
    commands = rollout.advance(4)
    assert rollout.halted == "2 hosts failed, more than update.failure_budget allows"
    assert set(orders(commands, Order.REVERT)) == {"a", "c"}
    assert begun(commands) == []
    for host in ("a", "b", "c"):
        rollout.reverted(host, 5)
    rollout.advance(5)
    assert rollout.finished


def test_those_under_way_give_up_when_all_are_put_back_and_are_no_failures_of_their_own() -> None:
    rollout = Rollout(replace(POLICY, canary=0, max_parallel=3, failure_budget=0), ["a", "b", "c"])
    rollout.advance(0)
    for host in ("a", "b"):
        rollout.changing(host, 1)
    rollout.failed("a", "x", 2)
    commands = rollout.advance(2)
    assert set(orders(commands, Order.CANCEL)) == {"b", "c"}
    rollout.failed("b", "given up", 3)
    rollout.failed("c", "given up", 3)
    assert orders(rollout.advance(3), Order.REVERT) == ["b"]
    assert rollout.halted == "1 host failed, more than update.failure_budget allows"
    assert rollout.hosts["c"].stage is Stage.FAILED


def test_without_auto_revert_a_halt_only_keeps_others_from_beginning() -> None:
    rollout = Rollout(replace(POLICY, canary=0, failure_budget=0, auto_revert=False), ["a", "b", "c"])
    rollout.advance(0)
    rollout.changing("a", 1)
    rollout.failed("a", "x", 1)
    assert rollout.advance(1) == ()
    assert rollout.hosts["c"].stage is Stage.HELD
    rollout.done("b", 2)
    assert rollout.finished
    assert [state.stage for state in rollout.hosts.values()] == [Stage.FAILED, Stage.DONE, Stage.HELD]


def test_no_progress_is_a_failure() -> None:
    rollout = Rollout(POLICY, ["a", "b"])
    rollout.advance(0)
    assert rollout.next_look(0) == 100
    rollout.progressed("a", 60)
    assert rollout.advance(100) == ()
    assert rollout.next_look(100) == 60
    (command,) = (each for each in rollout.advance(160) if each.order is Order.CANCEL)
    assert command.host == "a"
    assert "progress_deadline" in command.reason
    rollout.failed("a", "given up", 161)
    assert "progress_deadline" in rollout.hosts["a"].reason


class Asked(Rollout):
    """Keeps the times at which it is asked."""

    times: tuple[float, ...] = ()
    waits: tuple[float, ...] = ()

    def advance(self, now: float) -> tuple[Instruction, ...]:
        self.times += (now,)
        return super().advance(now)

    def next_look(self, now: float) -> float | None:
        self.waits += (now,)
        return super().next_look(now)


class Quick:
    """A host that is done at once."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed

    def deploy(self, signs: HostSigns) -> Deployed:
        signs.changing()
        return self._deployed

    def revert(self) -> GoodState:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError


def test_a_deadline_between_two_readings_of_the_clock_is_not_slept_through() -> None:
    rollout = Asked(POLICY, ["a", "b"])
    Roller(rollout, {"a": Quick(DONE), "b": Quick(DONE)}).run()
    assert rollout.waits == rollout.times[:-1] != ()


class Doomed(Quick):
    """A host on which the release does not run; somebody presses Ctrl-C while it is put back."""

    def deploy(self, signs: HostSigns) -> Deployed:
        signs.changing()
        raise RemoteError("a", "waiting for workers", "a-1: it ended again and again", "its log")

    def revert(self) -> GoodState:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait()
        raise NotImplementedError


def test_who_is_just_being_put_back_at_an_interruption_is_told_apart() -> None:
    rollout = Rollout(POLICY, ["a", "b"])
    with pytest.raises(Interrupted) as interrupted:
        Roller(rollout, {"a": Doomed(DONE), "b": Quick(DONE)}).run()
    assert [type(result.error) for result in interrupted.value.results] == [NotPutBack, NotBegun]


def test_a_failure_of_its_own_is_told_with_its_log_also_where_the_rollout_has_halted() -> None:
    rollout = Rollout(replace(POLICY, canary=0, failure_budget=0, auto_revert=False), ["a", "b"])
    (own, _) = Roller(rollout, {"a": Doomed(DONE), "b": Quick(DONE)}).run()
    assert isinstance(own.error, RemoteError)
    assert (own.error.step, own.error.hint) == ("waiting for workers", "its log")


class Patient(Quick):
    """A host that is being changed until it is told to give up."""

    def __init__(self) -> None:
        super().__init__(DONE)
        self._over = threading.Event()

    def deploy(self, signs: HostSigns) -> Deployed:
        signs.changing()
        assert self._over.wait(30)
        raise Cancelled("b: given up")

    def cancel(self) -> None:
        self._over.set()

    def revert(self) -> GoodState:
        return GoodState("r1", {})


def test_who_gives_up_for_others_says_for_what() -> None:
    rollout = Rollout(replace(POLICY, canary=0, failure_budget=0, fresh=frozenset("a")), ["a", "b"])
    (_, given_up) = Roller(rollout, {"a": Doomed(DONE), "b": Patient()}).run()
    assert isinstance(given_up.error, PutBack)
    assert (given_up.error.what, given_up.error.release) == (rollout.halted, "r1")
    assert rollout.halted == "1 host failed, more than update.failure_budget allows"


HEALTHY, STOPPED = (WorkerHealth("a-1", health) for health in (Health.HEALTHY, Health.STOPPED))


@pytest.mark.parametrize(
    ("deployed", "proven"),
    [
        (Deployed(True), False),
        (Deployed(True, (STOPPED,)), False),
        (Deployed(True, (STOPPED, HEALTHY)), True),
        (Deployed(True, awaited=False), True),
    ],
    ids=["no workers", "all stopped", "one runs", "not waited for"],
)
def test_only_what_runs_shows_that_a_release_does(deployed: Deployed, proven: bool) -> None:
    rollout = Rollout(POLICY, ["a", "b"])
    Roller(rollout, {"a": Quick(deployed), "b": Quick(DONE)}).run()
    assert rollout.hosts["a"].proven == proven


def test_beginnings_are_staggered() -> None:
    rollout = Rollout(replace(POLICY, canary=0, max_parallel=5, stagger=10), ["a", "b", "c"])
    assert begun(rollout.advance(0)) == ["a"]
    assert begun(rollout.advance(9)) == []
    assert rollout.next_look(9) == 1
    assert begun(rollout.advance(10)) == ["b"]
    assert begun(rollout.advance(20)) == ["c"]


def test_hosts_on_which_nothing_runs_wait_for_the_canary_only() -> None:
    rollout = Rollout(replace(POLICY, fresh=frozenset("bcde")), list("abcdefg"))
    rollout.advance(0)
    rollout.done("a", 1)
    assert begun(rollout.advance(1)) == ["b", "c", "d", "e", "f", "g"]


LOOKED_AT = replace(POLICY, max_parallel=1, failure_budget=0, stagger=5, unproven=frozenset("cd"))


def with_looks(policy: Policy = LOOKED_AT) -> Rollout:
    """Of four hosts two are as they shall be, and have yet to be seen healthy."""
    rollout = Rollout(policy, ["a", "b", "c", "d"])
    assert sorted(begun(rollout.advance(0))) == ["c", "d"]
    rollout.changing("c", 1)
    rollout.changing("d", 1)
    assert begun(rollout.advance(10)) == []
    return rollout


def test_hosts_that_are_only_looked_at_begin_at_once_take_no_place_and_go_before_the_canary() -> None:
    rollout = with_looks()
    rollout.proved("c", 11)
    assert begun(rollout.advance(11)) == ["a"], "the canary of what is to be changed"
    rollout.done("d", 12)
    assert begun(rollout.advance(17)) == []
    rollout.done("a", 18)
    assert begun(rollout.advance(18)) == ["b"]


def test_a_host_that_computes_while_it_is_looked_at_holds_up_nobody() -> None:
    rollout = Rollout(replace(LOOKED_AT, unproven=frozenset("d")), ["a", "d"])
    assert begun(rollout.advance(0)) == ["d"]
    rollout.draining("d", 1)
    assert begun(rollout.advance(1)) == ["a"]


def test_hosts_that_cannot_be_looked_at_hold_up_nobody() -> None:
    rollout = Rollout(replace(LOOKED_AT, failure_budget=2), ["a", "b", "c", "d"])
    assert sorted(begun(rollout.advance(0))) == ["c", "d"]
    rollout.failed("c", "connection lost", 1)
    assert begun(rollout.advance(1)) == []
    rollout.changing("d", 2)
    rollout.done("d", 3, proven=False)  # its workers were all stopped meanwhile
    assert begun(rollout.advance(3)) == ["a"]


def test_where_hosts_are_only_looked_at_all_come_to_a_verdict() -> None:
    rollout = Rollout(policy_of(Update(), 2, unproven=frozenset("ab")), ["a", "b"])
    assert begun(rollout.advance(0)) == ["a", "b"]
    rollout.changing("a", 1)
    rollout.failed("a", "it ended again and again", 2)
    assert orders(rollout.advance(2), Order.REVERT) == ["a"]
    rollout.done("b", 3)
    rollout.reverted("a", 4)
    assert (rollout.finished, rollout.halted, rollout.hosts["b"].stage) == (True, "", Stage.DONE)


def test_a_host_that_is_only_looked_at_is_put_back_for_itself_alone() -> None:
    rollout = with_looks()
    rollout.done("c", 11)
    rollout.advance(11)
    rollout.changing("a", 11)
    rollout.failed("a", "full disk", 12)
    commands = rollout.advance(12)
    assert (orders(commands, Order.REVERT), orders(commands, Order.CANCEL)) == (["a"], [])
    assert (rollout.hosts["b"].stage, rollout.hosts["c"].stage) == (Stage.HELD, Stage.DONE)
    rollout.reverted("a", 13)
    assert not rollout.finished, "d is still being looked at"
    rollout.failed("d", "it ended again and again", 14)
    assert orders(rollout.advance(14), Order.REVERT) == ["d"]


def test_a_release_that_does_not_run_where_it_is_looked_at_goes_nowhere_else() -> None:
    rollout = with_looks()
    rollout.failed("c", "it ended again and again", 11)
    assert orders(rollout.advance(11), Order.REVERT) == ["c"]
    assert rollout.halted == "canary c failed"
    assert (rollout.hosts["a"].stage, rollout.hosts["b"].stage) == (Stage.HELD, Stage.HELD)


def test_where_nothing_runs_anywhere_no_canary_is_needed_and_nothing_is_put_back() -> None:
    policy = policy_of(Update(), 4, fresh=frozenset("abcd"))
    rollout = Rollout(policy, list("abcd"))
    assert begun(rollout.advance(0)) == list("abcd")
    for host in "abcd":
        rollout.changing(host, 1)
    rollout.failed("a", "x", 2)
    rollout.failed("b", "x", 2)
    assert orders(rollout.advance(2), Order.REVERT) == []
    assert rollout.halted
    assert rollout.hosts["a"].stage is Stage.FAILED


@pytest.mark.parametrize(
    ("update", "total", "parallel", "canary", "budget"),
    [
        (Update(), 40, 10, 1, 4),
        (Update(), 1, 1, 1, 1),
        (Update(), 15, 3, 1, 2),
        (Update(max_parallel=Share(value=5), canary=3, failure_budget=Share(value=0)), 2, 5, 2, 0),
    ],
)
def test_percentages_are_of_the_hosts_to_change(
    update: Update, total: int, parallel: int, canary: int, budget: int
) -> None:
    policy = policy_of(update, total)
    assert (policy.max_parallel, policy.canary, policy.failure_budget) == (parallel, canary, budget)
    looked_at = frozenset(f"n{number}" for number in range(3))
    more = policy_of(update, total + 3, unproven=looked_at)
    assert (more.max_parallel, more.canary) == (parallel, canary)
    assert more.failure_budget == policy_of(update, total + 3).failure_budget


@dataclass
class Simulation:
    """Hosts that take random times and fail at random; checks at every step what must never happen."""

    policy: Policy
    seed: int
    hosts: int
    failing: float
    hanging: float = 0.0
    now: float = 0.0
    events: list[tuple[float, int, str, str]] = field(default_factory=list)
    fates: dict[str, str] = field(default_factory=dict)
    let_go: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.numbers, self.looks = itertools.count(), itertools.count()
        self.rollout = Rollout(self.policy, [f"n{number}" for number in range(self.hosts)])

    def run(self) -> Rollout:
        self.obey(self.rollout.advance(self.now))
        while not self.rollout.finished:
            wait = self.rollout.next_look(self.now)
            assert self.events or wait is not None, "nothing will ever happen again"
            if self.events and (wait is None or self.events[0][0] <= self.now + wait):
                self.now, _, host, what = heapq.heappop(self.events)
                self.happen(host, what)
            else:
                assert wait is not None
                self.now += wait
            before = self.rollout.halted
            commands = self.rollout.advance(self.now)
            assert not (before and begun(commands)), "a host began after the halt"
            self.obey(commands)
            if next(self.looks) % 5 == 0:  # each look goes over all thousand hosts
                self.check()
        return self.rollout

    def plan(self, delay: float, host: str, what: str) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.numbers), host, what))

    def obey(self, commands: tuple[Instruction, ...]) -> None:
        for command in commands:
            if command.order is Order.BEGIN:
                self.begin(command.host)
            elif command.order is Order.CANCEL:
                self.plan(self.random.uniform(0, 2), command.host, "failed")
            else:
                self.plan(self.random.uniform(1, 30), command.host, "reverted")

    def begin(self, host: str) -> None:
        assert host not in self.fates, "a host began twice"
        chance = self.random.random()
        self.fates[host] = "hang" if chance < self.hanging else "fail" if chance < self.failing else "run"
        at = self.random.uniform(1, 20)
        self.plan(at, host, "changing")
        if self.fates[host] == "hang":
            return
        if self.fates[host] == "fail":
            self.plan(self.random.uniform(0.5, 2) * at, host, "failed")
            return
        if self.random.random() < 0.5:
            self.plan(at + 1, host, "draining")
            at += self.random.uniform(2, 5000)
            self.plan(at, host, "working")
        self.plan(at + self.random.uniform(1, 20), host, "done")

    def happen(self, host: str, what: str) -> None:
        state = self.rollout.hosts[host]
        if state.stage in {Stage.WORKING, Stage.DRAINING} or what == "reverted":
            if what == "failed":
                self.rollout.failed(host, "x", self.now)
            elif not (state.cancelled and what == "done"):
                if what == "working" and state.computing_since is not None:
                    self.let_go |= {host} if self.now - state.computing_since >= self.policy.patience else set()
                getattr(self.rollout, what)(host, self.now)

    def check(self) -> None:
        states = self.rollout.hosts
        # When those come back that have computed for long is not the rollout's to say, so their number is not bounded.
        placed = [
            host
            for host, state in states.items()
            if (state.stage is Stage.WORKING and host not in self.let_go)
            or (state.stage is Stage.DRAINING and self.now - (state.computing_since or 0.0) < self.policy.patience)
        ]
        assert len(placed) <= self.policy.max_parallel
        if sum(state.proven for state in states.values()) < self.policy.canary:
            assert (
                sum(state.stage in {Stage.WORKING, Stage.DRAINING} for state in states.values()) <= self.policy.canary
            )


@pytest.mark.parametrize("seed", range(1))
def test_a_thousand_good_hosts_are_all_deployed(seed: int) -> None:
    policy = Policy(max_parallel=50, canary=3, failure_budget=100)
    rollout = Simulation(policy, seed, 1000, failing=0.0).run()
    assert {state.stage for state in rollout.hosts.values()} == {Stage.DONE}


@pytest.mark.parametrize("seed", range(2))
def test_of_a_thousand_hosts_those_that_fail_are_put_back_and_the_others_deployed(seed: int) -> None:
    policy = Policy(max_parallel=100, canary=0, failure_budget=150)
    simulation = Simulation(policy, seed, 1000, failing=0.1, hanging=0.01)
    rollout = simulation.run()
    assert not rollout.halted
    for host, state in rollout.hosts.items():
        expected = {Stage.DONE} if simulation.fates[host] == "run" else {Stage.FAILED, Stage.REVERTED}
        assert state.stage in expected
        assert state.changed is (state.stage is not Stage.FAILED)


@pytest.mark.parametrize("seed", range(1))
def test_a_bad_release_is_taken_back_everywhere(seed: int) -> None:
    policy = Policy(max_parallel=100, canary=0, failure_budget=20)
    simulation = Simulation(policy, seed, 1000, failing=0.5)
    rollout = simulation.run()
    assert rollout.halted
    assert len(simulation.fates) < 500
    for state in rollout.hosts.values():
        assert state.stage in {Stage.REVERTED, Stage.FAILED, Stage.HELD}
        assert state.changed is (state.stage is Stage.REVERTED)
