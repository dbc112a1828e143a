"""Starts the workers of hosts anew: as a deploy changes them, a few hosts at a time, but with nothing changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from fleet.deployment.deed import Deed
from fleet.deployment.health import WorkerHealth
from fleet.deployment.host_deploy import Deployed
from fleet.deployment.lock import Lock, LockTarget, hold, outcome_of
from fleet.deployment.manner import Manner
from fleet.deployment.revert import GoodState
from fleet.deployment.roller import HostSigns, Roller
from fleet.deployment.rollout import Rollout, policy_of
from fleet.deployment.shared_records import ReadRecords, shared
from fleet.deployment.waiting import Expected, Watch, WatchedHost
from fleet.errors import RemoteError
from fleet.hosts.access import Remotes
from fleet.hosts.inventory import Fleet
from fleet.reach.execute import Audience, HostEvent, Say, fan_out, say_for
from fleet.reach.facts import Facts
from fleet.reach.remote import HostResult
from puffin.store import Store

_ATTEMPTS_OF_ALL = 64


@dataclass(frozen=True)
class RestartOptions:
    """How a restart goes.

    Parameters
    ----------
    deed
        The command, for the notes.
    manner
        Whether hosts wait for one another, whether calculations are waited for.
    workers
        Patterns of the workers; none for all.
    lock_timeout_s
        How long to wait for somebody else who changes the same hosts, in seconds.
    """

    deed: Deed
    manner: Manner = Manner.ROLLING
    workers: tuple[str, ...] = ()
    lock_timeout_s: float = 0.0


class HostRestart:
    """One host's part.

    Parameters
    ----------
    fleet
        The fleet.
    facts
        The host as it was found.
    remotes
        Connections.
    read_records
        Reads what the workers of the fleet reported.
    how
        How the restart goes.
    say
        Told what is being done.
    lock
        Token of the lock that is held on the host.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        facts: Facts,
        remotes: Remotes,
        read_records: ReadRecords,
        how: RestartOptions,
        say: Say,
        lock: str | None,
    ) -> None:
        self._facts = facts
        self._how = how
        self._say = say
        self._cancelled = threading.Event()
        self._watch = Watch(
            place=WatchedHost(facts.host, facts.fleet_root, facts.host_root, lock),
            update=fleet.update,
            remote=remotes[facts.host],
            read_records=read_records,
            say=say,
            cancelled=self._cancelled.is_set,
        )

    def deploy(self, signs: HostSigns) -> Deployed:
        """Restart the workers and wait until all are healthy again."""
        started = time.monotonic()
        chosen, up = self._chosen(), self._up()
        if not chosen:
            return Deployed(False)
        self._say("restarting workers")
        if self._how.manner is Manner.NOW:
            self._now(up)
        else:
            self._operate({"operation": "recycle", "workers": list(up)})
        self._start_those_down()
        if self._how.manner is Manner.WHEN_IDLE:
            return Deployed(True, pending=tuple(up), awaited=False, seconds=time.monotonic() - started)
        workers = self._wait(chosen, up, signs)
        return Deployed(True, workers, seconds=time.monotonic() - started)

    def revert(self) -> GoodState:
        """Nothing was changed, so there is nothing to go back to."""
        raise RemoteError(self._facts.host, "rollout", "a restart changes nothing that could be put back")

    def cancel(self) -> None:
        """Make what is being done give up soon."""
        self._cancelled.set()

    def _chosen(self) -> list[str]:
        """The workers that are meant to run, as far as they are asked for."""
        patterns = self._how.workers or ("*",)
        return [
            name
            for name in _configurations(self._facts)
            if any(fnmatchcase(name, pattern) for pattern in patterns)
            and not self._facts.stop
            and name not in self._facts.stopped
        ]

    def _up(self) -> dict[str, int]:
        chosen = frozenset(self._chosen())
        programs = self._facts.supervisord.programs
        return {one.name: one.pid for one in programs if one.name in chosen and one.alive}

    def _now(self, up: Mapping[str, int]) -> None:
        """They end as asked to, so supervisord does not start them again by itself."""
        if up:
            # An earlier restart that waited for idle workers has been overtaken: they would start twice.
            self._operate({"operation": "clear_recycle", "workers": list(up)})
            self._watch.end(list(up), now=True)
            self._operate({"operation": "start", "workers": list(up)})

    def _start_those_down(self) -> None:
        """Also what crashed or was quarantined, and supervisord where it does not run."""
        down = [name for name in self._chosen() if name not in self._up()]
        if down:
            if not self._facts.supervisord.reachable:
                self._watch.ask("supervise")
            self._operate({"operation": "start", "workers": down})

    def _wait(self, chosen: Sequence[str], up: Mapping[str, int], signs: HostSigns) -> tuple[WorkerHealth, ...]:
        configurations = {name: digest for name, digest in _configurations(self._facts).items() if name in chosen}
        wanted = Expected(self._facts.current or "", configurations, leaving=up)
        return self._watch.wait_until_healthy(wanted, signs.looked)

    def _operate(self, operation: dict[str, Any]) -> None:
        if operation["workers"]:
            self._watch.ask("control", operations=[operation])


def _configurations(facts: Facts) -> dict[str, str]:
    """The workers that the last deploy wrote settings for, with the hash that they report."""
    prefix, suffix = "etc/workers/", ".yaml"
    return {
        file.path[len(prefix) : -len(suffix)]: file.sha256[:12]
        for file in facts.files
        if file.path.startswith(prefix) and file.path.endswith(suffix)
    }


def workers_of(facts: Facts) -> tuple[str, ...]:
    """The workers of a host, as its last deploy wrote them.

    Parameters
    ----------
    facts
        The host as it was found.
    """
    return tuple(_configurations(facts))


def restart_hosts(
    fleet: Fleet, found: Sequence[Facts], remotes: Remotes, store: Store, how: RestartOptions, audience: Audience
) -> list[HostResult[Deployed]]:
    """Restart the workers of hosts, under their lock.

    Parameters
    ----------
    fleet
        The fleet.
    found
        The hosts as they were found, in the order in which they begin.
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
    Interrupted
        On Ctrl-C.
    """
    read_records = shared(lambda: store.registry.workers(fleet.name, brief=True))
    targets = {facts.host: LockTarget(facts.host_root, facts.lock.serial) for facts in found}
    with hold(remotes, targets, how.deed, how.lock_timeout_s, _ATTEMPTS_OF_ALL, say_for(audience)) as lock:
        parts = {
            facts.host: HostRestart(
                fleet=fleet,
                facts=facts,
                remotes=remotes,
                read_records=read_records,
                how=how,
                say=say_for(audience, facts.host),
                lock=lock.token,
            )
            for facts in found
        }
        results = _carry_out(fleet, parts, lock, how, audience)
        for result in results:
            lock.conclude(result.host, outcome_of(result.error))
    return results


def _carry_out(
    fleet: Fleet, parts: Mapping[str, HostRestart], lock: Lock, how: RestartOptions, audience: Audience
) -> list[HostResult[Deployed]]:
    if how.manner is not Manner.ROLLING:

        def act(host: str) -> Deployed:
            if host in lock.failed:
                raise lock.failed[host]
            return parts[host].deploy(HostSigns(host, lambda _: None))

        return fan_out({host: host for host in parts}, act, len(parts), lambda event: _tell(event, audience))
    # Nothing new has to prove itself, and nothing could be put back; a host whose workers compute holds up no one.
    policy = replace(policy_of(fleet.update, len(parts)), canary=0, auto_revert=False)
    rollout = Rollout(policy, list(parts))
    for host, error in lock.failed.items():
        rollout.failed(host, str(error).partition("\n")[0], time.monotonic())
    results = Roller(rollout, parts, audience.finished).run()
    return [
        HostResult(one.host, error=lock.failed[one.host], seconds=one.seconds) if one.host in lock.failed else one
        for one in results
    ]


def _tell(event: HostEvent[Deployed], audience: Audience) -> None:
    if event.result is not None:
        audience.finished(event.host, event.result.ok)
