"""Hosts that are switched off and on again: their workers are back by themselves, unless they were stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.commands import Ran, puffin_fleet
from tests.acceptance.test_lab_deploy import LONG_S, DeployedFleet, describe, finished_once, running, shorten
from tests.lab.fixtures_database import Database, initialise
from tests.lab.fixtures_lab import ReachableServer
from tests.lab.laboratory import START_S, Laboratory
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
    calculation = queue.sleep(LONG_S, memory=0.1, disk=0.1)
    until(lambda: running(queue, HOST) == calculation, "the job to run")
    shorten(queue, calculation)

    fleet.laboratory.kill(HOST)
    assert queue[calculation]["status"] == "pending"
    fleet.laboratory.revive(HOST)

    finished_once(queue, calculation, HOST)
    assert queue[calculation]["puffin"]["attempt"] == 2
    # Told once supervisord is up, which may be after its worker has computed.
    (line,) = until(lambda: boot_log(fleet.laboratory), "word of the start")
    assert "start: started supervisord" in line
    # What start-up files of the shell set is there as it was for the deploy, though cron reads none of them.
    assert "FROM_A_START_UP_FILE=yes" in say(fleet.laboratory, f"cat /proc/$(cat {ROOT}/run/supervisord.pid)/environ")
    (plan,) = fleet.run("plan", "--json").ok().json()
    assert plan["empty"] is True, plan


def test_who_was_stopped_stays_stopped_after_a_power_cut(fleet: DeployedFleet, queue: Queue) -> None:
    fleet.run("stop", "--yes", "--host", HOST).ok()
    starts = len(boot_log(fleet.laboratory))
    fleet.laboratory.kill(HOST)
    fleet.laboratory.revive(HOST)
    line = until(lambda: boot_log(fleet.laboratory)[starts:], "another start", START_S)[-1]
    assert "stopped on purpose: all" in line

    calculation = queue.sleep(0, memory=0.1, disk=0.1)
    # supervisord starts the wrapper, which finds the stop file and ends.
    control = f"$(cat {ROOT}/etc/supervisor)/bin/supervisorctl -c {ROOT}/etc/supervisord.conf status"
    until(lambda: "EXITED" in fleet.laboratory.ssh(HOST, control).stdout, "the wrapper to end")
    assert queue[calculation]["status"] == "new"
    fleet.run("start", "--host", HOST).ok()
    finished_once(queue, calculation, HOST)


def test_before_the_machine_ends_calculations_are_given_back(fleet: DeployedFleet, queue: Queue) -> None:
    calculation = queue.sleep(LONG_S, memory=0.1, disk=0.1)
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


# No systemd can be the first process of a laboratory's host. What it would be asked is answered by this, which runs
# a unit's command as systemd does: without an environment, and away from the session.
SYSTEMCTL = """#!/usr/bin/python3
import os, re, shlex, subprocess, sys
units = os.path.expanduser("~/.config/systemd/user")
user, _, verb, *names = sys.argv[1:]
assert user == "--user", sys.argv
if verb == "enable":
    os.makedirs(f"{units}/default.target.wants")
    os.symlink(f"{units}/{names[0]}", f"{units}/default.target.wants/{names[0]}")
elif verb == "start":
    text = open(f"{units}/{names[0]}").read().replace("$$", "$").replace("%%", "%")
    words = shlex.split(re.search("^ExecStart=(.*)", text, re.M)[1])
    environment = {"HOME": os.environ["HOME"], "BY_SYSTEMD": "yes"}
    sys.exit(subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, start_new_session=True).returncode)
else:
    assert verb in ("show", "daemon-reload"), sys.argv
"""
LOGINCTL = """#!/bin/sh
[ "$*" = enable-linger ] && touch /var/lib/systemd/linger/chemist
"""


@dataclass
class Fresh:
    """A host on which nothing is deployed, and a hosts.yaml for it."""

    laboratory: Laboratory
    name: str
    file: Path
    content: dict[str, Any]

    def run(self, verb: str, *words: str, boot: str = "auto") -> Ran:
        self.content["defaults"]["boot"] = boot
        self.file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return puffin_fleet(verb, self.file, *words)

    def said(self, command: str) -> str:
        return self.laboratory.ssh(self.name, command).stdout

    def as_root(self, command: str) -> None:
        done = self.laboratory.as_root(self.name, "/bin/sh", "-ec", command)
        assert done.returncode == 0, done.stderr

    def checked(self) -> dict[str, str]:
        """What `check` says of the start at boot."""
        (found,) = [each for each in self.run("check", "--json").json() if each["check"] == "boot"]
        return found


@pytest.fixture
def fresh(
    request: pytest.FixtureRequest, laboratory: Laboratory, laboratory_database: ReachableServer, tmp_path: Path
) -> Fresh:
    laboratory.up([request.param])
    name = f"{NAME}_{request.param}"
    initialise(laboratory_database, name)
    content = describe(laboratory, Database(laboratory_database, name), [request.param])
    content["release"]["extras"] = []
    return Fresh(laboratory, request.param, tmp_path / "hosts.yaml", content)


@pytest.mark.parametrize("fresh", ["delta"], indirect=True)
def test_where_the_user_has_a_systemd_it_starts_supervisord(fresh: Fresh) -> None:
    for name, text in (("systemctl", SYSTEMCTL), ("loginctl", LOGINCTL)):
        fresh.as_root(f"cat > /usr/bin/{name} <<'END'\n{text}END\nchmod 755 /usr/bin/{name}")
    fresh.as_root("mkdir -p /var/lib/systemd/linger; chmod 777 /var/lib/systemd/linger")
    fresh.as_root("run=/run/user/$(id -u chemist); mkdir -p $run; touch $run/bus")

    fresh.run("deploy", "--yes").ok()

    root = ".puffin-fleet/laboratory/hosts/delta"
    assert "BY_SYSTEMD=yes" in fresh.said(f"cat /proc/$(cat {root}/run/supervisord.pid)/environ")
    assert fresh.said("crontab -l") == ""
    (plan,) = fresh.run("plan", "--json").ok().json()
    assert plan["empty"] is True, plan
    assert fresh.checked()["what"] == "by systemd"
    fresh.run("deploy", "--yes", boot="none").ok()
    assert fresh.said("find .config -name '*.service'") == ""


@pytest.mark.parametrize("fresh", ["epsilon"], indirect=True)
def test_a_host_without_systemd_and_cron_is_deployed_all_the_same(fresh: Fresh) -> None:
    fresh.as_root("rm -f /usr/bin/crontab /usr/bin/systemctl")

    ran = fresh.run("deploy", "--yes").ok()

    assert (
        "no start at boot  after a reboot deploy again; systemd: there is no systemd; cron: there is no cron" in ran.out
    )
    assert "Nothing to do" in fresh.run("deploy", "--yes").ok().err
    found = fresh.checked()
    assert found["severity"] == "warn"
    assert "an administrator can run 'loginctl enable-linger chemist'" in found["next"]
