"""Stops and starts the workers of hosts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet.deployment.plan import named_like_ours
from fleet.errors import FleetError, RemoteError
from fleet.hosts.inventory import Fleet, Host
from fleet.operation.reported import Reported
from fleet.reach.execute import DEFAULT_TIMEOUT, Audience, Say, ask, fan_out
from fleet.reach.facts import Drained, States, parse_states
from fleet.reach.remote import ConnectionLost, HostResult, Remote, UnreachableError
from fleet.reach.reply import Reader
from puffin.errors import DatabaseError

_POLL_S = 0.5
_SLOWEST_POLL_S = 5.0
_LONGEST_TROUBLE_S = 120.0
_SHORTEST_LOOK_S = 2.0
"""What a look at a host may take, however little is left of the time to wait."""

_TOLD_AT_A_TIME = 64
_GATHER_S = 3.0
"""How long hosts that are connected wait for the others, so that all are told at the same moment."""


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
    """

    running: tuple[str, ...]
    drained: Drained | None = None
    matched: bool = True


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
        ToldHost what is being done.
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
        self._say("starting workers")
        reply = self._ask("begin", {"patterns": list(workers) or None, "resume": resume})
        reader = Reader(self._host.name, "", reply)
        refused, resumed = reader.flag("refused"), reader.flag("resumed")
        if not (reader.flag("deployed") or refused or resumed):
            hint = "run 'puffin-fleet deploy' first"
            raise RemoteError(self._host.name, "looking", "nothing is deployed there", hint)
        states = parse_states(self._host.name, reply)
        matched = bool(reader.texts("told")) or refused or resumed
        return Started(self._running(states), states.drained if refused else None, matched)

    def _ask(self, action: str, request: Mapping[str, Any]) -> dict[str, Any]:
        host = self._host
        place = {"base_dir": host.base_dir, "fleet": self._fleet.name, "host": host.name}
        return ask(self._remote, action, {**place, **request})

    def _wait_until_ended(self, told: ToldHost, timeout_s: float | None) -> tuple[tuple[str, ...], str]:
        """The workers that still run at the end of the time, and why nothing newer is known of them."""
        deadline = _deadline(timeout_s)
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


def stop_hosts(
    controls: Mapping[str, HostControl],
    how: StopOptions,
    reported: Reported,
    audience: Audience,
    parallel: int = _TOLD_AT_A_TIME,
    order: Callable[[], None] | None = None,
) -> tuple[list[HostResult[Stopped]], DatabaseError | None]:
    """Tell all hosts before waiting for any: the last must not go on taking work while the first one finishes.

    Parameters
    ----------
    controls
        By host.
    how
        How to stop.
    reported
        What workers told the database.
    audience
        ToldHost how it goes.
    parallel
        Hosts told at a time.
    order
        Leaves the order in the database too; None where that is not wanted.

    Returns
    -------
    tuple[list of HostResult, DatabaseError or None]
        One result for each host; why the order could not be left in the database.

    Raises
    ------
    Interrupted
        On Ctrl-C.
    """
    ordering = _InBackground(order)
    told = _tell_together(controls, how, parallel)
    problem = ordering.result()
    ordered = order is not None and problem is None
    first = {result.host: result for result in told}
    deadline = _deadline(how.timeout_s)

    def by_report(host: str, error: FleetError) -> Stopped:
        return _see_off_by_report(host, reported, deadline, error, lambda what: audience.step(host, what))

    def see_off(host: str) -> Stopped:
        result = first[host]
        if result.value is not None:
            changed = result.value.changed
            follow = (lambda error: replace(by_report(host, error), changed=changed)) if ordered else None
            return _see_off(controls[host], result.value, how, follow)
        assert result.error is not None  # noqa: S101 - there is either
        if not ordered:
            raise result.error
        if not how.wait:
            raise _left_word(result.error, bool(reported.left(host)))
        return replace(by_report(host, result.error), by_database=True)

    ended = fan_out(
        {host: host for host in controls},
        see_off,
        max(1, len(controls)),
        lambda event: audience.finished(event.host, event.result.ok) if event.result else None,
    )
    return ended, problem


def _see_off(
    control: HostControl, told: ToldHost, how: StopOptions, by_report: Callable[[FleetError], Stopped] | None
) -> Stopped:
    """Wait as long as the host can be reached, then by what its workers report: a power cut takes hosts away, too."""
    try:
        return control.see_off(told, how)
    except (ConnectionLost, UnreachableError) as error:
        if by_report is None or how.supervisord:  # that supervisord has ended nobody reports
            raise
        return by_report(error)


def _tell_together(controls: Mapping[str, HostControl], how: StopOptions, parallel: int) -> list[HostResult[ToldHost]]:
    """Connect to all hosts before the first is told, so that all are told at the same moment."""
    gathering = _Gathering(min(parallel, len(controls)))

    def tell(control: HostControl) -> ToldHost:
        try:
            control.connect()
        finally:
            gathering.arrived()
        gathering.wait()
        return control.tell(how)

    return fan_out(dict(controls), tell, parallel)


class _Gathering:
    """Waits until all are there, but not for those that take long: a power cut waits for nobody."""

    def __init__(self, expected: int) -> None:
        self._deadline = time.monotonic() + _GATHER_S
        self._missing = expected
        self._changed = threading.Condition()

    def arrived(self) -> None:
        with self._changed:
            self._missing -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            while self._missing > 0 and (left := self._deadline - time.monotonic()) > 0:
                self._changed.wait(left)


class _InBackground:
    """Leaves the order in the database meanwhile: one that is away must not hold up the hosts."""

    def __init__(self, order: Callable[[], None] | None) -> None:
        self._order = order
        self._problem: DatabaseError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._order is not None:
                self._order()
        except DatabaseError as error:
            self._problem = error

    def result(self) -> DatabaseError | None:
        self._thread.join()
        return self._problem


def _deadline(timeout_s: float | None) -> float:
    return float("inf") if timeout_s is None else time.monotonic() + timeout_s


def _see_off_by_report(host: str, reported: Reported, deadline: float, error: FleetError, say: Say) -> Stopped:
    """Wait for the workers of a host that cannot be reached: they read the order in the database, within 75 s."""
    if not reported.of(host):
        raise error
    changed = bool(reported.left(host))
    while left := reported.left(host):
        known = [record.worker for record in left if not reported.lost(record)]
        if not known:
            names = ", ".join(record.worker for record in left)
            raise _silent(error, names)
        if time.monotonic() >= deadline:
            return Stopped(tuple(known), trouble=_what(error), changed=changed)
        say(f"cannot be reached; told through the database, waiting for {reported.doing(host, known)}")
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
    return Stopped((), trouble=_what(error), changed=changed)


def _what(error: FleetError) -> str:
    return error.what if isinstance(error, RemoteError) else str(error)


def _silent(error: FleetError, names: str) -> FleetError:
    do = "do" if "," in names else "does"
    return _with_hint(error, f"{names} {do} not report to the database either; the order stands there for later")


def _left_word(error: FleetError, some_work: bool) -> FleetError:
    """Nobody waits to see whether the order is read."""
    return _with_hint(error, "its workers read the stop in the database within 75 s") if some_work else error


def _with_hint(error: FleetError, hint: str) -> FleetError:
    if not isinstance(error, RemoteError):
        return error
    return RemoteError(error.host, error.step, error.what, "\n  ".join(filter(None, (error.hint, hint))))
