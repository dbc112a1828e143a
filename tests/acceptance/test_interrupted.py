"""Deploys that are cut off at each step in turn: the old release works on, and the next deploy finishes the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.many import Many, many_hosts
from tests.acceptance.test_whole_path import hosts_yaml
from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database, initialise
from tests.lab.sshd import Lab, SshHost, end_processes
from tests.lab.trap import Trap, TrapPython

STEPS = {
    "lock": Trap("lock acquire", "kill"),
    "install": Trap("install_release", "kill"),
    "write": Trap("apply", "kill"),
    "supervise": Trap("supervise", "kill"),
    "tell": Trap("control recycle", "kill"),
    "wait": Trap("states", "kill"),
    "write2": Trap("apply", "kill", nth=2),
    "supervise2": Trap("supervise", "kill", nth=2),
    "keep": Trap("good keep", "kill"),
}
"""One host for each step after which the command on the controller is killed."""

GROWING = ("write2", "supervise2")
"""Hosts that are given a second worker, whose files are written only once the first one has changed."""

AFTER_WAITING = (*GROWING, "keep")


FULL = {"lock": "lock acquire", "write": "apply", "keep": "good keep"}
"""By host, the step before which its disk is filled: each that needs room. (A link and an empty file need none.)"""


@pytest.fixture(scope="module")
def fleet(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    """Hosts with a small disk each where that can be made."""
    place = tmp_path_factory.mktemp("i")
    database = Database(database_server, "interrupted")
    initialise(database_server, database.name)
    disks = [place / host for host in FULL] if os.getuid() == 0 else []
    for disk in disks:
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=True)
    yield many_hosts(database, place, list(STEPS))
    end_processes(place)
    for disk in disks:
        subprocess.run(["umount", "-l", disk], check=True)


def release(*files: Path) -> None:
    for file in files:
        file.touch()


def plans_without_drift(fleet: Many) -> dict[str, dict[str, Any]]:
    """What a deploy left half done is not taken for the work of a hand."""
    plans = fleet.plans()
    for host, plan in plans.items():
        assert not any(plan["drift"].values()), (host, plan["drift"])
        assert not plan["needs_consent"]
    return plans


def change(fleet: Many, place: Path, cycle_time: float) -> None:
    """Ask for another release and other settings."""
    other = place / "environment"
    other.symlink_to(sys.prefix)
    fleet.content["release"]["path"] = str(other)
    fleet.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = cycle_time


@pytest.mark.soak
def test_the_controller_is_killed_at_each_step(fleet: Many, tmp_path: Path) -> None:
    fleet.run("deploy", "--yes").ok()
    old = {record["release"] for record in fleet.workers().values()}
    go = fleet.occupy()
    change(fleet, tmp_path, 0.4)
    for host in GROWING:
        fleet.content["hosts"][host]["workers"] = {"cores": 1, "memory": 1, "disk": 0.1, "count": 2}

    python = TrapPython.make(tmp_path / "trap", list(STEPS))
    python.set(STEPS)
    trapped = fleet.variant(python=str(python.path))
    deploys = {host: fleet.start("deploy", trapped, "--yes", "--host", host) for host in STEPS}
    for host in AFTER_WAITING:
        release(go[host])
    ended = {host: fleet.end_of(deploy) for host, deploy in deploys.items()}
    assert {host: ran.code for host, ran in ended.items()} == dict.fromkeys(STEPS, -signal.SIGKILL), ended

    plans = plans_without_drift(fleet)
    assert [host for host, plan in plans.items() if plan["empty"] and not plan["unproven"]] == ["keep"]
    refused = fleet.run("deploy", "--yes")
    assert refused.code == 4
    # Also those on which nothing is left to be changed: whoever holds them may be about to put them back.
    assert [line.split()[0] for line in refused.err.splitlines() if " locked by " in line] == [
        f"{host}:" for host in sorted(STEPS)
    ]
    release(*go.values())
    fleet.each_computes(STEPS)

    fleet.run("unlock", "--yes").ok()
    fleet.run("deploy", "--yes").ok()

    assert all(plan["empty"] for plan in plans_without_drift(fleet).values())
    records = fleet.workers()
    assert set(records) == {f"{host}-1" for host in STEPS} | {f"{host}-2" for host in GROWING}
    assert not old & {record["release"] for record in records.values()}
    fleet.none_was_disturbed()


@pytest.mark.soak
@pytest.mark.skipif(os.getuid() != 0, reason="disks of their own need root")
def test_the_disk_of_the_host_is_full_at_each_step_that_writes(fleet: Many, tmp_path: Path) -> None:
    fleet.run("deploy", "--yes").ok()
    go = fleet.occupy()
    change(fleet, tmp_path, 0.5)
    chosen = [word for host in FULL for word in ("--host", host)]
    python = TrapPython.make(tmp_path / "trap", list(STEPS))
    python.set({host: Trap(step, "fill", place=str(fleet.place / host)) for host, step in FULL.items()})

    deploy = fleet.start("deploy", fleet.variant(python=str(python.path)), "--yes", *chosen)
    release(*(file for host, file in go.items() if host not in FULL))
    release(go["keep"])
    ran = fleet.end_of(deploy)
    said = ran.err

    assert ran.code == 1
    for host in FULL:
        assert (fleet.place / host / "filler").exists()
        assert f"{host} failed at " in said
    assert said.count("No space left on device: ") >= len(FULL)
    assert said.count("free some space there") >= len(FULL)
    release(*go.values())
    fleet.each_computes(FULL)

    for host in FULL:
        (fleet.place / host / "filler").unlink()
    plans_without_drift(fleet)
    fleet.run("deploy", "--yes", *chosen).ok()
    plans = fleet.plans()
    assert all(plans[host]["empty"] for host in FULL)
    assert not [path for host in FULL for path in (fleet.place / host).rglob("*.new~*")]
    fleet.none_was_disturbed()


# Connections that are cut ------------------------------------------------------------------------------

FRESH = {"sent": Trap("receive", "cut"), "made": Trap("install_release", "cut")}
CUT = {
    "locked": Trap("lock acquire", "cut"),
    "written": Trap("apply", "cut"),
    "started": Trap("supervise", "cut"),
    "told": Trap("control recycle", "cut"),
    "kept": Trap("good keep", "cut"),
    "waits": Trap("states", "drop"),
}
"""One host for each step after which its connection is cut, but for the last, where it comes back at once."""


@pytest.fixture
def behind_sshd(ssh_lab: Lab, database: Database) -> Iterator[tuple[Many, SshHost]]:
    """Hosts that share a home directory, behind one sshd, each with a connection of its own."""
    host = ssh_lab.host("shared")
    content = hosts_yaml((host,), database, extras=[])
    content["defaults"] |= {"workers": {"cores": 1, "memory": 1, "disk": 0.1, "count": 1}, "base_dir": "~/pool"}
    content["defaults"]["puffin"]["daemon"] = {
        "cycle_time_in_s": 0.3,
        "commands": ["/bin/sh"],
        "jobs": ["command", "sleep"],
    }
    content["update"] = {"min_healthy_time": "0s", "max_parallel": "100%", "canary": 0, "failure_budget": "100%"}
    content["update"] |= {"auto_revert": False, "progress_deadline": "20s"}  # it would try again for many minutes
    content["hosts"] = dict.fromkeys(CUT, content["hosts"]["shared"])
    yield Many(host.home.parent, content, database), host
    ssh_lab.remove(host)


@pytest.mark.soak
def test_the_connection_is_cut_at_each_step(behind_sshd: tuple[Many, SshHost]) -> None:
    fleet, host = behind_sshd
    fleet.run("deploy", "--yes").ok()
    go = fleet.occupy()
    fleet.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4
    fleet.content["hosts"] |= {name: fleet.content["hosts"]["kept"] | {"base_dir": f"~/{name}"} for name in FRESH}
    python = TrapPython.make(host.home / "trap", [*CUT, *FRESH], "/usr/bin/python3")
    python.set(CUT | FRESH)
    for path in (python.place, *python.place.iterdir()):
        host.own(path)

    deploy = fleet.start("deploy", fleet.variant(python=str(python.path)), "--yes")
    release(go["kept"], go["waits"])
    ran = fleet.end_of(deploy, 240)

    assert ran.code == 1
    cut = [name for name in (*CUT, *FRESH) if name != "waits"]
    said = [line.partition(" failed at ")[0] for line in ran.err.splitlines() if " failed at " in line]
    assert sorted(name for names in said for name in names.split(", ")) == sorted(cut)
    assert [line.split()[0] for line in ran.out.splitlines() if " deployed " in line] == ["waits"]
    python.heal()
    plans_without_drift(fleet)
    release(*go.values())
    fleet.each_computes(CUT)

    fleet.run("unlock", "--yes").ok()
    fleet.run("deploy", "--yes").ok()
    assert all(plan["empty"] for plan in fleet.plans().values())
    assert set(fleet.workers()) == {f"{name}-1" for name in (*CUT, *FRESH)}
    fleet.none_was_disturbed()
