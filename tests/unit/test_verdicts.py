"""What the end of a job means for its calculation."""

from __future__ import annotations

import dataclasses
import signal

import pytest

from puffin import verdicts
from puffin.calculations import Status, Usage, Verdict
from puffin.jobs.base import Cause, Ended, Outcome

USAGE = Usage(1.0, 1.0, 0.1)
GOOD, BAD = Outcome(True), Outcome(False, "did not converge")


def ended(outcome: Outcome | None, status: int = 0, cause: Cause = Cause.ENDED, detail: str = "") -> Ended:
    return Ended(cause, outcome, status, detail, USAGE)


def swept(end: Ended, seconds: float) -> Ended:
    return dataclasses.replace(end, terminated_s=seconds)


@pytest.mark.parametrize(
    ("end", "status", "comment"),
    [
        (ended(GOOD), Status.COMPLETE, ""),
        (ended(BAD, 1), Status.FAILED, "did not converge\nerrors"),
        (ended(None, 7), Status.FAILED, "the job's process exited with code 7 before the job was done\nerrors"),
        (ended(None, -signal.SIGSEGV), Status.FAILED, "the job's process was killed by SIGSEGV\nerrors"),
        (ended(None, -63), Status.FAILED, "the job's process was killed by signal 63\nerrors"),
        (ended(None, -9, Cause.LIMIT, "too much"), Status.FAILED, "too much\nerrors"),
    ],
)
def test_judgements(end: Ended, status: Status, comment: str) -> None:
    verdict = verdicts.judge(end, "out\n", "errors\n")
    assert verdict == Verdict(status, comment, "out\nerrors\n", USAGE)


def test_a_job_that_says_nothing_at_all() -> None:
    assert verdicts.judge(ended(Outcome(False), 1), "", "").comment == "the job failed without saying why"


def test_output_that_the_job_stored_itself_is_left_alone() -> None:
    assert verdicts.judge(ended(Outcome(True, has_output=True)), "out", "err").raw_output is None


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (ended(GOOD), ""),
        (ended(BAD, 1), ""),
        (ended(None, 1), ""),
        (ended(None, -signal.SIGSEGV), ""),
        (ended(None, -signal.SIGKILL), "its process was killed from outside, by SIGKILL"),
        (ended(None, -signal.SIGTERM), "its process was killed from outside, by SIGTERM"),
        (ended(None, -signal.SIGKILL, Cause.LIMIT, "too much"), ""),
        (ended(None, -signal.SIGKILL, Cause.KILLED), "its processes were killed"),
        (ended(None, 0, Cause.KILLED, "its keeper was killed"), "its keeper was killed"),
        (swept(ended(BAD, 1), 0.5), "every process was told to end while it ran, as when the machine is switched off"),
        (swept(ended(BAD, 1), 3600), ""),
        (swept(ended(GOOD), 0.5), ""),
        (swept(ended(BAD, 1, Cause.LIMIT, "too much"), 0.5), ""),
    ],
)
def test_what_is_a_loss_and_not_a_failure(end: Ended, words: str) -> None:
    assert verdicts.loss(end) == words


def test_a_job_that_says_it_is_done_but_left_its_calculation_pending_failed() -> None:
    verdict = verdicts.unfinished(Verdict(Status.COMPLETE, "", "out", USAGE))
    assert (verdict.status, verdict.raw_output) == (Status.FAILED, "out")
    assert "left its calculation pending" in verdict.comment
    failed = Verdict(Status.FAILED, "why", None, USAGE)
    assert verdicts.unfinished(failed) is failed


@pytest.mark.parametrize(
    ("comment", "lost"),
    [
        ('No suitable servers found: [connection refused calling hello on "db:27017"]: generic server error', True),
        ("Failed to read 4 bytes: socket error or timeout: generic server error", True),
        ("SCF not converged", False),
    ],
)
def test_a_scine_job_that_lost_its_database(comment: str, lost: bool) -> None:
    assert verdicts.lost_its_database(Verdict(Status.FAILED, comment, None, USAGE)) is lost
    assert not verdicts.lost_its_database(Verdict(Status.COMPLETE, comment, None, USAGE))


def test_a_refused_result_is_offered_smaller_and_at_last_as_a_failure() -> None:
    offers = list(verdicts.ever_smaller(Verdict(Status.COMPLETE, "", "x" * 10**6, USAGE)))
    assert [offer.status for offer in offers] == [Status.COMPLETE, Status.COMPLETE, Status.FAILED]
    assert [len(offer.raw_output or "") < 70_000 for offer in offers] == [False, True, True]
    assert "refused" in offers[-1].comment
