"""Why and how a worker stops: signals, files, times and counts."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import FrameType

from puffin.settings import DaemonSettings


class Stop(IntEnum):
    """How urgently a worker is to stop; the larger wins."""

    NO = 0
    RECYCLE = 1
    DRAIN = 2
    NOW = 3


@dataclass(frozen=True)
class StopOrder:
    """An order to stop, and who gave it."""

    stop: Stop
    reason: str = ""


class Signals:
    """Turns signals into orders and wakes whoever waits for them.

    One SIGTERM or SIGINT drains; a second one, or a SIGQUIT, stops at once. :attr:`wake` becomes readable with
    every signal.
    """

    def __init__(self) -> None:
        self._gentle = 0
        self._harsh = False
        self.wake, self._writer = os.pipe()
        for descriptor in (self.wake, self._writer):
            os.set_blocking(descriptor, False)

    def install(self) -> None:
        """Handle the signals of this process from now on; only in its main thread."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_gentle)
        signal.signal(signal.SIGQUIT, self._on_harsh)

    def nudge(self) -> None:
        """Wake whoever waits; may be called from any thread."""
        # A full pipe holds wake-ups enough.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Take note of all wake-ups so far."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake, 4096):
                pass

    @property
    def order(self) -> StopOrder:
        """What the signals so far demand."""
        if self._harsh or self._gentle > 1:
            return StopOrder(Stop.NOW, "told to stop at once")
        return StopOrder(Stop.DRAIN, "told by a signal") if self._gentle else StopOrder(Stop.NO)

    def _on_gentle(self, _number: int, _frame: FrameType | None) -> None:
        self._gentle += 1

    def _on_harsh(self, _number: int, _frame: FrameType | None) -> None:
        self._harsh = True


_OF_THE_FLEET = StopOrder(Stop.DRAIN, "the fleet was told to stop")


class Orders:
    """All that can tell a worker to stop.

    Parameters
    ----------
    daemon
        The worker's settings.
    signals
        Its signals.
    fleet_stop
        Says whether the whole fleet has been told to stop.
    clock
        Seconds of a clock that does not jump.
    """

    def __init__(
        self, daemon: DaemonSettings, signals: Signals, fleet_stop: Callable[[], bool], clock: Callable[[], float]
    ) -> None:
        self._daemon = daemon
        self._signals = signals
        self._fleet_stop = fleet_stop
        self._clock = clock
        self._started = self._last_job = clock()
        self._jobs = 0
        self._standing = self._given = StopOrder(Stop.NO)
        self._seen_files: tuple[Path, ...] = ()
        self._obeyed_files: tuple[Path, ...] = ()
        self._obeyed_fleet = False

    def job_ended(self) -> None:
        """Count a job."""
        self._jobs += 1
        self._last_job = self._clock()

    @property
    def current(self) -> StopOrder:
        """The most urgent order now.

        A stop file that was taken away before it was obeyed is no order any more, nor is a stop of the fleet that
        was lifted: who starts a worker that still drains wants it to go on.
        """
        orders = (self._signals.order, self._by_time(), self._by_file(), self._by_count(), self._standing)
        self._given = max(orders, key=lambda order: order.stop)
        return self._given

    def idle(self) -> StopOrder:
        """The most urgent order to a worker that has nothing to do."""
        hours = self._daemon.idle_timeout_in_h
        if 0 < hours * 3600 < self._clock() - self._last_job and self._standing.stop < Stop.DRAIN:
            self._standing = StopOrder(Stop.DRAIN, f"without work for {hours:g} h")
        return self.current

    def _by_time(self) -> StopOrder:
        hours = self._daemon.timeout_in_h
        if 0 < hours * 3600 < self._clock() - self._started:
            return StopOrder(Stop.NOW, f"timeout of {hours:g} h reached")
        return _OF_THE_FLEET if self._fleet_stop() else StopOrder(Stop.NO)

    def _by_file(self) -> StopOrder:
        self._seen_files = tuple(path for path in self._stop_files() if path.exists())
        if self._seen_files:
            return StopOrder(Stop.DRAIN, f"found the stop file {self._seen_files[0]}")
        if self._daemon.recycle and Path(self._daemon.recycle).exists():
            return StopOrder(Stop.RECYCLE, f"found the recycle file {self._daemon.recycle}")
        return StopOrder(Stop.NO)

    def _by_count(self) -> StopOrder:
        most = self._daemon.max_number_of_jobs
        return StopOrder(Stop.DRAIN, f"{most} jobs done") if 0 < most <= self._jobs else StopOrder(Stop.NO)

    def obeyed(self) -> None:
        """Remove the files that were obeyed, as far as they are this worker's to remove, and note the others."""
        self._obeyed_files = self._seen_files  # as of the decision: one may have been taken away since
        self._obeyed_fleet = self._given == _OF_THE_FLEET
        if self._daemon.remove_stop_file and self._daemon.stop:
            _remove(self._daemon.stop)
        if self._given.stop is Stop.RECYCLE:
            _remove(self._daemon.recycle)

    @property
    def taken_back(self) -> bool:
        """Whether what was obeyed counts no more: stop files that somebody else has to remove, the stop of the fleet.

        Who starts a worker that is just ending finds it running, and does nothing more.
        """
        theirs = [path for path in self._obeyed_files if not self._is_ours_to_remove(path)]
        if not (theirs or self._obeyed_fleet):
            return False
        return not any(path.exists() for path in self._stop_files()) and not self._fleet_stop()

    def _stop_files(self) -> list[Path]:
        return [Path(path) for path in (self._daemon.stop, self._daemon.stop_shared) if path]

    def _is_ours_to_remove(self, path: Path) -> bool:
        return self._daemon.remove_stop_file and path == Path(self._daemon.stop)


def _remove(path: str) -> None:
    # In somebody else's directory it stays; that is no reason to end with an error.
    with contextlib.suppress(OSError):
        Path(path).unlink()
