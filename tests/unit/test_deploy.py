"""What the workers of a host are told in a deploy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.deployment.host_deploy import left_behind, operations
from fleet.deployment.plan import ChangeReason, HostPlan, WorkerChange
from fleet.reach.facts import Program, States, Supervisord

PLAN = HostPlan(
    "n",
    workers_changed=(WorkerChange("n-1", (ChangeReason.RELEASE,)), WorkerChange("n-2", (ChangeReason.PROGRAM,))),
    workers_to_start=("n-3", "n-4"),
)


def states(**programs: str) -> States:
    found = tuple(
        Program(name.replace("_", "-"), state, 100 if state == "RUNNING" else 0, "", "", 0, 1, 0, 2)
        for name, state in programs.items()
    )
    supervisord = Supervisord(True, True, 1, "/run/sv.sock", "4.3.0", None, found)
    return States(supervisord, False, frozenset(), frozenset(), {}, "new", 0.0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (states(n_1="RUNNING", n_2="RUNNING"), {"recycle": ["n-1"], "start": ["n-3"]}),
        # By itself, since the plan was made, as after daemon.idle_timeout_in_h: nobody else starts it.
        (states(n_1="EXITED", n_2="RUNNING"), {"start": ["n-3", "n-1"]}),
        (states(n_1="RUNNING", n_2="FATAL"), {"recycle": ["n-1"], "start": ["n-3", "n-2"]}),
        # Its supervisord was killed, and it goes on.
        (replace(states(n_2="RUNNING"), pids={"n-1": 100}), {"recycle": ["n-1"], "start": ["n-3"]}),
        # On purpose.
        (
            replace(states(n_1="EXITED", n_2="RUNNING"), stopped=frozenset({"n-1"})),
            {"recycle": ["n-1"], "start": ["n-3"]},
        ),
        (replace(states(n_1="EXITED", n_2="EXITED"), stop=True), {"recycle": ["n-1"], "start": ["n-3"]}),
    ],
)
def test_what_workers_are_told_depends_on_what_they_do_by_then(found: States, expected: dict[str, Any]) -> None:
    told = operations(PLAN, ["n-2"], ["n-4"], found)
    assert {one["operation"]: one["workers"] for one in told} == expected


@pytest.mark.parametrize(
    ("found", "pending", "later"),
    [
        (states(n_1="RUNNING", n_2="RUNNING", n_5="RUNNING"), ("n-1",), ("n-4", "n-2", "n-5")),
        (states(n_1="EXITED", n_2="EXITED", n_5="EXITED"), (), ("n-4",)),
    ],
)
def test_who_changes_when_idle_and_who_does_not(
    found: States, pending: tuple[str, ...], later: tuple[str, ...]
) -> None:
    plan = replace(PLAN, workers_removed=("n-5",))
    assert left_behind(plan, ["n-2"], ["n-4"], found) == (pending, later)
