"""Two deploys of the same hosts at once, and locks that somebody left behind."""

from __future__ import annotations

import copy
import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.commands import puffin_fleet
from tests.acceptance.many import Many, many_hosts, until
from tests.lab.fixtures_database import Database
from tests.lab.sshd import end_processes

HOSTS = ("a", "b")


@pytest.fixture
def fleet(database: Database, tmp_path: Path) -> Iterator[Many]:
    yield many_hosts(database, tmp_path, HOSTS)
    (tmp_path / "go").touch()
    end_processes(tmp_path)


def other_settings(fleet: Many, cycle_time: float) -> Path:
    content = copy.deepcopy(fleet.content)
    content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = cycle_time
    return fleet.write(content)


def that_waits(fleet: Many) -> Path:
    """A deploy that holds the lock, in its hook, until the file ``go`` is there."""
    hook = fleet.place / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {fleet.place}/holds\nuntil test -e {fleet.place}/go; do sleep 0.1; done\n")
    hook.chmod(0o755)
    content = copy.deepcopy(fleet.content)
    content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.5
    content["hooks"] = {"pre_deploy": str(hook)}
    return fleet.write(content)


def started(fleet: Many, file: Path) -> subprocess.Popen[str]:
    deploy = fleet.start("deploy", file, "--yes")
    until((fleet.place / "holds").exists, "the lock to be taken")
    return deploy


def cycle_times(fleet: Many) -> list[float]:
    files = [fleet.host_root(host) / "etc" / "workers" / f"{host}-1.yaml" for host in HOSTS]
    return [yaml.safe_load(file.read_text())["daemon"]["cycle_time_in_s"] for file in files]


def nothing_to_do(file: Path) -> bool:
    return all(plan["empty"] for plan in puffin_fleet("plan", file, "--json").ok().json())


@pytest.mark.soak
def test_one_of_two_is_refused_or_waits_and_then_deploys_all_of_its_own(fleet: Many) -> None:
    first, second = that_waits(fleet), other_settings(fleet, 0.6)
    one = started(fleet, first)

    refused = puffin_fleet("deploy", second, "--yes")
    assert refused.code == 4
    assert "a, b: locked by " in refused.err
    assert "for 'deploy' since " in refused.err
    assert "--lock-timeout" in refused.err
    two = fleet.start("deploy", second, "--yes", "--lock-timeout", "60")
    waits = puffin_fleet("deploy", second, "--yes", "--lock-timeout", "0.5", "--host", "b")
    assert (waits.code, cycle_times_or_none(fleet)) == (4, None)

    (fleet.place / "go").touch()
    fleet.end_of(one).ok()
    fleet.end_of(two).ok()
    assert cycle_times(fleet) == [0.6, 0.6]
    assert nothing_to_do(second)


def cycle_times_or_none(fleet: Many) -> list[float] | None:
    return cycle_times(fleet) if fleet.host_root("a").joinpath("etc").exists() else None


@pytest.mark.soak
def test_who_waits_says_for_whom_and_a_restart_that_waited_restarts(fleet: Many) -> None:
    fleet.run("deploy", "--yes").ok()
    one = started(fleet, that_waits(fleet))
    restart = fleet.start("restart", fleet.file, "--host", "a", "--lock-timeout", "100")
    destroy = fleet.start("destroy", fleet.file, "--host", "b", "--yes", "--lock-timeout", "100")
    for process, host in ((restart, "a"), (destroy, "b")):
        assert process.stderr is not None
        assert any(f"waiting: {host} is locked by " in line for line in process.stderr)
    (fleet.place / "go").touch()
    fleet.end_of(one).ok()
    restarted = fleet.end_of(restart).ok()
    assert "a changed while this command waited: looking again" in restarted.err
    assert "restarted: a-1" in restarted.out
    fleet.end_of(destroy).ok()


@pytest.mark.soak
def test_of_two_at_the_same_moment_the_result_is_that_of_one(fleet: Many) -> None:
    files = {0.5: other_settings(fleet, 0.5), 0.6: other_settings(fleet, 0.6)}
    deploys = [fleet.start("deploy", file, "--yes") for file in files.values()]
    ended = [fleet.end_of(deploy) for deploy in deploys]
    assert sorted(ran.code for ran in ended) in ([0, 0], [0, 4]), ended
    one, other = cycle_times(fleet)
    assert one == other
    assert nothing_to_do(files[one])


@pytest.mark.soak
def test_the_lock_of_a_deploy_that_was_killed_is_removed_by_unlock_or_its_time_limit(fleet: Many) -> None:
    one = started(fleet, that_waits(fleet))
    one.send_signal(signal.SIGKILL)
    one.communicate()

    refused = puffin_fleet("deploy", other_settings(fleet, 0.6), "--yes", "--lock-timeout", "1")
    assert refused.code == 4
    assert "a, b: locked by " in refused.err
    assert "'puffin-fleet unlock' removes it, and anybody can take it when its time limit is over" in refused.err
    fleet.run("unlock", "--yes", "--host", "a").ok()
    holder = fleet.host_root("b") / "lock" / "holder.json"
    assert stat.S_IMODE(holder.stat().st_mode) == 0o600
    holder.write_text(json.dumps(json.loads(holder.read_text()) | {"until": 0}))  # as if much time had passed

    fleet.run("deploy", "--yes").ok()
    assert nothing_to_do(fleet.file)
    told = {host: [json.loads(line) for line in (fleet.host_root(host) / "audit.jsonl").open()] for host in HOSTS}
    assert [(line["verb"], line["outcome"]) for line in told["a"]] == [
        ("deploy", "interrupted"),
        ("unlock", "done"),
        ("deploy", "done"),
    ]
    assert [(line["verb"], line["outcome"]) for line in told["b"]] == [("deploy", "interrupted"), ("deploy", "done")]
