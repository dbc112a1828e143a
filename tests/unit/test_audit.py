"""What hosts wrote down, put together."""

from __future__ import annotations

import json

import pytest

from fleet.deployment.audit import AuditEntry, PastDeed, merge, read_entries
from fleet.reach.facts import Holder


def line(id_: str, outcome: str = "done", **more: object) -> str:
    known = {"id": id_, "verb": "deploy", "who": "ann@desk", "began": 10.0, "ended": 20.5, "outcome": outcome}
    return json.dumps({**known, "error": None, "release": "r1", **more})


def test_one_deed_on_several_hosts() -> None:
    entries = [
        *read_entries("n1", [line("2-a", began=11.0), line("1-b", verb="prune")], None),
        *read_entries("n2", [line("2-a", "failed", error="disk full", began=10.5)], None),
    ]
    newest, oldest = merge(entries)
    assert (newest.id, newest.verb, newest.who, newest.began, newest.outcome) == (
        "2-a",
        "deploy",
        "ann@desk",
        10.5,
        "failed",
    )
    assert newest.counts == {"done": 1, "failed": 1}
    assert [(entry.host, entry.error) for entry in newest.hosts] == [("n1", ""), ("n2", "disk full")]
    assert newest.releases == ("r1",)
    assert (oldest.verb, oldest.outcome) == ("prune", "done")


def test_hosts_that_could_not_be_told_of_a_deed_are_known_from_the_others() -> None:
    missing = {"n2": "no route to host", "n3": "disk full"}
    entries = [
        *read_entries("n1", [line("2-a", missing=missing), line("3-a", missing="damaged")], None),
        *read_entries("n3", [line("2-a", "interrupted")], None),
    ]
    newest, deed = merge(entries)
    found = [(entry.host, entry.verb, entry.outcome, entry.error) for entry in deed.hosts]
    assert found == [
        ("n1", "deploy", "done", ""),
        ("n2", "deploy", "failed", "no route to host"),
        ("n3", "deploy", "interrupted", ""),  # its own word counts
    ]
    assert (deed.outcome, deed.began) == ("failed", 10.0)
    assert [entry.host for entry in merge(entries, {"n1", "n3"})[1].hosts] == ["n1", "n3"]
    assert (newest.outcome, len(newest.hosts)) == ("done", 1)


@pytest.mark.parametrize(("left", "outcome"), [(60.0, "running"), (-1.0, "interrupted")])
def test_a_lock_that_is_still_held_is_a_deed_without_an_end(left: float, outcome: str) -> None:
    holder = Holder("3-c", "bob@lab", "deploy", 100.0, 5.0, left)
    [deed] = merge(read_entries("n1", [], holder))
    assert (deed.id, deed.who, deed.outcome, deed.hosts[0].ended) == ("3-c", "bob@lab", outcome, None)


def test_what_cannot_be_read_is_left_out() -> None:
    damaged = ["", "{", "[]", '{"id": 3}', "null", line("1-a")[:-4], '{"id": "9", "began": "soon"}']
    [entry] = read_entries("n1", damaged, None)
    assert entry == AuditEntry("n1", "9", "", "", None, None, "", "", "")
    assert merge([entry])[0].outcome == "unknown"


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        (["done", "unchanged"], "done"),
        (["unchanged"], "unchanged"),
        (["done", "interrupted"], "interrupted"),
        (["interrupted", "failed"], "failed"),
        (["failed", "running"], "running"),
    ],
)
def test_the_worst_host_decides(outcomes: list[str], worst: str) -> None:
    entries = [AuditEntry(str(n), "1", "", "", None, None, outcome, "", "") for n, outcome in enumerate(outcomes)]
    assert PastDeed("1", "", "", None, tuple(entries)).outcome == worst


def test_the_last_line_of_a_host_about_a_deed_counts() -> None:
    [deed] = merge(read_entries("n1", [line("1-a", "interrupted"), line("1-a", "failed")], None))
    assert [entry.outcome for entry in deed.hosts] == ["failed"]
