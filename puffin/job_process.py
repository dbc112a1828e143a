"""The process that becomes a job: forked beforehand, it waits for its orders, runs the job and says how that ended.

Its keeper is its parent. All that the job prints is in two files of its directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from puffin.calculations import shorten
from puffin.cgroup import JobGroup
from puffin.descendants import die_with_parent
from puffin.jobs import base
from puffin.jobs.base import JobContext, Outcome

STDOUT = "stdout"
STDERR = "stderr"

_OUTCOME_BYTES = 32 * 1024
_HIGHEST_DESCRIPTOR = 4096
_ENTERED, _OUTSIDE = b"+", b"-"


@dataclass(frozen=True)
class WaitingJob:
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
        """Let it be a job.

        Parameters
        ----------
        context
            What the job is given.
        """
        with contextlib.suppress(OSError), os.fdopen(self.orders, "wb") as stream:
            pickle.dump(context, stream)


def fork_job(group: JobGroup | None) -> WaitingJob:
    """Fork the process that will be the job; it then enters its group and waits for its orders.

    Parameters
    ----------
    group
        The control group for it; None if there is none.
    """
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
    return WaitingJob(job, orders_writer, outcome_reader, group)


def _become_job(keeper: int, orders: int, outcome: int) -> None:
    os.setsid()
    # A process that outlives its keeper must not hold the keeper's end of the line to the worker.
    low, high = sorted((orders, outcome))
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, _HIGHEST_DESCRIPTOR)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent()
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
class NeverBegan:
    """A job that could not even begin, which says nothing of its calculation: why."""

    reason: str


def _run_job(context: JobContext, writer: int) -> NoReturn:
    try:
        _enter(context)
    except OSError as error:
        os.write(writer, pickle.dumps(NeverBegan(f"the files for its output cannot be made: {error.strerror}")))
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


def read_outcome(reader: int) -> Outcome | NeverBegan | None:
    """What the job said of its end; None if it could not say anything.

    Parameters
    ----------
    reader
        The descriptor to read it from, which is closed.
    """
    try:
        data = os.read(reader, 2 * _OUTCOME_BYTES + 4096)
        outcome = pickle.loads(data) if data else None  # noqa: S301 - written by our own child
    except (OSError, pickle.UnpicklingError, EOFError):
        return None
    finally:
        os.close(reader)
    return outcome if isinstance(outcome, Outcome | NeverBegan) else None


def output_of(directory: Path) -> tuple[Path, Path]:
    """Where a job's standard output and standard error are.

    Parameters
    ----------
    directory
        The attempt's directory.
    """
    return directory / STDOUT, directory / STDERR
