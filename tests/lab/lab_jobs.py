"""Jobs for tests of the worker, offered through the entry points of a distribution of their own."""

from __future__ import annotations

import pymongo
from bson.objectid import ObjectId

from puffin.jobs.base import JobContext, JobKind, Outcome


def kinds() -> list[JobKind]:
    return [
        JobKind("lab_code", "lab 1.0", (), "tests.lab.lab_jobs:run_code"),
        JobKind("lab_own_end", "lab 1.0", (), "tests.lab.lab_jobs:run_code_to_its_own_end", writes_own_end=True),
        JobKind("lab_needs_orca", "lab 1.0", ("orca",), "tests.lab.lab_jobs:run_code"),
    ]


def run_code(context: JobContext) -> Outcome:
    """Run the Python code in the setting ``code``; it may set ``outcome``."""
    names = {"context": context, "Outcome": Outcome, "outcome": Outcome(success=True)}
    exec(context.claim.settings["code"], names)
    outcome = names["outcome"]
    assert isinstance(outcome, Outcome)
    return outcome


def run_code_to_its_own_end(context: JobContext) -> Outcome:
    """Likewise, but write the calculation's end as SCINE's jobs do: without asking whose it is."""
    try:
        outcome = run_code(context)
    except Exception as error:  # noqa: BLE001 - the job's code is anything
        outcome = Outcome(success=False, comment=str(error))
    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(context.uri)
    with client:
        end = {"status": "complete" if outcome.success else "failed", "comment": outcome.comment}
        calculations = client[context.claim.database]["calculations"]
        calculations.update_one({"_id": ObjectId(context.claim.id)}, {"$set": end})
    return outcome
