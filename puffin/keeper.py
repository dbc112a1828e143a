"""The process between the worker and a job: it starts the job, watches it, and never lets it outlive its right to run.

The keeper is forked by the fork server, holds no database connection and waits for three things: messages of the
worker, the end of the job, and the time. It freezes the job when the worker has not extended the lease in time, even
if the worker hangs; it kills the job, and whatever the job started, when the worker is gone. All processes that a
job leaves behind become the keeper's children (``PR_SET_CHILD_SUBREAPER``, prctl(2)), so none can escape it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil

from puffin.calculations import Usage, shorten
from puffin.cgroup import JobGroup
from puffin.jobs import base
from puffin.jobs.base import Cause, Ended, JobContext, Outcome
from puffin.leftovers import MARK
from puffin.limits import GB, SAMPLE_INTERVAL_S, Limits, proportional_gb, resident_gb

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_WAIT_S = 60.0
_FIRST_TELL_S, _TELL_S = 1.0, 10.0
_WORTH_TELLING = 0.05
_OUTCOME_BYTES = 32 * 1024
_HIGHEST_DESCRIPTOR = 4096
_ENTERED, _OUTSIDE = b"+", b"-"

STDOUT = "stdout"
STDERR = "stderr"


def boot_time() -> float:
    """Seconds on the clock of leases: it never jumps, is the same in all processes, and counts suspended time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Start:
    """Run this job. Until ``freeze_at`` (in seconds of :func:`boot_time`) its right to run is certain."""

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
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # A terminal's or an operator's signals are for the worker, which decides what becomes of the job.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told = _Told()
    signal.signal(signal.SIGTERM, told.note)
    # Forked before there is anything to do: a job that comes need not wait for it.
    group = JobGroup.make(os.environ.get(MARK, ""))
    waiting = _fork_job(group)
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
        _kill_descendants()
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
    def __init__(self, connection: Connection, waiting: _Waiting, start: Start, freeze_at: float, told: _Told) -> None:
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
        _kill_descendants()
        outcome = _read_outcome(self._outcome_fd)
        if isinstance(outcome, _NeverBegan):
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
        while (status := _reap(self._job)) is None:
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
            _signal_descendants(signal.SIGSTOP)
        elif self._frozen_since is not None and now < self._freeze_at:
            self._frozen_s += now - self._frozen_since
            self._frozen_since = None
            _signal_descendants(signal.SIGCONT)
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
            _signal_descendants(signal.SIGKILL)
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
        _signal_descendants(signal.SIGKILL)

    def _usage(self) -> Usage:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        largest = spent.ru_maxrss * 1024 / GB - self._inherited_gb
        return Usage(
            wall_s=boot_time() - self._started,
            cpu_s=spent.ru_utime + spent.ru_stime,
            peak_memory_gb=max(self._peak_gb, largest, 0.0),
        )


def _reap(job: int) -> int | None:
    """Collect ended children; return the job's status once it is among them."""
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == job:
            status = os.waitstatus_to_exitcode(raw)


def _kill_descendants() -> None:
    """Kill until nothing is left; a process may fork while it is being killed, or hang in the kernel for long."""
    pause = 0.001
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            _signal_descendants(signal.SIGKILL)
            time.sleep(pause)
            pause = min(2 * pause, 0.5)


def _signal_descendants(number: signal.Signals) -> None:
    signalled: set[int] = set()
    # Those that were forked between the listing and the signal are found by listing again.
    while new := [child for child in psutil.Process().children(recursive=True) if child.pid not in signalled]:
        for child in new:
            signalled.add(child.pid)
            with contextlib.suppress(psutil.Error):
                child.send_signal(number)


@dataclass(frozen=True)
class _Waiting:
    """A process that will be the job: its id, where it reads its orders, where its outcome can be read, its group."""

    pid: int
    orders: int
    outcome: int
    group: JobGroup | None

    def has_entered(self) -> bool:
        """Wait until it is ready; return whether it is in its group."""
        os.set_blocking(self.outcome, True)
        said = os.read(self.outcome, 1)
        os.set_blocking(self.outcome, False)
        return said == _ENTERED

    def begin(self, context: JobContext) -> None:
        with contextlib.suppress(OSError), os.fdopen(self.orders, "wb") as stream:
            pickle.dump(context, stream)


def _fork_job(group: JobGroup | None) -> _Waiting:
    orders_reader, orders_writer = os.pipe()
    outcome_reader, outcome_writer = os.pipe()
    keeper = os.getpid()
    job = os.fork()
    if job == 0:
        try:
            _become_job(keeper, orders_reader, outcome_writer)
            os.write(outcome_writer, _ENTERED if group is not None and group.enter() else _OUTSIDE)
            with os.fdopen(orders_reader, "rb") as stream:
                orders = stream.read()
            if orders:
                _run_job(pickle.loads(orders), outcome_writer)  # noqa: S301 - written by our own parent
        finally:
            # Whatever went wrong, a copy of the keeper must not go on as a second keeper.
            os._exit(1)
    os.close(orders_reader)
    os.close(outcome_writer)
    return _Waiting(job, orders_writer, outcome_reader, group)


def _become_job(keeper: int, orders: int, outcome: int) -> None:
    os.setsid()
    # A process that outlives its keeper must not hold the keeper's end of the line to the worker.
    low, high = sorted((orders, outcome))
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, _HIGHEST_DESCRIPTOR)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    with contextlib.suppress(OSError):
        # If the machine runs out of memory, the job goes and not the worker.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _enter(context: JobContext) -> None:
    os.chdir(context.directory)
    _redirect(os.devnull, os.O_RDONLY, 0)
    _redirect(STDOUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1)
    _redirect(STDERR, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 2)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    os.environ.update(PUFFIN_CALCULATION=context.claim.id, PUFFIN_ATTEMPT=str(context.claim.attempt))


def _redirect(path: str, flags: int, descriptor: int) -> None:
    opened = os.open(path, flags, 0o644)
    os.dup2(opened, descriptor)
    os.close(opened)


@dataclass(frozen=True)
class _NeverBegan:
    """A job that could not even begin, which says nothing of its calculation: why."""

    reason: str


def _run_job(context: JobContext, writer: int) -> NoReturn:
    try:
        _enter(context)
    except OSError as error:
        os.write(writer, pickle.dumps(_NeverBegan(f"the files for its output cannot be made: {error.strerror}")))
        os._exit(1)
    try:
        outcome = base.load(context.kind.target)(context)
        outcome = Outcome(outcome.success, shorten(outcome.comment, _OUTCOME_BYTES), outcome.has_output)
    # A job is somebody else's code and this is where its process ends; SystemExit is one of its ways to fail.
    except BaseException as error:  # noqa: BLE001
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()
        outcome = Outcome(success=False, comment=shorten(f"{type(error).__name__}: {error}", _OUTCOME_BYTES))
    os.write(writer, pickle.dumps(outcome))
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(0 if outcome.success else 1)


def _read_outcome(reader: int) -> Outcome | _NeverBegan | None:
    try:
        data = os.read(reader, 2 * _OUTCOME_BYTES + 4096)
        outcome = pickle.loads(data) if data else None  # noqa: S301 - written by our own child
    except (OSError, pickle.UnpicklingError, EOFError):
        return None
    finally:
        os.close(reader)
    return outcome if isinstance(outcome, Outcome | _NeverBegan) else None


def _prctl(option: int, argument: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def output_of(directory: Path) -> tuple[Path, Path]:
    """Where a job's standard output and standard error are.

    Parameters
    ----------
    directory
        The attempt's directory.
    """
    return directory / STDOUT, directory / STDERR
