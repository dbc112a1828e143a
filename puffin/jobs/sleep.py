"""A job that only waits; for trials and tests."""

from __future__ import annotations

import time

from puffin.jobs.base import JobContext, Outcome


def run(context: JobContext) -> Outcome:
    """Wait for the number of seconds in the setting ``time`` (default 300, as in SCINE Puffin).

    Parameters
    ----------
    context
        The job's surroundings.
    """
    time.sleep(float(context.claim.settings.get("time", 300)))
    return Outcome(success=True)
