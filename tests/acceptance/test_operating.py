"""A fleet on this machine through an operator's day: changes, stops, crashes; no calculation is lost or run twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.acceptance.commands import BIN
from tests.acceptance.here import Here, until
from tests.lab.processes import has_ended


def test_a_change_of_settings_waits_for_the_running_calculation(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    before = here.workers()
    here.submit_held(count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")

    here.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4
    here.content["defaults"]["affinity"] = "cores"
    with here.meanwhile("deploy", "--yes") as deploy:
        until(lambda: here.states() == {"draining"}, "the workers to be told")
        # Not only that it has not ended yet.
        until(lambda: "here-1: until command " in deploy.err, "it to say what it waits for")
        assert here.all_are("pending")
    ran = deploy.ran.ok()

    assert "recycle  here-1  settings; after its calculation" in ran.out
    assert here.all_are("complete")
    assert {item["puffin"]["attempt"] for item in here.calculations()} == {1}
    after = here.workers()
    assert all(after[name]["pid"] != before[name]["pid"] for name in before)
    assert all(after[name]["configuration"] != before[name]["configuration"] for name in before)
    # Each is bound to a processor of its own.
    cpus = [psutil.Process(record["pid"]).cpu_affinity() for record in after.values()]
    assert sorted(len(each or ()) for each in cpus) == [1, 1]
    assert cpus[0] != cpus[1]


def test_a_worker_that_is_removed_finishes_first(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.submit_held(count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")

    here.content["defaults"]["workers"]["count"] = 1
    with here.meanwhile("deploy", "--yes") as deploy:
        until(lambda: here.workers()["here-2"]["state"] == "draining", "the worker to be told")
        until(lambda: "waiting for here-2 to finish" in deploy.err, "it to say what it waits for")
        assert here.all_are("pending")
    deploy.ran.ok()

    # The deploy waited for one of them; the other one ends at the same time, in its own worker.
    until(lambda: here.all_are("complete"), "both calculations to be done")
    assert {item["puffin"]["attempt"] for item in here.calculations()} == {1}, here.events()
    assert here.running() == ["here-1"]
    assert not (here.root / "etc" / "conf.d" / "here-2.conf").exists()
    here.content["defaults"]["workers"]["count"] = 2
    here.run("deploy", "--yes").ok()
    assert sorted(here.running()) == ["here-1", "here-2"]


@pytest.mark.soak
def test_a_worker_that_is_wanted_again_before_it_has_ended_is_put_in_again(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.submit_held(count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")
    here.content["defaults"]["workers"]["count"] = 1
    settings = here.root / "etc/workers/here-2.yaml"
    here.run("deploy", "--yes", "--when-idle").ok()
    assert sorted(here.workers()) == ["here-1", "here-2"], "it still computes"
    assert not settings.exists()

    here.content["defaults"]["workers"]["count"] = 2
    with here.meanwhile("deploy", "--yes") as deploy:
        until(settings.exists, "it to be wanted again")
        until(lambda: "waiting for here-2 to finish" in deploy.err, "it to say what it waits for")
        assert here.all_are("pending")
    deploy.ran.ok()

    assert sorted(here.running()) == ["here-1", "here-2"]
    until(lambda: here.all_are("complete"), "both calculations to be done")
    assert {item["puffin"]["attempt"] for item in here.calculations()} == {1}, here.events()
    assert "Nothing to do" in here.run("deploy", "--yes").ok().err


def test_a_stop_at_once_gives_calculations_back_and_a_start_takes_them_again(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.submit_held(count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")

    here.run("stop", "--yes", "--now").ok()
    assert here.all_are("new"), here.events()
    assert {item["executor"] for item in here.calculations()} == {""}
    assert here.running() == []
    # A deploy respects that they were stopped on purpose.
    ran = here.run("deploy", "--yes").ok()
    assert "here-1, here-2 stay stopped: 'puffin-fleet start' starts them" in ran.err
    assert here.running() == []

    here.let_go()
    here.run("start").ok()
    until(lambda: here.all_are("complete"), "the calculations to be done")
    assert {item["puffin"]["attempt"] for item in here.calculations()} == {2}, here.events()


@pytest.mark.soak
def test_workers_that_are_stopped_while_they_start_again_are_not_missed(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    for _ in range(3):  # whether one is just between its end and its start is its affair
        here.run("restart", "--when-idle", "--yes").ok()
        here.run("stop", "--yes").ok()
        assert [(each["state"], each["returns"]) for each in here.workers().values()] == [("stopped", None)] * 2
        here.run("start").ok()
        until(lambda: sorted(here.running()) == ["here-1", "here-2"], "the workers to be back")


def test_a_start_while_workers_still_drain_keeps_them_working(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.submit_held(count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")
    before = here.workers()
    here.run("stop", "--yes", "--no-wait").ok()
    until(lambda: here.states() == {"draining"}, "the workers to have seen that they are to stop")
    here.run("start").ok()
    here.let_go()
    until(lambda: here.all_are("complete"), "the calculations to be done")
    here.submit(seconds=0, count=4)
    until(lambda: here.all_are("complete"), "the workers to go on")
    assert {name: record["pid"] for name, record in here.workers().items()} == {
        name: record["pid"] for name, record in before.items()
    }


def test_a_worker_that_was_told_to_stop_and_no_longer_is_says_so(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.submit(seconds=600, count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")
    here.run("stop", "--worker", "here-*", "--yes", "--no-wait").ok()
    until(lambda: here.states() == {"draining"}, "the workers to say that they will stop")
    here.run("start").ok()
    until(lambda: here.states() == {"running"}, "the workers to say that they go on")
    assert here.all_are("pending")


@pytest.mark.soak
def test_workers_are_not_doubled_when_base_dir_moves(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.content["defaults"]["base_dir"] = str(here.place / "elsewhere")
    ran = here.run("deploy", "--yes")
    assert ran.code == 1
    assert "here-1, here-2 report to the database, but not from this place" in ran.err
    assert "put it back" in ran.err
    assert not (here.place / "elsewhere" / "day" / "hosts").exists()


def test_workers_of_a_host_that_was_taken_out_of_the_file_are_not_forgotten(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.content["hosts"] = {"other": {"connection": "local"}}
    assert "Workers run on here, which" in here.run("plan").ok().err


def test_a_worker_that_cannot_start_fails_the_deploy_with_its_own_words(here: Here) -> None:
    here.content["defaults"]["environment"] = {"PYTHONHOME": "/nonexistent"}
    ran = here.run("deploy", "--yes")
    assert ran.code == 1
    # Which of the two supervisord gives up first is its affair.
    assert re.search(r"here failed at waiting for workers: here-[12]:", ran.err)
    assert "last lines of its log:" in ran.err
    assert "No module named 'encodings'" in ran.err

    del here.content["defaults"]["environment"]
    here.run("deploy", "--yes").ok()
    assert sorted(here.running()) == ["here-1", "here-2"]


def test_workers_that_lost_their_supervisord_are_not_started_twice(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    here.submit_held(count=2)
    until(lambda: here.all_are("pending"), "both calculations to be taken")
    supervisord = psutil.Process(int((here.root / "run" / "supervisord.pid").read_text()))
    supervisord.kill()
    until(lambda: has_ended(supervisord), "supervisord to be gone")

    ran = here.run("deploy", "--yes")
    assert ran.code == 1
    assert "workers of an earlier supervisord still run" in ran.err

    for record in here.workers().values():
        os.kill(record["pid"], signal.SIGTERM)
    here.let_go()
    until(lambda: here.running() == [], "the workers to finish")
    assert here.all_are("complete")
    here.run("deploy", "--yes").ok()
    assert sorted(here.running()) == ["here-1", "here-2"]
    assert {item["puffin"]["attempt"] for item in here.calculations()} == {1}, here.events()


def test_logs_are_followed(here: Here, tmp_path: Path) -> None:
    here.run("deploy", "--yes").ok()
    printed = tmp_path / "followed"
    with printed.open("wb") as stream:
        process = subprocess.Popen([str(BIN / "puffin-fleet"), "logs", str(here.file), "-f", "-n", "1"], stdout=stream)
    try:
        # Mostly that the workers have started; one that has to poll its server says so later.
        until(lambda: b"\n" in printed.read_bytes(), "the last lines of the log")
        (calculation,) = here.submit(seconds=0)
        until(lambda: f"{calculation} complete".encode() in printed.read_bytes(), "the new lines")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    finally:
        process.kill()
        process.wait()
    lines = [line for line in printed.read_text().splitlines() if calculation in line]
    assert len(lines) == len(set(lines)) == 2
    times = [line.split()[0] for line in printed.read_text().splitlines()]
    assert times == sorted(times)
