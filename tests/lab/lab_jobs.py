"""Jobs for tests of the worker, offered through the entry points of a distribution of their own."""

from __future__ import annotations

from puffin.jobs.base import JobContext, JobKind, Outcome


def kinds() -> list[JobKind]:
    return [
        JobKind("lab_code", "lab 1.0", (), "tests.lab.lab_jobs:run_code"),
        JobKind("lab_needs_orca", "lab 1.0", ("orca",), "tests.lab.lab_jobs:run_code"),
    ]


def run_code(context: JobContext) -> Outcome:
    """Run the Python code in the setting ``code``; it may set ``outcome``."""
    names = {"context": context, "Outcome": Outcome, "outcome": Outcome(success=True)}
    exec(context.claim.settings["code"], names)
    outcome = names["outcome"]
    assert isinstance(outcome, Outcome)
    return outcome
