"""Reading worker logs and bringing them into order."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.cli import cli
from fleet.cli.logs import _ran_elsewhere
from fleet.errors import UsageError
from fleet.reach import logs
from fleet.reach.logs import LogLine, Merge, telling
from fleet.watch.moments import parse_moment

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


def line(worker: str, seconds: float, message: str = "", host: str = "h") -> LogLine:
    time = (NOON + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return logs.parse(host, f"{worker}.log", 0, f"{time} INFO    {worker} - {message}")


def test_a_line_is_taken_apart() -> None:
    text = "2026-11-22T12:00:00.120Z WARNING node1-1 6b02d5829fc92b7451414cc0 energy: -76.4  (spaces kept) "
    found = logs.parse("node1", "node1-1.log", 0, text)
    assert found == LogLine(
        worker="node1-1",
        text=text,
        time=NOON + timedelta(milliseconds=120),
        host="node1",
        file="log",
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
    found = logs.parse("h", "w.log", 0, text)
    assert (found.time, found.calculation, found.message) == (NOON, None, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback (most recent call last):\n  File",
        "2026-11-22 12:00:00 INFO node1-1 - local time",
        "2026-11-22T12:00:00.1234567Z INFO node1-1 - too exact",
        "2026-13-22T12:00:00Z INFO node1-1 - no such month",
        "2026-11-22T12:00:00Z INFO node1-1 6b02 no such calculation",
    ],
)
def test_another_form_is_kept_as_it_is_with_the_time_of_its_neighbour(text: str) -> None:
    found = logs.parse("h", "w.out", NOON.timestamp(), text)
    assert found == LogLine("w", text, NOON, "h", "out", message=text)


def test_a_message_of_several_lines_is_given_back_as_such() -> None:
    found = logs.parse("h", "w.log", 0, r"2026-11-22T12:00:00Z ERROR w - Traceback:\n  C:\\new\n  \x")
    assert found.message == "Traceback:\n  C:\\new\n  \\x"


def messages(found: list[LogLine]) -> list[str]:
    return [entry.message for entry in found]


def test_what_hosts_read_of_the_past_is_merged_exactly() -> None:
    merge = Merge(["a", "b"], now=0.0, patience=4.0, hold=0.5)
    merge.add([line("a-1", 1, "1", "a"), line("a-1", 5, "5", "a")], now=0.1)
    assert merge.ready(0.2) == []  # b owes its first line
    merge.add([line("b-1", 0, "0", "b"), line("b-1", 3, "3", "b")], now=0.3)
    assert messages(merge.ready(0.4)) == ["0", "1", "3"]  # then b owes its next
    merge.caught_up("b")
    assert messages(merge.ready(0.5)) == ["5"]


def test_no_host_is_waited_for_longer_than_patience() -> None:
    merge = Merge(["dead", "alive"], now=0.0, patience=4.0, hold=0.5)
    merge.add([line("w", 1, "1", "alive"), line("w", 2, "2", "alive")], now=1.0)
    assert (merge.ready(3.9), merge.late(3.9)) == ([], [])
    assert messages(merge.ready(4.0)) == ["1", "2"]
    assert merge.late(4.0) == ["dead"]
    merge.add([line("w", 0, "0", "dead")], now=9.0)
    merge.caught_up("alive")
    assert messages(merge.ready(9.0)) == ["0"]


def test_what_is_added_is_held_back_and_put_in_order() -> None:
    merge = Merge("ab", now=0.0, patience=4.0, hold=1.0)
    merge.caught_up("a")
    merge.caught_up("b")
    merge.add([line("w", 5, "later", "a")], now=0.0)
    merge.add([line("w", 4, "earlier", "b")], now=0.5)
    assert merge.ready(now=0.9) == []
    assert messages(merge.ready(now=1.0)) == ["earlier", "later"]
    assert merge.ready(now=9.0) == []


arrivals = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["w", "v"]), st.integers(0, 20)), max_size=30)


@given(arrivals, st.dictionaries(st.sampled_from("abc"), st.integers(0, 30)))
def test_merging_loses_nothing_and_keeps_the_order_of_each_log(
    arrived: list[tuple[str, str, int]], caught_up: dict[str, int]
) -> None:
    """Also where a clock was set back, and whenever a host has caught up."""
    merge = Merge("abc", now=0.0, patience=4.0, hold=2.0)
    given_out: list[LogLine] = []
    for now, (host, worker, seconds) in enumerate(arrived):
        for name in [name for name, at in caught_up.items() if at == now]:
            merge.caught_up(name)
        merge.add([line(worker, seconds, str(now), host)], float(now))
        given_out += merge.ready(float(now))
    given_out += merge.rest()
    for log in {(host, worker) for host, worker, _ in arrived}:
        expected = [str(now) for now, (host, worker, _) in enumerate(arrived) if (host, worker) == log]
        assert [entry.message for entry in given_out if (entry.host, entry.worker) == log] == expected


@given(st.lists(st.lists(st.integers(0, 20), max_size=8).map(sorted), max_size=4))
def test_merged_times_rise(all_times: list[list[int]]) -> None:
    hosts = [f"h{number}" for number in range(len(all_times))]
    merge = Merge(hosts, now=0.0, patience=4.0, hold=0.5)
    found = []
    for host, times in zip(hosts, all_times, strict=True):
        merge.add([line("w", time, "", host) for time in times], now=0.0)
        found += merge.ready(0.0)
        merge.caught_up(host)
    found += merge.ready(0.1)
    assert [entry.time for entry in found] == sorted(NOON + timedelta(seconds=t) for times in all_times for t in times)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOON - timedelta(minutes=10)),
        ("1.5h", NOON - timedelta(minutes=90)),
        ("2d", NOON - timedelta(days=2)),
        ("2026-11-22T10:00Z", NOON - timedelta(hours=2)),
        ("2026-11-22T13:00+01:00", NOON),
        ("2026-11-22", datetime(2026, 11, 22).astimezone()),
        ("2026-07-01 10:00", datetime(2026, 7, 1, 10).astimezone()),
    ],
)
def test_times_as_operators_write_them(text: str, expected: datetime) -> None:
    assert parse_moment(text, NOON) == expected


@pytest.mark.parametrize("text", ["", "soon", "10", "10 parsecs", "2026-13-01", "99999999999w"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; a time is written as one of 10m"):
        parse_moment(text, NOON)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grep", "a(b"], "--grep: missing ), unterminated subpattern\n  a(b\n   ^"),
        (["--since", "yesterday"], "--since: 'yesterday' is no time; a time is written as one of 10m"),
        (["--calculation", "6b"], "--calculation: '6b' is no id"),
        (["-f", "--until", "1h"], "--follow goes on without end"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_host_is_asked(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        cli.main(["logs", "none.yaml", *words], standalone_mode=False)
    assert message in str(refused.value)


@pytest.mark.parametrize("verb", ["logs", "events", "collect"])
def test_an_id_is_checked_alike_everywhere(verb: str) -> None:
    words = [verb, "none.yaml", "--calculation", "6B02D5829FC92B7451414CCZ", *(["-o", "x"] * (verb == "collect"))]
    with pytest.raises(UsageError, match="--calculation: '6B02D5829FC92B7451414CCZ' is no id"):
        cli.main(words, standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--watch", "hosts.yaml"],
            "'hosts.yaml' is no number of seconds; a file stands before it: hosts.yaml --watch",
        ),
        (["--watch", "0.1"], "0.1 is not in the range x>=0.2"),
    ],
)
def test_what_is_no_number_of_seconds(words: list[str], message: str) -> None:
    with pytest.raises(click.BadParameter) as refused:
        cli.main(["status", *words], standalone_mode=False)
    assert message in str(refused.value)


def test_the_lines_that_tell_most_are_the_last_and_the_errors_before() -> None:
    def line(level: str, message: str) -> LogLine:
        return LogLine("n-1", f"{level} {message}", datetime.now(timezone.utc), level=level, message=message)

    lines = [line("ERROR", "refused"), *(line("INFO", "again") for _ in range(5)), line("INFO", "a"), line("INFO", "b")]
    assert telling(lines, 4) == ["ERROR refused", "INFO a", "INFO b"]
    assert telling([line("INFO", "x")], 4) == ["INFO x"]
    assert telling([], 4) == []


def test_where_else_a_calculation_ran() -> None:
    asked = "not asked: not in hosts.yaml, or not chosen."
    assert _ran_elsewhere(["old"], also=True) == f"It also ran on old, which is {asked}"
    assert _ran_elsewhere(["a", "b"], also=False) == f"It ran on a, b, which are {asked}"
