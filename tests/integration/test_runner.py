"""Jobs in processes of their own: started, frozen, thawed, killed, outlived by nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import psutil
import pytest

from puffin.calculations import Claim
from puffin.clock import boot_time
from puffin.jobs.base import Cause, Ended, JobContext, JobKind
from puffin.leftovers import MARK, end_leftovers
from puffin.limits import Limits
from puffin.runner import KEEPER_KILLED, Runner, RunningJob
from puffin.settings import Settings
from tests.lab.worker import lines_of, until

KIND = JobKind("lab_code", "lab", (), "tests.lab.lab_jobs:run_code")
NONE = Limits(None, None)
FOREVER_S = 1000.0
TICK = "import time\nwhile True:\n    open('ticks', 'a').write('.\\n')\n    time.sleep(0.02)"


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    made = Runner(1, f"runner-{os.getpid()}")
    yield made
    made.close()
    end_leftovers(os.environ[MARK])


def start(runner: Runner, directory: Path, code: str, limits: Limits = NONE, right_s: float = FOREVER_S) -> RunningJob:
    claim = Claim("db", "a" * 24, 1, "me", KIND.order, 1, 1.0, 1.0, {"code": code})
    return runner.start(JobContext(claim, KIND, directory, Settings(), ""), limits, boot_time() + right_s)


def end_of(job: RunningJob) -> Ended:
    with job:
        assert wait([job.connection], 30), "the job does not end"
        return job.ended()


def ticks(directory: Path) -> int:
    return len(lines_of(directory / "ticks"))


def runs(directory: Path) -> None:
    before = ticks(directory)
    until(lambda: ticks(directory) > before + 1, "the job to run")


def stands_still(directory: Path) -> None:
    def look() -> bool:
        before = ticks(directory)
        time.sleep(0.3)
        return ticks(directory) == before

    until(look, "the job to stand still")


def test_a_job_runs_in_its_directory_without_our_descriptors(runner: Runner, tmp_path: Path) -> None:
    code = "import os; print(os.getcwd()); print(sorted(map(int, os.listdir('/proc/self/fd')))); input_ = os.read(0, 1)"
    ended = end_of(start(runner, tmp_path, code))
    assert ended.cause is Cause.ENDED
    assert ended.outcome is not None
    assert ended.outcome.success
    where, descriptors = lines_of(tmp_path / "stdout")
    assert where == str(tmp_path)
    # Its own three, where it tells its outcome, and the listing itself.
    assert len(descriptors.split(",")) == 5


def test_the_next_process_waits_already(runner: Runner, tmp_path: Path) -> None:
    runner.warm_up()
    # Below this process: the fork server, a keeper, and the process that will be the job.
    waiting = until(lambda: _below(3), "a waiting process")
    ended = end_of(start(runner, tmp_path, "import os; print(os.getpid())"))
    assert ended.exit_status == 0
    assert [int(line) for line in lines_of(tmp_path / "stdout")] == [process.pid for process in waiting]


def _below(depth: int) -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if _depth(process) == depth]


def _depth(process: psutil.Process) -> int:
    try:
        return [parent.pid for parent in process.parents()].index(os.getpid()) + 1
    except (psutil.Error, ValueError):
        return 0


def test_a_waiting_process_that_was_killed_is_replaced(runner: Runner, tmp_path: Path) -> None:
    runner.warm_up()
    (job,) = until(lambda: _below(3), "a waiting process")
    keeper = job.parent()
    assert keeper is not None
    keeper.kill()
    # One that is only about to die would still be given the job.
    until(lambda: not keeper.is_running(), "its end")
    ended = end_of(start(runner, tmp_path, "pass"))
    assert ended.outcome is not None


def test_a_job_without_its_right_is_frozen_and_goes_on_with_it(runner: Runner, tmp_path: Path) -> None:
    with start(runner, tmp_path, TICK) as job:
        runs(tmp_path)
        job.extend(boot_time() + 0.5)  # a short right from the start might be over before anybody saw it run
        stands_still(tmp_path)
        job.extend(boot_time() + FOREVER_S)
        runs(tmp_path)
        job.extend(boot_time() - 1.0)
        stands_still(tmp_path)
        job.kill()
        assert job.ended().cause is Cause.KILLED


def test_a_job_whose_right_has_gone_before_it_starts_does_not_start(runner: Runner, tmp_path: Path) -> None:
    with start(runner, tmp_path, TICK, right_s=-1.0) as job:
        assert not wait([job.connection], 0.3)
        assert ticks(tmp_path) == 0
        job.extend(boot_time() + FOREVER_S)
        runs(tmp_path)
        job.kill()
        assert job.ended().cause is Cause.KILLED


def test_it_may_be_killed_before_it_starts(runner: Runner, tmp_path: Path) -> None:
    with start(runner, tmp_path, TICK, right_s=-1.0) as job:
        job.kill()
        assert job.ended().cause is Cause.KILLED
    assert ticks(tmp_path) == 0


def test_a_frozen_job_takes_its_whole_family_along(runner: Runner, tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {TICK!r}], start_new_session=True).wait()"
    with start(runner, tmp_path, code) as job:
        runs(tmp_path)
        job.extend(boot_time() - 1.0)
        stands_still(tmp_path)
        job.extend(boot_time() + FOREVER_S)
        runs(tmp_path)
        job.kill()
        assert job.ended().cause is Cause.KILLED
    stands_still(tmp_path)


def test_frozen_time_is_no_walltime(runner: Runner, tmp_path: Path) -> None:
    limit_s = 3.0  # enough for one that is held up to be seen running, and frozen, before it is over
    code = "import os; open('pid', 'w').write(str(os.getpid()))\n" + TICK
    with start(runner, tmp_path, code, Limits(None, limit_s)) as job:
        runs(tmp_path)
        process = psutil.Process(int((tmp_path / "pid").read_text()))
        job.extend(boot_time() - 1.0)
        until(lambda: process.status() == psutil.STATUS_STOPPED, "the job to be frozen")
        frozen_since = boot_time()
        time.sleep(1.0)
        frozen_s = boot_time() - frozen_since
        job.extend(boot_time() + FOREVER_S)
        ended = end_of(job)
    assert (ended.cause, ended.detail) == (Cause.LIMIT, f"walltime limit of {limit_s:g} s exceeded")
    # All of the time that it may run, besides that in which it was frozen.
    assert ended.usage.wall_s > limit_s + frozen_s


HOLD = "data = b'x' * (200 * 2**20)\n"


@pytest.mark.parametrize("limits", [NONE, Limits(1.0, None)], ids=["unlimited", "limited"])
def test_the_keeper_tells_what_the_job_uses_and_then_how_it_ended(
    runner: Runner, tmp_path: Path, limits: Limits
) -> None:
    code = "import pathlib, time\n" + HOLD + "pathlib.Path('held').touch()\n"
    code += "while not pathlib.Path('end').exists(): time.sleep(0.02)"
    with start(runner, tmp_path, code, limits) as job:
        assert job.memory_gb is None
        until((tmp_path / "held").exists, "the job to have it")

        def told() -> bool:
            """It looks when the right to run is extended, but not in the first second."""
            job.extend(boot_time() + FOREVER_S)
            assert not (wait([job.connection], 0.3) and job.hear())
            # Where it takes its time, less was told before.
            return job.memory_gb is not None and job.memory_gb > 0.19

        until(told, "what the job uses")
        assert job.memory_gb is not None
        assert job.memory_gb < 0.4
        (tmp_path / "end").touch()
        assert job.ended().cause is Cause.ENDED


def test_a_worker_that_does_not_listen_holds_up_no_keeper(runner: Runner, tmp_path: Path) -> None:
    with start(runner, tmp_path, HOLD + "import time; time.sleep(2)", Limits(1.0, None)) as job:
        assert job.ended().cause is Cause.ENDED  # what was told before is passed over


def test_what_ended_before_it_was_killed_counts(runner: Runner, tmp_path: Path) -> None:
    with start(runner, tmp_path, "print('done')") as job:
        until(job.connection.poll, "the job to end")
        job.kill()
        ended = job.ended()
    assert (ended.cause, ended.outcome is not None) == (Cause.ENDED, True)


def test_a_keeper_that_is_killed_takes_its_job_along(runner: Runner, tmp_path: Path) -> None:
    job = start(runner, tmp_path, "import os; open('pid', 'w').write(str(os.getpid()))\n" + TICK)
    runs(tmp_path)
    process = psutil.Process(int((tmp_path / "pid").read_text()))
    keeper = process.parent()
    assert keeper is not None
    keeper.kill()
    ended = end_of(job)
    assert (ended.cause, ended.detail) == (Cause.KILLED, KEEPER_KILLED)
    stands_still(tmp_path)


def test_a_keeper_that_was_stopped_cannot_keep_a_job_from_being_killed(runner: Runner, tmp_path: Path) -> None:
    with start(runner, tmp_path, "import os; open('pid', 'w').write(str(os.getppid()))\n" + TICK) as job:
        runs(tmp_path)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGSTOP)
        job.kill(patience_s=0.5)
        assert job.ended().detail == KEEPER_KILLED
    stands_still(tmp_path)


def test_who_leaves_without_waiting_leaves_no_job_behind(runner: Runner, tmp_path: Path) -> None:
    job = start(runner, tmp_path, "import os; open('pid', 'w').write(str(os.getpid()))\n" + TICK)
    with job:  # has a name: it goes because somebody leaves, not because it is garbage
        runs(tmp_path)
        process = psutil.Process(int((tmp_path / "pid").read_text()))
        assert process.is_running()
    until(lambda: not process.is_running(), "the job to be gone, not only frozen")


def test_signals_of_an_operator_are_not_for_jobs_or_keepers(runner: Runner, tmp_path: Path) -> None:
    with start(runner, tmp_path, "import os; open('pid', 'w').write(str(os.getppid()))\n" + TICK) as job:
        runs(tmp_path)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            os.kill(int((tmp_path / "pid").read_text()), number)
        runs(tmp_path)
        job.kill()
        assert job.ended().cause is Cause.KILLED
