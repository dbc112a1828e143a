"""What is said where hosts cannot be locked."""

from __future__ import annotations

import pytest

from fleet.deployment.refusals import ChangedMeanwhile, LockedError, describe
from fleet.errors import ExitCode
from fleet.reach.facts import Holder


def holder(id_: str = "1", age: float = 90, left: float = 810) -> Holder:
    return Holder(id_, "ann@desk", "deploy", 1_795_360_000.0, age, left)


def test_one_host() -> None:
    error = LockedError({"n1": holder()})
    assert error.exit_code == ExitCode.LOCKED
    first, *rest = str(error).splitlines()
    assert first.startswith("n1: locked by ann@desk for 'deploy' since 20")
    assert first.endswith("(2 min ago; time limit in 14 min)")
    assert "--lock-timeout SECONDS" in rest[0]
    assert "'puffin-fleet unlock --host n1'" in rest[1]


def test_many_hosts_of_two_holders_are_two_lines() -> None:
    error = LockedError({**{f"n{n}": holder() for n in range(1, 9)}, "z": holder("2")})
    first, second, _, advice = str(error).splitlines()
    assert first.startswith("n1, n2, n3, n4, n5 and 3 more: locked by ann@desk")
    assert second.startswith("z: locked by ann@desk")
    assert "'puffin-fleet unlock'" in advice
    assert max(map(len, str(error).splitlines()[2:])) < 110


@pytest.mark.parametrize(
    ("age", "left", "words"),
    [
        (5, -1, "(5 s ago; time limit over)"),
        (3600, 30, "(1.0 h ago; time limit in 30 s)"),
        (86400, 900, "(1.0 d ago; time limit in 15 min)"),
        (-3, 900, "(0 s ago; time limit in 15 min)"),
    ],
)
def test_how_long(age: float, left: float, words: str) -> None:
    assert describe(holder(age=age, left=left)).endswith(words)


def test_hosts_that_were_changed_meanwhile() -> None:
    deed = ("bob@lab", "prune")
    assert str(ChangedMeanwhile({"n1": deed})).splitlines() == [
        "n1: bob@lab changed this host since it was looked at ('prune')",
        "Nothing was changed; run the command again.",
    ]
    assert str(ChangedMeanwhile({"n1": deed, "n2": deed, "n3": ("somebody", "")})).splitlines()[:2] == [
        "n1, n2: bob@lab changed these hosts since they were looked at ('prune')",
        "n3: somebody changed this host since it was looked at",
    ]
