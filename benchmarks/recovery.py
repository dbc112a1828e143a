"""How soon a calculation runs again after kill -9, and the memory of an idle worker; prints, asserts nothing.

    python -m benchmarks.recovery [--rounds 5] [--lease 6]

With the real supervisord, its files as a deploy writes them, and a database server of its own. First the worker alone
is killed, with the default lease, and supervisord starts it again; then supervisord and all below it, and a worker
elsewhere takes over. Seconds are counted from the kill to the first line that the job writes in its next attempt.
Memory is the proportional set size. The worker without SCINE runs in an environment with this project alone, which
uv makes, from its cache where it can. Needs the extras ``scine``, ``embedded`` and ``dev``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from benchmarks.bootstrap import bare_environment, server
from fleet.hosts.inventory import parse_inventory
from fleet.hosts.layout import Worker as Share
from fleet.hosts.paths import HostPaths, host_paths
from fleet.hosts.render import render_host, worker_uuid
from puffin.settings import DaemonSettings
from tests.lab.fixtures_database import Database
from tests.lab.worker import Place, Queue, Workers, configuration, lines_of, plugin_path, puffin, queue_of, until

_NAME = "node1-1"
_SETTLED_S = 3.0
_IDLE_S = 10.0


@dataclass(frozen=True)
class Host:
    """A host as a deploy leaves it, with one worker."""

    paths: HostPaths
    uuid: str

    @property
    def supervisord(self) -> psutil.Process:
        return psutil.Process(int((Path(self.paths.run) / "supervisord.pid").read_text()))

    @property
    def worker(self) -> psutil.Process:
        """The worker as supervisord started it."""
        return until(lambda: next(iter(self.supervisord.children()), None), "supervisord to start the worker")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Under supervisord; what is left of it afterwards is ended."""
        command = [Path(sys.executable).with_name("supervisord"), "-c", f"{self.paths.root}/etc/supervisord.conf"]
        subprocess.run(command, cwd="/", check=True)
        pid_file = Path(self.paths.run) / "supervisord.pid"
        until(lambda: pid_file.exists() and pid_file.read_text(), "supervisord")
        supervisord = self.supervisord
        try:
            yield
        finally:
            kill_9([supervisord, *below(supervisord)])
            pid_file.unlink(missing_ok=True)


def make_host(directory: Path, database: Database, lease_s: float | None) -> Host:
    """Write a host's files; its release is this environment."""
    daemon = {} if lease_s is None else {"daemon": {"lease_in_s": lease_s}}
    environment = {"PYTHONPATH": plugin_path(directory / "plugin")}
    hosts = {
        "fleet": "lab",
        "database": {"uri": database.uri, "names": [database.name]},
        "hosts": {"node1": {"workers": {"cores": 1, "count": 1}, "environment": environment, "puffin": daemon}},
    }
    fleet = parse_inventory(yaml.safe_dump(hosts), "hosts.yaml")
    paths = host_paths(
        base_dir_abs=str(directory / "base"),
        home=str(directory),
        fleet_name="lab",
        host_name="node1",
        run_dir=tempfile.mkdtemp(prefix="pf-", dir=directory),
        scratch_abs=str(directory / "scratch"),
        supervisor_version="4.3.0",
    )
    root = Path(paths.root)
    for file in render_host(fleet, fleet.hosts[0], (Share(_NAME, "node1", 1, 1.0, 1.0),), paths, None):
        (root / file.path).parent.mkdir(parents=True, exist_ok=True)
        (root / file.path).write_bytes(file.content)
        (root / file.path).chmod(file.mode)
    (root / "log").mkdir()
    (root / "run").symlink_to(paths.run)
    program = Path(paths.releases) / "here" / "bin" / "puffin"
    program.parent.mkdir(parents=True)
    program.symlink_to(puffin())
    (root / "current").symlink_to("../../releases/here")
    return Host(paths, worker_uuid(fleet, _NAME))


def below(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def kill_9(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def endless(path: Path) -> str:
    """Code of a job that writes its attempt and the time, and then waits for a file that lets it end."""
    return f"""
import os, time
with open({str(path)!r}, "a") as lines:
    lines.write(os.environ["PUFFIN_ATTEMPT"] + " %.3f\\n" % time.clock_gettime(time.CLOCK_BOOTTIME))
while not os.path.exists({str(path)!r} + ".may-end"):
    time.sleep(0.05)
"""


def began(path: Path, attempt: int) -> float:
    """When an attempt began, on the clock of :func:`now`."""

    def look() -> float | None:
        return next((float(line.split()[1]) for line in lines_of(path) if int(line.split()[0]) == attempt), None)

    return until(look, f"attempt {attempt}")


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def same_host(directory: Path, database: Database, queue: Queue, rounds: int) -> list[float]:
    """Seconds after the end of the worker; supervisord and the host stay."""
    host, path, found = make_host(directory, database, None), directory / "lines", []
    id_ = queue.code(endless(path))
    with host.running():
        began(path, 1)
        for attempt in range(1, rounds + 1):
            # supervisord takes what ends before ``startsecs`` for a program that cannot start.
            time.sleep(_SETTLED_S)
            killed = now()
            host.worker.kill()
            found.append(began(path, attempt + 1) - killed)
        Path(f"{path}.may-end").touch()
        queue.wait(id_)
    return found


def host_gone(directory: Path, database: Database, queue: Queue, lease_s: float) -> float:
    """Seconds after the end of supervisord and all below it, until a worker elsewhere has taken over."""
    host, path = make_host(directory, database, lease_s), directory / "lines"
    elsewhere = Workers(directory, database)
    id_ = queue.code(endless(path))
    try:
        with host.running():
            began(path, 1)
            elsewhere.start("elsewhere", daemon={"lease_in_s": lease_s})
            time.sleep(_SETTLED_S)
            killed = now()
            kill_9([host.supervisord, *below(host.supervisord)])
            seconds = began(path, 2) - killed
            Path(f"{path}.may-end").touch()
            queue.wait(id_)
    finally:
        elsewhere.end()
    return seconds


def memory_mb(program: str, directory: Path, database: Database) -> tuple[float, float]:
    """Proportional set size of an idle worker, and of its fork server and waiting process."""
    place = Place(directory)
    directory.mkdir()
    place.config.write_text(yaml.safe_dump(configuration(place, database, {})))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [program, "-c", str(place.config), "container"]
    worker = psutil.Popen(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: place.log.exists() and " started: " in place.log.read_text(), "the worker to start")
        time.sleep(_IDLE_S)
        rest = sum(process.memory_full_info().pss for process in worker.children(recursive=True))
        return worker.memory_full_info().pss / 2**20, rest / 2**20
    finally:
        worker.terminate()
        worker.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lease", type=float, default=6.0, help="in seconds, where the host is gone")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="puffin-benchmark-")))
        database = stack.enter_context(server(directory / "database"))
        queue = stack.enter_context(contextlib.contextmanager(queue_of)(database))
        _measure(directory, database, queue, options.rounds, options.lease)


def _measure(directory: Path, database: Database, queue: Queue, rounds: int, lease_s: float) -> None:
    lease = DaemonSettings().lease_in_s
    seconds = same_host(_fresh(directory, "same"), database, queue, rounds)
    print(f"worker killed, same host     {_shown(seconds)}   lease {lease:.0f} s", flush=True)
    gone = [host_gone(_fresh(directory, f"gone-{n}"), database, queue, lease_s) for n in range(rounds)]
    print(f"host gone, another worker    {_shown(gone)}   lease {lease_s:.0f} s", flush=True)
    for title, program in (("with SCINE", puffin()), ("without SCINE", str(bare_environment(directory / "bare")))):
        own, rest = memory_mb(program, directory / f"memory {title}", database)
        print(
            f"memory {title:<14} (PSS)  {own:.1f} MB worker, {rest:.1f} MB fork server and waiting process",
            flush=True,
        )


def _fresh(directory: Path, name: str) -> Path:
    fresh = directory / name
    fresh.mkdir()
    return fresh


def _shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):6.2f} s (median)   worst {max(seconds):.2f} s of {len(seconds)}"


if __name__ == "__main__":
    main()
