"""Stops the workers of many hosts: all are told before any is waited for, by SSH or through the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from fleet.errors import FleetError, RemoteError
from fleet.operation.host_control import HostControl, StopOptions, Stopped, ToldHost, deadline_after
from fleet.operation.reported import Reported
from fleet.reach.execute import Audience, Say, fan_out
from fleet.reach.remote import ConnectionLost, HostResult, UnreachableError
from puffin.errors import DatabaseError

_TOLD_AT_A_TIME = 64
_GATHER_S = 3.0
"""How long hosts that are connected wait for the others, so that all are told at the same moment."""


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
        Told how it goes.
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
    deadline = deadline_after(how.timeout_s)

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
