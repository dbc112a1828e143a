"""`stop` on twenty hosts with four workers each (fewer on a small machine), all computing: told in time, none lost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from puffin.documents import Model, Request
from tests.acceptance.here import until
from tests.acceptance.many import Many
from tests.acceptance.test_whole_path import hosts_yaml
from tests.lab.fixtures_database import Database
from tests.lab.sshd import Lab, SshHost

HOSTS = int(os.environ.get("PUFFIN_STOP_HOSTS", "20"))
WORKERS = min(4, os.cpu_count() or 1)
"""Where the machine has fewer than four cores, no host can be given four workers."""

NAMES = [f"node{number:02}" for number in range(1, HOSTS + 1)]
STAY, BACK = NAMES[: len(NAMES) // 2], NAMES[len(NAMES) // 2 :]
"""Hosts whose calculations are finished, and hosts whose calculations are given back."""


@pytest.fixture
def twenty(ssh_lab: Lab, database: Database) -> Iterator[tuple[Many, SshHost]]:
    """Hosts behind one sshd, each with a connection of its own, which share a home directory."""
    host = ssh_lab.host("twenty")
    content = hosts_yaml((host,), database, extras=[])
    content["defaults"] |= {
        "workers": {"cores": 1, "memory": 0.1, "disk": 0.1, "count": WORKERS},
        "base_dir": "~/pool",
    }
    content["defaults"]["puffin"]["daemon"] = {
        "cycle_time_in_s": 1.0,
        "commands": ["/bin/sh"],
        "jobs": ["command"],
    }
    content["update"] = {
        "min_healthy_time": "0s",
        "max_parallel": "100%",
        "canary": 0,
        "failure_budget": "100%",
        "healthy_deadline": "10m",
    }
    content["hosts"] = dict.fromkeys(NAMES, content["hosts"]["twenty"])
    yield Many(host.home.parent, content, database), host
    ssh_lab.remove(host)


def fill(fleet: Many, go: Path) -> None:
    """Have all workers compute until somebody opens the pipe to write to it."""
    count = len(NAMES) * WORKERS
    words = ["-c", f"read word < '{go}'; true"]
    request = Request("command", Model(), settings={"program": "sh", "arguments": words}, memory=0.05, disk=0.05)
    fleet._submit([request] * count)
    until(lambda: {each["status"] for each in fleet.calculations()} == {"pending"}, "all to be taken", 120)


def spread_of_stop_files(host: SshHost) -> float:
    """Seconds between the first and the last stop file that was written."""
    times = [(host.home / "pool" / "acceptance" / "hosts" / name / "orders" / "stop").stat().st_mtime for name in NAMES]
    return max(times) - min(times)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_all_are_told_within_two_seconds_and_nothing_is_left_pending(twenty: tuple[Many, SshHost]) -> None:
    fleet, host = twenty
    fleet.run("deploy", "--yes").ok()
    go = host.home / "go"
    os.mkfifo(go)
    go.chmod(0o666)
    fill(fleet, go)

    ran = fleet.run("stop", "--yes", "--no-wait").ok()
    spread = spread_of_stop_files(host)
    print(f"the stop files of {len(NAMES)} hosts were written within {spread:.2f} s of each other")
    assert spread < 2.0
    assert ran.out.count("will stop when done: ") == len(NAMES)
    assert {each["status"] for each in fleet.calculations()} == {"pending"}, "nobody was disturbed"

    back = [word for name in BACK for word in ("--host", name)]
    assert fleet.run("stop", "--yes", "--now", *back).ok().out.count("stopped") == len(BACK)
    given_back = [each for each in fleet.calculations() if each["status"] == "new"]
    assert len(given_back) == len(BACK) * WORKERS
    assert {each["executor"] for each in given_back} == {""}

    waiting = fleet.start("stop", fleet.file, "--yes")
    go.open("w").close()  # to the end of its file each reads, which comes when nobody has it open for writing
    ended = fleet.end_of(waiting, 200)
    assert (ended.code, ended.out.count("stopped")) == (0, len(NAMES)), ended.err
    assert Counter(each["status"] for each in fleet.calculations()) == {
        "new": len(BACK) * WORKERS,
        "complete": len(STAY) * WORKERS,
    }
    finished = [each for each in fleet.calculations() if each["status"] == "complete"]
    assert {each["puffin"]["attempt"] for each in finished} == {1}
    assert {each["puffin"]["host"] for each in finished} == set(STAY)
    assert fleet.running() == []
