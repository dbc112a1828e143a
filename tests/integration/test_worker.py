"""One worker as a real process on a real database server: what it takes, what it writes, how it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from puffin.store import Control
from tests.lab.fixtures_database import Database, initialise
from tests.lab.worker import Place, Queue, Worker, Workers, configuration, lines_of, puffin, until, write_configuration


def waiting_code(directory: Path, name: str = "job") -> str:
    """Code of a job that says that it has started, and ends once it may."""
    return f"""
import pathlib, time
(pathlib.Path({str(directory)!r}) / "{name}.started").touch()
while not (pathlib.Path({str(directory)!r}) / "{name}.may-end").exists():
    time.sleep(0.02)
"""


def started(directory: Path, name: str = "job") -> bool:
    return until((directory / f"{name}.started").exists, f"job {name} to start")


def let_end(directory: Path, name: str = "job") -> None:
    (directory / f"{name}.may-end").touch()


# What it writes ----------------------------------------------------------------------------------------


def test_a_completed_calculation_has_all_that_readers_expect(
    workers: Workers, queue: Queue, scine_manager: Any
) -> None:
    import scine_database as db

    id_ = queue.code("print('printed'); import sys; print('complained', file=sys.stderr)", memory=0.75, disk=0.5)
    worker = workers.start(resources={"cores": 1, "memory": 4.0})
    document = queue.wait(id_)
    assert isinstance(document["runtime"], float)
    assert document["raw_output"] == "printed\ncomplained\n"
    assert document["executor"] == worker.uuid
    assert document["job"] == {"order": "lab_code", "cores": 1, "memory": 0.75, "disk": 0.5}
    assert {key: type(value) for key, value in document["puffin"]["usage"].items()} == {
        "wall_s": float,
        "cpu_s": float,
        "peak_memory_gb": float,
    }
    assert document["puffin"]["attempt"] == 1
    assert document["puffin"]["worker"] == worker.uuid
    assert document["puffin"]["fleet"] == "lab"
    calculation = db.Calculation(db.ID(id_), scine_manager.get_collection("calculations"))
    assert calculation.get_status() == db.Status.COMPLETE
    assert calculation.get_runtime() == document["runtime"]
    assert calculation.get_executor() == worker.uuid
    assert calculation.get_raw_output() == document["raw_output"]
    assert calculation.get_job().memory == 0.75


def test_it_takes_the_most_urgent_first_and_then_the_largest(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    done = tmp_path / "done"

    def submit(name: str, **request: Any) -> str:
        return queue.code(f"open({str(done)!r}, 'a').write('{name}\\n')", **request)

    ids = [
        submit("late", priority=9),
        submit("small", memory=0.5),
        submit("large", memory=1.5),
        submit("wide", memory=0.1, cores=2),
        submit("urgent", priority=1, memory=0.1),
    ]
    workers.start(resources={"cores": 2})
    for id_ in ids:
        queue.wait(id_)
    assert lines_of(done) == ["urgent", "wide", "large", "small", "late"]


def test_it_leaves_what_it_cannot_run(workers: Workers, queue: Queue) -> None:
    left = [
        queue.sleep(cores=2),
        queue.sleep(memory=3.0),
        queue.sleep(disk=2.0),
        queue.sleep(model={"program": "orca"}),
        queue.submit("lab_needs_orca"),
        queue.submit("no_such_job"),
    ]
    # Of lower priority than all of them, so that it is done only after they have been passed over.
    last = queue.sleep(priority=9)
    workers.start()
    queue.wait(last)
    assert [queue.status(id_) for id_ in left] == ["new"] * len(left)


@pytest.mark.parametrize(("jobs", "loaded"), [(["sleep"], False), ([], True)])
def test_what_only_other_jobs_need_is_not_loaded(workers: Workers, queue: Queue, jobs: list[str], loaded: bool) -> None:
    worker = workers.start(daemon={"jobs": jobs})
    queue.wait(queue.sleep())
    libraries = {Path(entry.path).name for entry in worker.forkserver().memory_maps()}
    assert any(name.startswith("scine_utilities") for name in libraries) is loaded


def test_a_job_that_nobody_brings_is_named(workers: Workers, queue: Queue) -> None:
    worker = workers.start(daemon={"jobs": ["sleep", "slep"]})
    queue.wait(queue.sleep())
    problem = "daemon.jobs: no job 'slep' is installed, did you mean 'sleep'?"
    assert f"warning: {problem}" in worker.console
    checked = subprocess.run([puffin(), "-c", worker.place.config, "check", "--json"], capture_output=True, text=True)
    assert {"check": "job", "severity": "warn", "what": problem} in map(json.loads, checked.stdout.splitlines())


def test_databases_are_served_in_their_order(
    workers: Workers, queue: Queue, database: Database, tmp_path: Path
) -> None:
    second = Database(database.server, f"{database.name}_2")
    initialise(second.server, second.name)
    other = Queue(second)
    try:
        done = tmp_path / "done"
        ids = [other.code(f"open({str(done)!r}, 'a').write('second\\n')", priority=1) for _ in range(2)]
        own = [queue.code(f"open({str(done)!r}, 'a').write('first\\n')", priority=9) for _ in range(2)]
        workers.start(database={"name": f" {database.name} , {second.name}"})
        for id_ in own:
            queue.wait(id_)
        for id_ in ids:
            other.wait(id_)
        assert lines_of(done) == ["first", "first", "second", "second"]
    finally:
        other.client.drop_database(second.name)
        other.close()


FAILURES = {
    "raises": ("raise ValueError('no such basis')", "ValueError: no such basis"),
    "says so": ("outcome = Outcome(success=False, comment='did not converge')", "did not converge"),
    "exits": ("import os; os._exit(7)", "exited with code 7 before the job was done"),
    "leaves early": ("raise SystemExit(0)", "SystemExit: 0"),
    "segfaults": ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
    "aborts": ("import os; os.abort()", "killed by SIGABRT"),
    "complains in binary": (
        "import os; os.write(2, b'\\xff\\xfe broken \\x00'); outcome = Outcome(False, 'see below')",
        "see below\n\\xff\\xfe broken \\x00",
    ),
}


def test_a_job_that_fails_says_why(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    ids = {what: queue.code(code) for what, (code, _) in FAILURES.items()}
    worker = workers.start(daemon={"error_dir": str(errors)})
    for what, id_ in ids.items():
        document = queue.wait(id_, "failed")
        assert FAILURES[what][1] in document["comment"], what
        assert isinstance(document["runtime"], float), what
    archives = {f"{id_}.tar.gz" for id_ in ids.values()}
    until(lambda: {path.name for path in errors.iterdir()} == archives, "the archives")
    # It goes on working.
    queue.wait(queue.sleep())
    assert worker.stop() == 0


def test_output_of_any_size_and_encoding_is_kept(workers: Workers, queue: Queue) -> None:
    loud = queue.code(
        "import os\nblock = b'x' * 2**20\nos.write(1, b'first\\n')\n"
        "for _ in range(1024): os.write(1, block)\nos.write(1, b'\\nlast\\n')"
    )
    binary = queue.code("import os; os.write(1, bytes(range(256)))")
    workers.start()
    output = queue.wait(loud, patience_s=120.0)["raw_output"]  # a gigabyte, on a disk that others use as well
    assert output.startswith("first\nxxx")
    assert output.endswith("xxx\nlast\n")
    assert "bytes left out" in output
    assert len(output) < 5 * 2**20
    assert "ABC" in queue.wait(binary)["raw_output"]


def test_a_result_that_the_database_refuses_is_written_smaller(workers: Workers, queue: Queue) -> None:
    """A document may have 16 MB, and somebody else has filled this one already."""
    id_ = queue.code("for _ in range(40): print('x' * 100_000)")
    queue.set(id_, auxiliaries={"large": "x" * (14 * 2**20)})
    worker = workers.start()
    document = queue.wait(id_)
    assert 60_000 < len(document["raw_output"]) < 70_000
    assert document["puffin"]["attempt"] == 1
    assert "the result is refused" in worker.log
    assert worker.stop() == 0


def test_directories_of_attempts_are_archived_and_removed(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    kept = tmp_path / "archive"
    id_ = queue.code("open('result.txt', 'w').write('found'); print(context.directory)")
    worker = workers.start(daemon={"archive_dir": str(kept)})
    directory = queue.wait(id_)["raw_output"].strip()
    assert directory == str(worker.place.jobs / f"{id_}.1")
    until((kept / f"{id_}.tar.gz").exists, "the archive")
    with tarfile.open(kept / f"{id_}.tar.gz") as archive:
        member = archive.extractfile(f"{id_}/result.txt")
        assert member is not None
        assert member.read() == b"found"
    until(lambda: not Path(directory).exists(), "the directory to be removed")
    assert [path.name for path in kept.iterdir()] == [f"{id_}.tar.gz"]


def test_a_command_runs_only_if_the_configuration_allows_it(workers: Workers, queue: Queue) -> None:
    def submit(program: object, *arguments: object) -> str:
        return queue.submit("command", {"program": program, "arguments": list(arguments)})

    good = submit("echo", "a  b", "$HOME; exit 1", "*")
    wrong = {
        submit("/bin/sh", "-c", "true"): "program '/bin/sh' is not in daemon.commands of this worker: /bin/echo",
        submit(None): "program None is not in daemon.commands",
        submit("echo", 1): "arguments must be a list of texts, not [1]",
        submit("ls", "--no-such-option"): "/bin/ls exited with code 2\n/bin/ls: unrecognized option",
    }
    workers.start("forbidden")
    queue.wait(queue.sleep(priority=9))
    assert queue.status(good) == "new"
    workers.start("allowed", daemon={"commands": ["/bin/echo", "/bin/ls"]})
    assert queue.wait(good)["raw_output"] == "a  b $HOME; exit 1 *\n"
    for id_, comment in wrong.items():
        assert comment in queue.wait(id_, "failed")["comment"]


def test_a_touch_is_never_later_than_asked_for(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    id_ = queue.code(waiting_code(tmp_path))
    workers.start(daemon={"lease_in_s": 600.0, "touch_time_in_s": 0.2})
    started(tmp_path)
    first = queue[id_]["_lastmodified"]
    until(lambda: queue[id_]["_lastmodified"] > first, "a touch, long before a third of the lease", patience_s=20.0)
    let_end(tmp_path)
    queue.wait(id_)


def test_a_limit_of_time(workers: Workers, queue: Queue) -> None:
    slow = queue.code("import time; time.sleep(600)", settings={"walltime_s": 0.3})
    workers.start()
    assert queue.wait(slow, "failed")["comment"].startswith("walltime limit of 0.3 s exceeded")


def test_usage_is_recorded(workers: Workers, queue: Queue) -> None:
    busy = queue.code("import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass")
    workers.start()
    usage = queue.wait(busy)["puffin"]["usage"]
    assert usage["cpu_s"] >= 0.3
    assert usage["wall_s"] >= 0.3


def test_no_process_of_a_job_outlives_it(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    noted = tmp_path / "pids"
    id_ = queue.code(
        "import os, time\n"
        f"noted = open({str(noted)!r}, 'a')\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        import signal\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        noted.write(f'{os.getpid()}\\n'); noted.flush(); time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        f"while not os.stat({str(noted)!r}).st_size: time.sleep(0.01)\n"
    )
    workers.start()
    queue.wait(id_)
    assert not psutil.pid_exists(int(noted.read_text()))


# How it stops ------------------------------------------------------------------------------------------


def test_one_sigterm_lets_the_job_end(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    running = queue.code(waiting_code(tmp_path), priority=1)
    waiting = queue.sleep()
    worker = workers.start()
    started(tmp_path)
    worker.signal(signal.SIGTERM)
    until(lambda: "will stop after this job" in worker.log, "the worker to drain")
    let_end(tmp_path)
    assert worker.wait() == 0
    assert queue.status(running) == "complete"
    assert queue.status(waiting) == "new"
    worker.is_gone()


@pytest.mark.parametrize("signals", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGQUIT]])
def test_told_to_stop_at_once_it_gives_the_calculation_back(
    workers: Workers, queue: Queue, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    id_ = queue.code(waiting_code(tmp_path))
    worker = workers.start()
    started(tmp_path)
    worker.signal(signals[0])
    for number in signals[1:]:
        # Two of the same signal at once would be one.
        until(lambda: "will stop after this job" in worker.log, "the first signal to be heard")
        worker.signal(number)
    assert worker.wait() == 0
    document = queue[id_]
    assert (document["status"], document["executor"]) == ("new", "")
    assert "lost_on" not in document["puffin"]
    worker.is_gone()
    assert list(worker.place.jobs.iterdir()) == []


@pytest.mark.parametrize("remove", [True, False])
def test_a_stop_file_lets_the_job_end(workers: Workers, queue: Queue, tmp_path: Path, remove: bool) -> None:
    id_ = queue.code(waiting_code(tmp_path))
    worker = workers.start(daemon={"remove_stop_file": remove})
    started(tmp_path)
    worker.place.stop.touch()
    until(lambda: "found the stop file" in worker.log, "the worker to see the stop file")
    let_end(tmp_path)
    assert worker.wait() == 0
    assert queue.status(id_) == "complete"
    assert worker.place.stop.exists() is not remove


def test_a_stop_file_that_was_there_before_the_start(workers: Workers, queue: Queue) -> None:
    forgiving = workers.make("forgiving")
    forgiving.place.stop.touch()
    id_ = queue.sleep()
    forgiving.start()
    queue.wait(id_)
    assert forgiving.stop() == 0
    strict = workers.make("strict", daemon={"remove_stop_file": False})
    strict.place.stop.touch()
    waiting = queue.sleep()
    assert strict.start().wait() == 0
    assert queue.status(waiting) == "new"
    assert strict.place.stop.exists()


def test_a_shared_stop_file_is_never_removed(workers: Workers, tmp_path: Path) -> None:
    shared = tmp_path / "stop-all"
    both = [workers.start(name, daemon={"stop_shared": str(shared)}) for name in ("one", "two")]
    shared.touch()
    assert [worker.wait() for worker in both] == [0, 0]
    assert shared.exists()


def test_a_recycle_file_ends_it_with_75_after_the_job(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    id_ = queue.code(waiting_code(tmp_path))
    worker = workers.start()
    started(tmp_path)
    worker.place.recycle.touch()
    until(lambda: "found the recycle file" in worker.log, "the worker to see the file")
    let_end(tmp_path)
    assert worker.wait() == 75
    assert queue.status(id_) == "complete"
    assert not worker.place.recycle.exists()
    [record] = queue.store.registry.workers("lab")
    assert (record.state, record.returns) == ("stopped", record.pid)  # `status` misses it if it does not come back
    worker.start()
    until(lambda: queue.store.registry.workers("lab")[0].state == "idle", "the worker to be back")
    assert worker.stop() == 0
    [record] = queue.store.registry.workers("lab")
    assert (record.state, record.returns) == ("stopped", None)


def test_a_stop_of_the_whole_fleet_through_the_database(workers: Workers, queue: Queue) -> None:
    control: Control = queue.store.control
    worker = workers.start()
    queue.wait(queue.sleep())
    control.order_stop("lab", "the test")
    # It looks with each report: soon, since it has just ended a job; but where it was quicker, only after 75 s.
    assert worker.wait(patience_s=120.0) == 0
    assert "the fleet was told to stop" in worker.log
    control.lift_stop("lab")
    worker.start()
    queue.wait(queue.sleep())


def test_it_is_quarantined_after_repeated_failures(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    flag = tmp_path / "sane"
    ids = [queue.code(f"import os\nassert os.path.exists({str(flag)!r}), 'broken host'") for _ in range(3)]
    worker = workers.start(daemon={"repeated_failure_stop": 3})
    assert worker.wait() == 3
    [event] = queue.events("quarantined")
    assert event["detail"].startswith("3 failures in a row")
    for id_ in ids:
        document = queue[id_]
        assert document["status"] == "new"
        assert document["puffin"]["lost_on"] == [f"host-of-{worker.uuid}"]
    [record] = queue.store.registry.workers("lab")
    assert record.state == "quarantined"
    flag.touch()
    # Who starts it again has seen to what was wrong: nobody else may be able to run them.
    worker.start()
    for id_ in ids:
        queue.wait(id_)


@pytest.mark.parametrize(
    ("daemon", "reason"),
    [
        ({"max_number_of_jobs": 2}, "2 jobs done"),
        ({"idle_timeout_in_h": 0.5 / 3600}, "without work for"),
        ({"timeout_in_h": 0.5 / 3600}, "timeout of"),
    ],
)
def test_limits_of_its_own_life(workers: Workers, queue: Queue, daemon: dict[str, Any], reason: str) -> None:
    worker = workers.make(daemon=daemon)
    ids = [queue.sleep(0.01) for _ in range(3)] if "max_number_of_jobs" in daemon else []
    assert worker.start().wait() == 0
    assert reason in worker.log
    assert sorted(queue.status(id_) for id_ in ids) == ["complete", "complete", "new"][: len(ids)]


def test_at_its_timeout_the_job_is_killed_and_given_back(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    id_ = queue.code(waiting_code(tmp_path))
    worker = workers.start(daemon={"timeout_in_h": 2.5 / 3600})

    def has_begun() -> bool:
        ended = worker.process.poll() is not None
        if (tmp_path / "job.started").exists():
            return True
        if ended:
            # On a busy machine its time was over before the job had begun.
            assert worker.wait() == 0
            worker.start()
        return False

    until(has_begun, "the job to begin")
    assert worker.wait() == 0
    assert queue.status(id_) == "new"
    worker.is_gone()


@pytest.mark.parametrize("status", ["hold", "failed"])
def test_a_calculation_that_is_cancelled_is_killed(workers: Workers, queue: Queue, tmp_path: Path, status: str) -> None:
    id_ = queue.code(waiting_code(tmp_path))
    worker = workers.start(daemon={"lease_in_s": 2.0})
    started(tmp_path)
    queue.set(id_, status=status)
    until(lambda: "discarded" in worker.log, "the job to be killed")
    queue.wait(queue.sleep())
    assert queue.status(id_) == status
    assert "runtime" not in queue[id_] or queue[id_]["runtime"] == ""


# How it starts, and what it refuses --------------------------------------------------------------------


def test_a_second_worker_of_the_same_name_is_refused(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    id_ = queue.code(waiting_code(tmp_path))
    first = workers.start()
    started(tmp_path)
    second = Worker(first.place, {}).start()
    assert second.wait() == 1
    assert f"a worker with this uuid runs already (process {first.pid}" in first.console
    let_end(tmp_path)
    assert queue.wait(id_)["puffin"]["attempt"] == 1


def test_a_wrong_configuration_names_everything_that_is_wrong(tmp_path: Path, database: Database) -> None:
    place = Place(tmp_path / "worker")
    wrong = {"daemon": {"cycle_tme_in_s": 1}, "resources": {"cores": 0}, "progams": {}}
    content = configuration(place, database, wrong)
    write_configuration(place, content)
    result = subprocess.run(
        [puffin(), "-c", str(place.config), "container"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert "daemon.cycle_tme_in_s: unknown key, did you mean 'cycle_time_in_s'?" in result.stderr
    assert "resources.cores: must be at least 1" in result.stderr
    assert "progams: unknown section, did you mean 'programs'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_worker_that_can_fork_no_more_ends_and_leaves_no_job_behind(
    workers: Workers, queue: Queue, tmp_path: Path
) -> None:
    """It would have waited for ever for the keeper, which waits for it."""
    path = tmp_path / "ticks"
    worker = workers.make(daemon={"lease_in_s": 4.0})
    (worker.place.directory / "sitecustomize.py").write_text(
        "from puffin import runner\n"
        "from puffin.errors import CannotFork\n"
        "start = runner.Runner.start\n"
        "def refuse(self): raise CannotFork('no process can be forked: the test says so')\n"
        "def start_and_then_fork_no_more(self, *words):\n"
        "    job = start(self, *words)\n"
        "    runner.Runner.warm_up = refuse\n"
        "    return job\n"
        "runner.Runner.start = start_and_then_fork_no_more\n"
    )
    id_ = queue.code(f"import time\nwhile True:\n    open({str(path)!r}, 'a').write('.')\n    time.sleep(0.02)")
    worker.start(PYTHONPATH=os.pathsep.join([str(worker.place.directory), workers.python_path]))
    assert worker.wait() == 1
    worker.is_gone()
    assert "no process can be forked" in worker.log
    assert queue.status(id_) == "pending"


@pytest.mark.skipif(os.getuid() != 0, reason="a process of number 1 needs root")
def test_as_the_first_process_of_a_container_it_ends_what_killed_keepers_leave_to_it(
    workers: Workers, queue: Queue, tmp_path: Path
) -> None:
    stray = tmp_path / "stray"
    program = (
        f"import os, time\nos.setsid()\nwhile True:\n    open({str(stray)!r}, 'a').write('x')\n    time.sleep(0.02)"
    )
    code = (
        "import os, signal, subprocess, sys, time\nif os.environ['PUFFIN_ATTEMPT'] == '1':\n"
        f"    subprocess.Popen([sys.executable, '-c', {program!r}])\n"
        f"    while not os.path.exists({str(stray)!r}): time.sleep(0.01)\n"
        "    os.kill(os.getppid(), signal.SIGKILL); signal.pause()\n"
        f"size = os.path.getsize({str(stray)!r}); time.sleep(0.5)\n"
        f"assert os.path.getsize({str(stray)!r}) == size, 'the first attempt still runs'"
    )
    worker = workers.make()
    (worker.place.directory / "sitecustomize.py").write_text(
        "from puffin import cgroup\ncgroup.JobGroup.make = classmethod(lambda *_: None)\n"
    )
    worker.start(
        under=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
        PYTHONPATH=os.pathsep.join([str(worker.place.directory), workers.python_path]),
    )
    document = queue.wait(queue.code(code), "complete", "failed")
    assert document["status"] == "complete", document["comment"]


def test_the_registry_tells_what_the_worker_does(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    worker = workers.start(daemon={"jobs": ["lab_code", "sleep"]})
    until(lambda: [record.state for record in queue.store.registry.workers("lab")] == ["idle"], "an idle worker")
    id_ = queue.code(waiting_code(tmp_path))
    started(tmp_path)

    def running() -> bool:
        [record] = queue.store.registry.workers("lab")
        return (record.state, record.calculation, record.order) == ("running", id_, "lab_code")

    until(running, "the registry to show the job")
    let_end(tmp_path)
    queue.wait(id_)
    assert worker.stop() == 0
    [record] = queue.store.registry.workers("lab")
    assert (record.uuid, record.state, record.calculation, record.done) == (worker.uuid, "stopped", "", 1)
    assert (record.cores, record.memory, record.jobs) == (1, 2.0, ("lab_code", "sleep"))
    assert (record.pid, record.restarts) == (worker.pid, 0)
    # Before it starts again: of events of one second only those of one process are in their order.
    kinds = [event["kind"] for event in queue.store.events.latest(100, "lab")]
    assert kinds == ["started", "claimed", "finished", "stopped"]
    worker.start()
    until(lambda: queue.store.registry.workers("lab")[0].state == "idle", "the worker to be back")
    assert queue.store.registry.workers("lab")[0].restarts == 0, "a stop is no crash"


def test_the_registry_tells_the_memory_that_a_job_uses(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    worker = workers.start()
    id_ = queue.code("data = b'x' * (300 * 2**20)\n" + waiting_code(tmp_path))
    started(tmp_path)

    def memory() -> float | None:
        """It is known after a second at the earliest, and goes with the next report: each change of state makes one."""
        [record] = queue.store.registry.workers("lab")
        if record.state == "running":
            worker.place.stop.touch()
        elif record.state == "draining":
            worker.place.stop.unlink(missing_ok=True)
        # The first look may have come while the job was still about to take its memory.
        return record.memory_used if (record.memory_used or 0.0) > 0.28 else None

    used = until(memory, "the report")
    assert used is not None
    assert used < 0.5
    let_end(tmp_path)
    queue.wait(id_)
    worker.stop()
    [record] = queue.store.registry.workers("lab")
    assert (record.state, record.memory_used) == ("stopped", None)
