"""Nothing that is frozen, cut off or restarted loses a calculation or runs it twice at once.

Each test makes one fault for real. Leases are short, so that what waits for one to lapse is quick.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.lab.fixtures_database import Database
from tests.lab.link import Link
from tests.lab.ticking import begins, let_end, never_ran_side_by_side, runs, stands_still, ticking_code
from tests.lab.worker import ALL_JOBS, Queue, Worker, Workers, lines_of, until

SHORT = {"lease_in_s": 3.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ticks"


def is_frozen(path: Path, attempt: int, *workers: Worker) -> None:
    """Wait until one of the workers has frozen its job: one that is only held up for a moment stands still as well."""
    until(lambda: any(" frozen: " in worker.log for worker in workers), "the job to be frozen")
    stands_still(path, attempt)


def starts_a_job_that_ends_while_the_database_is_away(
    workers: Workers, queue: Queue, database: Database, path: Path, end: str
) -> tuple[Worker, str]:
    """Start a worker that has its result on disk now, and the calculation; the database's server is down."""
    id_ = queue.code(ticking_code(path) + f"\n{end}")
    # The job must hear that it may end before it is frozen.
    worker = workers.start(daemon={"lease_in_s": 8.0})
    runs(path, 1)
    database.server.kill()
    let_end(path)
    until(lambda: list(worker.place.jobs.glob("*.result.json")), "the result on disk")
    return worker, id_


def comes_back_after_the_database(worker: Worker, database: Database) -> None:
    """Kill a worker; it is started again when the database answers."""
    worker.signal(signal.SIGKILL)
    worker.wait()
    database.server.start()
    worker.start()


# Frozen, cut off ---------------------------------------------------------------------------------------


def test_a_worker_that_is_stopped_for_longer_than_its_lease(workers: Workers, queue: Queue, path: Path) -> None:
    """Its job stands still meanwhile, is taken over, and is killed when the worker goes on."""
    id_ = queue.code(ticking_code(path))
    stopped = workers.start("stopped", daemon=SHORT)
    first = begins(path)
    heir = workers.start("heir", daemon=SHORT)
    stopped.signal(signal.SIGSTOP)
    stands_still(path, first)
    second = begins(path, after=first)
    stopped.signal(signal.SIGCONT)
    until(lambda: "discarded" in stopped.log, "the stopped worker to give up")
    let_end(path)
    document = queue.wait(id_)
    assert (document["executor"], document["puffin"]["attempt"]) == (heir.uuid, second)
    never_ran_side_by_side(path)
    assert [stopped.stop(), heir.stop()] == [0, 0]


def test_the_network_of_one_worker_is_cut(workers: Workers, queue: Queue, database: Database, path: Path) -> None:
    """It freezes its job, another takes over, and what it does once it is back changes nothing."""
    link = Link(database.port)
    try:
        id_ = queue.code(ticking_code(path) + "\nprint('attempt', attempt)")
        cut_off = workers.start("cut-off", daemon=SHORT, database={"uri": link.uri})
        first = begins(path)
        heir = workers.start("heir", daemon=SHORT)
        link.cut()
        stands_still(path, first)
        second = begins(path, after=first)
        let_end(path)
        document = queue.wait(id_)
        link.heal()
        until(lambda: "discarded" in cut_off.log, "the one that was cut off to give up")
        assert queue[id_] == document
        assert (document["executor"], document["raw_output"]) == (heir.uuid, f"attempt {second}\n")
        never_ran_side_by_side(path)
        assert [cut_off.stop(), heir.stop()] == [0, 0]
    finally:
        link.close()


def test_the_answer_to_a_claim_is_lost(workers: Workers, queue: Queue, database: Database) -> None:
    """The worker finds what it took without knowing, gives it back, and takes it again."""
    link = Link(database.port)
    try:
        worker = workers.start(daemon=SHORT, database={"uri": link.uri})
        queue.wait(queue.sleep())
        noticed = worker.log.count("no work to be had")
        # Whoever cut it himself might be too late: a worker that trusts in being told asks no more.
        link.cut_at_find("calculations")
        id_ = queue.sleep()
        until(lambda: link.is_cut, "the claim")
        until(lambda: worker.log.count("no work to be had") > noticed, "the worker to notice")
        link.heal()
        told = queue.wait(id_)["puffin"]
        assert ("lost_on" in told, told["attempt"]) == (False, 2)
        assert "the answer to its claim was lost" in worker.log
        assert worker.stop() == 0
    finally:
        link.close()


def test_the_database_is_killed_for_longer_than_the_lease(
    own_workers: Workers, own_queue: Queue, own_database: Database, path: Path
) -> None:
    """The job is frozen and goes on where it stood."""
    id_ = own_queue.code(ticking_code(path))
    worker = own_workers.start(daemon=SHORT)
    other = own_workers.start("other", daemon=SHORT)
    first = begins(path)
    until(lambda: " started: " in worker.log and " started: " in other.log, "both to work")
    own_database.server.kill()
    is_frozen(path, first, worker, other)
    own_database.server.start()
    runs(path, first)
    let_end(path)
    document = own_queue.wait(id_)
    assert document["puffin"]["attempt"] == first
    assert sum(line.startswith("start") for line in lines_of(path)) == 1
    until(lambda: {"frozen", "thawed"} <= {e["kind"] for e in own_queue.store.events.latest(100)}, "the events")
    assert [worker.stop(), other.stop()] == [0, 0]


def test_a_job_that_ends_while_the_database_is_away(
    own_workers: Workers, own_queue: Queue, own_database: Database, path: Path
) -> None:
    """Its result waits on disk and is written when the database is back."""
    worker, id_ = starts_a_job_that_ends_while_the_database_is_away(
        own_workers, own_queue, own_database, path, "print('precious')"
    )
    own_database.server.start()
    document = own_queue.wait(id_)
    assert (document["raw_output"], document["puffin"]["attempt"]) == ("precious\n", 1)
    until(lambda: list(worker.place.jobs.iterdir()) == [], "the result to be removed from disk")


def test_the_next_incarnation_writes_what_the_last_one_could_not(
    own_workers: Workers, own_queue: Queue, own_database: Database, path: Path
) -> None:
    worker, id_ = starts_a_job_that_ends_while_the_database_is_away(
        own_workers, own_queue, own_database, path, "print('precious')"
    )
    comes_back_after_the_database(worker, own_database)
    document = own_queue.wait(id_)
    assert (document["raw_output"], document["puffin"]["attempt"]) == ("precious\n", 1)


def test_a_failure_that_the_last_incarnation_could_not_write_is_told_as_one(
    own_workers: Workers, own_queue: Queue, own_database: Database, path: Path
) -> None:
    worker, id_ = starts_a_job_that_ends_while_the_database_is_away(
        own_workers, own_queue, own_database, path, "raise RuntimeError('its own fault')"
    )
    comes_back_after_the_database(worker, own_database)
    own_queue.wait(id_, "failed")
    [event] = until(lambda: own_queue.events("failed"), "the failure to be told")
    assert "its own fault" in event["detail"]


def test_work_is_still_noticed_after_the_calculations_were_dropped(
    own_workers: Workers, own_queue: Queue, own_database: Database
) -> None:
    """The server ends the change stream then; who went on listening would hear nothing for ever."""
    link = Link(own_database.port)

    def polls_no_more() -> bool:
        before = link.commands["findAndModify"]
        time.sleep(2)
        return link.commands["findAndModify"] == before

    try:
        own_workers.start(daemon={"cycle_time_in_s": 0.2}, database={"uri": link.uri})
        own_queue.wait(own_queue.sleep())
        until(polls_no_more, "the worker to trust in what the server tells")
        own_queue.documents.drop()
        until(polls_no_more, "the worker to trust in it again")
        own_queue.wait(own_queue.sleep())
    finally:
        link.close()


def test_a_limit_that_was_exceeded_after_an_outage_is_a_failure_all_the_same(
    workers: Workers, queue: Queue, database: Database, path: Path
) -> None:
    link = Link(database.port)
    try:
        id_ = queue.submit("lab_own_end", {"code": ticking_code(path), "walltime_s": 4.0})
        workers.start(daemon=SHORT, database={"uri": link.uri})
        first = begins(path)
        link.cut()
        stands_still(path, first)
        link.heal()
        document = queue.wait(id_, "failed")
        assert document["puffin"]["attempt"] == first
        assert "walltime limit" in document["comment"]
    finally:
        link.close()


def test_what_a_job_completed_itself_after_an_outage_counts_also_if_it_dies_then(
    workers: Workers, queue: Queue, database: Database, path: Path
) -> None:
    code = f"""{ticking_code(path)}
import pymongo
from bson.objectid import ObjectId
with pymongo.MongoClient({database.server.uri!r}) as client:
    calculations = client[{database.name!r}]["calculations"]
    calculations.update_one({{"_id": ObjectId(context.claim.id)}}, {{"$set": {{"status": "complete"}}}})
    os._exit(3)
"""
    link = Link(database.port)
    try:
        id_ = queue.submit("lab_own_end", {"code": code})
        # A third of the lease is the time that a job has to leave once it has written its end.
        worker = workers.start(daemon={"lease_in_s": 4.0}, database={"uri": link.uri})
        first = begins(path)
        link.cut()
        is_frozen(path, first, worker)
        link.heal()
        runs(path, first)
        let_end(path)
        queue.wait(id_)
        assert worker.stop() == 0
        assert "finished" in {event["kind"] for event in queue.store.events.about(id_)}
    finally:
        link.close()


def test_a_worker_waits_for_a_database_that_is_not_there_yet(
    own_workers: Workers, own_queue: Queue, own_database: Database
) -> None:
    own_database.server.kill()
    worker = own_workers.start(daemon=SHORT)
    until(lambda: "waiting for the database" in worker.log, "the worker to wait")
    own_database.server.start()
    own_queue.wait(own_queue.sleep())
    own_database.server.kill()
    impatient = own_workers.start("impatient", daemon=SHORT)
    until(lambda: "waiting for the database" in impatient.log, "the worker to wait")
    assert impatient.stop() == 0
    own_database.server.start()


def test_a_worker_that_was_just_ending_when_it_was_started_starts_again(
    own_workers: Workers, own_queue: Queue, own_database: Database, tmp_path: Path
) -> None:
    """Without a database its end takes long, and who starts it finds it running; nobody would start it later."""
    shared = tmp_path / "shared.stop"
    # Each answer is waited for a quarter of that.
    worker = own_workers.start(daemon={"stop_shared": str(shared), "lease_in_s": 20.0})
    own_queue.wait(own_queue.sleep())
    # Else it may wait for the answer to that one's end, for as long as it takes.
    until(lambda: "complete after" in worker.log, "the worker to know that it is done")
    own_database.server.freeze()
    # It obeys both, and removes its own: only that shows that it has. What it says it says before.
    worker.signal(signal.SIGSTOP)
    shared.touch()
    worker.place.stop.touch()
    worker.signal(signal.SIGCONT)
    until(lambda: not worker.place.stop.exists(), "the worker to obey")
    shared.unlink()
    assert worker.wait() == 75
    own_database.server.thaw()


def test_a_worker_that_waits_for_the_database_recycles_with_75(own_workers: Workers, own_database: Database) -> None:
    """supervisord would leave it down after 0, and the deploy that asked for it would fail."""
    own_database.server.kill()
    worker = own_workers.start(daemon=SHORT)
    until(lambda: "waiting for the database" in worker.log, "the worker to wait")
    worker.place.recycle.touch()
    assert worker.wait() == 75
    assert not worker.place.recycle.exists()
    own_database.server.start()


def test_the_database_is_frozen(own_workers: Workers, own_queue: Queue, own_database: Database, path: Path) -> None:
    """Connections stay open and nothing answers: that is an outage like any other."""
    id_ = own_queue.code(ticking_code(path))
    worker = own_workers.start(daemon=SHORT)
    first = begins(path)
    own_database.server.freeze()
    is_frozen(path, first, worker)
    own_database.server.thaw()
    runs(path, first)
    let_end(path)
    assert own_queue.wait(id_)["puffin"]["attempt"] == first
    assert worker.stop() == 0


def test_a_scine_job_survives_an_outage(own_workers: Workers, own_queue: Queue, own_database: Database) -> None:
    """It writes to the database by itself: whatever it meets there, its calculation ends complete."""
    pytest.importorskip("scine_puffin", reason="needs the extra 'scine'")
    from tests.integration.test_scine_jobs import Chemistry
    from tests.lab.fixtures_database import connect

    manager = connect(own_database.server, own_database.name)
    ids = [Chemistry(manager).submit("caffeine", "scine_geometry_optimization") for _ in range(2)]
    manager.disconnect()
    worker = own_workers.start(daemon={**ALL_JOBS, **SHORT})
    until(lambda: any(own_queue.status(id_) != "new" for id_ in ids), "the first to run")
    own_database.server.kill()
    until(lambda: "cannot" in worker.log, "the worker to notice")
    time.sleep(SHORT["lease_in_s"])
    own_database.server.start()
    for id_ in ids:
        # Both are optimized twice if need be, on a machine that may have much else to do.
        document = own_queue.wait(id_, "complete", "failed", patience_s=90.0)
        assert document["status"] == "complete", document["comment"]


def test_a_clock_that_is_wrong_on_one_host(workers: Workers, queue: Queue, path: Path) -> None:
    """Only the server's clock tells whether a lease has lapsed, and only the rates of clocks matter elsewhere."""
    id_ = queue.code(ticking_code(path))
    # Long enough for one that is only held up to renew its lease; with one of a second the other soon dares to judge.
    lease_s = 4.0
    workers.start("right", daemon={"lease_in_s": lease_s})
    first = begins(path)
    wrong = workers.make("wrong", daemon={"lease_in_s": 1.0})
    # As Python sees it; the machine's clock is not this test's to set.
    (wrong.place.directory / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() + 864000\n"
    )
    wrong.start(PYTHONPATH=os.pathsep.join([str(wrong.place.directory), workers.python_path]))
    until(lambda: queue.events("started")[1:], "the worker to start")
    assert queue.events("started")[1]["at"] - queue.events("started")[0]["at"] > timedelta(days=9)
    runs(path, first)
    time.sleep(lease_s + 1.5)
    let_end(path)
    assert queue.wait(id_)["puffin"]["attempt"] == first
    assert queue.events("reset") == []
