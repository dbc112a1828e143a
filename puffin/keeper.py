"""The process between the worker and a job: it starts the job, watches it, and never lets it outlive its right to run.

The keeper is forked by the fork server, holds no database connection and waits for three things: messages of the
worker, the end of the job, and the time. It freezes the job when the worker has not extended the lease in time, even
if the worker hangs; it kills the job, and whatever the job started, when the worker is gone. All processes that a
job leaves behind become the keeper's children (``PR_SET_CHILD_SUBREAPER``, prctl(2)), so none can escape it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType

import psutil

from puffin.calculations import Usage
from puffin.cgroup import JobGroup
from puffin.clock import boot_time
from puffin.descendants import adopt_orphans, kill_descendants, reap, signal_descendants
from puffin.job_process import NeverBegan, WaitingJob, fork_job, read_outcome
from puffin.jobs.base import Cause, Ended, JobContext
from puffin.leftovers import MARK
from puffin.limits import GB, SAMPLE_INTERVAL_S, Limits, proportional_gb, resident_gb

_LONGEST_WAIT_S = 60.0
_FIRST_TELL_S, _TELL_S = 1.0, 10.0
_WORTH_TELLING = 0.05


@dataclass(frozen=True)
class Start:
    """Run this job. Until ``freeze_at`` (in seconds of :func:`~puffin.clock.boot_time`) its right to run is certain."""

    context: JobContext
    limits: Limits
    freeze_at: float


@dataclass(frozen=True)
class Until:
    """The right to run now lasts until ``freeze_at``."""

    freeze_at: float


@dataclass(frozen=True)
class Kill:
    """Kill the job with all its processes."""


@dataclass(frozen=True)
class Using:
    """What the keeper tells now and then: the memory that the job has now, in GB."""

    memory_gb: float


def keep(connection: Connection) -> None:
    """Wait for a job and see it through; the target of the process that the fork server forks.

    Parameters
    ----------
    connection
        To the worker.
    """
    os.setsid()
    adopt_orphans()
    # A terminal's or an operator's signals are for the worker, which decides what becomes of the job.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told = _Told()
    signal.signal(signal.SIGTERM, told.note)
    # Forked before there is anything to do: a job that comes need not wait for it.
    group = JobGroup.make(os.environ.get(MARK, ""))
    waiting = fork_job(group)
    try:
        start: Start = connection.recv()
        freeze_at = _wait_for_right(connection, start.freeze_at)
        if freeze_at is None:
            ended = Ended(Cause.KILLED, None, 0, "", Usage(wall_s=0.0, cpu_s=0.0, peak_memory_gb=0.0))
        else:
            ended = _Keeper(connection, waiting, start, freeze_at, told).see_through()
        connection.send(ended)
    except (EOFError, ConnectionError):
        # Without it nobody renews the lease or writes the result.
        return
    finally:
        kill_descendants()
        if group is not None:
            group.remove()


def _wait_for_right(connection: Connection, freeze_at: float) -> float | None:
    """Wait until the job may run; return until when it may, or None if it never will.

    A claim that was answered late may have lapsed before the job could start.
    """
    while boot_time() >= freeze_at:
        message = connection.recv()
        if isinstance(message, Kill):
            return None
        freeze_at = message.freeze_at
    return freeze_at


class _Told:
    """When this process was last told to end, which it does not do.

    Nobody means a keeper: it has a session of its own and no job's program knows of it. A SIGTERM comes to it when one
    goes to every process, as where the machine is switched off; the job and its programs have got it too.
    """

    def __init__(self) -> None:
        self._at: float | None = None

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Handle the signal."""
        self._at = boot_time()

    def seconds_before(self, end: float, start: float) -> float | None:
        """How long before the job's end that was; None if it was not, or before the job, which then did not get it.

        Who hears of it after the end counts it as then.
        """
        return None if self._at is None or self._at < start else max(0.0, end - self._at)


class _Keeper:
    def __init__(
        self, connection: Connection, waiting: WaitingJob, start: Start, freeze_at: float, told: _Told
    ) -> None:
        self._connection = connection
        self._told = told
        self._limits = start.limits
        self._freeze_at = freeze_at
        self._frozen_since: float | None = None
        self._frozen_s = 0.0
        self._group = waiting.group if waiting.has_entered() else None
        if self._group is not None and start.limits.memory_gb is not None:
            self._group.limit(start.limits.memory_gb)
        self._inherited_gb = resident_gb([psutil.Process()])
        self._peak_gb = 0.0
        self._cause, self._detail = Cause.ENDED, ""
        self._wake, wake_writer = os.pipe()
        for descriptor in (self._wake, wake_writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._started = boot_time()
        self._next_sample = self._started + SAMPLE_INTERVAL_S
        self._told_gb, self._tell_at = 0.0, self._started + _FIRST_TELL_S
        self._outcome_fd, self._job = waiting.outcome, waiting.pid
        waiting.begin(start.context)

    def see_through(self) -> Ended:
        status = self._watch()
        end = boot_time()
        kill_descendants()
        outcome = read_outcome(self._outcome_fd)
        if isinstance(outcome, NeverBegan):
            return Ended(Cause.KILLED, None, status, outcome.reason, self._usage())
        if status >= 0 and outcome is not None:
            # It had ended by itself before the order to kill it came: what it did counts.
            self._cause, self._detail = Cause.ENDED, ""
        if self._cause is Cause.ENDED and not (outcome and outcome.success):
            self._look_at_the_kernels_kills()
        terminated_s = self._told.seconds_before(end, self._started)
        return Ended(self._cause, outcome, status, self._detail, self._usage(), terminated_s)

    def _watch(self) -> int:
        """Serve messages, time and limits until the job's first process has ended; return its status."""
        while (status := reap(self._job)) is None:
            for ready in wait([self._connection, self._wake], self._patience()):
                if ready is self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                else:
                    self._obey()
            self._look_at_the_time()
        return status

    def _patience(self) -> float:
        if self._frozen_since is not None:
            return _LONGEST_WAIT_S
        next_look = self._freeze_at if self._limits.none else min(self._freeze_at, self._next_sample)
        return min(_LONGEST_WAIT_S, max(0.0, next_look - boot_time()))

    def _obey(self) -> None:
        message = self._connection.recv()
        if isinstance(message, Until):
            self._freeze_at = message.freeze_at
            self._look_at_the_time()
            if self._limits.none and self._frozen_since is None:
                # Awake anyway; nobody looks otherwise.
                self._tell(self._used_gb(), boot_time())
        elif isinstance(message, Kill):
            self._end(Cause.KILLED, "")

    def _look_at_the_time(self) -> None:
        now = boot_time()
        if self._frozen_since is None and now >= self._freeze_at:
            self._frozen_since = now
            signal_descendants(signal.SIGSTOP)
        elif self._frozen_since is not None and now < self._freeze_at:
            self._frozen_s += now - self._frozen_since
            self._frozen_since = None
            signal_descendants(signal.SIGCONT)
        elif self._frozen_since is None:
            self._look_at_the_limits(now)

    def _look_at_the_limits(self, now: float) -> None:
        if self._limits.none or now < self._next_sample:
            return
        used = self._used_gb()
        self._peak_gb = max(self._peak_gb, used)
        self._next_sample = now + self._limits.sample_interval(used)
        detail = self._limits.exceeded(used, now - self._started - self._frozen_s)
        if detail:
            self._end(Cause.LIMIT, detail)
        elif self._look_at_the_kernels_kills():
            signal_descendants(signal.SIGKILL)
        else:
            self._tell(used, now)

    def _tell(self, used: float, now: float) -> None:
        """Tell the worker what the job uses, if that is news: each time wakes it."""
        if now < self._tell_at or abs(used - self._told_gb) <= _WORTH_TELLING * max(used, self._told_gb):
            return
        room = select.poll()
        room.register(self._connection, select.POLLOUT)
        # Never wait for it: a worker that hangs does not read.
        if any(event & select.POLLOUT for _, event in room.poll(0)):
            self._connection.send(Using(used))
            self._told_gb, self._tell_at = used, now + _TELL_S

    def _used_gb(self) -> float:
        if self._group is not None:
            return self._group.used_gb()
        processes = psutil.Process().children(recursive=True)
        # The job starts as a copy of the keeper: what it merely inherited is not what it uses.
        used = max(0.0, resident_gb(processes) - self._inherited_gb)
        if self._limits.memory_gb is not None and used > self._limits.memory_gb:
            # Before anything is killed over it: processes that share memory use less than it seems.
            return min(used, proportional_gb(processes))
        return used

    def _look_at_the_kernels_kills(self) -> bool:
        """Whether the kernel has kept the job from using more memory than it may, by killing of its processes."""
        if self._group is None or self._cause is not Cause.ENDED or not self._group.ran_out():
            return False
        self._peak_gb = max(self._peak_gb, self._group.peak_gb())
        self._cause, self._detail = Cause.LIMIT, self._limits.ran_out_of_memory(self._peak_gb)
        return True

    def _end(self, cause: Cause, detail: str) -> None:
        if self._cause is Cause.ENDED:
            self._cause, self._detail = cause, detail
        signal_descendants(signal.SIGKILL)

    def _usage(self) -> Usage:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        largest = spent.ru_maxrss * 1024 / GB - self._inherited_gb
        return Usage(
            wall_s=boot_time() - self._started,
            cpu_s=spent.ru_utime + spent.ru_stime,
            peak_memory_gb=max(self._peak_gb, largest, 0.0),
        )
