"""Starts jobs, each in its own process below the fork server; the next one is forked while the present one runs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from puffin import keeper
from puffin.calculations import Usage
from puffin.clock import boot_time
from puffin.errors import CannotFork, DaemonError
from puffin.jobs.base import Cause, Ended, JobContext, JobKind
from puffin.keeper import Kill, Start, Until, Using
from puffin.leftovers import MARK
from puffin.limits import Limits

_WANTED = "_PUFFIN_JOBS"  # puffin.jobs.preload.WANTED; importing that would load all that is to be loaded elsewhere
_PRELOADED = ["puffin.keeper", "puffin.jobs.preload"]
KEEPER_KILLED = "the process that watches over it was killed"
"""Detail of an end that nobody could report: processes of the job may be left."""

_TRIES = 5
_PAUSE_S = 0.2
_LONGEST_DISMISSAL_S = 5.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class RunningJob:
    """A job that has been started.

    Its ``connection`` becomes readable when there is something to :meth:`hear`: that it has ended, and :meth:`ended`
    then says how, or how much memory it has now, which is in ``memory_gb``; None before it was told.
    """

    def __init__(self, process: Any, connection: Connection, context: JobContext) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._started = boot_time()
        self._patience_s: float | None = None
        self._is_over = False
        self._said: object = None
        self.memory_gb: float | None = None
        self.connection = connection
        self.context = context

    def __enter__(self) -> RunningJob:
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever leaves without waiting for the end leaves no job behind: a keeper on its own kills it.
        with self._lock:  # the lease may just be being extended
            self.connection.close()
        self._process.join(_LONGEST_DISMISSAL_S)

    def extend(self, freeze_at: float) -> None:
        """Let the job run, or run again, until a time.

        Parameters
        ----------
        freeze_at
            The time, in seconds of :func:`~puffin.clock.boot_time`.
        """
        self._send(Until(freeze_at))

    def kill(self, patience_s: float = 30.0) -> None:
        """Kill the job and all its processes. Its end is reported as usual.

        Parameters
        ----------
        patience_s
            How long :meth:`ended` waits for that, in seconds, before it kills the keeper itself.
        """
        self._patience_s = patience_s
        self._send(Kill())

    def hear(self) -> bool:
        """Wait for what its keeper says next; return whether that is the end."""
        try:
            said = self.connection.recv()
        except (EOFError, OSError):
            said = None
        if isinstance(said, Using):
            self.memory_gb = said.memory_gb
        else:
            self._is_over, self._said = True, said
        return self._is_over

    def ended(self) -> Ended:
        """Wait for the job's end.

        Returns
        -------
        Ended
            How it ended. A keeper that was killed cannot say; the job then died with it.
        """
        while not self._is_over:
            if self._patience_s is not None and not self.connection.poll(self._patience_s):
                # Somebody stopped the keeper, so it cannot obey. The job dies with it.
                self._process.kill()
            self.hear()
        self._process.join()
        if isinstance(self._said, Ended):
            return self._said
        usage = Usage(wall_s=boot_time() - self._started, cpu_s=0.0, peak_memory_gb=0.0)
        return Ended(Cause.KILLED, None, self._process.exitcode or 0, KEEPER_KILLED, usage)

    def _send(self, message: Until | Kill) -> None:
        # The lease is extended from a thread of its own. A job that has ended needs no message any more.
        with self._lock, contextlib.suppress(OSError):
            self.connection.send(message)


@dataclass(frozen=True)
class _Spare:
    process: Any
    connection: Connection


class Runner:
    """Forks jobs.

    Parameters
    ----------
    cores
        Threads that the jobs may use.
    lock
        Path of the worker's process id file, with which all processes of its jobs are marked.
    wanted
        Names of the only jobs that it will run; empty for all. What only others need is not loaded.
    """

    def __init__(self, cores: int, lock: str = "", wanted: Sequence[str] = ()) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._spare: _Spare | None = None
        # Thread pools read these when their library is loaded, which the fork server does once for all jobs.
        for variable in _THREAD_VARIABLES:
            os.environ[variable] = str(cores)
        os.environ[MARK] = lock
        os.environ[_WANTED] = " ".join(wanted)

    def warm_up(self) -> None:
        """Fork the process of the next job, unless it is there already."""
        if self._spare is not None:
            if self._spare.process.is_alive():
                return
            self.close()
        ours, theirs = self._context.Pipe()
        process = self._start(keeper.keep, theirs, "puffin-job")
        theirs.close()
        self._spare = _Spare(process, ours)

    def start(self, context: JobContext, limits: Limits, freeze_at: float) -> RunningJob:
        """Start a job.

        Parameters
        ----------
        context
            What it is given.
        limits
            What it may use.
        freeze_at
            Until when it may run unless that is extended, in seconds of :func:`~puffin.clock.boot_time`.

        Raises
        ------
        CannotFork
            No process lives for long enough to be given a job.
        """
        for _ in range(_TRIES):
            self.warm_up()
            spare, self._spare = self._spare, None
            assert spare is not None  # noqa: S101 - warm_up has just made it
            try:
                spare.connection.send(Start(context, limits, freeze_at))
            except OSError:
                # Somebody killed the waiting process; another one will do.
                _dismiss(spare)
                continue
            return RunningJob(spare.process, spare.connection, context)
        raise CannotFork(f"{_TRIES} processes in a row were killed before they were given a job: see the kernel's log")

    def job_kinds(self) -> tuple[JobKind, ...]:
        """The installed jobs, found in a process of their own, so that the worker stays small.

        Raises
        ------
        DaemonError
            The process that loads them ends before it can tell.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(EOFError, ConnectionError):
                return self._ask_for_kinds()
            time.sleep(_PAUSE_S)
        raise DaemonError(
            "the process that loads the jobs ended before it could name them: one of the installed job modules "
            "crashes when it is imported; try python -c 'import puffin.jobs.preload'"
        )

    def _ask_for_kinds(self) -> tuple[JobKind, ...]:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._start(_send_kinds, theirs, "puffin-jobs")
        theirs.close()
        with ours:
            try:
                kinds: tuple[JobKind, ...] = ours.recv()
            finally:
                process.join()
        return kinds

    def _start(self, target: Callable[[Connection], None], theirs: Connection, name: str) -> Any:
        """Fork a process, also if the fork server was just killed: a new one is then started."""
        for tries_left in reversed(range(_TRIES)):
            process = self._context.Process(target=target, args=(theirs,), name=name)
            try:
                with _without_main_module():
                    process.start()
            except (ConnectionError, EOFError) as error:
                if tries_left == 0:
                    raise CannotFork(f"no process can be forked: {error}") from error
                time.sleep(_PAUSE_S)
            else:
                return process
        raise AssertionError("unreachable: the last try returns or raises")

    def close(self) -> None:
        """Let the waiting process go."""
        if self._spare is not None:
            spare, self._spare = self._spare, None
            _dismiss(spare)


def _dismiss(spare: _Spare) -> None:
    spare.connection.close()
    spare.process.join(_LONGEST_DISMISSAL_S)


def _send_kinds(connection: Connection) -> None:
    from puffin.jobs.preload import KINDS

    connection.send(KINDS)


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Hide the main module: every child would import it again, which costs more than a short job takes.

    The children's code is all in this package, so they never need it; and a script that calls
    :func:`puffin.jobloop.loop` at its top level must not be run again by its own jobs.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
