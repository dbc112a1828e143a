"""Many names in few words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.hosts.inventory import expand_range
from fleet.hosts.names import condensed


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["node1"], "node1"),
        (["node1", "node2"], "node1, node2"),
        (["node1", "node2", "node3"], "node[1-3]"),
        (["node8", "node9", "node10"], "node[8-10]"),
        (["node08", "node09", "node10"], "node[08-10]"),
        (["node01", "node03", "node04", "node05", "big"], "node01, node[03-05], big"),
        (["r1n1", "r1n2", "r1n3", "r2n1"], "r1n[1-3], r2n1"),
        (["n1.example", "n2.example", "n3.example"], "n[1-3].example"),
        (["node3", "node2", "node1"], "node3, node2, node1"),
    ],
)
def test_names_that_follow_each_other_become_ranges(names: list[str], text: str) -> None:
    assert condensed(names) == text


@given(st.lists(st.tuples(st.sampled_from(["a", "b0", "c-1n"]), st.integers(0, 120), st.sampled_from([1, 2, 3]))))
def test_ranges_mean_the_names_they_stand_for(parts: list[tuple[str, int, int]]) -> None:
    names = sorted({f"{prefix}{number:0{width}d}" for prefix, number, width in parts})
    written = condensed(names)
    assert [name for item in written.split(", ") if item for name in expand_range(item)] == names
