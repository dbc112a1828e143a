"""How long ``puffin-fleet status`` takes with many workers: the query, the whole command, its table and its JSON.

    python -m benchmarks.status [WORKERS ...]

The database server is the embedded one, on this machine; each worker's record is as a worker reports it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fleet.embedded import EmbeddedDatabase
from fleet.hosts.access import open_store
from fleet.hosts.inventory import Fleet, parse_inventory
from fleet.watch.status import by_host, status_of
from puffin.records import WorkerRecord
from puffin.store import Store

_COMMAND = Path(sys.executable).with_name("puffin-fleet")
_PER_HOST = 8
_ROUNDS = 5
_JOBS = tuple(f"scine_job_number_{number}" for number in range(30))


def main(counts: list[int]) -> None:
    print(f"{'workers':>8}  {'what':<28}  {'median s':>8}  {'worst s':>8}  {'of it processor time here':>25}")
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="puffin-benchmark-") as name:
            directory = Path(name)
            with EmbeddedDatabase(directory / "database") as database:
                file = write_fleet(directory, count // _PER_HOST, database.uri)
                fleet = parse_inventory(file.read_text(), str(file))
                store = open_store(fleet)
                fill(store, fleet)
                for title, action in actions(store, fleet, file).items():
                    rounds = sorted(timed(action) for _ in range(_ROUNDS))
                    (median, busy), (worst, _) = rounds[_ROUNDS // 2], rounds[-1]
                    print(f"{count:>8}  {title:<28}  {median:8.2f}  {worst:8.2f}  {busy:25.2f}", flush=True)
                store.close()


def write_fleet(directory: Path, hosts: int, uri: str) -> Path:
    file = directory / "hosts.yaml"
    file.write_text(
        f"fleet: large\ndatabase: {{uri: '{uri}', names: [benchmark]}}\n"
        "release: {install: path, path: /opt/puffin}\n"
        f"defaults: {{workers: {{cores: 1, memory: 1, disk: 1, count: {_PER_HOST}}}}}\n"
        f"hosts:\n  node[0001-{hosts:04d}]: {{}}\n"
    )
    return file


def fill(store: Store, fleet: Fleet) -> None:
    for host in fleet.hosts:
        for number in range(1, _PER_HOST + 1):
            store.registry.report(record(host.name, number))


def record(host: str, number: int) -> WorkerRecord:
    runs = number % _PER_HOST != 0
    return WorkerRecord(
        uuid=f"puffin-large@{host}-{number}",
        fleet="large",
        host=host,
        worker=f"{host}-{number}",
        release="puffin-0.5.0-1a2b3c4d",
        configuration="c0ffee",
        pid=1000 + number,
        cores=4,
        memory=8.0,
        disk=20.0,
        programs=("orca", "readuct", "sparrow", "xtb"),
        jobs=_JOBS,
        state="running" if runs else "idle",
        calculation="65f0c1a2b3c4d5e6f7a8b9c0" if runs else "",
        order=_JOBS[number] if runs else "",
        done=100 + number,
        failed=number % 3,
        lasting_s=60.0 * number,
        reports_within_s=3600.0,
    )


def actions(store: Store, fleet: Fleet, file: Path) -> dict[str, Callable[[], object]]:
    def look() -> object:
        records = store.registry.workers(fleet.name, brief=True)
        return by_host([host.name for host in fleet.hosts], status_of(records, store.server_time()))

    return {
        "the query alone": lambda: store.registry.workers(fleet.name, brief=True),
        "query and summary": look,
        "status": lambda: run("status", file),
        "status --workers": lambda: run("status", file, "--workers"),
        "status --json": lambda: run("status", file, "--json"),
        "puffin-fleet --help": lambda: run("--help"),
    }


def run(*words: object) -> None:
    subprocess.run([str(_COMMAND), *map(str, words)], check=True, capture_output=True, env={**os.environ})


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and processor time of this process and of what it ran; the server's is not in it."""
    before, started = os.times(), time.perf_counter()
    action()
    seconds, after = time.perf_counter() - started, os.times()
    return seconds, sum(after[:4]) - sum(before[:4])


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [320, 8000])
