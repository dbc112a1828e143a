"""Words for people."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from fleet.words import age, amount, duration, first_line, plain, uncoloured, utc

NOW = datetime(2025, 1, 1, 12)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0 s"), (59.0, "59 s"), (90.0, "2 min"), (5400.0, "1.5 h"), (36000.0, "10 h"), (1e5, "1.2 d")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_ages() -> None:
    assert age(NOW - timedelta(minutes=3), NOW) == "3 min"
    assert age(None, NOW) == ""
    assert age(NOW + timedelta(seconds=5), NOW) == "0 s"


@pytest.mark.parametrize(
    "when", [NOW, NOW.replace(tzinfo=timezone.utc), NOW.replace(hour=21, tzinfo=timezone(timedelta(hours=9)))]
)
def test_times_are_spelt_in_one_way(when: datetime) -> None:
    assert utc(when) == "2025-01-01T12:00:00.000+00:00"


def test_the_first_line_of_a_comment() -> None:
    assert first_line("\n  it failed\nbecause", 20) == "it failed"
    assert first_line("a long comment", 8) == "a long…"
    assert first_line("", 5) == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (54_321, "54 kB"),
        (7.2e9, "7.2 GB"),
        (2.5e11, "250 GB"),
        (1.5e12, "1.5 TB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_amounts(count: float, text: str) -> None:
    assert amount(count) == text


@pytest.mark.parametrize(
    ("text", "keep", "shown"),
    [
        ("Grüße, 水", "", "Grüße, 水"),
        ("a\nb\tc", "", "a b c"),
        ("a\nb\tc\rd", "\n", "a\nb c d"),
        ("\x1b]0;mine\x07", "\n", "\N{REPLACEMENT CHARACTER}]0;mine\N{REPLACEMENT CHARACTER}"),
        ("\x9b2J\u202eb\udcff", "", "\N{REPLACEMENT CHARACTER}2J\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"),
        ("1\u00a0000\u2028", "", "1 000 "),
    ],
)
def test_a_terminal_is_shown_nothing_that_it_would_obey(text: str, keep: str, shown: str) -> None:
    assert plain(text, keep) == shown


def test_colours_are_left_out_and_nothing_else() -> None:
    assert uncoloured("a \x1b[1;31mred\x1b[0m\x1b[m \x1b[2Jb") == "a red \x1b[2Jb"
