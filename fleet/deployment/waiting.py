"""Waiting for the workers of one host: until they have ended, until they are healthy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fleet.deployment import health
from fleet.deployment.gate import Gate, Look, Standing
from fleet.deployment.health import Health, WorkerHealth
from fleet.deployment.reports import Reports
from fleet.deployment.shared_records import ReadRecords
from fleet.errors import FleetError, RemoteError
from fleet.hosts.hostsfile import Update
from fleet.reach.execute import Say, ask, listen
from fleet.reach.facts import States
from fleet.reach.logs import messages_of, telling
from fleet.reach.probing import parse_states
from fleet.reach.remote import ConnectionLost, NotNow, Remote, UnreachableError
from fleet.reach.reply import Reader
from fleet.words import duration
from puffin.errors import DatabaseUnavailable
from puffin.records import WorkerRecord

Found = TypeVar("Found")

POLL_S = 1.0
_LOOK_S = 8.0
"""How long a host is left alone while not all of its workers have reported: a look costs it a process.

supervisord gives up on a program that ends at once after some seven seconds.
"""

_LONGEST_PROOF_S = 15.0
_LOG_LINES = 15
_LISTEN_S = 30.0
LONGEST_TROUBLE_S = 120.0
_LONGEST_PAUSE_S = 5.0
_PASSING = (ConnectionLost, UnreachableError, NotNow)
"""What is no reason to give up before it has lasted."""


class Cancelled(FleetError):
    """The host was told to give up what was being done on it."""


@dataclass(frozen=True)
class WatchedHost:
    """A host to be watched.

    Parameters
    ----------
    host
        Its name.
    fleet_root, host_root
        Its directories.
    lock
        Token of the lock that is held on it; None where none is.
    """

    host: str
    fleet_root: str
    host_root: str
    lock: str | None = None


@dataclass(frozen=True)
class Expected:
    """What the workers of a host shall run.

    Parameters
    ----------
    release
        Id of the release.
    configurations
        By worker, the hash of its settings.
    stopped
        Workers that stay stopped.
    leaving
        By worker, the process that has to make room for another.
    """

    release: str
    configurations: Mapping[str, str]
    stopped: frozenset[str] = frozenset()
    leaving: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Supervised:
    """A host whose supervisord runs.

    Parameters
    ----------
    states
        What the host says afterwards.
    pending
        Programs that could not be changed or taken out yet, since they run.
    """

    states: States
    pending: tuple[str, ...]


class Watch:
    """Looks at one host again and again; a connection or database that fails for a while is no reason to give up.

    Parameters
    ----------
    place
        The host.
    update
        How long things may take.
    remote
        The connection to it.
    read_records
        Reads what the workers of the fleet reported.
    say
        Told what is being waited for.
    cancelled
        Says whether to give up.
    patience
        For how long a connection or database may fail, in seconds; None for `update.progress_deadline`, after which the
        rollout gives the host up.
    """

    def __init__(
        self,
        *,
        place: WatchedHost,
        update: Update,
        remote: Remote,
        read_records: ReadRecords,
        say: Say,
        cancelled: Callable[[], bool] = lambda: False,
        patience: float | None = None,
    ) -> None:
        self._place = place
        self._update = update
        self._remote = remote
        self._reports = Reports(place.host, read_records)
        self._say = say
        self._cancelled = cancelled
        # To give up early would put the host back, which needs the connection and the database as well.
        self._patience = max(LONGEST_TROUBLE_S, update.progress_deadline) if patience is None else patience

    def ask(self, action: str, timeout: float = 120.0, **request: Any) -> dict[str, Any]:
        """Do an action of `fleet.hostside` on the host; again where it cannot be reached for a while.

        The host may have done it by then: every action asked for here may be done twice.

        Raises
        ------
        RemoteError
            The host cannot be reached, or cannot do it.
        Cancelled
            The host was told to give up.
        """
        self.check()
        return self._insist(lambda: self._ask(action, request, timeout), _PASSING)

    def _ask(self, action: str, request: Mapping[str, Any], timeout: float = 120.0) -> dict[str, Any]:
        place = self._place
        known = {"fleet_root": place.fleet_root, "host_root": place.host_root, "lock": place.lock}
        return ask(self._remote, action, {**known, **request}, timeout)

    def check(self) -> None:
        """Give up where that was asked for.

        Raises
        ------
        Cancelled
            It was.
        """
        if self._cancelled():
            raise Cancelled(f"{self._place.host}: given up")

    def states(self, words: Sequence[str] = ()) -> States:
        """The present states of the host's workers.

        Parameters
        ----------
        words
            Workers whose last words are wanted as well.
        """
        self.check()
        return self._insist(lambda: self._states_in(self._ask("states", {"words": list(words)})), _PASSING)

    def supervise(self, **request: Any) -> Supervised:
        """Have supervisord run with the programs that its configuration names.

        Parameters
        ----------
        request
            As `fleet.hostside.supervise` wants it.
        """

        def attempt() -> Supervised:
            reply = self._ask("supervise", request)
            pending = Reader(self._place.host, "", reply).items("pending")
            return Supervised(self._states_in(reply), tuple(item.text("name") for item in pending))

        self.check()
        return self._insist(attempt, _PASSING)

    def _states_in(self, reply: Mapping[str, Any]) -> States:
        """What a host says of its workers; where its supervisord is silent for a moment, it says nothing of them."""
        states = parse_states(self._place.host, reply)
        if states.supervisord.silent:
            what = f"supervisord does not answer: {states.supervisord.problem}"
            hint = f"look at log/supervisord.log there; if it hangs, end process {states.supervisord.pid}"
            raise NotNow(self._place.host, "looking at its workers", what, hint)
        return states

    def records(self) -> list[WorkerRecord]:
        """What the workers of the host reported."""
        return self._insist(self._reports.read, (DatabaseUnavailable,))

    def end(
        self,
        workers: Sequence[str],
        *,
        now: bool = False,
        beside: Expected | None = None,
        on_look: Callable[[Look], None] = lambda _: None,
    ) -> States:
        """Have workers end, and wait until they have.

        By signal, not by stop file: one left behind by a deploy that was cut off would keep them down for good.
        And not by supervisord's own stop, which kills when a time is over.

        Parameters
        ----------
        workers
            Their names.
        now
            Whether they give their calculations back instead of finishing them.
        beside
            What others shall run meanwhile; they are looked at as well, since this may take days.
        on_look
            Told what each look found.

        Returns
        -------
        States
            The states at the end.

        Raises
        ------
        RemoteError
            They took longer than `update.drain_timeout`, or a worker beside them failed.
        """
        gate = Gate(self._update, time.monotonic())
        begun = time.monotonic()
        deadline = begun + self._update.drain_timeout
        states, told = self.states(), set[int]()
        while left := running(states, workers):
            if time.monotonic() > deadline:
                what = f"{', '.join(left)} did not finish within update.drain_timeout"
                raise RemoteError(self._place.host, "draining", what, "deploy again to go on waiting")
            # A process that was just starting dies of a signal before it can obey it, and gets a successor.
            pids = {program.pid for program in states.supervisord.programs if program.name in left and program.pid}
            if pids - told:
                told |= pids
                order = {"operation": "signal", "signal": "QUIT"} if now else {"operation": "end"}
                self.ask("control", operations=[{**order, "workers": left}])
            why = f"waiting for {', '.join(left)} to finish"
            self._say(why)
            others = self._look_beside(beside, gate, states)
            computing = not now and (others.computing or others.standing is Standing.PASSED)
            on_look(Look(Standing.WAIT, others.proven, computing, why=why))
            self._pause(begun)
            states = self.states()
        return states

    def wait_until_healthy(
        self, wanted: Expected, on_look: Callable[[Look], None] = lambda _: None, states: States | None = None
    ) -> tuple[WorkerHealth, ...]:
        """Wait until all workers run what they shall, in good health for long enough.

        Parameters
        ----------
        wanted
            What they shall run.
        on_look
            Told what each look found, and when all have reported.
        states
            What the host says of them now; None: it is asked.

        Returns
        -------
        tuple[WorkerHealth, ...]
            The workers as they were at the end.

        Raises
        ------
        RemoteError
            A worker failed or took too long; the message has the last lines of its log.
        """
        changing_since = time.monotonic()
        gate = Gate(self._update, changing_since)
        while True:
            workers = self._judge(wanted, gate, states or self.states(gate.slow(time.monotonic())))
            look = gate.look(workers, time.monotonic(), self._up_since(wanted))
            on_look(look)
            self._refuse_failed(look)
            if look.standing is Standing.PASSED:
                return workers
            self._say(look.why)
            if not look.computing:
                changing_since = time.monotonic()
            self._await_news(wanted, changing_since, look.passes_at, on_look)
            states = None

    def _look_beside(self, beside: Expected | None, gate: Gate, states: States) -> Look:
        if beside is None or not beside.configurations:
            return Look(Standing.PASSED)
        look = gate.look(self._judge(beside, gate, states), time.monotonic(), self._up_since(beside))
        self._refuse_failed(look)
        return look

    def _refuse_failed(self, look: Look) -> None:
        if look.standing is Standing.FAILED:
            hint = self._last_lines(look.failed[0].worker)
            raise RemoteError(self._place.host, "waiting for workers", look.why, hint)

    def _judge(self, wanted: Expected, gate: Gate, states: States) -> tuple[WorkerHealth, ...]:
        # supervisord gives up only on those that end at once; one that dies after seconds is started for ever.
        pids = {program.name: program.pid for program in states.supervisord.programs if program.pid}
        gate.saw(pids)
        found = health.judge(wanted.configurations, wanted.release, states, self.records(), gate.looping)
        there = {worker for worker, pid in wanted.leaving.items() if pids.get(worker) == pid}
        found = tuple(_as_leaving(one) if one.worker in there else one for one in found)
        return tuple(_as_stopped(one) if one.worker in wanted.stopped else one for one in found)

    def _up_since(self, wanted: Expected) -> dict[str, float]:
        return self._reports.up_since(wanted.release, wanted.configurations, wanted.leaving)

    def _await_news(
        self, wanted: Expected, since: float, passes_at: float | None, on_look: Callable[[Look], None]
    ) -> None:
        """Wait until it is time to look at the host itself.

        What the workers reported is asked of the database once for all hosts; a look costs the host a process. Once
        all have said that they run what they shall, a look decides nothing before they have done so for long enough:
        one that dies meanwhile is then seen in another process.
        """
        begun = time.monotonic()
        pause = min(_LONGEST_PAUSE_S, POLL_S + (begun - since) / 60)
        if passes_at is not None:
            until = min(passes_at, begun + _LONGEST_PROOF_S)
        elif self._all_up(wanted):
            until = begun + pause  # it is supervisord that does not call them RUNNING yet
        else:
            until = begun + min(_LOOK_S, self._update.progress_deadline / 2)
        known = self._reports.statements
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, pause))
            self.check()
            self.records()
            if self._reports.statements == known:
                continue
            if passes_at is not None:
                return
            known = self._reports.statements
            if self._all_up(wanted):
                why = "all workers have reported; in good health so far"
                self._say(why)
                on_look(Look(Standing.WAIT, why=why))
                passes_at = max(self._up_since(wanted).values(), default=begun) + self._update.min_healthy_time
                until = min(passes_at, begun + _LONGEST_PROOF_S)

    def _all_up(self, wanted: Expected) -> bool:
        up = self._up_since(wanted)
        return all(worker in up for worker in wanted.configurations if worker not in wanted.stopped)

    def _insist(self, attempt: Callable[[], Found], troubles: tuple[type[Exception], ...]) -> Found:
        give_up: float | None = None
        while True:
            try:
                return attempt()
            except troubles as error:
                if give_up is None:  # counted from the first trouble: the attempt itself may have taken long
                    give_up = time.monotonic() + self._patience
                elif time.monotonic() > give_up:
                    raise
                self._say(f"trying again, for {duration(self._patience)} at most: {getattr(error, 'what', error)}")
                self._pause()

    def _pause(self, since: float | None = None) -> None:
        """Wait a little; longer where that goes on for long, since every look costs the host a process."""
        waited = 0.0 if since is None else time.monotonic() - since
        time.sleep(min(_LONGEST_PAUSE_S, POLL_S + waited / 60))
        self.check()

    def _last_lines(self, worker: str) -> str:
        request = {"host_root": self._place.host_root, "workers": [worker], "lines": _LOG_LINES * 4, "follow": False}
        # Where that fails, what the worker failed of is known all the same, and must not give way to it.
        entries, complete = listen(self._remote, "tail", request, _LISTEN_S)
        lines = telling([line for entry in entries for line in messages_of(self._place.host, entry)], _LOG_LINES)
        if not lines:
            why = "is empty" if complete else "could not be read"
            return f"its log {why}; see 'puffin-fleet logs --host {self._place.host}'"
        return "last lines of its log:\n    " + "\n    ".join(lines)


def running(states: States, workers: Sequence[str]) -> list[str]:
    """Those of some workers that supervisord has not seen end, or that have outlived it.

    Parameters
    ----------
    states
        What the host says.
    workers
        The workers.
    """
    alive = [program.name for program in states.supervisord.programs if program.alive]
    return [name for name in dict.fromkeys([*alive, *states.pids]) if name in workers]


def _as_stopped(worker: WorkerHealth) -> WorkerHealth:
    return WorkerHealth(worker.worker, Health.STOPPED, "stopped on purpose")


def _as_leaving(worker: WorkerHealth) -> WorkerHealth:
    if worker.health is Health.DRAINING:
        return worker
    return WorkerHealth(worker.worker, Health.STARTING, "about to start again")
