"""A whole deploy: what can be prepared is prepared on all hosts at once, then they change as the rollout says."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.deployment.deed import Deed
from fleet.deployment.difftext import mask_secrets
from fleet.deployment.health import Health
from fleet.deployment.hooks import Hook, HookEnvironment, run_hook
from fleet.deployment.host_deploy import Deployed, Deployment
from fleet.deployment.lock import DeedOutcome, Lock, LockTarget, Result, hold, outcome_of
from fleet.deployment.manner import Manner
from fleet.deployment.noting import leave_word
from fleet.deployment.refusals import still_locked
from fleet.deployment.revert import GoodState, Reversal
from fleet.deployment.roller import HostSigns, NotBegun, Roller
from fleet.deployment.rollout import Rollout, policy_of
from fleet.deployment.shared_records import ReadRecords, shared
from fleet.deployment.survey import HostWork
from fleet.deployment.waiting import LONGEST_TROUBLE_S, Watch, WatchedHost
from fleet.errors import FleetError, RemoteError
from fleet.hosts.access import Remotes
from fleet.hosts.inventory import Fleet
from fleet.hosts.render import worker_uuid
from fleet.reach.execute import INTERRUPTED, Audience, HostEvent, Interrupted, Say, fan_out, say_for
from fleet.reach.remote import HostResult
from fleet.release.releases import HostRoots as ReleasePlace
from fleet.release.releases import prune_host, releases_in_use
from puffin.errors import DatabaseError
from puffin.store import Store


@dataclass(frozen=True)
class DeployOptions:
    """How a deploy goes.

    Parameters
    ----------
    manner
        What becomes of the calculations that run.
    parallel
        Hosts at a time that are uploaded to and installed on.
    lock_timeout_s
        How long to wait for somebody else who changes the same hosts, in seconds.
    deed
        The command that deploys, for the notes.
    missing
        Hosts that should be deployed and could not even be looked at, and why; for the notes as well.
    """

    deed: Deed
    manner: Manner = Manner.ROLLING
    parallel: int = 20
    lock_timeout_s: float = 0.0
    missing: Mapping[str, FleetError] = field(default_factory=dict)


class HostPart:
    """One host's part of a deploy, with its way back.

    Parameters
    ----------
    fleet
        The fleet.
    work
        What is to be done.
    remotes
        Connections.
    store
        The fleet's database.
    how
        How the deploy goes.
    say
        Told what is being done.
    lock
        Token of the lock that is held on the host.
    read_records
        Reads what the workers of the fleet reported.
    needed
        Releases and supervisors that some host of the deploy is to have.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        work: HostWork,
        remotes: Remotes,
        store: Store,
        how: DeployOptions,
        say: Say,
        lock: str | None,
        read_records: ReadRecords,
        needed: frozenset[str],
    ) -> None:
        self._fleet = fleet
        self._work = work
        self._store = store
        self._read_records = read_records
        self._needed = needed
        self._say = say
        self._cancelled = threading.Event()
        self._how = how
        self._remotes = remotes
        facts = work.facts
        self._place = WatchedHost(work.host.name, facts.fleet_root, facts.host_root, lock)

    def prepare(self) -> None:
        """Upload and install; nothing that runs notices."""
        # Nothing is changed yet, and the other hosts wait for this one.
        patience = min(LONGEST_TROUBLE_S, self._fleet.update.progress_deadline)
        self._deployment(self._watch(self._cancelled.is_set, patience)).prepare()
        self._say("prepared; waiting for its turn")

    def deploy(self, signs: HostSigns) -> Deployed:
        """Change the host, and remember its state as good once all its workers are healthy."""
        watch = self._watch(self._cancelled.is_set)
        deployed = self._deployment(watch).carry_out(signs)
        if self._how.manner is not Manner.WHEN_IDLE and _has_proven_itself(deployed):
            watch.ask("good", operation="keep")
        self._tidy_up(deployed)
        return deployed

    def _tidy_up(self, deployed: Deployed) -> None:
        """What is nice to have: that it cannot be done now is no reason to put a healthy host back."""
        gone = [name for name in self._work.plan.workers_removed if name not in deployed.later]
        removed = [worker_uuid(self._fleet, name) for name in gone]
        try:
            if removed:
                self._store.registry.forget(removed)
            if self._work.plan.install_release and len(self._work.facts.releases) >= self._fleet.release.keep:
                self._prune()
        except (RemoteError, DatabaseError) as error:
            self._say(f"left as it is: {getattr(error, 'what', error)}")

    def _prune(self) -> None:
        """Remove releases beyond `release.keep`; `prune` or the next deploy does what cannot be done now."""
        used = releases_in_use(self._store.registry.workers(self._fleet.name, brief=True)) | self._needed
        place = ReleasePlace.of(self._work.facts)
        self._say("removing old releases")
        prune_host(self._remotes[self._place.host], place, self._fleet.release.keep, used, self._place.lock)

    def revert(self) -> GoodState:
        """Put the host back to its last good state."""
        good = Reversal(self._place.host, self._watch(lambda: False), self._say, self._how.deed.id).carry_out()
        self._note(good.release)
        return good

    def _note(self, release: str) -> None:
        """Say what the workers are to run, at once: else `status` takes the new ones for old until all hosts are done.

        Without the database `status` compares with what was noted before, until the end of the deploy or the next one,
        which notes it also where it finds nothing to do.
        """
        with contextlib.suppress(DatabaseError):
            self._store.control.note_releases(self._fleet.name, {self._place.host: release})

    def cancel(self) -> None:
        """Make what is being done give up soon."""
        self._cancelled.set()

    def _watch(self, cancelled: Callable[[], bool], patience: float | None = None) -> Watch:
        return Watch(
            place=self._place,
            update=self._fleet.update,
            remote=self._remotes[self._place.host],
            read_records=self._read_records,
            say=self._say,
            cancelled=cancelled,
            patience=patience,
        )

    def _deployment(self, watch: Watch) -> Deployment:
        return Deployment(
            fleet=self._fleet,
            work=self._work,
            remote=self._remotes[self._place.host],
            watch=watch,
            say=self._say,
            deed=self._how.deed,
            manner=self._how.manner,
            switched=lambda: self._note(self._work.release),
        )


@dataclass(frozen=True)
class DeployEnd:
    """How a deploy ended.

    Parameters
    ----------
    results
        One for each host, in their order.
    troubles
        What went wrong beside the hosts: a hook, or the note in the database.
    """

    results: tuple[HostResult[Deployed], ...]
    troubles: tuple[FleetError, ...] = ()


def deploy_hosts(
    fleet: Fleet, works: Sequence[HostWork], remotes: Remotes, store: Store, how: DeployOptions, audience: Audience
) -> DeployEnd:
    """Carry out the plans of hosts that have something to change, under their lock and between the hooks.

    Parameters
    ----------
    fleet
        The fleet.
    works
        What is to be done on each host.
    remotes
        Connections to them.
    store
        The fleet's database.
    how
        How it goes.
    audience
        Told about it.

    Raises
    ------
    LockedError
        Somebody else changes one of the hosts.
    ChangedMeanwhile
        Somebody else has changed one of them since it was looked at.
    HookFailed
        The hook before the deploy failed; nothing was changed.
    Interrupted
        On Ctrl-C.
    """
    targets = {work.host.name: LockTarget(work.facts.host_root, work.facts.lock.serial) for work in works}
    with hold(remotes, targets, how.deed, how.lock_timeout_s, how.parallel, say_for(audience)) as lock:
        lock.missing.update({host: outcome_of(error).error for host, error in how.missing.items()})
        _before(fleet, lock, how)
        releases = {work.host.name: work.release for work in works}
        try:
            results = _roll_out(fleet, works, remotes, store, how, audience, lock)
        except Interrupted as interrupted:
            # What is done is done: the next run finds nothing to do on these hosts and says nothing of them.
            done = [result for result in interrupted.results if _is_over(result)]
            for result in done:
                lock.conclude(result.host, _outcome(result, releases[result.host]))
            leave_word(fleet, store, how.deed, releases, done, how.missing)
            raise
        for result in results:
            lock.conclude(result.host, _outcome(result, releases[result.host]))
        # The hook comes last: it may look at what was left, and may be cut off.
        unnoted = leave_word(fleet, store, how.deed, releases, results, how.missing)
        try:
            troubles = (*_after(fleet, lock, how, results), *unnoted)
        except KeyboardInterrupt as interrupted:
            raise Interrupted(results) from interrupted
    return DeployEnd(tuple(results), (*troubles, *_of_kept(lock)))


def _of_kept(lock: Lock) -> tuple[FleetError, ...]:
    """What to say of hosts that were not there to hear that the deploy is over."""
    return (FleetError(still_locked(lock.kept)),) if lock.kept else ()


def _before(fleet: Fleet, lock: Lock, how: DeployOptions) -> None:
    environment = HookEnvironment(lock.token, sorted(lock.hosts), how.deed.id, how.deed.verb)
    try:
        run_hook(fleet, Hook.PRE_DEPLOY, environment)
    except FleetError as error:
        for host in lock.hosts:
            lock.conclude(host, DeedOutcome(Result.UNCHANGED, _first_line(error)))
        raise


def _after(
    fleet: Fleet, lock: Lock, how: DeployOptions, results: Sequence[HostResult[Deployed]]
) -> tuple[FleetError, ...]:
    failed = [result.host for result in results if not result.ok]
    environment = HookEnvironment(
        lock.token,
        sorted(lock.hosts),
        how.deed.id,
        how.deed.verb,
        outcome=(Result.FAILED if failed else Result.DONE).value,
        failed=failed,
    )
    try:
        run_hook(fleet, Hook.POST_DEPLOY, environment)
    except FleetError as error:
        return (error,)
    return ()


def _outcome(result: HostResult[Deployed], release: str) -> DeedOutcome:
    if result.error is None:
        return DeedOutcome(Result.DONE, release=release)
    kind = Result.UNCHANGED if isinstance(result.error, NotBegun) else Result.FAILED
    return DeedOutcome(kind, mask_secrets(_first_line(result.error)))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _roll_out(
    fleet: Fleet,
    works: Sequence[HostWork],
    remotes: Remotes,
    store: Store,
    how: DeployOptions,
    audience: Audience,
    lock: Lock,
) -> list[HostResult[Deployed]]:
    read_records = shared(lambda: store.registry.workers(fleet.name, brief=True))
    needed = needed_by(works)
    parts = {
        work.host.name: HostPart(
            fleet=fleet,
            work=work,
            remotes=remotes,
            store=store,
            how=how,
            say=say_for(audience, work.host.name),
            lock=lock.token,
            read_records=read_records,
            needed=needed,
        )
        for work in works
    }
    ready = {host: part for host, part in parts.items() if host in lock.hosts}
    prepared = fan_out(ready, HostPart.prepare, how.parallel, lambda event: _tell(event, audience))
    fresh = frozenset(work.host.name for work in works if work.facts.current is None)
    unproven = frozenset(work.host.name for work in works if work.plan.empty)
    policy = policy_of(fleet.update, len(works), fresh, unproven)
    able = sum(_can_prove(work) for work in works if not work.plan.empty)
    never_good = frozenset(work.host.name for work in works if work.facts.good is None and not work.worth_keeping)
    policy = replace(policy, canary=min(policy.canary, able), no_way_back=never_good - fresh)
    rollout = Rollout(policy, list(parts))
    errors = {**lock.failed, **{result.host: result.error for result in prepared if result.error is not None}}
    for host, error in errors.items():
        rollout.failed(host, _first_line(error), time.monotonic())
    results = Roller(rollout, parts, audience.finished).run()
    return [
        HostResult(result.host, error=errors[result.host], seconds=result.seconds) if result.host in errors else result
        for result in results
    ]


def needed_by(works: Sequence[HostWork]) -> frozenset[str]:
    """Releases and supervisors that hosts have, or have been prepared for without naming them yet.

    Where hosts share a home directory, one that is done must not remove what another one waits to change to.

    Parameters
    ----------
    works
        What is to be done on each host.
    """
    return frozenset(name for work in works for name in (work.release, work.desired.supervisor))


def _has_proven_itself(deployed: Deployed) -> bool:
    """Whether what a host has now is worth going back to: where all workers are stopped, nobody has seen it work."""
    return not deployed.workers or any(worker.health is Health.HEALTHY for worker in deployed.workers)


def _can_prove(work: HostWork) -> bool:
    """Whether any worker of a host shall run: one whose workers are all stopped shows nothing of a release."""
    return any(worker not in work.plan.kept_stopped for worker in work.configurations)


def _tell(event: HostEvent[None], audience: Audience) -> None:
    if event.result is not None and event.result.error is not None:
        audience.finished(event.host, False)


def _is_over(result: HostResult[Any]) -> bool:
    """Whether a host had come to an end, good or bad, when a deploy was interrupted."""
    if isinstance(result.error, RemoteError):
        return result.error.step != INTERRUPTED and not isinstance(result.error, NotBegun)
    return isinstance(result.value, Deployed)
