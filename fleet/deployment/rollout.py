"""When each host of a rollout begins, when the rollout halts, and who is put back: a state machine. Pure.

It is told what happened to hosts and says what to do next; whoever drives it does the doing. Time is in seconds of
any clock that does not jump.

The rules, in the order in which they matter:

1. The first hosts are canaries. Nobody else begins until `canary` hosts have proven the release: at least one worker
   of each runs it in good health. A canary on which the release does not run halts the rollout; one that fails before
   anything was changed on it (full disk, connection lost) only gives its place to the next host.
2. Then at most `max_parallel` hosts are being changed at a time, begun at least `stagger` apart. A host whose workers
   all either run the release or still compute is no longer being changed once that has gone on for `patience`: a
   calculation of two days holds up no one, and short ones end within that time, so that their hosts restart one after
   the other. A host on which nothing runs yet has nothing to lose and waits for the canaries only; where that is all
   of them, there are no canaries.
3. Failures are counted over the whole rollout; more than `failure_budget` halt it. A host that makes no progress for
   `progress_deadline` has failed, unless it is done before it hears of that; what that halted stays halted.
4. With `auto_revert` a host on which the release does not run is put back to its last good state at once, and after a
   halt so is every host that was changed and had something before; without it a halt only means that no further host
   begins. A host on which all is well and that nobody has ever seen work before has nothing to go back to: it stays.
5. A host on which an earlier deploy changed everything and saw nothing (`unproven`) is only looked at: that begins at
   once, and ends in a verdict of its own. It is put back if the release does not run on it, not for what happens on
   others. The first of them are canaries before the canaries: what is wrong with them goes nowhere else, but what runs
   on them says nothing of settings that others are still to get.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from fleet.hosts.hostsfile import Update


class Stage(Enum):
    """How far a host has come in a rollout."""

    WAITING = "waiting"
    WORKING = "working"
    DRAINING = "draining"
    DONE = "done"
    FAILED = "failed"
    REVERTING = "reverting"
    REVERTED = "reverted"
    STUCK = "stuck"
    HELD = "held"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the host, unless the rollout halts."""
        return self in _FINAL


_PATIENCE = 6
"""How many times as long as a worker has to be in good health a host keeps its place while its workers compute: who is
careful with the one is with the other."""

_FINAL = frozenset({Stage.DONE, Stage.FAILED, Stage.REVERTED, Stage.STUCK, Stage.HELD})


class Order(Enum):
    """What to do with a host."""

    BEGIN = "begin"
    CANCEL = "cancel"
    REVERT = "revert"


@dataclass(frozen=True)
class Instruction:
    """Something to do with a host, and why."""

    host: str
    order: Order
    reason: str = ""


@dataclass(frozen=True)
class Policy:
    """How a rollout goes; numbers of hosts, and times in seconds.

    Parameters
    ----------
    max_parallel
        Hosts being changed at a time, at least 1.
    canary
        Hosts that must prove the release before the others begin.
    failure_budget
        Hosts that may fail.
    stagger
        Least time between the beginnings of two hosts.
    progress_deadline
        Longest time without any progress of a host that is being changed.
    auto_revert
        Whether hosts are put back to their last good state.
    fresh
        Hosts on which nothing runs yet; they do not count for `max_parallel`.
    unproven
        Hosts on which nothing has to be changed, and whose workers have yet to be seen healthy; nor do these.
    no_way_back
        Hosts that no deploy has seen work, although something was deployed there.
    patience
        For how long a host on which all that is waited for are calculations keeps its place.
    """

    max_parallel: int = 1
    canary: int = 1
    failure_budget: int = 0
    stagger: float = 0.0
    progress_deadline: float = 1800.0
    auto_revert: bool = True
    fresh: frozenset[str] = frozenset()
    unproven: frozenset[str] = frozenset()
    no_way_back: frozenset[str] = frozenset()
    patience: float = 60.0


def policy_of(
    update: Update, total: int, fresh: frozenset[str] = frozenset(), unproven: frozenset[str] = frozenset()
) -> Policy:
    """Turn the section ``update`` of hosts.yaml into numbers.

    Parameters
    ----------
    update
        The section.
    total
        Hosts that will be changed or looked at. `failure_budget` is a percentage of these, rounded up, so that one full
        disk among a few hosts does not keep the others from being deployed; `max_parallel` of those that will be
        changed, rounded down, to at least one.
    fresh
        Those of them on which nothing runs yet.
    unproven
        Those of them on which nothing has to be changed.
    """
    changed = total - len(unproven)
    return Policy(
        max_parallel=max(1, update.max_parallel.of(changed)),
        canary=0 if len(fresh) == changed else min(update.canary, changed),
        failure_budget=update.failure_budget.of(total, round_up=True),
        stagger=update.stagger,
        progress_deadline=update.progress_deadline,
        auto_revert=update.auto_revert,
        fresh=fresh,
        unproven=unproven,
        patience=_PATIENCE * update.min_healthy_time,
    )


@dataclass(frozen=True)
class HostState:
    """One host of a rollout.

    Parameters
    ----------
    proven
        Whether at least one of its workers runs the release in good health.
    changed
        Whether anything that its workers use may have been changed.
    since
        When it last made progress.
    computing_since
        Since when all that is waited for on it are calculations; None where that is not so.
    reason
        Why it failed or was held back.
    cancelled
        Whether it has been told to give up.
    """

    stage: Stage = Stage.WAITING
    proven: bool = False
    changed: bool = False
    since: float = 0.0
    computing_since: float | None = None
    reason: str = ""
    cancelled: bool = False


class Rollout:
    """A rollout over some hosts.

    Parameters
    ----------
    policy
        How it goes.
    hosts
        Their names, in the order in which they begin.
    """

    def __init__(self, policy: Policy, hosts: Sequence[str]) -> None:
        self._policy = policy
        self._stay = policy.unproven | policy.no_way_back
        self._hosts = {host: HostState() for host in hosts}
        self._last_begun: float | None = None
        self._failures = 0
        self._halt = ""

    @property
    def hosts(self) -> Mapping[str, HostState]:
        """All hosts as they are now."""
        return self._hosts

    @property
    def halted(self) -> str:
        """Why no further host begins; empty while they do."""
        return self._halt

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return all(state.stage.final for state in self._hosts.values())

    def progressed(self, host: str, now: float) -> None:
        """Note a sign of life of a host that is being changed."""
        self._set(host, since=now)

    def changing(self, host: str, now: float) -> None:
        """Note that from now on the host may differ from what it was."""
        self._set(host, changed=True, since=now)

    def proved(self, host: str, now: float) -> None:
        """Note that at least one worker of the host runs the release in good health."""
        self._set(host, proven=True, since=now)

    def draining(self, host: str, now: float) -> None:
        """Note that all workers of the host run the release or still compute."""
        if self._hosts[host].stage is Stage.WORKING:
            self._set(host, stage=Stage.DRAINING, since=now, computing_since=now)

    def working(self, host: str, now: float) -> None:
        """Note that workers of a host that was draining start now."""
        if self._hosts[host].stage is Stage.DRAINING:
            self._set(host, stage=Stage.WORKING, since=now, computing_since=None)

    def done(self, host: str, now: float, *, proven: bool = True) -> None:
        """Note that a host has all it should have.

        Parameters
        ----------
        host
            The host.
        now
            The time.
        proven
            Whether that shows that the release runs; where none of its workers shall run, it does not.
        """
        state = self._hosts[host]
        if state.cancelled and state.reason and not self._halt:
            # It was counted as overdue and told to give up, but was done before it heard of that.
            self._failures -= 1
            self._set(host, cancelled=False, reason="")
        self._set(host, stage=Stage.DONE, proven=proven or state.proven, since=now)

    def failed(self, host: str, reason: str, now: float) -> None:
        """Note that a host failed.

        Parameters
        ----------
        host
            The host.
        reason
            Why, in words.
        now
            The time.
        """
        if self._hosts[host].cancelled:
            # It was told to give up; why is known, and where it was a failure of its own that has been counted.
            self._set(host, stage=Stage.FAILED, reason=self._hosts[host].reason or reason, since=now)
            return
        self._count_failure(host)
        self._set(host, stage=Stage.FAILED, reason=reason, since=now)

    def reverted(self, host: str, now: float) -> None:
        """Note that a host is as it last was in good health."""
        self._set(host, stage=Stage.REVERTED, since=now)

    def revert_failed(self, host: str, reason: str, now: float) -> None:
        """Note that a host could not be put back.

        Parameters
        ----------
        host
            The host.
        reason
            Why, in words; what it had failed of stays before them.
        now
            The time.
        """
        self._set(host, stage=Stage.STUCK, reason=f"{self._hosts[host].reason}; {reason}".lstrip("; "), since=now)

    def advance(self, now: float) -> tuple[Instruction, ...]:
        """What to do now; each thing is said once.

        Parameters
        ----------
        now
            The time.
        """
        commands = [*self._overdue(now)]
        if self._halt:
            commands += self._wind_up()
        if self._policy.auto_revert:
            commands += self._reverts(now)
        if not self._halt:
            commands += [*self._looks(now), *self._beginnings(now)]
        return tuple(commands)

    def next_look(self, now: float) -> float | None:
        """Seconds until time alone changes something; None where it does not."""
        waits = [
            state.since + self._policy.progress_deadline - now
            for state in self._hosts.values()
            if state.stage is Stage.WORKING and not state.cancelled
        ]
        if any(state.stage is Stage.WAITING for state in self._hosts.values()):
            if self._last_begun is not None:
                waits.append(self._last_begun + self._policy.stagger - now)
            waits += [
                state.computing_since + self._policy.patience - now
                for state in self._hosts.values()
                if state.stage is Stage.DRAINING and state.computing_since is not None
            ]
        later = [wait for wait in waits if wait > 0]
        return min(later, default=None)

    @property
    def _proven_enough(self) -> bool:
        looked_at = self._policy.unproven
        proven = sum(state.proven for host, state in self._hosts.items() if host not in looked_at)
        return proven >= self._policy.canary and self._looks_proven_enough

    @property
    def _looks_proven_enough(self) -> bool:
        """Whether those that are only looked at have proven it as well, as far as any of them still can."""
        looked_at = [self._hosts[host] for host in self._policy.unproven]
        able = sum(state.proven or state.stage in {Stage.WAITING, Stage.WORKING} for state in looked_at)
        return sum(state.proven for state in looked_at) >= min(self._policy.canary, able)

    def _set(self, host: str, **changes: object) -> None:
        self._hosts[host] = replace(self._hosts[host], **changes)  # type: ignore[arg-type]  # fields by name

    def _count_failure(self, host: str) -> None:
        self._failures += 1
        if not self._proven_enough and self._hosts[host].changed:
            self._halt = self._halt or f"canary {host} failed"
        elif self._failures > self._policy.failure_budget:
            self._halt = self._halt or f"{_hosts(self._failures)} failed, more than update.failure_budget allows"

    def _overdue(self, now: float) -> list[Instruction]:
        late = [
            host
            for host, state in self._hosts.items()
            if state.stage is Stage.WORKING
            and not state.cancelled
            and now - state.since >= self._policy.progress_deadline
        ]
        reason = f"no progress for {self._policy.progress_deadline:g} s (update.progress_deadline)"
        for host in late:
            # Counted now, since it may take long to give up.
            self._count_failure(host)
            self._set(host, cancelled=True, reason=reason)
        return [Instruction(host, Order.CANCEL, reason) for host in late]

    def _wind_up(self) -> list[Instruction]:
        """After a halt: who waits is held back; who is under way gives up, if it can be put back."""
        commands = []
        for host, state in self._hosts.items():
            if state.stage is Stage.WAITING:
                self._set(host, stage=Stage.HELD, reason=self._halt)
            elif host in self._stay or state.cancelled:
                continue
            elif state.stage in {Stage.WORKING, Stage.DRAINING} and self._policy.auto_revert:
                self._set(host, cancelled=True)
                commands.append(Instruction(host, Order.CANCEL, self._halt))
        return commands

    def _reverts(self, now: float) -> list[Instruction]:
        also_done = bool(self._halt)
        chosen = [
            host
            for host, state in self._hosts.items()
            if state.changed
            and (state.stage is Stage.FAILED or (also_done and state.stage is Stage.DONE and host not in self._stay))
            and host not in self._policy.fresh
        ]
        for host in chosen:
            self._set(host, stage=Stage.REVERTING, since=now)
        return [Instruction(host, Order.REVERT, self._hosts[host].reason or self._halt) for host in chosen]

    def _looks(self, now: float) -> list[Instruction]:
        """All that are only looked at, at once: it does nothing to them."""
        if not self._policy.unproven:
            return []
        waiting = [
            host
            for host, state in self._hosts.items()
            if state.stage is Stage.WAITING and host in self._policy.unproven
        ]
        for host in waiting:
            self._set(host, stage=Stage.WORKING, since=now)
        return [Instruction(host, Order.BEGIN) for host in waiting]

    def _beginnings(self, now: float) -> list[Instruction]:
        if self._last_begun is not None and now < self._last_begun + self._policy.stagger:
            return []
        waiting = [host for host, state in self._hosts.items() if state.stage is Stage.WAITING]
        if not waiting:
            return []
        chosen = self._next_of(waiting, now) if self._proven_enough else waiting[: self._canaries_wanted]
        if self._policy.stagger > 0:
            chosen = chosen[:1]
        for host in chosen:
            self._last_begun = now
            self._set(host, stage=Stage.WORKING, since=now)
        return [Instruction(host, Order.BEGIN) for host in chosen]

    def _next_of(self, waiting: Sequence[str], now: float) -> list[str]:
        fresh, aside = self._policy.fresh, self._policy.fresh | self._policy.unproven
        busy = sum(host not in aside for host, state in self._hosts.items() if self._has_a_place(state, now))
        running = [host for host in waiting if host not in fresh][: max(0, self._policy.max_parallel - busy)]
        return [host for host in waiting if host in fresh or host in running]

    def _has_a_place(self, state: HostState, now: float) -> bool:
        """Whether a host is without some of its workers, or will soon be."""
        stage = state.stage
        if stage is Stage.DRAINING and state.computing_since is not None:
            return now - state.computing_since < self._policy.patience
        return stage is Stage.WORKING or stage is Stage.REVERTING  # not in a set: asked a million times a rollout

    @property
    def _canaries_wanted(self) -> int:
        """How many more hosts may begin while too few have proven the release."""
        if not self._looks_proven_enough:
            return 0
        under_way, looked_at = {Stage.WORKING, Stage.DRAINING}, self._policy.unproven
        changed = (state for host, state in self._hosts.items() if host not in looked_at)
        return max(0, self._policy.canary - sum(state.stage in under_way or state.proven for state in changed))


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"
