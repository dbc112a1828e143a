"""Stops and starts the workers of one host, and waits until they have ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.deployment.workerfiles import named_like_ours
from fleet.errors import RemoteError
from fleet.hosts.inventory import Fleet, Host
from fleet.operation.reported import Reported
from fleet.reach.execute import DEFAULT_TIMEOUT, Say, ask
from fleet.reach.facts import Drained, States
from fleet.reach.probing import parse_states
from fleet.reach.remote import ConnectionLost, Remote, UnreachableError
from fleet.reach.reply import Reader

_POLL_S = 0.5
_SLOWEST_POLL_S = 5.0
_LONGEST_TROUBLE_S = 120.0
_SHORTEST_LOOK_S = 2.0
"""What a look at a host may take, however little is left of the time to wait."""


@dataclass(frozen=True)
class StopOptions:
    """How to stop.

    Parameters
    ----------
    now
        Whether running calculations are given back instead of finished.
    wait
        Whether to wait until the workers have ended.
    timeout_s
        For how long to wait, in seconds; None for as long as it takes.
    supervisord
        Whether supervisord ends as well once its workers have.
    workers
        Patterns of the workers to stop; none for the whole host.
    drain
        Who drains the host, and why; None where it is only stopped.
    """

    now: bool = False
    wait: bool = True
    timeout_s: float | None = None
    supervisord: bool = False
    workers: tuple[str, ...] = ()
    drain: tuple[str, str] | None = None


@dataclass(frozen=True)
class ToldHost:
    """A host that was told to stop: where it keeps its things, and the workers that ran then.

    Parameters
    ----------
    host_root
        Its directory.
    running
        The workers that were told and ran then.
    deployed
        Whether there is anything at all.
    matched
        Whether it has any of the workers that were to stop, or is drained before its first deploy.
    changed
        Whether it was not told so before.
    """

    host_root: str
    running: tuple[str, ...]
    deployed: bool = True
    matched: bool = True
    changed: bool = True


@dataclass(frozen=True)
class Stopped:
    """A host that was told to stop, and the workers of it that still run.

    Parameters
    ----------
    running
        These workers.
    by_database
        Whether it could not be told by SSH, and its workers read the order in the database.
    deployed
        Whether there is anything at all.
    matched
        Whether it has any of the workers that were to stop, or is drained before its first deploy.
    trouble
        Why it could not be reached, or could not be any more; empty where it was.
    changed
        Whether it was not told so before.
    """

    running: tuple[str, ...]
    by_database: bool = False
    deployed: bool = True
    matched: bool = True
    trouble: str = ""
    changed: bool = True


@dataclass(frozen=True)
class Started:
    """A host that was told to start.

    Parameters
    ----------
    running
        The workers that run now.
    drained
        Who keeps it out of the fleet; nothing was started then. None where nobody does.
    matched
        Whether it has any of the workers that were to start.
    starting
        Those of the workers that have only just been started.
    ending
        Those of them that were told to end before, and cannot be told otherwise.
    """

    running: tuple[str, ...]
    drained: Drained | None = None
    matched: bool = True
    starting: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()


class HostControl:
    """Stops and starts one host.

    Parameters
    ----------
    fleet
        The fleet.
    host
        The host.
    remote
        The connection to it.
    say
        Told what is being done.
    reported
        What its workers told the database; None where that does not matter.
    patience_s
        For how long a host that was told may be out of reach before that is an error, in seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        host: Host,
        remote: Remote,
        say: Say,
        reported: Reported | None = None,
        patience_s: float = _LONGEST_TROUBLE_S,
    ) -> None:
        self._fleet = fleet
        self._host = host
        self._remote = remote
        self._say = say
        self._reported = reported
        self._patience_s = patience_s

    def connect(self) -> None:
        """Make the connection, and nothing else.

        Raises
        ------
        RemoteError
            The host cannot be reached.
        """
        self._remote.connect()

    def tell(self, how: StopOptions) -> ToldHost:
        """Write the stop file, so that the workers end when their jobs are done and stay down; one round trip.

        Parameters
        ----------
        how
            How to stop.

        Returns
        -------
        ToldHost
            The workers that still run; none where nothing was ever deployed.

        Raises
        ------
        RemoteError
            The host cannot be reached.
        """
        drain = None if how.drain is None else {"who": how.drain[0], "why": how.drain[1]}
        request = {"patterns": list(how.workers) or None, "now": how.now, "drain": drain}
        reply = self._ask("halt", request)
        reader = Reader(self._host.name, "", reply)
        deployed = reader.flag("deployed")
        running = self._running(parse_states(self._host.name, reply)) if deployed else ()
        told = reader.texts("told")
        mine = running if "*" in told else tuple(name for name in running if name in told)
        return ToldHost(reader.text("host_root"), mine, deployed, bool(told), reader.flag("changed"))

    def see_off(self, told: ToldHost, how: StopOptions) -> Stopped:
        """Wait until workers that were told to stop have ended, or the time is over.

        At its end those still run that did when the host was last seen.

        Parameters
        ----------
        told
            What :meth:`tell` returned.
        how
            How to stop.

        Raises
        ------
        RemoteError
            The host cannot be reached any more.
        """
        running, trouble = told.running, ""
        if how.wait:
            running, trouble = self._wait_until_ended(told, how.timeout_s)
        if how.wait and how.supervisord and told.deployed and not running:
            operations = [{"operation": "shutdown", "workers": None}]
            ask(self._remote, "control", {"host_root": told.host_root, "operations": operations})
        return Stopped(running, deployed=told.deployed, matched=told.matched, trouble=trouble, changed=told.changed)

    def start(self, workers: Sequence[str] = (), resume: bool = False) -> Started:
        """Remove the stop files and start the workers, supervisord included; one round trip.

        Parameters
        ----------
        workers
            Patterns of the workers to start; none for all.
        resume
            Whether to start a host that is drained.

        Raises
        ------
        RemoteError
            The host cannot be reached, or nothing is deployed there.
        """
        self._say("asking for its workers to be started")
        reply = self._ask("begin", {"patterns": list(workers) or None, "resume": resume, "only_look": False})
        reader = Reader(self._host.name, "", reply)
        refused, resumed = reader.flag("refused"), reader.flag("resumed")
        if not (reader.flag("deployed") or refused or resumed):
            hint = "run 'puffin-fleet deploy' first"
            raise RemoteError(self._host.name, "looking", "nothing is deployed there", hint)
        states = parse_states(self._host.name, reply)
        matched = bool(reader.texts("told")) or refused or resumed
        running = self._running(states)
        begun = {program.name for program in states.supervisord.programs if program.state == "STARTING"}
        return Started(
            running,
            states.drained if refused else None,
            matched,
            starting=tuple(name for name in running if name in begun),
            ending=tuple(name for name in running if name in states.ending),
        )

    def has_any(self, workers: Sequence[str]) -> bool | None:
        """Whether the host has any of some workers; None where nothing is deployed. Changes nothing; one round trip.

        Parameters
        ----------
        workers
            Patterns of their names.

        Raises
        ------
        RemoteError
            The host cannot be reached.
        """
        reply = self._ask("begin", {"patterns": list(workers), "resume": False, "only_look": True})
        reader = Reader(self._host.name, "", reply)
        return bool(reader.texts("told")) if reader.flag("deployed") else None

    def _ask(self, action: str, request: Mapping[str, Any]) -> dict[str, Any]:
        host = self._host
        place = {"base_dir": host.base_dir, "fleet": self._fleet.name, "host": host.name}
        return ask(self._remote, action, {**place, **request})

    def _wait_until_ended(self, told: ToldHost, timeout_s: float | None) -> tuple[tuple[str, ...], str]:
        """The workers that still run at the end of the time, and why nothing newer is known of them."""
        deadline = deadline_after(timeout_s)
        running, pause = told.running, _POLL_S
        while running and time.monotonic() < deadline:
            self._say(f"waiting for {self._doing(running)}")
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.2, _SLOWEST_POLL_S)
            try:
                left = self._running(self._states(told, deadline))
            except (ConnectionLost, UnreachableError) as error:
                if time.monotonic() < deadline:
                    raise
                return self._not_reported_ended(running), error.what
            running = tuple(name for name in running if name in left)
        return running, ""

    def _not_reported_ended(self, workers: Sequence[str]) -> tuple[str, ...]:
        """What is known of workers without their host: those that told the database that they have ended have."""
        if self._reported is None:
            return tuple(workers)
        left = self._reported.left(self._host.name)
        ended = {record.worker for record in self._reported.of(self._host.name) if record not in left}
        return tuple(name for name in workers if name not in ended)

    def _doing(self, workers: Sequence[str]) -> str:
        return self._reported.doing(self._host.name, workers) if self._reported else ", ".join(workers)

    def _states(self, told: ToldHost, deadline: float) -> States:
        """The present states; a connection that fails for a while is no reason to give up a wait."""
        give_up = min(time.monotonic() + self._patience_s, deadline)
        request = {"host_root": told.host_root}
        while True:
            patience = min(DEFAULT_TIMEOUT, max(_SHORTEST_LOOK_S, deadline - time.monotonic()))
            try:
                return parse_states(self._host.name, ask(self._remote, "states", request, patience))
            except (ConnectionLost, UnreachableError) as error:
                if time.monotonic() + _POLL_S > give_up:
                    time.sleep(max(0.0, give_up - time.monotonic()))
                    raise
                self._say(f"connecting again: {error.what}")
                time.sleep(_POLL_S)

    def _running(self, states: States) -> tuple[str, ...]:
        """Workers that live, as supervisord sees it or, where it does not run, as their locks show."""
        programs = {program.name for program in states.supervisord.programs if program.alive}
        # Others may have put programs of their own beside them.
        ours = {name for name in programs if named_like_ours(name, self._host.name)}
        return tuple(sorted(ours | set(states.pids)))


def deadline_after(timeout_s: float | None) -> float:
    """When a time is over, by this machine's monotonic clock; never, where there is none."""
    return float("inf") if timeout_s is None else time.monotonic() + timeout_s
