"""From a host with Python only to caffeine optimized with PM6 and DFTB3; prints a table, asserts nothing.

    python -m benchmarks.bootstrap [--cold]

The host is a new virtual environment with this project and no SCINE module; `puffin bootstrap` runs with the default
configuration. The cache of uv is warm unless --cold gives it an empty one. Needs the extras ``scine`` (to enter the
molecule), ``embedded`` and ``dev``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fleet.demo import molecules
from fleet.queue import chemistry
from puffin.documents import Model, Request
from puffin.programs.building import uv_program, uv_settings
from tests.lab.bootstrapping import Host
from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database, initialise
from tests.lab.worker import Queue, queue_of, until

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("PM6", "DFTB3")
DATABASE = "caffeine"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", action="store_true", help="begin with an empty cache of wheels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="puffin-benchmark-") as name:
        directory = Path(name)
        if not options.cold:
            with step("(once before, to warm the cache)"):
                host = Host(directory / "warm", bare_environment(directory / "warm-venv"))
                host.bootstrap()
        environment = {"UV_CACHE_DIR": str(directory / "cache")} if options.cold else {}
        puffin = bare_environment(directory / "venv")
        with server(directory / "database") as database, contextlib.contextmanager(queue_of)(database) as queue:
            run(Host(directory / "host", puffin), database, queue, environment)


def run(host: Host, database: Database, queue: Queue, environment: dict[str, str]) -> None:
    host.configure(database={"uri": database.uri, "name": database.name})
    began = time.monotonic()
    with step("puffin bootstrap"):
        done = host.bootstrap(**environment)
        assert done.returncode == 0, done.stderr
    ids = [submit(queue, method) for method in METHODS]
    with step("puffin start"):
        started = host.run("start")
        assert started.returncode == 0, started.stderr
    try:
        for method, id_ in zip(METHODS, ids, strict=True):
            with step(f"caffeine, {method}"):
                document = queue.wait(id_, "complete", "failed", patience_s=300.0)
            assert document["status"] == "complete", document["comment"]
            # The job class writes its status, the worker the time right after it.
            seconds = until(lambda id_=id_: queue[id_]["runtime"], "the runtime")
            print(f"    of which the job itself took {seconds:.2f} s")
    finally:
        host.run("kill")
    print(f"{'together':40} {time.monotonic() - began:7.2f} s")
    with step("puffin bootstrap again"):
        host.bootstrap(**environment)
    with step("puffin check"):
        host.run("check")


def submit(queue: Queue, method: str) -> str:
    [path] = [path for path in molecules() if path.stem == "caffeine"]
    model = Model(program="sparrow", method_family=method, method=method, spin_mode="any")
    request = Request("scine_geometry_optimization", model, memory=0.5, disk=0.05)
    return queue.store.submit(queue.name, [(chemistry.read_molecule(path), request)])[0]


def bare_environment(venv: Path) -> Path:
    """Make an environment with the project alone; return its `puffin`."""
    environment = {**os.environ, **uv_settings()}
    python = str(venv / "bin" / "python")
    for words in (
        ["venv", "--quiet", "--python", sys.executable, str(venv)],
        ["pip", "install", "--quiet", "--python", python, str(ROOT)],
    ):
        subprocess.run([uv_program(), *words], env=environment, check=True)
    return venv / "bin" / "puffin"


@contextlib.contextmanager
def server(directory: Path) -> Iterator[Database]:
    running = DatabaseServer(directory)
    running.start()
    try:
        initialise(running, DATABASE)
        yield Database(running, DATABASE)
    finally:
        running.stop()


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{title:40} {time.monotonic() - began:7.2f} s", flush=True)


if __name__ == "__main__":
    main()
