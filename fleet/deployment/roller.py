"""Drives a rollout: does what the state machine says, each host in a thread of its own, and tells it what happened."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from fleet.deployment.gate import Look
from fleet.deployment.host_deploy import Deployed
from fleet.deployment.revert import GoodState
from fleet.deployment.rollout import Instruction, Order, Rollout, Stage
from fleet.errors import FleetError, RemoteError
from fleet.reach.execute import INTERRUPTED, Interrupted, as_fleet_error
from fleet.reach.remote import HostResult


class Part(Protocol):
    """One host's part of a rollout."""

    def deploy(self, signs: HostSigns) -> Deployed:
        """Bring the host to what it should be."""

    def revert(self) -> GoodState:
        """Put it back."""

    def cancel(self) -> None:
        """Make `deploy` give up soon."""


class PutBack(RemoteError):
    """A host on which, or after which, the rollout failed; it runs its last good state again, of this `release`."""

    release = ""


class NotPutBack(RemoteError):
    """A host that was just being put back when the rollout was interrupted."""


class NotBegun(RemoteError):
    """A host that the rollout never came to; nothing was changed on it."""

    verdict = "not begun in"


class _Kind(Enum):
    PROGRESS = "progress"
    CHANGING = "changing"
    LOOKED = "looked"
    DEPLOYED = "deployed"
    FAILED = "failed"
    REVERTED = "reverted"
    STUCK = "stuck"


@dataclass(frozen=True)
class _Event:
    host: str
    kind: _Kind
    value: Any = None


class HostSigns:
    """What one host tells of itself; may be called from its thread.

    Parameters
    ----------
    host
        The host.
    tell
        Takes the events.
    """

    def __init__(self, host: str, tell: Callable[[_Event], None]) -> None:
        self._host = host
        self._tell = tell

    def changing(self) -> None:
        """From now on it may differ from what it was."""
        self._tell(_Event(self._host, _Kind.CHANGING))

    def progressed(self) -> None:
        """It has come further."""
        self._tell(_Event(self._host, _Kind.PROGRESS))

    def looked(self, look: Look) -> None:
        """Its workers were looked at."""
        self._tell(_Event(self._host, _Kind.LOOKED, look))


class Roller:
    """Carries a rollout out.

    Parameters
    ----------
    rollout
        The state machine.
    parts
        By host.
    on_end
        Called in the thread of :meth:`run` when a host has come to an end: with its name, and whether all is well.
    """

    def __init__(
        self, rollout: Rollout, parts: Mapping[str, Part], on_end: Callable[[str, bool], None] = lambda _h, _o: None
    ) -> None:
        self._rollout = rollout
        self._parts = parts
        self._on_end = on_end
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._errors: dict[str, FleetError] = {}
        self._values: dict[str, Deployed] = {}
        self._good: dict[str, GoodState] = {}
        self._back: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._looks: dict[str, str] = {}
        self._cancelled: dict[str, str] = {}

    def run(self) -> list[HostResult[Deployed]]:
        """Go on until nothing more will happen.

        Returns
        -------
        list of HostResult
            One for each host, in the rollout's order.

        Raises
        ------
        Interrupted
            On Ctrl-C, at once.
        """
        now = time.monotonic()
        try:
            self._obey(self._rollout.advance(now))
            while not self._rollout.finished:
                self._take_one(now)
                now = time.monotonic()
                self._obey(self._rollout.advance(now))
        except KeyboardInterrupt as error:
            raise Interrupted(self._results()) from error
        return self._results()

    def _take_one(self, now: float) -> None:
        # As of the last look: what has become due since would be no reason to wake up any more.
        wait = self._rollout.next_look(now)
        try:
            event = self._events.get(timeout=wait)
        except queue.Empty:
            return
        self._take(event, time.monotonic())

    def _take(self, event: _Event, now: float) -> None:
        host, rollout = event.host, self._rollout
        if event.kind is _Kind.PROGRESS:
            rollout.progressed(host, now)
        elif event.kind is _Kind.CHANGING:
            rollout.changing(host, now)
        elif event.kind is _Kind.LOOKED:
            self._take_look(host, event.value, now)
        elif event.kind is _Kind.DEPLOYED:
            self._values[host] = event.value
            rollout.done(host, now, proven=event.value.proven)
            self._on_end(host, True)
        elif event.kind is _Kind.FAILED:
            self._errors[host] = event.value
            rollout.failed(host, _in_a_line(event.value, host), now)
            self._on_end(host, False)
        elif event.kind is _Kind.REVERTED:
            self._good[host] = event.value
            rollout.reverted(host, now)
        else:
            self._back[host] = str(event.value).removeprefix(f"{host}: ")
            rollout.revert_failed(host, self._back[host], now)

    def _take_look(self, host: str, look: Look, now: float) -> None:
        if look.proven and not self._rollout.hosts[host].proven:
            self._rollout.proved(host, now)
        if look.computing:
            self._rollout.draining(host, now)
        else:
            self._rollout.working(host, now)
        # The same sentence again is no progress.
        if self._looks.get(host) != look.why:
            self._looks[host] = look.why
            self._rollout.progressed(host, now)

    def _obey(self, commands: Sequence[Instruction]) -> None:
        for command in commands:
            if command.order is Order.CANCEL:
                self._cancelled[command.host] = command.reason
                self._parts[command.host].cancel()
            else:
                act = self._deploy if command.order is Order.BEGIN else self._revert
                threading.Thread(target=act, args=(command.host,), daemon=True).start()

    def _deploy(self, host: str) -> None:
        started = time.monotonic()
        signs = HostSigns(host, self._events.put)
        try:
            value = self._parts[host].deploy(signs)
        except Exception as error:  # noqa: BLE001 - a host ends here, and the others go on
            self._end(host, _Kind.FAILED, started, as_fleet_error(host, error))
        else:
            self._end(host, _Kind.DEPLOYED, started, value)

    def _revert(self, host: str) -> None:
        started = time.monotonic()
        try:
            good = self._parts[host].revert()
        except Exception as error:  # noqa: BLE001 - likewise
            self._end(host, _Kind.STUCK, started, as_fleet_error(host, error))
        else:
            self._end(host, _Kind.REVERTED, started, good)

    def _end(self, host: str, kind: _Kind, started: float, value: object) -> None:
        self._seconds[host] = self._seconds.get(host, 0.0) + time.monotonic() - started
        self._events.put(_Event(host, kind, value))

    def _results(self) -> list[HostResult[Deployed]]:
        return [self._result(host) for host in self._rollout.hosts]

    def _result(self, host: str) -> HostResult[Deployed]:
        state = self._rollout.hosts[host]
        seconds = self._seconds.get(host, 0.0)
        if state.stage is Stage.DONE:
            return HostResult(host, self._values[host], seconds=seconds)
        return HostResult(host, error=self._error(host), seconds=seconds)

    def _error(self, host: str) -> FleetError:
        state = self._rollout.hosts[host]
        if state.stage is Stage.HELD:
            return NotBegun(host, "rollout", state.reason, "nothing was changed there")
        if state.stage is Stage.REVERTING:
            return NotPutBack(host, INTERRUPTED, "it was just being put back", "its workers may not run")
        if not state.stage.final:
            hint = "the next run completes what is missing"
            return RemoteError(host, INTERRUPTED, "it was being worked on", hint)
        own = self._errors.get(host)
        # What it failed of by itself says more, and has the log, even where it was told to give up with the others.
        overdue = self._cancelled.get(host, self._rollout.halted) != self._rollout.halted
        if not isinstance(own, RemoteError) or (state.cancelled and overdue):
            own = RemoteError(host, "rollout", self._cancelled.get(host) or state.reason or self._rollout.halted)
        if state.stage is Stage.REVERTED:
            release = self._good[host].release
            hint = f"it was put back to its last good state, release {release}"
            back = PutBack(host, own.step, own.what, "\n  ".join(filter(None, (own.hint, hint))))
            back.release = release
            return back
        if state.stage is Stage.STUCK:
            hint = f"it could not be put back: {self._back[host]}"
            return RemoteError(host, own.step, own.what, "\n  ".join(filter(None, (own.hint, hint))))
        return own


def _in_a_line(error: BaseException, host: str) -> str:
    return str(error).splitlines()[0].removeprefix(f"{host}: ")
