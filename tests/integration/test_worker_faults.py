"""Nothing that is killed, frozen, cut off or restarted loses a calculation or runs it twice at once.

Each test makes one fault for real. Leases are short, so that what waits for one to lapse is quick.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from bson.objectid import ObjectId

from tests.lab.fixtures_database import Database
from tests.lab.link import Link
from tests.lab.worker import Queue, Worker, Workers, lines_of, until

SHORT = {"lease_in_s": 2.0}


def ticking_code(path: Path) -> str:
    """Code of a job that writes down its attempt at every turn, and ends when the file ``may-end`` is there."""
    return f"""
import os, time
attempt, name = os.environ["PUFFIN_ATTEMPT"], {str(path)!r}
ticks = open(name, "a", buffering=1)
ticks.write("start " + attempt + " %.3f\\n" % time.clock_gettime(time.CLOCK_BOOTTIME))
while not os.path.exists(name + ".may-end"):
    time.sleep(0.02)
    ticks.write("tick " + attempt + " %.3f\\n" % time.clock_gettime(time.CLOCK_BOOTTIME))
"""


def let_end(path: Path) -> None:
    Path(f"{path}.may-end").touch()


def ticks(path: Path, attempt: int) -> list[float]:
    return [float(line.split()[2]) for line in lines_of(path) if line.split()[1] == str(attempt)]


def runs(path: Path, attempt: int) -> None:
    """Wait until an attempt goes on."""
    before = len(ticks(path, attempt))
    until(lambda: len(ticks(path, attempt)) > before + 1, f"attempt {attempt} to run")


def stands_still(path: Path, attempt: int) -> None:
    """Wait until an attempt has not moved for many of its ticks."""

    def look() -> bool:
        before = len(ticks(path, attempt))
        time.sleep(0.4)
        return len(ticks(path, attempt)) == before

    until(look, f"attempt {attempt} to stand still")


def starts_a_job_that_ends_while_the_database_is_away(
    workers: Workers, queue: Queue, database: Database, path: Path, end: str
) -> tuple[Worker, str]:
    """Start a worker that has its result on disk now, and the calculation; the database's server is down."""
    id_ = queue.code(ticking_code(path) + f"\n{end}")
    worker = workers.start(daemon={"lease_in_s": 4.0})
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


def never_ran_side_by_side(path: Path) -> None:
    attempts = sorted({int(line.split()[1]) for line in lines_of(path)})
    for earlier, later in itertools.pairwise(attempts):
        assert ticks(path, earlier)[-1] < ticks(path, later)[0], f"attempts {earlier} and {later} overlapped"


def keeper_and_job(worker: Worker, path: Path) -> tuple[psutil.Process, psutil.Process]:
    """The job's own process is the one that has its ticks open; its parent is its keeper."""

    def look() -> psutil.Process | None:
        for process in worker.marked():
            try:
                if any(Path(entry.path) == path for entry in process.open_files()):
                    return process
            except psutil.Error:
                continue
        return None

    job = until(look, "the job's process")
    keeper = job.parent()
    assert keeper is not None
    return keeper, job


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ticks"


# Killed ------------------------------------------------------------------------------------------------


def test_kill_9_of_the_worker(workers: Workers, queue: Queue, path: Path) -> None:
    """Its job dies with it; its next incarnation starts it again at once, long before the lease lapses."""
    id_ = queue.code(ticking_code(path))
    worker = workers.start()
    runs(path, 1)
    worker.signal(signal.SIGKILL)
    worker.wait()
    worker.is_gone()
    assert queue.status(id_) == "pending"
    worker.start()
    runs(path, 2)
    let_end(path)
    document = queue.wait(id_)
    assert document["puffin"]["attempt"] == 2
    assert "lost_on" not in document["puffin"]
    never_ran_side_by_side(path)
    until(lambda: list(worker.place.jobs.iterdir()) == [], "the directories of both attempts to be removed")


def test_kill_9_of_the_worker_on_a_host_that_does_not_come_back(workers: Workers, queue: Queue, path: Path) -> None:
    """Another worker takes the calculation over once the lease has lapsed."""
    id_ = queue.code(ticking_code(path), memory=0.5)
    dead = workers.start("dead", daemon=SHORT)
    runs(path, 1)
    heir = workers.start("heir", daemon=SHORT)
    dead.signal(signal.SIGKILL)
    runs(path, 2)
    let_end(path)
    assert queue.wait(id_)["executor"] == heir.uuid
    [event] = queue.events("reset")
    assert dead.uuid in event["detail"]
    never_ran_side_by_side(path)


def test_kill_9_of_the_fork_server_while_the_worker_starts(workers: Workers, queue: Queue) -> None:
    id_ = queue.sleep()
    worker = workers.start()
    worker.forkserver().kill()
    queue.wait(id_)
    assert worker.stop() == 0


def test_kill_9_of_the_fork_server(workers: Workers, queue: Queue, path: Path) -> None:
    """The running job does not need it, and the next one gets a new one."""
    id_ = queue.code(ticking_code(path), priority=1)
    worker = workers.start()
    runs(path, 1)
    worker.forkserver().kill()
    runs(path, 1)
    let_end(path)
    assert queue.wait(id_)["puffin"]["attempt"] == 1
    queue.wait(queue.sleep())
    assert worker.stop() == 0


@pytest.mark.parametrize("victim", ["keeper", "job"])
def test_kill_9_of_a_process_of_the_job(workers: Workers, queue: Queue, path: Path, victim: str) -> None:
    """The calculation is given back and runs again; the host is remembered."""
    id_ = queue.code(ticking_code(path))
    worker = workers.start()
    runs(path, 1)
    keeper, job = keeper_and_job(worker, path)
    (keeper if victim == "keeper" else job).kill()
    runs(path, 2)
    assert queue[id_]["puffin"]["lost_on"] == [f"host-of-{worker.uuid}"]
    let_end(path)
    assert queue.wait(id_)["puffin"]["attempt"] == 2
    never_ran_side_by_side(path)
    assert worker.stop() == 0


def test_kill_9_of_all_at_once(workers: Workers, queue: Queue, path: Path) -> None:
    """Even a program that the job had put out of everybody's reach is ended before the job runs again."""
    program = (
        f"import os, time\nos.setsid()\nopen({str(path)!r} + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    id_ = queue.code(
        f"import subprocess, sys, os, time\nif os.environ['PUFFIN_ATTEMPT'] == '1':\n"
        f"    subprocess.Popen([sys.executable, '-c', {program!r}])\n"
        f"    while not os.path.exists({str(path)!r} + '.pid'): time.sleep(0.01)\n" + ticking_code(path)
    )
    worker = workers.start()
    runs(path, 1)
    out_of_reach = int(Path(f"{path}.pid").read_text())
    doomed = [one for one in (psutil.Process(worker.pid), *worker.below()) if one.pid != out_of_reach]
    # One after the other would leave the keeper time to end that program, as it should.
    for process in doomed:
        process.suspend()
    for process in doomed:
        process.kill()
    worker.wait()
    stray = psutil.Process(int(Path(f"{path}.pid").read_text()))
    assert stray.status() != psutil.STATUS_ZOMBIE
    worker.start()
    runs(path, 2)
    assert not stray.is_running() or stray.status() == psutil.STATUS_ZOMBIE
    let_end(path)
    assert queue.wait(id_)["puffin"]["attempt"] == 2
    never_ran_side_by_side(path)


def catching_code(path: Path) -> str:
    """Code of a job that takes a SIGTERM for a failure of its own, and says so."""
    return (
        "import signal\ndef caught(*_): raise RuntimeError('its program was interrupted')\n"
        "signal.signal(signal.SIGTERM, caught)\n" + ticking_code(path)
    )


@pytest.mark.parametrize("order", ["lab_code", "lab_own_end"])
def test_a_machine_that_is_switched_off_sends_sigterm_to_every_process(
    workers: Workers, queue: Queue, path: Path, order: str
) -> None:
    """The job may be quicker to fail than the worker to hear of it: that is no failure of the calculation."""
    id_ = queue.submit(order, {"code": catching_code(path)})
    worker = workers.start()
    runs(path, 1)
    keeper, job = keeper_and_job(worker, path)
    for process in (job, keeper, *(one for one in worker.below() if one.pid not in {job.pid, keeper.pid})):
        process.terminate()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    document = queue[id_]
    assert (document["status"], document["executor"]) == ("new", "")
    assert document["puffin"]["lost_on"] == [f"host-of-{worker.uuid}"]
    worker.start()
    runs(path, 2)
    let_end(path)
    assert queue.wait(id_)["puffin"]["attempt"] == 2


def test_what_is_lost_too_often_with_its_machine_is_told_and_kept_as_a_failure(
    workers: Workers, queue: Queue, path: Path, tmp_path: Path
) -> None:
    id_ = queue.submit("lab_own_end", {"code": catching_code(path)})
    errors = tmp_path / "errors"
    errors.mkdir()
    worker = workers.start(daemon={"max_attempts": 1, "error_dir": str(errors)})
    runs(path, 1)
    keeper, job = keeper_and_job(worker, path)
    for process in (job, keeper):
        process.terminate()
    queue.wait(id_, "failed")
    assert worker.stop() == 0
    assert queue[id_]["status"] == "failed"
    assert "failed" in {event["kind"] for event in queue.store.events.about(id_)}
    assert list(errors.iterdir())


@pytest.mark.parametrize("order", ["lab_code", "lab_own_end"])
def test_a_job_that_alone_gets_a_sigterm_and_fails_of_it_has_failed(
    workers: Workers, queue: Queue, path: Path, order: str
) -> None:
    id_ = queue.submit(order, {"code": catching_code(path)})
    worker = workers.start()
    runs(path, 1)
    _, job = keeper_and_job(worker, path)
    job.terminate()
    assert "its program was interrupted" in queue.wait(id_, "failed")["comment"]
    assert worker.stop() == 0


def test_what_is_lost_too_often_fails_and_says_where(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    id_ = queue.code("import os, signal; os.kill(os.getppid(), signal.SIGKILL); signal.pause()")
    errors = tmp_path / "errors"
    worker = workers.start(daemon={"max_attempts": 3, "error_dir": str(errors)})
    document = queue.wait(id_, "failed")
    assert document["comment"].startswith(f"lost 3 times without a result, on host-of-{worker.uuid} (3)")
    [event] = until(lambda: queue.events("failed"), "somebody to be told")
    assert event["detail"].startswith("lost once too often: ")
    assert list(errors.iterdir())
    assert document["puffin"]["attempt"] == 3
    # Set to new again by hand, it has all attempts again.
    assert "lost_on" not in document["puffin"]
    assert worker.stop() == 0


def test_a_calculation_that_kills_its_workers_fails_too(workers: Workers, queue: Queue) -> None:
    """Also where nobody is left to count but the next incarnation."""
    id_ = queue.code(
        "import os, psutil, signal\n"
        "job = psutil.Process(); keeper, fork_server, worker = job.parents()[:3]\n"
        "os.kill(worker.pid, signal.SIGKILL); signal.pause()"
    )
    worker = workers.make(daemon={"max_attempts": 2})
    for _ in range(2):
        assert worker.start().wait() == -signal.SIGKILL
    worker.start()
    assert "lost 2 times without a result" in queue.wait(id_, "failed")["comment"]
    until(lambda: queue.events("failed"), "somebody to be told")


def test_a_worker_that_crashes_again_and_again_is_put_to_rest(
    workers: Workers, queue: Queue, database: Database
) -> None:
    id_ = queue.code(
        "import os, psutil, signal\n"
        "job = psutil.Process(); keeper, fork_server, worker = job.parents()[:3]\n"
        "os.kill(worker.pid, signal.SIGKILL); signal.pause()"
    )
    worker = workers.make(daemon={"crash_limit": 2, "max_attempts": 50})
    for _ in range(3):
        assert worker.start().wait() == -signal.SIGKILL
    assert worker.start().wait() == 3
    # What it ran is free for others, and those who look are told why, with what it said last.
    assert queue.status(id_) == "new"
    with database.server.client() as client:
        (record,) = client[database.name]["puffin_workers"].find()
    (event,) = queue.events("quarantined")
    assert record["state"] == "quarantined"
    assert event["detail"].startswith("crashed 3 times in 30 min (daemon.crash_limit)\n")
    assert f"{id_} claimed" in event["detail"]
    # Who starts it again gives it another chance.
    assert worker.start().wait() == -signal.SIGKILL


def test_a_host_that_kills_all_jobs_rests_before_it_has_failed_the_whole_queue(workers: Workers, queue: Queue) -> None:
    ids = [queue.code("import os, signal; os.kill(os.getpid(), signal.SIGKILL)") for _ in range(8)]
    worker = workers.start(daemon={"crash_limit": 3, "max_attempts": 5})
    assert worker.wait() == 3
    assert [queue.status(id_) for id_ in ids] == ["new"] * 8
    assert len(queue.events("lost")) == 3
    [event] = queue.events("quarantined")
    assert event["detail"] == "3 jobs in a row were lost here (daemon.crash_limit)"


def test_a_failure_that_a_job_wrote_itself_is_told_when_its_calculation_was_given_back_meanwhile(
    workers: Workers, queue: Queue, path: Path
) -> None:
    """Nothing is told of a failure that is none any more."""
    id_ = queue.submit("lab_own_end", {"code": catching_code(path)})
    worker = workers.start()
    runs(path, 1)
    keeper, job = keeper_and_job(worker, path)
    worker.signal(signal.SIGSTOP)
    for process in (job, keeper):
        process.terminate()
    queue.wait(id_, "failed")
    queue.documents.update_one({"_id": ObjectId(id_)}, {"$set": {"status": "hold"}})
    worker.signal(signal.SIGCONT)
    queue.wait(queue.sleep())
    assert worker.stop() == 0
    assert queue.status(id_) == "hold"
    assert "failed" not in {event["kind"] for event in queue.store.events.about(id_)}


# Frozen, cut off ---------------------------------------------------------------------------------------


def test_a_worker_that_is_stopped_for_longer_than_its_lease(workers: Workers, queue: Queue, path: Path) -> None:
    """Its job stands still meanwhile, is taken over, and is killed when the worker goes on."""
    id_ = queue.code(ticking_code(path))
    stopped = workers.start("stopped", daemon=SHORT)
    runs(path, 1)
    heir = workers.start("heir", daemon=SHORT)
    stopped.signal(signal.SIGSTOP)
    stands_still(path, 1)
    runs(path, 2)
    stopped.signal(signal.SIGCONT)
    until(lambda: "discarded" in stopped.log, "the stopped worker to give up")
    let_end(path)
    document = queue.wait(id_)
    assert (document["executor"], document["puffin"]["attempt"]) == (heir.uuid, 2)
    never_ran_side_by_side(path)
    assert [stopped.stop(), heir.stop()] == [0, 0]


def test_the_network_of_one_worker_is_cut(workers: Workers, queue: Queue, database: Database, path: Path) -> None:
    """It freezes its job, another takes over, and what it does once it is back changes nothing."""
    link = Link(database.port)
    try:
        id_ = queue.code(ticking_code(path) + "\nprint('attempt', attempt)")
        cut_off = workers.start("cut-off", daemon=SHORT, database={"uri": link.uri})
        runs(path, 1)
        heir = workers.start("heir", daemon=SHORT)
        link.cut()
        stands_still(path, 1)
        runs(path, 2)
        let_end(path)
        document = queue.wait(id_)
        link.heal()
        until(lambda: "discarded" in cut_off.log, "the one that was cut off to give up")
        assert queue[id_] == document
        assert (document["executor"], document["raw_output"]) == (heir.uuid, "attempt 2\n")
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
        link.cut()
        id_ = queue.sleep()
        until(lambda: "no work to be had" in worker.log, "the worker to notice")
        link.heal()
        assert "lost_on" not in queue.wait(id_)["puffin"]
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
    runs(path, 1)
    own_database.server.kill()
    stands_still(path, 1)
    own_database.server.start()
    runs(path, 1)
    let_end(path)
    document = own_queue.wait(id_)
    assert document["puffin"]["attempt"] == 1
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
        runs(path, 1)
        link.cut()
        stands_still(path, 1)
        link.heal()
        document = queue.wait(id_, "failed")
        assert document["puffin"]["attempt"] == 1
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
        worker = workers.start(daemon=SHORT, database={"uri": link.uri})
        runs(path, 1)
        link.cut()
        stands_still(path, 1)
        link.heal()
        runs(path, 1)
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
    own_workers: Workers, own_queue: Queue, own_database: Database
) -> None:
    """Without a database its end takes long, and who starts it finds it running; nobody would start it later."""
    worker = own_workers.start(daemon={"remove_stop_file": False})
    own_queue.wait(own_queue.sleep())
    own_database.server.freeze()
    worker.place.stop.touch()
    until(lambda: "stopping: found the stop file" in worker.log, "the worker to obey")
    worker.place.stop.unlink()
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
    runs(path, 1)
    own_database.server.freeze()
    stands_still(path, 1)
    own_database.server.thaw()
    runs(path, 1)
    let_end(path)
    assert own_queue.wait(id_)["puffin"]["attempt"] == 1
    assert worker.stop() == 0


def test_a_scine_job_survives_an_outage(own_workers: Workers, own_queue: Queue, own_database: Database) -> None:
    """It writes to the database by itself: whatever it meets there, its calculation ends complete."""
    pytest.importorskip("scine_puffin", reason="needs the extra 'scine'")
    from tests.integration.test_scine_jobs import Chemistry
    from tests.lab.fixtures_database import connect

    manager = connect(own_database.server, own_database.name)
    ids = [Chemistry(manager).submit("caffeine", "scine_geometry_optimization") for _ in range(2)]
    manager.disconnect()
    worker = own_workers.start(daemon=SHORT)
    until(lambda: any(own_queue.status(id_) == "pending" for id_ in ids), "the first to run")
    own_database.server.kill()
    until(lambda: "cannot" in worker.log, "the worker to notice")
    time.sleep(SHORT["lease_in_s"])
    own_database.server.start()
    for id_ in ids:
        document = own_queue.wait(id_, "complete", "failed")
        assert document["status"] == "complete", document["comment"]


def test_a_clock_that_is_wrong_on_one_host(workers: Workers, queue: Queue, path: Path) -> None:
    """Only the server's clock tells whether a lease has lapsed, and only the rates of clocks matter elsewhere."""
    id_ = queue.code(ticking_code(path))
    workers.start("right", daemon=SHORT)
    runs(path, 1)
    wrong = workers.make("wrong", daemon=SHORT)
    # As Python sees it; the machine's clock is not this test's to set.
    (wrong.place.directory / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() + 864000\n"
    )
    wrong.start(PYTHONPATH=os.pathsep.join([str(wrong.place.directory), workers.python_path]))
    until(lambda: queue.events("started")[1:], "the worker to start")
    assert queue.events("started")[1]["at"] - queue.events("started")[0]["at"] > timedelta(days=9)
    runs(path, 1)
    time.sleep(2 * SHORT["lease_in_s"])
    let_end(path)
    assert queue.wait(id_)["puffin"]["attempt"] == 1
    assert queue.events("reset") == []


# Jobs that misbehave -----------------------------------------------------------------------------------


def test_a_job_that_ignores_sigterm_is_killed_all_the_same(workers: Workers, queue: Queue, path: Path) -> None:
    id_ = queue.code(
        "import signal\nfor n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT): "
        "signal.signal(n, signal.SIG_IGN)\n" + ticking_code(path)
    )
    worker = workers.start()
    runs(path, 1)
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0
    assert queue.status(id_) == "new"
    worker.is_gone()


def test_a_job_that_fills_the_disk(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    """It fails, the worker does not, and what it filled is free again."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=True)
    try:
        greedy = queue.code("stream = open('all', 'wb')\nwhile True: stream.write(b'x' * 65536)", priority=1)
        loud = queue.code("while True: print('x' * 65536)", priority=2)
        next_ = queue.code("open('little', 'wb').write(b'x' * 65536)", priority=3)
        worker = workers.start(daemon={"job_dir": str(small), "error_dir": str(small / "errors")})
        assert "No space left on device" in queue.wait(greedy, "failed")["comment"]
        assert "No space left on device" in queue.wait(loud, "failed")["comment"]
        queue.wait(next_)
        assert worker.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_disk_without_room_for_a_directory_gives_calculations_back(
    workers: Workers, queue: Queue, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=3", "tmpfs", str(small)], check=True)
    try:
        (small / "one").touch()
        (small / "two").touch()
        worker = workers.start(daemon={"job_dir": str(small)})
        id_ = queue.sleep()
        until(lambda: "given back" in worker.log, "the worker to give it back")
        assert queue.status(id_) == "new"
        assert worker.stop() == 0
        assert "given_back" in {event["kind"] for event in queue.store.events.about(id_)}
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


# Mistakes ----------------------------------------------------------------------------------------------


def test_a_worker_of_the_same_name_on_another_host(workers: Workers, queue: Queue, path: Path) -> None:
    """The lock is each host's own: but neither takes what the other runs."""
    id_ = queue.code(ticking_code(path))
    first = workers.start("first", daemon={"uuid": "twin"})
    runs(path, 1)
    second = workers.start("second", daemon={"uuid": "twin"})
    queue.wait(queue.sleep())
    runs(path, 1)
    let_end(path)
    document = queue.wait(id_)
    assert (document["puffin"]["attempt"], document["puffin"]["worker"]) == (1, first.uuid)
    assert [first.stop(), second.stop()] == [0, 0]
