"""A whole deploy: what can be prepared is prepared on all hosts at once, then they change as the rollout says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.access import Remotes
from fleet.deploy import Deployed, Deployment, Running
from fleet.execute import HostEvent, fan_out
from fleet.inventory import Fleet
from fleet.remote import HostResult
from fleet.render import worker_uuid
from fleet.revert import GoodState, Reversal
from fleet.rolling import HostSigns, Roller
from fleet.rollout import Rollout, policy_of
from fleet.survey import HostWork
from fleet.waiting import Place, Say, Watch
from puffin.store import Event, Store


class Audience(Protocol):
    """Who is told how a deploy goes."""

    def step(self, host: str, what: str) -> None:
        """A host is at something."""

    def finished(self, host: str, ok: bool) -> None:
        """A host is done."""


@dataclass(frozen=True)
class How:
    """How a deploy goes.

    Parameters
    ----------
    calculations
        What becomes of those that run.
    parallel
        Hosts at a time that are uploaded to and installed on.
    by
        Who deploys, for the notes.
    """

    calculations: Running = Running.WAIT
    parallel: int = 20
    by: str = ""


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
    """

    def __init__(
        self, *, fleet: Fleet, work: HostWork, remotes: Remotes, store: Store, how: How, say: Say, lock: str | None
    ) -> None:
        self._fleet = fleet
        self._work = work
        self._store = store
        self._say = say
        self._cancelled = threading.Event()
        self._how = how
        self._remotes = remotes
        facts = work.facts
        self._place = Place(work.host.name, facts.fleet_root, facts.host_root, lock)

    def prepare(self) -> None:
        """Upload and install; nothing that runs notices."""
        self._deployment(self._watch(self._cancelled.is_set)).prepare()

    def deploy(self, signs: HostSigns) -> Deployed:
        """Change the host, and remember its state as good once all its workers are healthy."""
        watch = self._watch(self._cancelled.is_set)
        deployed = self._deployment(watch).carry_out(signs)
        if self._how.calculations is not Running.WHEN_IDLE:
            watch.ask("good", operation="keep")
        removed = [worker_uuid(self._fleet, name) for name in self._work.plan.workers_removed]
        self._store.registry.forget(removed)
        return deployed

    def revert(self) -> GoodState:
        """Put the host back to its last good state."""
        good = Reversal(self._place.host, self._watch(lambda: False), self._say).carry_out()
        self._store.control.note_releases(self._fleet.name, {self._place.host: good.release})
        return good

    def cancel(self) -> None:
        """Make what is being done give up soon."""
        self._cancelled.set()

    def _watch(self, cancelled: Callable[[], bool]) -> Watch:
        return Watch(
            place=self._place,
            update=self._fleet.update,
            remote=self._remotes[self._place.host],
            read_records=lambda: self._store.registry.workers(self._fleet.name),
            say=self._say,
            cancelled=cancelled,
        )

    def _deployment(self, watch: Watch) -> Deployment:
        return Deployment(
            fleet=self._fleet,
            work=self._work,
            remote=self._remotes[self._place.host],
            watch=watch,
            say=self._say,
            calculations=self._how.calculations,
        )


def deploy_hosts(
    fleet: Fleet,
    works: Sequence[HostWork],
    remotes: Remotes,
    store: Store,
    how: How,
    audience: Audience,
    lock: str | None = None,
) -> list[HostResult[Deployed]]:
    """Carry out the plans of hosts that have something to change.

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
    lock
        Token of the lock that is held on all of these hosts.

    Returns
    -------
    list of HostResult
        One for each host, in their order.

    Raises
    ------
    Interrupted
        On Ctrl-C.
    """
    parts = {
        work.host.name: HostPart(
            fleet=fleet, work=work, remotes=remotes, store=store, how=how, say=_teller(work, audience), lock=lock
        )
        for work in works
    }
    prepared = fan_out(parts, HostPart.prepare, how.parallel, lambda event: _tell(event, audience))
    fresh = frozenset(work.host.name for work in works if work.facts.current is None)
    rollout = Rollout(policy_of(fleet.update, len(works), fresh), list(parts))
    errors = {result.host: result.error for result in prepared if result.error is not None}
    for host, error in errors.items():
        rollout.failed(host, str(error).splitlines()[0], time.monotonic())
    results = Roller(rollout, parts, audience.finished).run()
    results = [_first_error(result, errors) for result in results]
    _leave_word(fleet, store, how, {work.host.name: work.release for work in works}, results)
    return results


def _teller(work: HostWork, audience: Audience) -> Say:
    return lambda what: audience.step(work.host.name, what)


def _tell(event: HostEvent[None], audience: Audience) -> None:
    if event.result is not None and event.result.error is not None:
        audience.finished(event.host, False)


def _first_error(result: HostResult[Deployed], errors: Mapping[str, Exception]) -> HostResult[Deployed]:
    """What failed in preparation is said in its own words."""
    error = errors.get(result.host)
    return result if error is None else HostResult(result.host, error=error, seconds=result.seconds)  # type: ignore[arg-type]  # a FleetError


def _leave_word(
    fleet: Fleet, store: Store, how: How, releases: Mapping[str, str], results: Sequence[HostResult[Deployed]]
) -> None:
    done = {result.host: releases[result.host] for result in results if result.ok}
    store.control.note_releases(fleet.name, done)
    detail = f"by {how.by}" if how.by else ""
    events = [
        (time.time(), Event("deployed", "", host, fleet.name, detail=f"release {release} {detail}".strip()))
        for host, release in done.items()
    ]
    if events:
        store.events.write(events)
