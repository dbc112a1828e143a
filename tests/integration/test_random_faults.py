"""Half a minute in which anything may be killed, stopped or frozen: every calculation completes exactly once.

A failure prints the seed and the faults that were made; PUFFIN_FAULT_SEED repeats the choices, though not the timing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pymongo.errors
import pytest

from puffin.errors import DatabaseError
from tests.lab.fixtures_database import Database
from tests.lab.worker import Queue, Worker, Workers, lines_of, until

JOBS = 200
FAULTS_S = 30.0
LEASE_S = 2.0
CREW = ("one", "two", "three")
ONE_LONG_IN = 25
_LONGEST_SEARCH_S = 5.0
_TO_COMPLETE = [{"$match": {"operationType": "update", "updateDescription.updatedFields.status": "complete"}}]


def job(directory: Path, seconds: float) -> str:
    """Code of a job that writes down when each of its attempts begins, goes on and ends."""
    return f"""
import os, time
def write(word):
    lines.write(word + " " + os.environ["PUFFIN_ATTEMPT"] + "\\n")
lines = open({str(directory)!r} + "/" + os.environ["PUFFIN_CALCULATION"], "a", buffering=1)
end = time.monotonic() + {seconds:.3f}
write("begin")
while time.monotonic() < end:
    time.sleep(0.01)
    write("tick")
write("end")
print("attempt", os.environ["PUFFIN_ATTEMPT"])
"""


class Witness:
    """Sees with a connection of its own what is complete, and whether that stays so.

    The server tells of each write that completes a calculation; what it says while it is away is made up for by
    looking: a complete calculation must never change again.
    """

    def __init__(self, database: Database) -> None:
        self.completions: dict[str, set[str]] = {}
        self.changed: list[tuple[Any, Any]] = []
        self._complete: dict[Any, Any] = {}
        self._client = database.server.client(serverSelectionTimeoutMS=1000, socketTimeoutMS=2000)
        self._documents: Any = self._client[database.name]["calculations"]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def look(self) -> None:
        for document in self._documents.find({"status": "complete"}):
            before = self._complete.setdefault(document["_id"], document)
            if before != document:
                self.changed.append((before, document))

    def has_looked(self) -> bool:
        """Look, unless the server takes too long to answer."""
        try:
            self.look()
        except pymongo.errors.PyMongoError:
            return False
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(pymongo.errors.PyMongoError):
                self._watch()

    def _watch(self) -> None:
        with self._documents.watch(_TO_COMPLETE, max_await_time_ms=100) as stream:
            while not self._stopping.is_set():
                self.look()
                while (change := stream.try_next()) is not None:
                    # A stream that goes on after a break may tell the same again, under the same name.
                    self.completions.setdefault(str(change["documentKey"]["_id"]), set()).add(str(change["_id"]))


class Faults:
    """Makes faults."""

    def __init__(self, crew: list[Worker], database: Database, chance: random.Random, directory: Path) -> None:
        self._crew = crew
        self._database = database
        self._chance = chance
        self._directory = directory
        self.tries: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.kinds: tuple[Callable[[], None], ...] = (
            *(self.kill_the_worker, self.kill_the_fork_server, self.kill_the_keeper, self.kill_the_job),
            *(self.kill_all_at_once, self.stop_the_worker, self.kill_the_database, self.freeze_the_database),
        )

    def in_turn(self) -> Iterator[Callable[[], None]]:
        """Every kind as often as every other, in an order that is never the same."""
        while True:
            yield from self._chance.sample(self.kinds, len(self.kinds))

    def start_what_ended(self) -> None:
        for worker in self._crew:
            if worker.process.poll() is not None:
                worker.start()

    def kill_the_worker(self) -> None:
        worker = self._one()
        worker.signal(signal.SIGKILL)
        worker.wait()  # whoever looks for what ended must not find it running still

    def kill_the_fork_server(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._one().forkserver().kill()

    def kill_the_keeper(self) -> None:
        with self._counted("kill_the_keeper"):
            _present(self._running_job().parent()).kill()

    def kill_the_job(self) -> None:
        with self._counted("kill_the_job"):
            self._running_job().kill()

    @contextlib.contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        """Who is to be killed may be gone; that it is so each time would mean that it is not found."""
        self.tries[kind] += 1
        with contextlib.suppress(psutil.NoSuchProcess):
            yield
            self.hits[kind] += 1

    def kill_all_at_once(self) -> None:
        worker = self._one()
        for process in [psutil.Process(worker.pid), *worker.below()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        worker.wait()

    def stop_the_worker(self) -> None:
        # Most is at stake where the job has run for longest.
        worker = max(self._crew, key=lambda worker: sum(len(lines_of(path)) for path in self._open_lines(worker)))
        worker.signal(signal.SIGSTOP)
        time.sleep(LEASE_S + self._chance.uniform(0.5, 1.5))
        worker.signal(signal.SIGCONT)

    def kill_the_database(self) -> None:
        self._database.server.kill()
        time.sleep(self._chance.uniform(0.0, 1.5 * LEASE_S))
        self._database.server.start()

    def freeze_the_database(self) -> None:
        self._database.server.freeze()
        time.sleep(self._chance.uniform(0.3, 1.5 * LEASE_S))
        self._database.server.thaw()

    def _one(self) -> Worker:
        return self._chance.choice(self._crew)

    def _running_job(self) -> psutil.Process:
        deadline = time.monotonic() + _LONGEST_SEARCH_S
        while time.monotonic() < deadline:
            for job in itertools.chain.from_iterable(map(self._jobs, self._crew)):
                return job
            time.sleep(0.02)
        # All that there is may be done already: more is submitted only before the next fault.
        raise psutil.NoSuchProcess(0)

    def _jobs(self, worker: Worker) -> Iterator[psutil.Process]:
        """The jobs' own processes are those that have their lines open."""
        return (process for process in worker.below() if self._lines_of(process))

    def _open_lines(self, worker: Worker) -> Iterator[Path]:
        return itertools.chain.from_iterable(map(self._lines_of, worker.below()))

    def _lines_of(self, process: psutil.Process) -> list[Path]:
        with contextlib.suppress(psutil.Error):
            return [path for file in process.open_files() if (path := Path(file.path)).parent == self._directory]
        return []


def _present(process: psutil.Process | None) -> psutil.Process:
    if process is None:
        raise psutil.NoSuchProcess(0)
    return process


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("PUFFIN_FAULT_SEED", random.SystemRandom().randrange(10**6)))
    print(f"PUFFIN_FAULT_SEED={seed}")
    return random.Random(seed)


def test_random_faults_over_many_jobs(
    own_workers: Workers, own_queue: Queue, own_database: Database, tmp_path: Path, chance: random.Random
) -> None:
    directory = tmp_path / "lines"
    directory.mkdir()
    daemon = {"lease_in_s": LEASE_S, "max_attempts": 100}
    crew = [own_workers.start(name, daemon=daemon) for name in CREW]
    ids: list[str] = []
    with Witness(own_database) as witness:
        faults = Faults(crew, own_database, chance, directory)
        _make_faults(faults, own_queue, ids, lambda number: job(directory, _duration(number, chance)), chance)
        until(lambda: not _left(own_queue), "all calculations to be complete", patience_s=120.0)
        # One that was started last may not yet heed signals.
        until(lambda: {worker.pid for worker in crew} <= _pids_told(own_queue), "all workers to be there")
        assert [worker.stop() for worker in crew] == [0] * len(crew)
        until(witness.has_looked, "a last look")
    assert len(ids) == own_queue.documents.count_documents({}) == JOBS
    # On a machine that is slow there may be one round of all kinds, in which nothing happens to run just then.
    print(f"killed: {dict(faults.hits)} in {dict(faults.tries)} tries")
    assert [kind for kind, tries in faults.tries.items() if tries > 1 and not faults.hits[kind]] == []
    assert witness.changed == []
    print(f"the server told of {len(witness.completions)} completions")
    assert witness.completions
    assert {id_: seen for id_, seen in witness.completions.items() if len(seen) > 1} == {}
    _each_is_told_to_be_finished_at_most_once(own_queue)
    for id_ in ids:
        _ran_one_after_the_other(directory / id_, own_queue[id_])


def _duration(number: int, chance: random.Random) -> float:
    # Only a job that lasts for longer than its lease can run on while another worker has taken it over.
    return 2.5 * LEASE_S if number % ONE_LONG_IN == 0 else chance.uniform(0.0, 0.3)


def _make_faults(
    faults: Faults, queue: Queue, ids: list[str], code: Callable[[int], str], chance: random.Random
) -> None:
    """Submit as time goes by, so that there is work all the time."""
    begin = time.monotonic()
    for fault in faults.in_turn():
        elapsed = time.monotonic() - begin
        share = 1.0 if elapsed >= FAULTS_S else min(1.0, (elapsed + 3.0) / FAULTS_S)
        ids += [queue.code(code(number)) for number in range(len(ids), round(JOBS * share))]
        if elapsed >= FAULTS_S:
            return
        print(f"{elapsed:6.2f} s  {fault.__name__}")
        fault()
        time.sleep(chance.uniform(0.0, 0.5))
        faults.start_what_ended()
        until(lambda: _answers(queue), "the database to answer")


def _answers(queue: Queue) -> bool:
    try:
        queue.store.check()
        queue.documents.find_one()
    except (DatabaseError, pymongo.errors.PyMongoError):
        return False
    return True


def _pids_told(queue: Queue) -> set[int]:
    return {record.pid for record in queue.store.registry.workers(brief=True)}


def _left(queue: Queue) -> list[dict[str, Any]]:
    return list(queue.documents.find({"status": {"$ne": "complete"}}, {"status": 1, "executor": 1, "comment": 1}))


def _each_is_told_to_be_finished_at_most_once(queue: Queue) -> None:
    # An event whose first writing was not answered is written again, with the same time.
    told = {(event["calculation"], event["at"]) for event in queue.store.events.latest(10_000) if _is_end(event)}
    assert told
    assert {id_: count for id_, count in Counter(id_ for id_, _ in told).items() if count > 1} == {}


def _is_end(event: dict[str, Any]) -> bool:
    return event["kind"] in {"finished", "failed"}


def _ran_one_after_the_other(path: Path, document: dict[str, Any]) -> None:
    """No attempt writes a line once a later one has begun, and the last one is the one that is complete."""
    lines = [(word, int(attempt)) for word, attempt in map(str.split, lines_of(path))]
    attempts = [attempt for _, attempt in lines]
    turns = [attempt for attempt, _ in itertools.groupby(attempts)]
    assert turns == sorted(turns), f"{path.name}: attempts side by side"
    for word in ("begin", "end"):
        assert max(Counter(line for line in lines if line[0] == word).values()) == 1, path.name
    assert lines[-1] == ("end", document["puffin"]["attempt"])
    assert document["raw_output"] == f"attempt {attempts[-1]}\n"
