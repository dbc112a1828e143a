"""What is rendered, read by the real supervisord, in a directory named as badly as a directory may be."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.hosts.inventory import parse_inventory
from fleet.hosts.layout import Worker
from fleet.hosts.paths import HostPaths, host_paths
from fleet.hosts.render import render_host
from tests.acceptance.here import until

HOSTS = """\
fleet: lab
database: {uri: "mongodb://127.0.0.1:1", names: [a]}
hosts: {node1: {workers: {cores: 1, count: 2}, environment: {NOTE: "it's 5% ; # here"}}}
"""

# When it has said all, it can be asked to end.
STUB = """\
#!/bin/sh
sleep 300 &
sleeper=$!
trap 'echo "asked to end"; kill "$sleeper"; exit 0' TERM
printf '<%s>\\n' "$@" "$NOTE" "$PUFFIN_RELEASE"
wait "$sleeper"
"""

PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A short one: the path of a socket has a limit that pytest's directories exceed."""
    directory = Path(tempfile.mkdtemp(prefix="pf 5% ", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def paths(tmp_path: Path, run_dir: Path) -> HostPaths:
    """Everything of one host written down, with a stub in the place of the worker."""
    base = tmp_path / 'a dir 100% of "it\'s";no#h'
    fleet = parse_inventory(HOSTS, "hosts.yaml")
    paths = host_paths(
        base_dir_abs=str(base),
        home=str(tmp_path),
        fleet_name="lab",
        host_name="node1",
        run_dir=str(run_dir),
        scratch_abs=str(tmp_path),
        supervisor_version="4.3.0",
    )
    workers = tuple(Worker(f"node1-{n}", "node1", 1, 1.0, 1.0) for n in (1, 2))
    root = Path(paths.root)
    for file in render_host(fleet, fleet.hosts[0], workers, paths, None):
        (root / file.path).parent.mkdir(parents=True, exist_ok=True)
        (root / file.path).write_bytes(file.content)
        (root / file.path).chmod(file.mode)
    (root / "log").mkdir()
    stub = Path(paths.releases) / "0.1.0-abc" / "bin" / "puffin"
    stub.parent.mkdir(parents=True)
    stub.write_text(STUB)
    stub.chmod(0o755)
    (root / "current").symlink_to("../../releases/0.1.0-abc")
    return paths


@pytest.fixture
def supervisord(paths: HostPaths) -> Iterator[int]:
    configuration = Path(paths.root) / "etc/supervisord.conf"
    # From another directory: nothing may depend on where it is started.
    subprocess.run([PROGRAMS / "supervisord", "-c", configuration], cwd="/", check=True, timeout=60)
    pid_file = Path(paths.run) / "supervisord.pid"
    until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), "its pid")
    pid = int(pid_file.read_text())
    yield pid
    if pid_file.exists():
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return  # nobody is left to remove the file
        until(lambda: not pid_file.exists(), "supervisord to end")


def control(paths: HostPaths, *words: str) -> list[str]:
    command = [str(PROGRAMS / "supervisorctl"), "-c", f"{paths.root}/etc/supervisord.conf", *words]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()


def states(paths: HostPaths) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in control(paths, "status")}


def lines_of(paths: HostPaths, worker: str) -> list[str]:
    return Path(paths.root, "log", f"{worker}.out").read_text().splitlines()


def test_the_workers_run_drain_and_nothing_is_left(paths: HostPaths, supervisord: int) -> None:
    root = Path(paths.root)
    until(lambda: states(paths) == {"node1-1": "RUNNING", "node1-2": "RUNNING"}, "both to run")
    # Two seconds after its start supervisord takes a worker for one that runs, whatever it has done by then.
    until(lambda: all(len(lines_of(paths, worker)) >= 5 for worker in ("node1-1", "node1-2")), "what both say")
    assert lines_of(paths, "node1-2") == [
        "<-c>",
        f"<{root}/etc/workers/node1-2.yaml>",
        "<container>",
        "<it's 5% ; # here>",
        "<0.1.0-abc>",
    ]
    assert (Path(paths.run) / "sv.sock").stat().st_mode & 0o777 == 0o700

    assert control(paths, "reread") == ["No config updates to processes"]
    (root / "etc/conf.d/node1-2.conf").unlink()
    assert control(paths, "reread") == ["node1-2: disappeared"]

    # A worker that was asked to end and ended with 0 is not started again.
    worker = int(control(paths, "pid", "node1-1")[0])
    os.kill(worker, signal.SIGTERM)
    until(lambda: states(paths)["node1-1"] == "EXITED", "it to end")

    other = int(control(paths, "pid", "node1-2")[0])
    os.kill(supervisord, signal.SIGTERM)
    until(lambda: not (Path(paths.run) / "supervisord.pid").exists(), "supervisord to end")
    until(lambda: not Path(f"/proc/{other}").exists(), "the other worker to be gone")
    assert "asked to end" in lines_of(paths, "node1-2")
