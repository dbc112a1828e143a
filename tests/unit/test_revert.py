"""A host is put back also where its workers are just being given up with what is taken back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fleet.deployment.health import WorkerHealth
from fleet.deployment.revert import Reversal
from fleet.deployment.waiting import Expected, Supervised
from fleet.errors import RemoteError
from fleet.reach.facts import Program, States, Supervisord

NAMES = ("n-1", "n-2", "n-3")


def states(**programs: str) -> States:
    found = tuple(
        Program(name.replace("_", "-"), state, 100, "", "", 0, 1, 0, 2) for name, state in sorted(programs.items())
    )
    supervisord = Supervisord(True, True, 1, "/run/sv.sock", "4.3.0", None, found)
    return States(supervisord, False, frozenset({"n-3"}), frozenset(), {}, "old", 0.0)


@dataclass
class Host:
    """A host as `Reversal` sees it: what its workers are at each look, and how often waiting for them fails."""

    looks: list[States]
    failures: int
    told: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    waits: int = 0

    def states(self) -> States:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def supervise(self, **request: Any) -> Supervised:
        return Supervised(self.states(), ())

    def ask(self, action: str, **request: Any) -> dict[str, Any]:
        if action == "good":
            return {"release": "old", "workers": dict.fromkeys(NAMES, "c0ffee")}
        self.told += [(each["operation"], tuple(each["workers"])) for each in request["operations"]]
        return {}

    def records(self) -> list[Any]:
        return []

    def wait_until_healthy(self, wanted: Expected) -> tuple[WorkerHealth, ...]:
        self.waits += 1
        if self.waits <= self.failures:
            raise RemoteError("n", "waiting for workers", "Exited too quickly")
        return ()


def put_back(host: Host) -> Host:
    Reversal("n", host, lambda _: None, "d2").carry_out()  # type: ignore[arg-type]  # all of a Watch that it uses
    return host


TRYING = states(n_1="STARTING", n_2="RUNNING", n_3="EXITED")
GIVEN_UP = states(n_1="FATAL", n_2="RUNNING", n_3="FATAL")


def test_who_was_in_his_last_try_with_what_is_taken_back_is_started_again() -> None:
    host = put_back(Host([TRYING, TRYING, GIVEN_UP], failures=1))
    assert host.told == [("recycle", ("n-1", "n-2")), ("start", ("n-1",))]  # n-3 was stopped on purpose
    assert host.waits == 2


@pytest.mark.parametrize(("looks", "failures"), [([TRYING, TRYING, TRYING], 1), ([TRYING, TRYING, GIVEN_UP], 2)])
def test_what_does_not_run_as_before_either_is_said(looks: list[States], failures: int) -> None:
    with pytest.raises(RemoteError, match="Exited too quickly"):
        put_back(Host(looks, failures))


def test_workers_of_a_host_that_is_stopped_are_told_nothing() -> None:
    assert put_back(Host([replace(TRYING, stop=True)], failures=0)).told == []
