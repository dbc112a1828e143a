"""Nothing that is killed or misbehaves loses a calculation or runs it twice at once.

Each test makes one fault for real. Leases are short, so that what waits for one to lapse is quick.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from bson.objectid import ObjectId

from tests.lab.fixtures_database import Database
from tests.lab.ticking import begins, keeper_and_job, let_end, never_ran_side_by_side, runs, ticking_code
from tests.lab.worker import Queue, Workers, until

SHORT = {"lease_in_s": 3.0}


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
    first = begins(path)
    heir = workers.start("heir", daemon=SHORT)
    dead.signal(signal.SIGKILL)
    begins(path, after=first)
    let_end(path)
    assert queue.wait(id_)["executor"] == heir.uuid
    # Events are reported once a second at most: the job may be quicker.
    [event] = until(lambda: queue.events("reset"), "the reset to be told")
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
        # Under its name once it is whole: an empty file would let the job go on.
        f"import os, time\nos.setsid()\nname = {str(path)!r} + '.pid'\n"
        "open(name + '.new', 'w').write(str(os.getpid()))\nos.rename(name + '.new', name)\ntime.sleep(600)"
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
        with contextlib.suppress(psutil.NoSuchProcess):  # a job dies with its keeper
            process.kill()
    worker.wait()
    stray = psutil.Process(out_of_reach)
    assert stray in worker.marked()
    worker.start()
    runs(path, 2)
    assert stray not in worker.marked()
    let_end(path)
    assert queue.wait(id_)["puffin"]["attempt"] == 2
    never_ran_side_by_side(path)


def catching_code(path: Path) -> str:
    """Code of a job that takes a SIGTERM for a failure of its own, and says so."""
    return (
        "import signal\ndef caught(*_): raise RuntimeError('its program was interrupted')\n"
        "signal.signal(signal.SIGTERM, caught)\n" + ticking_code(path)
    )


def are_told_to_end(job: psutil.Process, keeper: psutil.Process, *others: psutil.Process) -> None:
    """Send SIGTERM as a machine does that is switched off: the job fails first, and its keeper is told all the same."""
    keeper.suspend()  # it would end with the job if this process were held up between the two
    for process in (job, keeper, *others):
        process.terminate()
    keeper.resume()


@pytest.mark.parametrize("order", ["lab_code", "lab_own_end"])
def test_a_machine_that_is_switched_off_sends_sigterm_to_every_process(
    workers: Workers, queue: Queue, path: Path, order: str
) -> None:
    """The job may be quicker to fail than the worker to hear of it: that is no failure of the calculation."""
    id_ = queue.submit(order, {"code": catching_code(path)})
    worker = workers.start()
    runs(path, 1)
    keeper, job = keeper_and_job(worker, path)
    # Else it may take the calculation again before it is its turn to be told.
    worker.signal(signal.SIGSTOP)
    are_told_to_end(job, keeper, *(one for one in worker.below() if one.pid not in {job.pid, keeper.pid}))
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGCONT)
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
    are_told_to_end(job, keeper)
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
    assert document["puffin"]["attempt"] == 3
    # Set to new again by hand, it has all attempts again.
    assert "lost_on" not in document["puffin"]
    assert worker.stop() == 0
    assert list(errors.iterdir())  # what is told may be told before it is archived


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
    are_told_to_end(job, keeper)
    queue.wait(id_, "failed")
    queue.documents.update_one({"_id": ObjectId(id_)}, {"$set": {"status": "hold"}})
    worker.signal(signal.SIGCONT)
    queue.wait(queue.sleep())
    assert worker.stop() == 0
    assert queue.status(id_) == "hold"
    assert "failed" not in {event["kind"] for event in queue.store.events.about(id_)}


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
