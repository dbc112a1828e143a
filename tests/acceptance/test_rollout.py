"""Deploys that go wrong, hurry or do not wait: on this machine, with a real supervisord and database."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.acceptance.commands import BIN
from tests.acceptance.here import Here, until
from tests.acceptance.many import many_hosts
from tests.lab.fixtures_database import Database
from tests.lab.sshd import end_processes


def files_of(here: Here) -> dict[str, str]:
    """What a deploy has written, by digest."""
    paths = [*(here.root / "bin").glob("*"), *(here.root / "etc").rglob("*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


def test_settings_that_do_not_work_are_taken_back(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    before = files_of(here)
    here.content["defaults"]["environment"] = {"PYTHONHOME": "/nonexistent"}

    ran = here.run("deploy", "--yes")

    assert ran.code == 1
    # Which of the two supervisord gives up first is its affair.
    assert re.search(r"here failed at waiting for workers: here-[12]:", ran.err)
    assert "No module named 'encodings'" in ran.err
    assert "it was put back to its last good state, release path-" in ran.err
    assert re.search(r"here +put back +path-\w+", ran.out)
    assert files_of(here) == before
    (told,) = here.run("events", "--kind", "put_back", "--json").ok().json()
    assert told["host"] == "here"
    why = r"(?s)deploy by \S+: waiting for workers: here-[12]: .*it was put back to its last good state.*"
    assert re.fullmatch(why, told["detail"])
    assert "history -v" in here.run("history").ok().err
    here.submit(seconds=0, count=2)
    until(lambda: here.all_are("complete"), "the workers to compute again")
    # What was put back is no change by hand, and the next deploy starts from there.
    del here.content["defaults"]["environment"]
    assert "Nothing to do" in here.run("deploy", "--yes").ok().err


@pytest.mark.soak
def test_what_was_deployed_to_stopped_workers_is_not_taken_for_good(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    before = files_of(here)
    here.run("stop", "--yes").ok()
    here.content["defaults"]["environment"] = {"PYTHONHOME": "/nonexistent"}
    assert "0 healthy, 2 stopped" in here.run("deploy", "--yes").ok().out
    here.run("start").ok()
    assert here.run("plan", "--json").ok().json()[0]["unproven"]

    ran = here.run("deploy", "--yes")

    assert (ran.code, "it was put back to its last good state" in ran.err) == (1, True)
    assert files_of(here) == before


@pytest.mark.soak
def test_without_auto_revert_they_stay_for_a_look(here: Here) -> None:
    here.content["update"]["auto_revert"] = False
    here.run("deploy", "--yes").ok()
    here.content["defaults"]["environment"] = {"PYTHONHOME": "/nonexistent"}
    ran = here.run("deploy", "--yes")
    assert ran.code == 1
    assert "put back" not in ran.out + ran.err
    assert any("PYTHONHOME" in path.read_text() for path in (here.root / "etc/workers").glob("*.env"))


@pytest.mark.soak
def test_marked_workers_change_by_themselves_when_their_calculations_are_done(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    before = here.workers()
    here.submit_held(count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")
    here.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4

    ran = here.run("deploy", "--yes", "--when-idle").ok()

    assert here.all_are("pending")
    assert "2 will change when idle" in ran.out
    here.let_go()
    until(lambda: here.all_are("complete"), "the calculations to be done")
    until(
        lambda: all(
            record["configuration"] != before[name]["configuration"] and record["state"] == "idle"
            for name, record in here.workers().items()
        ),
        "the workers to have taken their new settings",
    )
    assert {item["puffin"]["attempt"] for item in here.calculations()} == {1}
    (plan,) = here.run("plan", "--json").ok().json()
    assert (plan["empty"], plan["unproven"]) == (True, True)
    assert "Nothing to do" in here.run("deploy", "--yes", "--when-idle").ok().err

    # Nobody waited to see it, yet what they run now is what a deploy that fails goes back to.
    files = files_of(here)
    here.content["defaults"]["environment"] = {"PYTHONHOME": "/nonexistent"}
    assert "put back" in here.run("deploy", "--yes").out
    assert files_of(here) == files


@pytest.mark.soak
def test_a_host_that_was_only_looked_at_keeps_its_state_when_another_fails(database: Database, tmp_path: Path) -> None:
    fleet = many_hosts(database, tmp_path, ("a", "b"))
    fleet.content["update"] |= {"failure_budget": 0, "canary": 0}
    try:
        fleet.run("deploy", "--yes").ok()
        fleet.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4
        fleet.run("deploy", "--yes", "--when-idle").ok()
        until(lambda: all(plan["empty"] and plan["unproven"] for plan in fleet.plans().values()), "both to change")
        fleet.content["hosts"]["b"]["environment"] = {"PYTHONHOME": "/nonexistent"}

        ran = fleet.run("deploy", "--yes")

        assert ran.code == 1
        results = {line.split()[0]: " ".join(line.split()[1:3]) for line in ran.out.splitlines()[-2:]}
        assert results == {"a": "unchanged 1", "b": "put back"}
        settings = yaml.safe_load((fleet.host_root("a") / "etc/workers/a-1.yaml").read_text())
        assert settings["daemon"]["cycle_time_in_s"] == 0.4
    finally:
        end_processes(tmp_path)


@pytest.mark.soak
def test_a_worker_that_is_removed_ends_its_calculation_however_often_and_long_a_deploy_waits(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.content["update"]["progress_deadline"] = "10s"
    here.submit_held(count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")
    here.content["defaults"]["workers"]["count"] = 1
    for _ in range(2):  # as if the first had been cut off
        assert "1 waits for the next deploy" in here.run("deploy", "--yes", "--when-idle").ok().out

    begun = time.monotonic()
    with here.meanwhile("deploy", "--yes") as deploy:
        until(lambda: time.monotonic() > begun + 14, "it to wait for longer than its deadline")
        assert here.all_are("pending")

    assert "deployed" in deploy.ran.ok().out
    until(lambda: here.all_are("complete"), "the calculations to be done")
    assert {item["puffin"]["attempt"] for item in here.calculations()} == {1}, here.events()
    assert [record["worker"] for record in here.workers().values()] == ["here-1"]


@pytest.mark.soak
def test_a_canary_proves_the_release_while_a_worker_that_is_removed_computes(here: Here) -> None:
    here.content["hosts"]["there"] = {"connection": "local"}
    here.run("deploy", "--yes").ok()
    here.submit_held(count=4)
    until(lambda: here.all_are("pending"), "all calculations to be taken")
    here.content["defaults"]["workers"]["count"] = 1
    here.content["update"] |= {"canary": 1, "max_parallel": 1}
    begun = here.root.parent / "there/etc/workers/there-2.yaml"
    with here.meanwhile("deploy", "--yes") as deploy:
        until(lambda: not begun.exists(), "the second host to begin")
        until(lambda: "waiting for there-2 to finish" in deploy.err, "it to say what it waits for")
        assert here.all_are("pending")
    deploy.ran.ok()
    until(lambda: here.all_are("complete"), "the calculations to be done")


@pytest.mark.soak
def test_status_says_how_many_still_run_the_release_before(here: Here, tmp_path: Path) -> None:
    here.run("deploy", "--yes").ok()
    here.submit_held()
    until(lambda: here.all_are("pending"), "the calculation to be taken")
    other = tmp_path / "other-env"
    other.symlink_to(sys.prefix)
    here.content["release"]["path"] = str(other)
    here.run("deploy", "--yes", "--when-idle").ok()

    until(lambda: "1 of 2 workers still run an earlier release" in here.run("status").err, "the idle one to change")
    assert here.all_are("pending")
    here.let_go()
    until(
        lambda: all(record["release"] == record["wanted_release"] for record in here.workers().values()),
        "the other one to follow",
    )
    assert "earlier release" not in here.run("status").err


def test_ctrl_c_says_what_is_done_and_that_the_same_command_goes_on(here: Here, tmp_path: Path) -> None:
    hook, begun = tmp_path / "hook", tmp_path / "begun"
    hook.write_text(f"#!/bin/sh\ntouch {begun}\nexec sleep 600\n")
    hook.chmod(0o755)
    here.content["hooks"] = {"pre_deploy": str(hook)}
    here.run("plan").ok()  # writes the file
    words = [str(BIN / "puffin-fleet"), "deploy", "--yes", str(here.file)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        until(begun.exists, "the hook to begin: by then the host is locked, and nothing is changed")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"done none; not finished here." in said
    assert b"the same command goes on where this one stopped" in said


def test_a_deploy_in_a_hurry_gives_the_calculations_back(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.submit(seconds=600, count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")
    here.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4

    here.run("deploy", "--yes", "--now").ok()

    until(lambda: {item["puffin"]["attempt"] for item in here.calculations()} == {2}, "both to be taken again")
    assert here.all_are("pending")


@pytest.mark.soak
def test_a_rollback_goes_to_the_release_before_and_a_deploy_forward_again(here: Here, tmp_path: Path) -> None:
    here.run("deploy", "--yes").ok()
    (first,) = {record["release"] for record in here.workers().values()}
    other = tmp_path / "other-env"
    other.symlink_to(sys.prefix)
    here.content["release"]["path"] = str(other)
    hook, seen = tmp_path / "hook", tmp_path / "seen"
    hook.write_text(f"#!/bin/sh\nexec {BIN}/puffin-fleet status --json {here.file} >{seen}\n")
    hook.chmod(0o755)
    here.content["hooks"] = {"post_deploy": str(hook)}
    here.run("deploy", "--yes").ok()
    # Who asks before the deploy is over hears already that all is as it should be.
    reported = [json.loads(line) for line in seen.read_text().splitlines()]
    assert [one["release"] == one["wanted_release"] for one in reported if "wanted_release" in one] == [True, True]
    (second,) = {record["release"] for record in here.workers().values()}
    assert first != second

    assert "rolled back  2 healthy" in here.run("rollback", "--yes").ok().out
    assert {record["release"] for record in here.workers().values()} == {first}
    assert (here.root / "current").resolve() == (here.root / "../../releases" / first).resolve()
    # There is no third way: a release that no host has is refused before anything is done.
    ran = here.run("rollback", "--release", "0123456789ab", "--yes")
    assert ran.code == 1
    assert "it has no release 0123456789ab" in ran.err
    assert first in ran.err
    here.run("deploy", "--yes").ok()
    assert {record["release"] for record in here.workers().values()} == {second}
