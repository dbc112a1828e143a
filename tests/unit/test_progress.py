"""How fast calculations come to an end."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from puffin.progress import EndedCalculation, pace

NOW = datetime(2025, 1, 1, 12)


def ends(count: int, every_s: float, last_s: float = 0.0, runtime_s: float = 1.0) -> list[EndedCalculation]:
    """So many, one after the other, of which the last was so long ago."""
    return [EndedCalculation(NOW - timedelta(seconds=last_s + every_s * number), runtime_s) for number in range(count)]


@pytest.mark.parametrize(
    ("ended", "left", "per_hour", "left_s"),
    [
        ([], 5, None, None),
        ([], 0, None, 0.0),
        (ends(1, 1), 5, None, None),
        pytest.param(ends(3, 1, last_s=7200), 5, None, None, id="all before the window"),
        pytest.param(ends(3600, 1), 30, 3600, 30, id="steadily"),
        pytest.param(ends(10, 1), 0, 3600, 0, id="none left"),
        pytest.param([*ends(14, 0.5, runtime_s=0.5), *ends(2, 1, last_s=2400)], 162, 6400, 91, id="after a pause"),
        pytest.param(ends(30, 1, last_s=1800), 162, 3600, 162, id="in a pause"),
        pytest.param([*ends(40, 1), *ends(40, 10, last_s=1200)], 162, 3600, 162, id="quicker than before"),
        pytest.param(ends(8, 450, runtime_s=1800), 8, 8, 3600, id="four at a time, each half an hour"),
        pytest.param(ends(12, 300, runtime_s=0.1), 12, 36000, 1.2, id="one now and then, as they were submitted"),
        pytest.param(ends(30, 10, runtime_s=0.01), 36, 372, 348, id="workers that look every ten seconds"),
    ],
)
def test_pace(ended: list[EndedCalculation], left: int, per_hour: float | None, left_s: float | None) -> None:
    found = pace(len(ended), ended, left, NOW)
    expected = [value if value is None else pytest.approx(value, rel=0.02) for value in (per_hour, left_s)]
    assert [found.finished, found.per_hour, found.left_s] == [len(ended), *expected]


def test_the_pace_of_many_is_told_from_the_newest_in_any_order() -> None:
    both = [*ends(2000, 0.1), *ends(2000, 0.1)]
    assert pace(4000, both[:1000] + both[2000:3000], 20, NOW).left_s == pytest.approx(1.0, rel=0.02)
