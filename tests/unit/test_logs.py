"""Reading worker logs and bringing them into order."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import logs
from fleet.logs import LogLine

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


def line(worker: str, seconds: float, message: str = "") -> str:
    time = (NOON + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{time} INFO  {worker} - {message}"


def test_a_line_is_taken_apart() -> None:
    text = "2026-11-22T12:00:00.120Z WARNING node1-1 6b02d5829fc92b7451414cc0 energy: -76.4  (spaces kept) "
    found = logs.parse("node1-1", text)
    assert found == LogLine(
        worker="node1-1",
        text=text,
        time=NOON + timedelta(milliseconds=120),
        level="WARNING",
        calculation="6b02d5829fc92b7451414cc0",
        message="energy: -76.4  (spaces kept) ",
    )


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T12:00:00Z INFO node1-1 - ",
        "2026-11-22T12:00:00.0Z INFO  node1-1 -",
        "2026-11-22T12:00:00.000000Z I w -",
    ],
)
def test_forms_of_a_line_about_no_calculation(text: str) -> None:
    found = logs.parse("w", text)
    assert (found.time, found.calculation, found.message) == (NOON, None, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback (most recent call last):",
        "2026-11-22 12:00:00 INFO node1-1 - local time",
        "2026-11-22T12:00:00.1234567Z INFO node1-1 - too exact",
        "2026-13-22T12:00:00Z INFO node1-1 - no such month",
        "2026-11-22T12:00:00Z INFO node1-1 6b02 no such calculation",
    ],
)
def test_another_form_is_kept_as_it_is(text: str) -> None:
    assert logs.parse("w", text) == LogLine("w", text, message=text)


def test_a_line_without_a_time_follows_the_one_before() -> None:
    found = list(logs.parse_all("w", ["before any", line("w", 3, "failed"), "Traceback"]))
    assert [entry.time for entry in found] == [None, NOON + timedelta(seconds=3), NOON + timedelta(seconds=3)]


def test_logs_are_merged_by_time_and_tracebacks_stay_together() -> None:
    a = list(logs.parse_all("a", [line("a", 1), "traceback 1", "traceback 2", line("a", 5)]))
    b = list(logs.parse_all("b", [line("b", 0), line("b", 3)]))
    assert [entry.text for entry in logs.merge([a, b])] == [
        b[0].text,
        a[0].text,
        *("traceback 1", "traceback 2"),
        b[1].text,
        a[3].text,
    ]


times = st.lists(st.integers(0, 20), max_size=8)


@given(st.lists(times, max_size=4))
def test_merging_loses_nothing_and_keeps_the_order_of_each_log(all_times: list[list[int]]) -> None:
    """Also where a clock was set back."""
    texts = {f"w{n}": [line(f"w{n}", t, str(i)) for i, t in enumerate(log)] for n, log in enumerate(all_times)}
    merged = list(logs.merge([list(logs.parse_all(w, log)) for w, log in texts.items()]))
    assert {w: [entry.text for entry in merged if entry.worker == w] for w in texts} == texts


@given(st.lists(times.map(sorted), max_size=4))
def test_merged_times_rise(all_times: list[list[int]]) -> None:
    merged = logs.merge([list(logs.parse_all("w", [line("w", t) for t in log])) for log in all_times])
    found = [entry.time for entry in merged if entry.time]
    assert found == sorted(found)


def test_lines_are_selected_by_time_and_pattern() -> None:
    found = list(logs.parse_all("w", ["no time", line("w", 1, "a"), line("w", 2, "b"), line("w", 3, "ab")]))
    since = logs.select(found, since=NOON + timedelta(seconds=2))
    assert [entry.message for entry in since] == ["b", "ab"]
    assert [entry.message for entry in logs.select(found, pattern=re.compile("a$"))] == ["a"]


def test_followed_lines_are_held_back_and_put_in_order() -> None:
    held = logs.HoldBack(seconds=1.0)
    held.add("a", line("a", 5, "later"), now=0.0)
    held.add("b", line("b", 4, "earlier"), now=0.5)
    assert held.ready(now=0.9) == []
    assert [entry.message for entry in held.ready(now=1.0)] == ["earlier", "later"]
    assert held.ready(now=9.0) == []


def test_a_traceback_is_held_back_with_its_line() -> None:
    held = logs.HoldBack(seconds=1.0)
    held.add("a", line("a", 5, "failed"), now=0.0)
    held.add("a", "Traceback", now=0.1)
    held.add("b", line("b", 6, "fine"), now=0.2)
    assert [entry.message for entry in held.rest()] == ["failed", "Traceback", "fine"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=20))
def test_holding_back_loses_nothing_and_keeps_the_order_of_each_log(arrivals: list[tuple[str, int]]) -> None:
    held = logs.HoldBack(seconds=2.0)
    given_out: list[LogLine] = []
    for now, (worker, seconds) in enumerate(arrivals):
        held.add(worker, line(worker, seconds, str(now)), float(now))
        given_out += held.ready(float(now))
    given_out += held.rest()
    for worker in "abc":
        expected = [str(now) for now, (w, _) in enumerate(arrivals) if w == worker]
        assert [entry.message for entry in given_out if entry.worker == worker] == expected
