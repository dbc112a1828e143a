"""When the workers of one host have proven what they run: a state machine fed with looks at them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from fleet.deployment.health import Health, WorkerHealth
from fleet.hosts.hostsfile import Update

SLOW_S = 15.0
"""A worker that takes longer than this to start is asked what it waits for."""

MOST_STARTS = 3
"""A worker seen in more processes than this, while it should become healthy, is in a crash loop."""


class Standing(Enum):
    """What is to be thought of a host now."""

    WAIT = "wait"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True)
class Look:
    """What one look at a host found.

    Parameters
    ----------
    standing
        Whether to go on waiting.
    proven
        Whether at least one worker has been healthy for long enough.
    computing
        Whether all that is waited for are calculations.
    failed
        The workers for which the host has failed; empty unless it has.
    why
        In words, what is waited for or has gone wrong.
    passes_at
        When it will have passed if all stays as it is, on the clock of the gate; None where it would not.
    """

    standing: Standing
    proven: bool = False
    computing: bool = False
    failed: tuple[WorkerHealth, ...] = ()
    why: str = ""
    passes_at: float | None = None


class Gate:
    """Watches the workers of one host.

    A worker passes when it was healthy for `update.min_healthy_time` in one process. It fails at once where waiting
    cannot help, after `update.healthy_deadline` without becoming healthy, counted from when its calculation ended,
    and when a calculation does not end within `update.drain_timeout`.

    Parameters
    ----------
    update
        The times.
    now
        When the watch begins, in seconds of a clock that does not jump.
    """

    def __init__(self, update: Update, now: float) -> None:
        self._update = update
        self._begun = now
        self._starting_since: dict[str, float] = {}
        self._healthy_since: dict[str, float] = {}
        self._pids: dict[str, set[int]] = {}
        self._proven_once: set[str] = set()

    @property
    def looping(self) -> frozenset[str]:
        """Workers that were seen to be started again and again."""
        return frozenset(
            worker for worker, pids in self._pids.items() if len(pids) > MOST_STARTS and worker not in self._proven_once
        )

    def slow(self, now: float) -> list[str]:
        """Workers that have been starting for so long that somebody will wonder why.

        Parameters
        ----------
        now
            The time.
        """
        return sorted(worker for worker, since in self._starting_since.items() if now - since > SLOW_S)

    def saw(self, pids: Mapping[str, int]) -> None:
        """Note the processes that run now; a worker in a new one has to prove itself anew.

        Parameters
        ----------
        pids
            By worker.
        """
        for worker, pid in pids.items():
            known = self._pids.setdefault(worker, set())
            if known and pid not in known:
                self._healthy_since.pop(worker, None)
            known.add(pid)

    def look(
        self, workers: Sequence[WorkerHealth], now: float, up_since: Mapping[str, float] = MappingProxyType({})
    ) -> Look:
        """Judge the host.

        Parameters
        ----------
        workers
            All that are waited for, as they are now.
        now
            The time.
        up_since
            By worker, since when its present process has been saying that it runs what it shall, where that is known.
            Together with supervisord, which knows the same process, that is its good health.
        """
        for worker in workers:
            self._note(worker, now, up_since.get(worker.worker, now))
            if self._healthy_long_enough(worker.worker, now):
                self._proven_once.add(worker.worker)
        # Others may compute for days: who has long passed may meanwhile come to the end that its settings ask for.
        workers = [worker for worker in workers if not (worker.at_its_end and worker.worker in self._proven_once)]
        proven = self._proven(workers, now)
        if failed := self._failed(workers, now):
            why = "; ".join(f"{worker.worker}: {worker.detail or worker.health.value}" for worker in failed)
            return Look(Standing.FAILED, proven, failed=failed, why=why)
        open_ = [worker for worker in workers if not self._passed(worker, now)]
        if not open_:
            return Look(Standing.PASSED, proven)
        computing = all(worker.health is Health.DRAINING for worker in open_)
        ready = len(workers) - len(open_)
        why = (
            f"{ready} of {len(workers)} workers ready; {open_[0].worker}: {open_[0].detail or 'in good health so far'}"
        )
        return Look(Standing.WAIT, proven, computing, why=why, passes_at=self._passes_at(open_))

    def _note(self, worker: WorkerHealth, now: float, up_since: float) -> None:
        if worker.health is Health.STARTING:
            self._starting_since.setdefault(worker.worker, now)
        else:
            self._starting_since.pop(worker.worker, None)
        if worker.health is Health.HEALTHY:
            self._healthy_since.setdefault(worker.worker, up_since)
        else:
            self._healthy_since.pop(worker.worker, None)

    def _failed(self, workers: Sequence[WorkerHealth], now: float) -> tuple[WorkerHealth, ...]:
        """Those that have failed, or have taken too long."""
        gone = [worker for worker in workers if worker.health is Health.FAILED]
        for worker in workers:
            since = self._starting_since.get(worker.worker, now)
            if now - since > self._update.healthy_deadline:
                gone.append(_late(worker, "update.healthy_deadline"))
            if worker.health is Health.DRAINING and now - self._begun > self._update.drain_timeout:
                gone.append(_late(worker, "update.drain_timeout"))
        return tuple(gone)

    def _passed(self, worker: WorkerHealth, now: float) -> bool:
        return worker.health is Health.STOPPED or self._healthy_long_enough(worker.worker, now)

    def _passes_at(self, open_: Sequence[WorkerHealth]) -> float | None:
        if any(worker.health is not Health.HEALTHY for worker in open_):
            return None
        return max(self._healthy_since[worker.worker] for worker in open_) + self._update.min_healthy_time

    def _proven(self, workers: Sequence[WorkerHealth], now: float) -> bool:
        return any(self._healthy_long_enough(worker.worker, now) for worker in workers)

    def _healthy_long_enough(self, worker: str, now: float) -> bool:
        since = self._healthy_since.get(worker)
        return since is not None and now - since >= self._update.min_healthy_time


def _late(worker: WorkerHealth, limit: str) -> WorkerHealth:
    return WorkerHealth(worker.worker, Health.FAILED, f"{worker.detail or worker.health.value} (past {limit})")
