"""What a job may use."""

from __future__ import annotations

import os

import psutil
import pytest

from puffin.calculations import Claim
from puffin.limits import Limits, resident_gb
from puffin.settings import DaemonSettings, ResourceSettings, Settings


def limits(memory: float = 0.5, settings: dict[str, object] | None = None, **daemon: object) -> Limits:
    claim = Claim("db", "a" * 24, 1, "w", "sleep", 1, memory, 1.0, settings or {})
    own = Settings(daemon=DaemonSettings(**daemon), resources=ResourceSettings(memory=4.0))
    return Limits.of(claim, own)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (limits(), Limits(0.5, None)),
        (limits(memory=0.0), Limits(4.0, None)),
        (limits(enforce_memory_limit=False), Limits(None, None)),
        (limits(settings={"walltime_s": 10}), Limits(0.5, 10.0)),
        (limits(settings={"walltime_s": "10"}), Limits(0.5, None)),
        (limits(max_walltime_in_h=1.0), Limits(0.5, 3600.0)),
        (limits(settings={"walltime_s": 10}, max_walltime_in_h=1.0), Limits(0.5, 10.0)),
        (limits(settings={"walltime_s": 7200}, max_walltime_in_h=1.0), Limits(0.5, 3600.0)),
    ],
)
def test_the_limits_of_an_attempt(found: Limits, expected: Limits) -> None:
    assert found == expected


@pytest.mark.parametrize(
    ("memory", "ran", "words"),
    [
        (0.5, 10.0, ""),
        (0.51, 1.0, "memory limit of 0.5 GB exceeded: its processes used 0.51 GB"),
        (0.1, 10.1, "walltime limit of 10 s exceeded"),
    ],
)
def test_which_limit_was_exceeded(memory: float, ran: float, words: str) -> None:
    assert Limits(0.5, 10.0).exceeded(memory, ran) == words


def test_without_limits_nothing_is_exceeded() -> None:
    assert Limits(None, None).none
    assert Limits(None, None).exceeded(1e9, 1e9) == ""
    assert not Limits(None, 1.0).none


def test_it_looks_more_often_where_the_limit_is_near() -> None:
    assert Limits(1.0, None).sample_interval(0.9) < Limits(1.0, None).sample_interval(0.1)


def test_processes_that_are_gone_use_nothing() -> None:
    gone = psutil.Popen(["true"])
    gone.wait()
    here = psutil.Process(os.getpid())
    assert 0 < resident_gb([here, gone]) < 10
