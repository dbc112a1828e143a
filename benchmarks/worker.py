"""What a worker costs, beside SCINE Puffin 2.1 on the same database server; prints a table, asserts nothing.

    python -m benchmarks.worker [--jobs 200] [--port 27017]

Without ``--port`` it starts a SecantusDB, which takes longer for a claim the more calculations are queued; with it,
a server that runs on this machine already is used, whose database ``benchmark`` is overwritten.
Needs the extras ``scine``, ``embedded`` and ``dev``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database, initialise
from tests.lab.link import Link
from tests.lab.scine_puffin import ScinePuffin
from tests.lab.worker import Queue, Worker, Workers, until

IDLE_S = 180.0


class ServerElsewhere(DatabaseServer):
    """A server that somebody else started on this machine."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(directory)
        self._port = port

    @property
    def port(self) -> int:
        return self._port

    @property
    def uri(self) -> str:
        return f"mongodb://{self.host}:{self._port}"

    def start(self) -> None:
        """It runs."""

    def stop(self) -> None:
        """It is not ours to stop."""


def jobs_per_second(queue: Queue, jobs: int, work: Callable[[], Any]) -> float:
    """From the first job that is seen to be done to the last, so that nobody's start-up counts."""
    for _ in range(jobs):
        queue.sleep(0)
    with work():
        done = first = 0
        begin = end = time.monotonic()
        while done < jobs:
            done = queue.documents.count_documents({"status": "complete"})
            end = time.monotonic()
            if not first:
                first, begin = done, end
            time.sleep(0.05)
    queue.documents.delete_many({})
    return (jobs - first) / (end - begin)


class Running:
    """A worker as a context manager."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __enter__(self) -> Worker:
        return self._worker.start()

    def __exit__(self, *_: object) -> None:
        self._worker.stop()


def start_latency(queue: Queue, samples: int) -> list[float]:
    """Seconds from submission to result with an idle worker, less the job's own; by the server's clock."""
    found = []
    for _ in range(samples):
        time.sleep(0.5)
        document = queue.wait(queue.sleep(0))
        submitted = document["_created"]
        started = document["_lastmodified"]
        found.append((started - submitted).total_seconds() - document["runtime"])
    return found


def memory_mb(worker: Worker) -> tuple[float, float]:
    own = psutil.Process(worker.pid).memory_full_info().pss / 2**20
    rest = sum(process.memory_full_info().pss for process in worker.below()) / 2**20
    return own, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="puffin-benchmark-"))
    server = ServerElsewhere(directory, arguments.port) if arguments.port else DatabaseServer(directory / "database")
    server.start()
    with server.client() as client:
        client.drop_database("benchmark")
    initialise(server, "benchmark")
    database = Database(server, "benchmark")
    queue, workers = Queue(database), Workers(directory, database)
    try:
        _measure(arguments.jobs, directory, server, database, queue, workers)
    finally:
        workers.end()
        queue.close()
        server.stop()


def _measure(
    jobs: int, directory: Path, server: DatabaseServer, database: Database, queue: Queue, workers: Workers
) -> None:
    link = Link(server.port)
    proxied = {"uri": link.uri}
    ours = jobs_per_second(queue, jobs, lambda: Running(workers.make("fast")))
    jobs_per_second(queue, jobs, lambda: Running(workers.make("counted", database=proxied)))
    counted = {name: count / jobs for name, count in link.commands.items() if name not in {"hello", "ismaster"}}
    theirs = jobs_per_second(queue, max(10, jobs // 20), lambda: ScinePuffin(directory, queue, cycle_time_in_s=0.01))
    print(f"zero-second jobs per second     {ours:8.1f}   SCINE Puffin {theirs:.2f}   ratio {ours / theirs:.0f}")
    print(f"commands per job                {sum(counted.values()):8.2f}   {_shown(counted)}")

    worker = workers.make("idle", database=proxied).start()
    queue.wait(queue.sleep(0))
    latencies = start_latency(queue, 20)
    median, worst = statistics.median(latencies) * 1000, max(latencies) * 1000
    print(f"submitted to written, idle      {median:8.1f} ms (median)   worst {worst:.1f} ms")
    until(lambda: not queue.documents.count_documents({"status": {"$ne": "complete"}}), "all done")
    time.sleep(3.0)
    link.commands.clear()
    time.sleep(IDLE_S)
    idle = {name: count for name, count in link.commands.items() if name not in {"hello", "ismaster"}}
    print(f"commands of an idle worker      {sum(idle.values()) * 60 / IDLE_S:8.1f} per minute   {_shown(idle)}")
    own, rest = memory_mb(worker)
    print(f"memory with SCINE (PSS)         {own:8.1f} MB worker, {rest:.1f} MB fork server and waiting process")
    worker.stop()


def _shown(counts: dict[str, float]) -> str:
    return ", ".join(f"{name} {count:.3g}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()
