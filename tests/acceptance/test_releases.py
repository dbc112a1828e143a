"""What was done, who is doing something, what can go: on two hosts of this machine that share a home directory."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.deployment.lock import LockTarget, hold, new_deed
from fleet.hostside import guard
from fleet.reach.local import LocalRemote
from tests.acceptance.commands import BIN
from tests.acceptance.here import OnThisMachine, fleet_on_this_machine, until
from tests.lab.fixtures_database import Database
from tests.lab.sshd import end_processes

HOSTS = ("here", "there")


class Pool(OnThisMachine):
    """Two hosts, with the environment that runs the tests under as many names as releases are needed."""

    def release(self, name: str) -> None:
        """Have another release deployed next."""
        alias = self.place / name
        alias.symlink_to(sys.prefix)
        self.content["release"]["path"] = str(alias)

    def current(self) -> str:
        return (self.root_of("here") / "current").readlink().name

    def deeds(self, *words: object) -> list[dict[str, Any]]:
        return self.run("history", "--json", *words).ok().json()

    def statuses(self) -> list[str]:
        return [str(item["status"]) for item in self.calculations()]


@pytest.fixture
def pool(database: Database, tmp_path: Path) -> Iterator[Pool]:
    content = fleet_on_this_machine(database, tmp_path, HOSTS, workers=1)
    content["release"]["keep"] = 9
    content["update"] = {"min_healthy_time": 0, "max_parallel": 2, "canary": 0}
    yield Pool(tmp_path, content, database)
    end_processes(tmp_path)


@pytest.mark.soak
def test_what_is_old_goes_and_what_is_needed_stays(pool: Pool) -> None:
    releases = []
    for name in ("a", "b", "c", "d"):
        pool.release(name)
        pool.run("deploy", "--yes").ok()
        releases.append(pool.current())
    there = pool.fleet / "releases"

    shown = pool.run("prune", "--dry-run", "--keep", "1").ok()
    assert re.search(rf"release +\S+ \w+ +{releases[1]}", shown.out)
    assert re.search(rf"keep +{releases[0]} +a process uses it", shown.out)  # supervisord was started from it
    assert "here (shared with there)" in shown.out
    refused = pool.run("prune", "--keep", "1")
    assert (refused.code, "say --yes" in refused.err) == (2, True)
    assert all((there / release).is_symlink() for release in releases)

    pool.run("prune", "--keep", "1", "--yes").ok()
    assert [release for release in releases if (there / release).is_symlink()] == [releases[0], *releases[2:]]
    assert "Nothing to remove" in pool.run("prune", "--yes").ok().err
    assert "Nothing to do" in pool.run("deploy", "--yes").ok().err
    deeds = pool.deeds()
    assert [(deed["verb"], deed["outcome"]) for deed in deeds] == [("prune", "done")] + [("deploy", "done")] * 4
    assert [deed["hosts"][0]["release"] for deed in deeds[1:]] == releases[::-1]
    assert pool.run("history", "-n", "1", "--host", "here").ok().out.splitlines()[1].split()[:2] == ["here", "done"]


@pytest.mark.soak
def test_a_host_out_of_reach_is_in_the_history_of_the_others(pool: Pool) -> None:
    pool.content["hosts"]["gone"] = {"connection": "ssh", "address": "127.0.0.1", "ssh": {"port": 1}}
    assert pool.run("deploy", "--yes").code == 1
    del pool.content["hosts"]["gone"]
    (deed,) = pool.deeds()
    outcomes = {host["host"]: host["outcome"] for host in deed["hosts"]}
    assert outcomes == {"gone": "failed", "here": "done", "there": "done"}
    assert deed["outcome"] == "failed"
    assert "gone" in next(host["error"] for host in deed["hosts"] if host["host"] == "gone")


@pytest.mark.soak
def test_a_locked_host_stops_a_deploy_until_it_is_unlocked(pool: Pool) -> None:
    remotes = {host: LocalRemote(host, sys.executable) for host in HOSTS}
    with hold(remotes, {"there": LockTarget(str(pool.root_of("there")))}, new_deed("deploy"), 0, 1) as lock:
        refused = pool.run("deploy", "--yes")
        assert refused.code == 4
        assert re.search(
            r"there: locked by \S+@\S+ for 'deploy' since .*\(\d+ s ago; time limit in 15 min\)", refused.err
        )
        assert "'puffin-fleet unlock --host there'" in refused.err
        assert guard.read_holder(pool.root_of("here")) is None
        [deed] = pool.deeds()
        assert (deed["outcome"], [entry["host"] for entry in deed["hosts"]]) == ("running", ["there"])

        assert pool.run("unlock").code == 2
        unlocked = pool.run("unlock", "--yes").ok()
        assert "there: locked by" in unlocked.err
        assert "1 host unlocked" in unlocked.err
        assert "No host is locked" in pool.run("unlock", "--yes").ok().err
        assert lock.hosts == {"there"}
    deeds = pool.deeds()
    assert [(deed["verb"], deed["outcome"]) for deed in deeds] == [("unlock", "done"), ("deploy", "interrupted")]
    pool.run("deploy", "--yes").ok()


@pytest.mark.soak
def test_a_command_that_is_killed_shows_as_running_and_then_as_interrupted(pool: Pool) -> None:
    hook = pool.place / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {pool.place}/begun\nsleep 600\n")
    hook.chmod(0o755)
    pool.content["hooks"] = {"pre_deploy": str(hook)}
    pool.file.write_text(yaml.safe_dump(pool.content))
    process = subprocess.Popen(
        [str(BIN / "puffin-fleet"), "deploy", pool.file, "--yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until((pool.place / "begun").exists, "the hook to begin")
    process.send_signal(signal.SIGKILL)
    process.wait()
    [deed] = pool.deeds()
    assert deed["outcome"] == "running"
    for host in HOSTS:  # as if its quarter of an hour had passed
        path = pool.root_of(host) / "lock" / "holder.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "until": 0}))
    [deed] = pool.deeds()
    assert (deed["outcome"], deed["hosts"][0]["error"]) == ("interrupted", "it was never ended: its time limit is over")
    pool.content.pop("hooks")
    pool.run("deploy", "--yes").ok()
    assert [deed["outcome"] for deed in pool.deeds()] == ["done", "interrupted"]


@pytest.mark.soak
def test_a_hook_may_run_our_own_commands(pool: Pool) -> None:
    hook = pool.place / "hook"
    command = f"'{BIN}/puffin-fleet'"
    hook.write_text(f"#!/bin/sh\nset -e\n{command} plan\n{command} deploy --host there --yes\necho hook done\n")
    hook.chmod(0o755)
    pool.content["hooks"] = {"pre_deploy": "./hook"}
    ran = pool.run("deploy", "--yes").ok()
    assert ran.err.count("hook done") == 1
    assert {record["worker"] for record in pool.run("status", "--json").ok().json()} == {"here-1", "there-1"}
    deeds = {deed["id"]: [entry["host"] for entry in deed["hosts"]] for deed in pool.deeds()}
    assert sorted(deeds.values()) == [["here", "there"], ["there"]]


def an_interrupted_one_gives_the_locks_back(pool: Pool) -> None:
    words = [str(BIN / "puffin-fleet"), "destroy", str(pool.file), "--yes"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    until(lambda: b"waiting for" in process.stdout.readline(), "it to wait for a worker")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"destroyed none; not finished here, there." in said
    assert [guard.read_holder(pool.root_of(host)) for host in HOSTS] == [None, None]
    assert pool.deeds()[0]["outcome"] == "interrupted"


@pytest.mark.soak
def test_destroy_waits_for_calculations_and_leaves_what_they_left(pool: Pool) -> None:
    pool.run("deploy", "--yes").ok()
    pool.submit_held(count=2)
    until(lambda: pool.statuses() == ["pending"] * 2, "both calculations to be taken")
    assert pool.run("destroy").code == 2
    an_interrupted_one_gives_the_locks_back(pool)

    on = {item["puffin"]["host"]: str(item["_id"]) for item in pool.calculations()}
    with pool.meanwhile("destroy", "--host", "there", "--yes", lets_go=[on["there"]]) as destroy:
        until(lambda: "waiting for" in destroy.err, "it to say what still runs")
        assert pool.statuses() == ["pending"] * 2
    first = destroy.ran.ok()
    assert re.search(r"there +destroyed +installations stay, for here", first.out)
    assert [record["worker"] for record in pool.run("status", "--json").ok().json()] == ["", "here-1"]
    assert (pool.fleet / "releases").exists()

    with pool.meanwhile("destroy", "--yes") as destroy:
        until(lambda: "waiting for" in destroy.err, "it to say what still runs")
        assert sorted(pool.statuses()) == ["complete", "pending"]
    ran = destroy.ran.ok()
    assert pool.statuses() == ["complete"] * 2
    assert f"{pool.root_of('here')}/log  logs" in ran.out
    assert {record["worker"] for record in pool.run("status", "--json").ok().json()} == {""}
    assert not (pool.fleet / "releases").exists()
    for host in HOSTS:
        left = {path.name for path in pool.root_of(host).iterdir() if not path.name.startswith(".")}
        assert left == {"log", "audit.jsonl", "lock.serial"}
    assert not (pool.place / "scratch" / "day").exists()
    assert pool.run("destroy", "--yes").ok().out.count("nothing was there") == 2
    pool.run("deploy", "--yes").ok()
