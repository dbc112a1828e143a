"""Hosts that are switched off and on again: their workers are back by themselves, unless they were stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.commands import puffin_fleet
from tests.acceptance.test_lab_deploy import DeployedFleet, describe, finished_once, running
from tests.lab.fixtures_database import Database, initialise
from tests.lab.fixtures_lab import ReachableServer
from tests.lab.laboratory import Laboratory
from tests.lab.worker import Queue, until

NAME = "lab_boot"
HOST = "gamma"
ROOT = f".puffin-fleet/laboratory/hosts/{HOST}"
OF_THE_USER = "17 3 * * 1 date +\\%s # mine"


def write(file: Path, laboratory: Laboratory, database: Database, boot: str) -> None:
    content = describe(laboratory, database, [HOST])
    content["release"]["extras"] = []
    content["defaults"]["boot"] = boot
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def say(laboratory: Laboratory, *words: str) -> str:
    done = laboratory.ssh(HOST, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def boot_log(laboratory: Laboratory) -> list[str]:
    return laboratory.ssh(HOST, "cat", f"{ROOT}/log/boot.log").stdout.splitlines()


@pytest.fixture(scope="module")
def fleet(
    laboratory: Laboratory, laboratory_database: ReachableServer, tmp_path_factory: pytest.TempPathFactory
) -> DeployedFleet:
    laboratory.up([HOST])
    say(laboratory, f"echo '{OF_THE_USER}' | crontab -")
    say(laboratory, "echo 'export FROM_A_START_UP_FILE=yes' > .bashrc")
    initialise(laboratory_database, NAME)
    database = Database(laboratory_database, NAME)
    file = tmp_path_factory.mktemp("boot") / "hosts.yaml"
    write(file, laboratory, database, "auto")
    planned = puffin_fleet("plan", file, "--json").ok().json()
    assert planned[0]["enable_boot"] is True
    return DeployedFleet(laboratory, file, database, puffin_fleet("deploy", file, "--yes").ok())


@pytest.fixture
def queue(fleet: DeployedFleet) -> Iterator[Queue]:
    made = Queue(fleet.database)
    yield made
    made.close()


def test_a_line_is_added_to_the_crontab(fleet: DeployedFleet) -> None:
    mine, ours = say(fleet.laboratory, "crontab", "-l").splitlines()
    assert mine == OF_THE_USER
    assert ours.startswith("@reboot /bin/sh -c ")
    assert f"puffin-fleet:laboratory/{HOST}" in ours
    assert "start at boot" in fleet.first_deploy.out
    (plan,) = fleet.run("plan", "--json").ok().json()
    assert plan["empty"] is True, plan


def test_workers_are_back_after_a_power_cut(fleet: DeployedFleet, queue: Queue) -> None:
    calculation = queue.sleep(5, memory=0.1, disk=0.1)
    until(lambda: running(queue, HOST) == calculation, "the job to run")

    fleet.laboratory.kill(HOST)
    assert queue[calculation]["status"] == "pending"
    fleet.laboratory.revive(HOST)

    finished_once(queue, calculation, HOST)
    assert queue[calculation]["puffin"]["attempt"] == 2
    (line,) = boot_log(fleet.laboratory)
    assert "start: started supervisord" in line
    # What start-up files of the shell set is there as it was for the deploy, though cron reads none of them.
    assert "FROM_A_START_UP_FILE=yes" in say(fleet.laboratory, f"cat /proc/$(cat {ROOT}/run/supervisord.pid)/environ")
    (plan,) = fleet.run("plan", "--json").ok().json()
    assert plan["empty"] is True, plan


def test_who_was_stopped_stays_stopped_after_a_power_cut(fleet: DeployedFleet, queue: Queue) -> None:
    fleet.run("stop", "--host", HOST).ok()
    fleet.laboratory.kill(HOST)
    fleet.laboratory.revive(HOST)
    line = until(lambda: boot_log(fleet.laboratory)[1:], "the second start")[-1]
    assert "stopped on purpose: all" in line

    calculation = queue.sleep(0, memory=0.1, disk=0.1)
    # supervisord starts the wrapper, which finds the stop file and ends.
    control = f"$(cat {ROOT}/etc/supervisor)/bin/supervisorctl -c {ROOT}/etc/supervisord.conf status"
    until(lambda: "EXITED" in fleet.laboratory.ssh(HOST, control).stdout, "the wrapper to end")
    assert queue[calculation]["status"] == "new"
    fleet.run("start", "--host", HOST).ok()
    finished_once(queue, calculation, HOST)


def test_before_the_machine_ends_calculations_are_given_back(fleet: DeployedFleet, queue: Queue) -> None:
    calculation = queue.sleep(30, memory=0.1, disk=0.1)
    until(lambda: running(queue, HOST) == calculation, "the job to run")

    say(fleet.laboratory, f"{ROOT}/bin/boot stop")  # what systemd's unit runs

    assert queue[calculation]["status"] == "new"
    assert boot_log(fleet.laboratory)[-1].endswith(f"stop: told {HOST}-1 to give back what they had")
    queue.set(calculation, status="hold")


def test_without_boot_nothing_is_left_in_the_crontab(fleet: DeployedFleet) -> None:
    write(fleet.file, fleet.laboratory, fleet.database, "none")
    assert "hosts.yaml says 'boot: none'" in fleet.run("deploy", "--yes").ok().out
    assert say(fleet.laboratory, "crontab", "-l").splitlines() == [OF_THE_USER]
    (plan,) = fleet.run("plan", "--json").ok().json()
    assert plan["empty"] is True, plan
