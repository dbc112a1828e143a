"""Decides what the end of a job means for its calculation, from what its keeper told; does nothing about it."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator

from puffin.calculations import Status, Verdict, shorten
from puffin.jobs.base import Cause, Ended

_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
"""A job does not end itself by these: an operator does, or the kernel when memory runs out."""

_SWITCHING_OFF_S = 120.0
"""systemd waits 90 s before it kills what does not end; what fails later had another reason."""

_WORDS_OF_A_LOST_CONNECTION = ("No suitable servers found", "socket error or timeout", "generic server error")
"""What the C++ driver says, below the SCINE library."""

_SMALL_OUTPUT_BYTES = 64 * 1024
_SMALL_COMMENT_BYTES = 4 * 1024


def was_swept_away(ended: Ended) -> bool:
    """Whether a job failed since every process was told to end, as where the machine is switched off.

    A job that catches that SIGTERM, or whose programs die of it, reports a failure that says nothing of its
    calculation. What it completed nevertheless counts, and so does a limit that it exceeded.

    Parameters
    ----------
    ended
        How it ended.
    """
    if ended.terminated_s is None or ended.terminated_s > _SWITCHING_OFF_S or ended.cause is Cause.LIMIT:
        return False
    return ended.outcome is None or not ended.outcome.success


def loss(ended: Ended) -> str:
    """Why an attempt ended without telling anything about its calculation; empty if it did tell something.

    Parameters
    ----------
    ended
        How it ended.
    """
    if was_swept_away(ended):
        return "every process was told to end while it ran, as when the machine is switched off"
    if ended.cause is Cause.KILLED:
        return ended.detail or "its processes were killed"
    if ended.cause is Cause.ENDED and ended.outcome is None and -ended.exit_status in _FROM_OUTSIDE:
        return f"its process was killed from outside, by {signal_name(-ended.exit_status)}"
    return ""


def lost_its_database(verdict: Verdict) -> bool:
    """Whether a job failed because it could not reach the database that it writes to.

    Parameters
    ----------
    verdict
        The verdict on it.
    """
    said = verdict.comment + (verdict.raw_output or "")
    return verdict.status is Status.FAILED and any(words in said for words in _WORDS_OF_A_LOST_CONNECTION)


def judge(ended: Ended, stdout: str, stderr: str) -> Verdict:
    """What to write about an attempt that has ended by itself or at a limit.

    Parameters
    ----------
    ended
        How it ended.
    stdout, stderr
        What it printed.

    Returns
    -------
    Verdict
        Complete only if the job said so and exceeded no limit.
    """
    outcome = ended.outcome
    output = None if outcome and outcome.has_output else stdout + stderr
    if outcome and outcome.success and not ended.detail:
        return Verdict(Status.COMPLETE, "", output, ended.usage)
    reason = ended.detail or (_end_in_words(ended.exit_status) if outcome is None else outcome.comment)
    comment = "\n".join(part for part in (reason, stderr.strip()) if part) or "the job failed without saying why"
    return Verdict(Status.FAILED, comment, output, ended.usage)


def unfinished(verdict: Verdict) -> Verdict:
    """The verdict on a job that should have written the end of its calculation itself, and has not.

    Parameters
    ----------
    verdict
        What the job said.
    """
    if verdict.status is Status.FAILED:
        return verdict
    comment = "the job said that it was done, but left its calculation pending"
    return dataclasses.replace(verdict, status=Status.FAILED, comment=comment)


def ever_smaller(verdict: Verdict) -> Iterator[Verdict]:
    """What to try if the database refuses a result: less of it, and at last only that it was refused.

    Parameters
    ----------
    verdict
        The result.
    """
    yield verdict
    output = None if verdict.raw_output is None else shorten(verdict.raw_output, _SMALL_OUTPUT_BYTES)
    yield dataclasses.replace(verdict, raw_output=output, comment=shorten(verdict.comment, _SMALL_COMMENT_BYTES))
    yield Verdict(Status.FAILED, "the database refused its result: see the worker's log", None, verdict.usage)


def _end_in_words(exit_status: int) -> str:
    if exit_status >= 0:
        return f"the job's process exited with code {exit_status} before the job was done"
    return f"the job's process was killed by {signal_name(-exit_status)}"


def signal_name(number: int) -> str:
    """What a signal is called; those for real time have only numbers.

    Parameters
    ----------
    number
        The signal.
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
