"""What is asked of and written to calculations."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffin import calculations, losses
from puffin.calculations import Claim, Claimant, Status, Usage, Verdict, reason_of, shorten
from puffin.losses import Loss, Pending
from puffin.settings import ResourceSettings

NOON = datetime(2026, 1, 1, 12)
CLAIM = Claim("db", "6b02d5829fc92b7451414cc0", 2, "worker", "sleep", 1, 1.0, 1.0, {}, lost_on=("a",))
USAGE = Usage(wall_s=2, cpu_s=1, peak_memory_gb=0)
LOSS = Loss("host", "it was killed", 3)


@pytest.mark.parametrize(
    ("available", "names"),
    [
        ((), ("any",)),
        (("sparrow", "orca"), ("any", "sparrow", "orca")),
        (("serenity",), ("any", "serenity", "serenity/serenity")),
        (("utils", "sparrow", "swoose"), ("any", "utils", "sparrow", "swoose", "any/swoose", "sparrow/swoose")),
    ],
)
def test_the_programs_a_worker_accepts(available: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert calculations.program_names(available) == names


def test_the_claim_asks_for_what_fits() -> None:
    wanted = calculations.claim_filter(ResourceSettings(cores=4, memory=8.0, disk=2.0), ["sleep"], ["any"])
    assert wanted == {
        "status": "new",
        "job.cores": {"$lte": 4},
        "job.disk": {"$lte": 2.0},
        "job.memory": {"$lte": 8.0},
        "job.order": {"$in": ["sleep"]},
        "model.program": {"$in": ["any"]},
    }


def test_a_claim_is_one_write_with_lease_and_fencing_token() -> None:
    update = calculations.claim_update(Claimant("me", 60, "host", "worker", "fleet"))
    assert update["$set"]["status"] == "pending"
    assert update["$set"]["executor"] == update["$set"]["puffin.executor"] == "me"
    assert update["$inc"] == {"puffin.attempt": 1}
    assert update["$currentDate"] == {"puffin.renewed": True, "_lastmodified": True}


def test_the_worker_leaves_the_key_alone() -> None:
    update = calculations.claim_update(Claimant("w", 60.0, "host", "worker", "fleet"))
    touched = {field for fields in update.values() for field in fields}
    assert not {"puffin", "puffin.key"} & touched


def test_a_claimed_document_is_read() -> None:
    document = {
        "_id": "abc",
        "executor": "me",
        "job": {"order": "sleep", "cores": 2, "memory": 1, "disk": 3.5},
        "settings": {"time": 1},
        "puffin": {"attempt": 3, "lost_on": ["a", "b"]},
    }
    claim = calculations.to_claim("db", document)
    assert claim == Claim("db", "abc", 3, "me", "sleep", 2, 1.0, 3.5, {"time": 1}, ("a", "b"))
    assert claim.label == "abc.3"


def test_every_later_write_is_conditional_on_executor_attempt_and_status() -> None:
    assert calculations.owned(CLAIM, "id") == {
        "_id": "id",
        "executor": "worker",
        "puffin.attempt": 2,
        "status": "pending",
    }
    assert calculations.owned(CLAIM, "id", Status.COMPLETE, Status.FAILED)["status"] == {"$in": ["complete", "failed"]}


@pytest.mark.parametrize("update", [calculations.finish_update, lambda v: calculations.complete_update(v.usage, "")])
def test_numbers_are_doubles_whatever_they_were(update: object) -> None:
    assert callable(update)
    written = update(Verdict(Status.FAILED, "", None, USAGE))["$set"]
    assert [type(written["runtime"]), *map(type, written["puffin.usage"].values())] == [float] * 4


def test_a_complete_calculation_forgets_its_losses_and_a_failed_one_does_not() -> None:
    complete = calculations.finish_update(Verdict(Status.COMPLETE, "", "out", USAGE))
    failed = calculations.finish_update(Verdict(Status.FAILED, "why", None, USAGE))
    assert set(complete["$unset"]) == {"puffin.renewed", "puffin.lost_on"}
    assert set(failed["$unset"]) == {"puffin.renewed"}
    assert failed["$set"]["comment"] == "why"
    assert "raw_output" not in failed["$set"]


# Losses ------------------------------------------------------------------------------------------------


def test_a_lost_calculation_is_given_back_while_it_has_attempts() -> None:
    update = losses.loss_update(["a"], LOSS)
    assert update["$set"] == {"status": "new", "executor": ""}
    assert update["$push"] == {"puffin.lost_on": "host"}


def test_the_last_loss_is_a_failure_that_names_the_hosts() -> None:
    update = losses.loss_update(["host", "b"], LOSS)
    assert update["$set"]["status"] == "failed"
    assert (
        "lost 3 times without a result, on host (2), b (1); the last time: it was killed" in update["$set"]["comment"]
    )
    assert "puffin.lost_on" in update["$unset"]


def test_a_failure_that_is_excused() -> None:
    update = losses.retraction_update(CLAIM, LOSS)
    assert update is not None
    assert update["$set"] == {"status": "new", "executor": "", "raw_output": ""}
    assert update["$push"] == {"puffin.lost_on": "host"}


def test_without_attempts_left_it_stays_failed() -> None:
    assert losses.retraction_update(CLAIM, Loss("host", "", 2)) is None


PENDING = {
    "_id": "abc",
    "executor": "me",
    "_lastmodified": NOON,
    "puffin": {"executor": "me", "host": "h", "attempt": 2, "renewed": NOON, "lease_s": 60.0, "lost_on": ["x"]},
}


def test_a_pending_calculation_of_ours_has_a_lease() -> None:
    pending = losses.to_pending(PENDING)
    assert pending == Pending("abc", "me", "h", 2, NOON, 60.0, NOON, ("x",))
    assert pending.lapses_at(7200) == NOON + timedelta(seconds=60)
    assert losses.as_seen(pending, "id") == {
        "_id": "id",
        "status": "pending",
        "executor": "me",
        "puffin.attempt": 2,
        "puffin.renewed": NOON,
    }


def test_what_a_scine_puffin_claimed_after_us_has_none() -> None:
    pending = losses.to_pending({**PENDING, "executor": "scine"})
    assert (pending.renewed, pending.lease_s, pending.host) == (None, None, "scine")
    assert pending.lapses_at(7200) == NOON + timedelta(hours=2)
    assert losses.as_seen(pending, "id") == {
        "_id": "id",
        "status": "pending",
        "executor": "scine",
        "puffin.attempt": 2,
        "_lastmodified": NOON,
    }


def test_what_was_never_ours_is_read_too() -> None:
    pending = losses.to_pending({"_id": "abc", "executor": "scine"})
    assert (pending.attempt, pending.lost_on, pending.lapses_at(7200)) == (None, (), None)


# Texts -------------------------------------------------------------------------------------------------


@given(st.text(), st.integers(2, 50))
def test_a_shortened_text_is_valid_and_bounded(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert "\x00" not in short
    assert len(short.encode("utf-8")) <= limit + 60


def test_the_middle_is_what_is_left_out() -> None:
    assert shorten("a" * 10 + "b" * 10, 8) == "aaaa\n[... 12 bytes left out ...]\nbbbb"
    assert shorten("short") == "short"
    assert shorten("nul\x00 and \ud800") == "nul? and ?"


@pytest.mark.parametrize(
    ("comment", "reason"),
    [
        ("", ""),
        ("\n  too little memory \nsecond", "too little memory"),
        (
            "Error: Scine Optimization failed with message:\nThe key 'x' was not recognized.\n",
            "The key 'x' was not recognized.",
        ),
        ("nothing follows:", "nothing follows:"),
        ('Traceback (most recent call last):\n  File "a.py", line 1\nValueError: bad', "ValueError: bad"),
    ],
)
def test_what_a_comment_says_in_one_line(comment: str, reason: str) -> None:
    assert reason_of(comment) == reason
