"""Canary, batches, budget: in which order real hosts change, and what is left of a deploy that does not go through."""

from __future__ import annotations

import copy
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.hosts.names import condensed
from tests.acceptance.commands import Ran, puffin_fleet
from tests.acceptance.many import Many, many_hosts
from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database, initialise
from tests.lab.sshd import end_processes

HOSTS = ("canary", "b", "c", "d")
BROKEN = {"PYTHONHOME": "/nonexistent"}
OF_THE_LOCK = frozenset({".lock.mutex", "lock.serial", "audit.jsonl"})

Tree = dict[str, tuple[int, int, int, bytes]]


@pytest.fixture(scope="module")
def fleet(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    place = tmp_path_factory.mktemp("b")
    database = Database(database_server, "batches")
    initialise(database_server, database.name)
    yield many_hosts(database, place, HOSTS)
    end_processes(place)


@pytest.fixture
def deployed(fleet: Many) -> Many:
    """All hosts are as the fleet's own hosts.yaml says."""
    fleet.run("deploy", "--yes").ok()
    return fleet


def changed(fleet: Many, update: dict[str, Any], bad: tuple[str, ...] = ()) -> Path:
    """Other settings for all hosts, with which the workers of some cannot start."""
    content = copy.deepcopy(fleet.content)
    content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] += 0.1
    content["update"] |= update
    for host in bad:
        content["hosts"][host]["environment"] = BROKEN
    return fleet.write(content)


def tree(root: Path) -> Tree:
    """Whatever a deploy could touch below a host's directory, with identity, mode, time and content."""
    found: Tree = {}
    for place, directories, files in os.walk(root):
        if Path(place) == root:
            directories[:] = [name for name in directories if name != "log"]
        for name in {*files, *directories} - OF_THE_LOCK:
            path = Path(place) / name
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[str(path.relative_to(root))] = (status.st_ino, status.st_mode, status.st_mtime_ns, content)
    return found


def texts(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        name: (mode, content)
        for name, (_, mode, _, content) in tree(root).items()
        if name.startswith(("bin/", "etc/")) or name == "current"
    }


def identities(fleet: Many, *keys: str) -> dict[str, list[Any]]:
    return {name: [record[key] for key in keys] for name, record in fleet.workers().items()}


@pytest.mark.soak
def test_the_canary_comes_first_and_then_two_at_a_time(deployed: Many) -> None:
    file = changed(deployed, {"canary": 1, "max_parallel": 2})
    puffin_fleet("deploy", file, "--yes").ok()
    deployed.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] += 0.1

    roots = {host: deployed.host_root(host) for host in HOSTS}
    begun = {host: (roots[host] / "etc/workers" / f"{host}-1.yaml").stat().st_mtime for host in HOSTS}
    ended = {host: (roots[host] / "good/release").stat().st_mtime for host in HOSTS}
    with deployed.database.server.client() as client:
        found = client[deployed.database.name]["puffin_events"].find({"worker": "canary-1", "kind": "started"})
        proven = max(event["at"].timestamp() for event in found)
    assert begun["canary"] < proven
    assert all(proven < begun[host] for host in HOSTS if host != "canary")
    for host in HOSTS:
        busy = [other for other in HOSTS if begun[other] <= begun[host] < ended[other]]
        assert len(busy) <= 2, (host, begun, ended)


def test_bad_settings_stop_at_the_canary_and_reach_nobody_else(deployed: Many) -> None:
    before = {host: tree(deployed.host_root(host)) for host in HOSTS}
    good = texts(deployed.host_root("canary"))
    pids = identities(deployed, "pid")

    ran = puffin_fleet("deploy", changed(deployed, {"canary": 1}, bad=HOSTS), "--yes")

    assert ran.code == 1
    assert "canary failed at waiting for workers: canary-1: " in ran.err
    others = [host for host in HOSTS if host != "canary"]
    said = f"{condensed(others)} not begun in rollout: canary canary failed\n  nothing was changed there"
    assert ran.err.count("not begun in") == ran.err.count(said) == 1
    for host in others:
        assert tree(deployed.host_root(host)) == before[host]
    assert texts(deployed.host_root("canary")) == good
    now = identities(deployed, "pid")
    assert {name for name in pids if now[name] != pids[name]} == {"canary-1"}
    assert "Nothing to do" in deployed.run("deploy", "--yes").ok().err


@pytest.mark.soak
def test_past_the_budget_no_host_is_left_with_the_new_settings(deployed: Many) -> None:
    before = {host: texts(deployed.host_root(host)) for host in HOSTS}
    runs = identities(deployed, "release", "configuration")

    ran = puffin_fleet("deploy", changed(deployed, {"failure_budget": 0}, bad=("c",)), "--yes")

    assert ran.code == 1
    for host in HOSTS:
        assert texts(deployed.host_root(host)) == before[host], (host, ran.err)
    assert identities(deployed, "release", "configuration") == runs
    assert "c failed at waiting for workers: c-1: " in ran.err
    results = {line.split()[0]: line for line in ran.out.splitlines() if "put back" in line}
    assert set(results) == set(HOSTS)
    deployed.each_computes(HOSTS)
    assert "Nothing to do" in deployed.run("deploy", "--yes").ok().err


# Twenty hosts ------------------------------------------------------------------------------------------

TWENTY = tuple(f"n{number:02}" for number in range(1, 21))


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A directory on a full disk, or where that cannot be made one that belongs to somebody else."""
    place = tmp_path / "unwritable"
    place.mkdir()
    if os.getuid() != 0:
        place.chmod(0o500)
        yield place
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", place], check=True)
    (place / "filler").write_bytes(b"x" * 4096)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.soak
def test_seventeen_of_twenty_hosts_are_deployed_though_three_fail_in_three_ways(
    database: Database, tmp_path: Path, unwritable: Path
) -> None:
    fleet = many_hosts(database, tmp_path, TWENTY)
    fleet.content["update"] |= {"canary": 1, "failure_budget": 3}
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    hosts = fleet.content["hosts"]
    hosts["n05"] |= {"connection": "ssh", "address": "127.0.0.1", "ssh": {"port": port}}
    hosts["n10"]["base_dir"] = str(unwritable)
    hosts["n15"]["environment"] = BROKEN
    try:
        ran = fleet.run("deploy", "--yes")
        assert ran.code == 1
        assert {line.split()[0] for line in ran.out.splitlines() if " deployed " in line} == set(TWENTY) - {
            "n05",
            "n10",
            "n15",
        }
        says_which_where_why_and_what_to_do(ran, port)
        assert set(fleet.running()) == {f"{host}-1" for host in TWENTY} - {"n05-1", "n10-1", "n15-1"}
    finally:
        end_processes(tmp_path)


def says_which_where_why_and_what_to_do(ran: Ran, port: int) -> None:
    reports = {each.split()[0]: each for each in ran.err.split("\nn") if " failed at " in each}
    assert set(reports) == {"05", "10", "15"}, ran.err
    assert f"failed at connect: 127.0.0.1 port {port}: connection refused" in reports["05"]
    assert "and that sshd runs there" in reports["05"]
    assert ("Permission denied" if os.getuid() else ": No space left on device: ") in reports["10"]
    assert "or choose another directory" in reports["10"]
    assert " failed at waiting for workers: n15-1: " in reports["15"]
    assert "No module named 'encodings'" in reports["15"]
