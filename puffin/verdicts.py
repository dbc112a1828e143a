"""Decides what the end of a job means for its calculation; pure."""

from __future__ import annotations

import signal

from puffin.calculations import Status, Verdict
from puffin.jobs.base import Ended


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


def _end_in_words(exit_status: int) -> str:
    if exit_status >= 0:
        return f"the job's process exited with code {exit_status} before the job was done"
    try:
        name = signal.Signals(-exit_status).name
    except ValueError:
        name = f"signal {-exit_status}"
    return f"the job's process was killed by {name}"
