"""`puffin-fleet collect` from hosts behind a real sshd."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.here import until
from tests.integration.logging_fleet import LoggingFleet
from tests.lab.fixtures_ssh import HostFactory

ID = "6b02d5829fc92b7451414cc0"
# A host from which so much comes, and then no more: however late somebody looks, the download is under way.
STALLING = """\
#!/bin/sh
/usr/bin/python3 "$@" | (head -c 4000000; [ "$(head -c 1 | wc -c)" -eq 0 ] || sleep 600)
"""


@pytest.fixture
def fleet(ssh_hosts: HostFactory, tmp_path: Path) -> LoggingFleet:
    fleet = LoggingFleet([ssh_hosts("node1", base="pool"), ssh_hosts("node2", base="pool")], tmp_path)
    fleet.write("node1", "node1-1.log", "one", f"failed {ID}")
    fleet.write("node1", "node1-1.log.1", "before")
    fleet.write("node1", "supervisord.log", "started")
    fleet.write("node2", "node2-1.log", "two")
    etc = fleet.directory("node1", "etc")
    (etc / "workers").mkdir(mode=0o755)
    (etc / "workers" / "node1-1.yaml").write_text("database:\n  uri: mongodb://me:hunter2@db\n  name: x\n")
    (etc / "workers" / "node1-1.env").write_text("export API_TOKEN=hunter2\n")
    (etc / "database.password").write_text("hunter2")
    (fleet.directory("node1", "error") / f"{ID}.tar.gz").write_bytes(os.urandom(3000))
    return fleet


def manifest(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "manifest.json").read_text())
    return found


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_everything_that_tells_why_is_collected_once(fleet: LoggingFleet, tmp_path: Path, closed_port: int) -> None:
    fleet.add_dead("node3", closed_port)
    place = tmp_path / "collected"
    ran = fleet.run("-o", place, "--json", verb="collect")
    assert ran.code == 1
    assert "node3 failed at connect" in ran.err
    found = contents(place)
    assert set(found) == {
        "manifest.json",
        "node1/etc/workers/node1-1.yaml",
        "node1/etc/workers/node1-1.env",
        "node1/error/6b02d5829fc92b7451414cc0.tar.gz",
        "node1/facts.json",
        "node1/log/node1-1.log",
        "node1/log/node1-1.log.1",
        "node1/log/supervisord.log",
        "node1/supervisord.json",
        "node2/facts.json",
        "node2/log/node2-1.log",
        "node2/supervisord.json",
    }
    assert not any(b"hunter2" in content for content in found.values())
    assert b"(hidden)" in found["node1/etc/workers/node1-1.yaml"]
    assert b"(hidden)" in found["node1/etc/workers/node1-1.env"]
    assert json.loads(found["node1/supervisord.json"])["running"] is False
    modes = {stat.S_IMODE(path.stat().st_mode) for path in place.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [place, *place.rglob("*")] if path.is_dir()} == {0o700}
    for local, entry in manifest(place)["hosts"]["node1"]["files"].items():
        assert entry["sha256"] == hashlib.sha256(found[f"node1/{local}"]).hexdigest()
    assert "connection refused" in manifest(place)["hosts"]["node3"]["error"]

    del fleet.content["hosts"]["node3"]
    fleet.write("node1", "node1-1.log", "more")
    logs = fleet.directory("node1")
    (logs / "node1-1.log.1").rename(logs / "node1-1.log.2")
    (logs / "node1-1.log").rename(logs / "node1-1.log.1")
    fleet.write("node1", "node1-1.log", "new")
    by_host = {each["host"]: each for each in fleet.run("-o", place, "--json", verb="collect").ok().json()}
    assert (by_host["node1"]["fetched_bytes"], by_host["node2"]["fetched_bytes"]) == (len("more\nnew\n"), 0)
    again = contents(place)
    assert again["node1/log/node1-1.log"] == b"new\n"
    assert again["node1/log/node1-1.log.1"] == found["node1/log/node1-1.log"] + b"more\n"
    assert again["node1/log/node1-1.log.2"] == found["node1/log/node1-1.log.1"]


def test_an_interrupted_download_goes_on(fleet: LoggingFleet, tmp_path: Path) -> None:
    size = 20_000_000
    large = fleet.directory("node1", "error") / "large.tar.gz"
    large.write_bytes(os.urandom(size))
    place = tmp_path / "collected"
    here = place / "node1" / "error" / "large.tar.gz"
    python = fleet.hosts["node1"].home / "stalling-python"
    python.write_text(STALLING)
    python.chmod(0o755)
    fleet.content["release"]["python"] = str(python)
    process = fleet.start("-o", place, "--host", "node1", verb="collect")
    try:
        until(lambda: here.exists() and here.stat().st_size > 1_000_000, "the first part")
    finally:
        process.kill()
        process.wait()
    fleet.content["release"]["python"] = "/usr/bin/python3"
    before = here.stat().st_size
    assert 1_000_000 < before < size
    (done,) = fleet.run("-o", place, "--host", "node1", "--json", verb="collect").ok().json()
    assert size - before <= done["fetched_bytes"] <= size - before + 10_000
    assert here.read_bytes() == large.read_bytes()


def test_hostile_names_and_files(fleet: LoggingFleet, tmp_path: Path) -> None:
    error = fleet.directory("node1", "error")
    (error / "a\nb\033[1m").write_text("1")
    (error / os.fsdecode(b"\xff\xfe")).write_text("2")
    (error / ("x" * 255)).write_text("3")
    (error / "%2E%2E").write_text("4")
    (error / "link").symlink_to("/etc/passwd")
    (error / "directory").symlink_to("/etc")
    os.mkfifo(error / "pipe")
    place = tmp_path / "collected"
    ran = fleet.run("-o", place, "--failed", "--host", "node1", verb="collect").ok()
    assert "3 problems" in ran.out
    assert "node1: error/link: left out: neither a file nor a directory" in ran.err
    found = {name.removeprefix("node1/error/") for name in contents(place) if name.startswith("node1/error/")}
    assert found > {"a%0Ab%1B[1m", "%FF%FE", "%252E%252E"}
    assert len(found) == 5
    problems = manifest(place)["hosts"]["node1"]["problems"]
    assert sorted(problems) == [
        f"error/{name}: left out: neither a file nor a directory" for name in ("directory", "link", "pipe")
    ]
    assert not (place / "node1" / "log" / "node1-1.log").exists()


def test_what_is_about_one_calculation(fleet: LoggingFleet, tmp_path: Path) -> None:
    (fleet.directory("node1", "error") / f"{'7' * 24}.tar.gz").write_text("another")
    place = tmp_path / "collected"
    ran = fleet.run("-o", place, "--calculation", ID, "--host", "node1", verb="collect").ok()
    assert "All hosts are asked, since the database does not say" in ran.err
    names = {name for name in contents(place) if name.startswith(("node1/log", "node1/error"))}
    assert names == {f"node1/error/{ID}.tar.gz", "node1/log/node1-1.log", "node1/log/supervisord.log"}


def test_a_narrower_run_keeps_what_is_there_in_the_manifest(fleet: LoggingFleet, tmp_path: Path) -> None:
    place = tmp_path / "collected"
    fleet.run("-o", place, verb="collect").ok()
    before = manifest(place)["hosts"]["node1"]["files"]
    (place / "node1/log/node1-1.log.1").unlink()
    fleet.run("-o", place, "--calculation", ID, "--host", "node1", verb="collect").ok()
    after = manifest(place)["hosts"]["node1"]["files"]
    assert set(after) == set(before) - {"log/node1-1.log.1"}
    (done,) = fleet.run("-o", place, "--host", "node1", "--json", verb="collect").ok().json()
    assert done["fetched_bytes"] == len("before\n")


def test_a_file_that_cannot_be_written_here_is_named_and_makes_it_a_failure(
    fleet: LoggingFleet, tmp_path: Path
) -> None:
    place = tmp_path / "collected"
    fleet.run("-o", place, verb="collect").ok()
    (place / "node1/log/node1-1.log").unlink()
    (place / "node1/log/node1-1.log").mkdir()
    ran = fleet.run("-o", place, "--host", "node1", verb="collect")
    assert (ran.code, "incomplete" in ran.out, "1 problem" in ran.out) == (1, True, True)
    assert "node1: log/node1-1.log: cannot be written here: Is a directory" in ran.err
    (done,) = fleet.run("-o", place, "--host", "node1", "--json", verb="collect").json()
    assert (done["ok"], done["error"]) == (False, "")
