"""The lease: its times, and who is judged to have lost it."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime, timedelta

import pytest

from puffin import lease
from puffin.judge import ServerClock, Suspects, judge
from puffin.lease import Hold
from puffin.losses import Pending

NOON = datetime(2026, 1, 1, 12)


# Times -------------------------------------------------------------------------------------------------


def test_the_times_of_a_lease() -> None:
    held = lease.claimed(60.0, 1000.0)
    assert (held.next_try, held.freeze_at, held.expires_at) == (1020.0, 1045.0, 1060.0)
    assert held.hold is Hold.RUNNING


def test_it_is_renewed_earlier_where_touches_are_asked_for_more_often() -> None:
    assert lease.claimed(60.0, 0.0, touch_every=5.0).next_try == 5.0
    assert lease.claimed(60.0, 0.0, touch_every=1500.0).next_try == 20.0


@pytest.mark.parametrize(("duration", "pause"), [(2.0, 2 / 12), (60.0, 5.0), (600.0, 5.0)])
def test_a_renewal_without_an_answer_is_tried_again_soon(duration: float, pause: float) -> None:
    held = lease.trying(lease.claimed(duration, 0.0), 300.0)
    assert held.next_try == pytest.approx(300.0 + pause)


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    held = lease.granted(lease.trying(lease.claimed(60.0, 0.0), 20.0), 20.0)
    assert (held.freeze_at, held.next_try) == (65.0, 40.0)


def test_an_answer_that_comes_late_never_shortens_the_lease() -> None:
    held = lease.granted(lease.claimed(60.0, 50.0), 20.0)
    assert held.renewed == 50.0


def test_it_freezes_in_time_and_thaws() -> None:
    held = lease.claimed(60.0, 0.0)
    assert lease.at(held, 44.9).hold is Hold.RUNNING
    frozen = lease.at(held, 45.0)
    assert frozen.hold is Hold.FROZEN
    assert lease.is_due(frozen, 45.0)
    assert lease.granted(frozen, 50.0).hold is Hold.RUNNING


def test_what_is_lost_stays_lost() -> None:
    lost = lease.refused(lease.claimed(60.0, 0.0))
    assert lease.granted(lost, 10.0) is lost
    assert lease.at(lost, 1000.0) is lost
    assert not lease.is_due(lost, 1000.0)


@pytest.mark.parametrize(
    ("connected_since", "may"), [(None, False), (100.0, False), (40.0, False), (39.9, True), (-math.inf, True)]
)
def test_only_who_was_connected_for_a_full_lease_may_judge(connected_since: float | None, may: bool) -> None:
    assert lease.may_judge(connected_since, 100.0, 60.0) is may


# Judging -----------------------------------------------------------------------------------------------


def pending(age: float | None, lease_s: float | None = 60.0, untouched: float = 0.0) -> Pending:
    return Pending(
        id="a",
        executor="worker",
        host="host",
        attempt=1,
        renewed=None if age is None else NOON - timedelta(seconds=age),
        lease_s=lease_s if age is not None else None,
        modified=NOON - timedelta(seconds=untouched),
        lost_on=(),
    )


def test_a_judge_tells_the_lost_from_the_living() -> None:
    lost, alive, foreign_lost, foreign = pending(61), pending(20), pending(None, untouched=7201), pending(None)
    sentence = judge([lost, alive, foreign_lost, foreign], NOON, reset_time_s=7200)
    assert sentence.lost == (lost, foreign_lost)
    assert sentence.next_lapse == NOON + timedelta(seconds=40)


def test_who_has_a_longer_lease_than_the_judge_was_connected_may_have_been_cut_off_with_it() -> None:
    short, long = pending(61, lease_s=2.0), pending(61, lease_s=60.0)
    assert judge([short, long], NOON, 7200, watched_s=3.0).lost == (short,)
    assert judge([short, long], NOON, 7200, watched_s=60.0).lost == (short, long)


def test_only_who_is_found_as_before_in_a_later_look_is_lost() -> None:
    dead, alive = pending(61), dataclasses.replace(pending(62), id="b")
    suspects = Suspects().seen([dead, alive], 100.0)
    assert (suspects.proven(60.0, 100.0), suspects.next_proof(60.0, 100.0)) == ([], 110.0)
    renewed = dataclasses.replace(alive, renewed=NOON)
    suspects = suspects.seen([dead, renewed], 105.0)
    assert suspects.proven(60.0, 109.9) == []
    assert (suspects.proven(60.0, 110.0), suspects.next_proof(60.0, 110.0)) == ([dead], 115.0)
    assert suspects.seen([], 111.0).since == {}


@pytest.mark.parametrize(
    ("own", "its", "patience"),
    [(12.0, 12.0, 2.0), (12.0, 60.0, 10.0), (60.0, 12.0, 10.0), (12.0, None, 2.0), (9e9, 9e9, 10.0)],
)
def test_who_tries_again_less_often_is_waited_for_longer(own: float, its: float | None, patience: float) -> None:
    suspects = Suspects().seen([pending(61, lease_s=its)], 100.0)
    assert suspects.next_proof(own, 100.0) == 100.0 + patience


@pytest.mark.parametrize("never", [1e12, math.inf])
def test_who_never_wants_a_reset_gets_none(never: float) -> None:
    assert judge([pending(None, untouched=1e6), pending(1e6, lease_s=never)], NOON, never).lost == ()


def test_without_anything_pending_there_is_nothing_to_wait_for() -> None:
    assert judge([], NOON, 7200).next_lapse is None


@pytest.mark.parametrize(("step", "steady_since"), [(0.0, 0.0), (10.0, 0.0), (16.0, 30.0), (-3600.0, 30.0)])
def test_a_server_clock_that_was_set_starts_the_waiting_anew(step: float, steady_since: float) -> None:
    clock = ServerClock().tick(NOON, 0.0, 60.0).tick(NOON + timedelta(seconds=30 + step), 30.0, 60.0)
    assert clock.steady_since == steady_since
