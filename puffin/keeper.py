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
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NoReturn

import psutil

from puffin.calculations import Usage, shorten
from puffin.jobs import base
from puffin.jobs.base import Cause, Ended, JobContext, Outcome
from puffin.limits import GB, SAMPLE_INTERVAL_S, Limits, resident_gb

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_WAIT_S = 60.0
_OUTCOME_BYTES = 32 * 1024

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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        start: Start = connection.recv()
    except (EOFError, OSError):
        return
    ended = _Keeper(connection, start).see_through()
    with contextlib.suppress(OSError):
        connection.send(ended)


class _Keeper:
    def __init__(self, connection: Connection, start: Start) -> None:
        self._connection = connection
        self._limits = start.limits
        self._freeze_at = start.freeze_at
        self._frozen_since: float | None = None
        self._frozen_s = 0.0
        self._inherited_gb = resident_gb([psutil.Process()])
        self._peak_gb = 0.0
        self._cause, self._detail = Cause.ENDED, ""
        self._wake, wake_writer = os.pipe()
        for descriptor in (self._wake, wake_writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._started = boot_time()
        self._outcome_fd, self._job = _fork_job(start.context)

    def see_through(self) -> Ended:
        status = self._watch()
        _kill_descendants()
        return Ended(self._cause, _read_outcome(self._outcome_fd), status, self._detail, self._usage())

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
        now = boot_time()
        limited = self._limits.memory_gb is not None or self._limits.walltime_s is not None
        longest = SAMPLE_INTERVAL_S if limited else _LONGEST_WAIT_S
        if self._frozen_since is not None:
            return longest
        return min(longest, max(0.0, self._freeze_at - now))

    def _obey(self) -> None:
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            # The worker is dead: without it nobody renews the lease or writes the result.
            _kill_descendants()
            os._exit(1)
        if isinstance(message, Until):
            self._freeze_at = message.freeze_at
            self._look_at_the_time()
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
        if self._limits.memory_gb is None and self._limits.walltime_s is None:
            return
        # The job starts as a copy of the keeper: what it merely inherited is not what it uses.
        used = max(0.0, resident_gb(psutil.Process().children(recursive=True)) - self._inherited_gb)
        self._peak_gb = max(self._peak_gb, used)
        detail = self._limits.exceeded(used, now - self._started - self._frozen_s)
        if detail:
            self._end(Cause.LIMIT, detail)

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
    """Kill until nothing is left; a process may fork while it is being killed."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            _signal_descendants(signal.SIGKILL)
            time.sleep(0.005)


def _signal_descendants(number: signal.Signals) -> None:
    signalled: set[int] = set()
    # Those that were forked between the listing and the signal are found by listing again.
    while new := [child for child in psutil.Process().children(recursive=True) if child.pid not in signalled]:
        for child in new:
            signalled.add(child.pid)
            with contextlib.suppress(psutil.Error):
                child.send_signal(number)


def _fork_job(context: JobContext) -> tuple[int, int]:
    """Fork the job; return where its outcome can be read, and its process id."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    keeper = os.getpid()
    job = os.fork()
    if job == 0:
        try:
            _become_job(keeper, context)
            _run_job(context, writer)
        finally:
            # Whatever went wrong, a copy of the keeper must not go on as a second keeper.
            os._exit(1)
    os.close(writer)
    return reader, job


def _become_job(keeper: int, context: JobContext) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
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


def _run_job(context: JobContext, writer: int) -> NoReturn:
    try:
        outcome = base.load(context.kind.target)(context)
    # A job is somebody else's code and this is where its process ends; SystemExit is one of its ways to fail.
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        outcome = Outcome(success=False, comment=f"{type(error).__name__}: {error}")
    outcome = Outcome(outcome.success, shorten(outcome.comment, _OUTCOME_BYTES), outcome.has_output)
    os.write(writer, pickle.dumps(outcome))
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(0 if outcome.success else 1)


def _read_outcome(reader: int) -> Outcome | None:
    try:
        data = os.read(reader, 2 * _OUTCOME_BYTES + 4096)
        outcome = pickle.loads(data) if data else None  # noqa: S301 - written by our own child
    except (OSError, pickle.UnpicklingError, EOFError):
        return None
    finally:
        os.close(reader)
    return outcome if isinstance(outcome, Outcome) else None


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
