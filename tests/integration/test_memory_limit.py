"""Limits of memory: by the kernel where control groups can be made, else by looking often enough."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from puffin import cgroup
from puffin.cgroup import JobGroup
from tests.lab.requirements import missing
from tests.lab.worker import Queue, Worker, Workers, until

# Nothing in it waits: a hundred megabytes take a few hundredths of a second, and nobody looks that often.
ENDLESS = "hoard = []\nwhile True: hoard.append(b'x' * (16 * 2**20))"
# As quick, but not without end: who looks may be held up, and the machine's memory is not this test's alone.
GREEDY = "hoard = [b'x' * (16 * 2**20) for _ in range(48)]\nimport time\ntime.sleep(600)"
FAMILY = (
    "import multiprocessing as m, time\n"
    "def hold():\n    data = b'x' * (200 * 2**20)\n    time.sleep(600)\n"
    "c = m.get_context('fork')\nall = [c.Process(target=hold) for _ in range(3)]\n"
    "[p.start() for p in all]; [p.join() for p in all]"
)
BRIEF = "end = 'kept'"


def groups(mark: str = "puffin-") -> list[Path]:
    base = cgroup.own_base()
    return [] if base is None else list(base.path.glob(f"{mark}*"))


def groups_of(worker: Worker) -> list[Path]:
    return groups(cgroup.prefix(str(worker.place.directory / f"{worker.uuid}.pid")))


def are_removed(worker: Worker) -> None:
    """Wait until no group is left: a keeper removes its own, and may end after its worker."""
    until(lambda: not groups_of(worker), "the control groups to be removed")


@pytest.fixture
def needs_groups() -> None:
    made = JobGroup.make(f"test-{os.getpid()}")
    if made is None:
        missing("no control group with a limit of memory can be made here")
    else:
        made.remove()


def without_groups() -> list[str]:
    """Before a worker's command: in its own view of the file system, control groups cannot be written."""
    base = cgroup.own_base()
    if base is None or os.getuid() != 0:
        return []
    return ["unshare", "--mount", "sh", "-c", f'mount -o remount,bind,ro {base.mount} && exec "$@"', "sh"]


def peak_in_words(comment: str) -> float:
    found = re.match(r"memory limit of 0.25 GB exceeded: its processes used ([\d.]+) GB", comment)
    assert found, comment
    return float(found[1])


def is_failed_by_its_limit(queue: Queue, id_: str) -> float:
    document = queue.wait(id_, "failed")
    said, noted = peak_in_words(document["comment"]), document["puffin"]["usage"]["peak_memory_gb"]
    assert said <= noted + 0.01  # said with two digits, and it may have grown until it was killed
    return float(noted)


@pytest.mark.usefixtures("needs_groups")
def test_the_kernel_holds_a_job_to_its_limit(workers: Workers, queue: Queue) -> None:
    endless, family = queue.code(ENDLESS, memory=0.25), queue.code(FAMILY, memory=0.25)
    brief = queue.code(BRIEF, memory=0.1)
    worker = workers.start()
    assert 0.24 < is_failed_by_its_limit(queue, endless) <= 0.25
    assert 0.24 < is_failed_by_its_limit(queue, family) <= 0.25
    # The next job in a group of its own is not blamed for those before it.
    queue.wait(brief)
    assert worker.process.poll() is None
    worker.stop()
    are_removed(worker)


def test_without_control_groups_somebody_looks(workers: Workers, queue: Queue) -> None:
    greedy, family = queue.code(GREEDY, memory=0.25), queue.code(FAMILY, memory=0.25)
    worker = workers.make().start(under=without_groups())
    assert is_failed_by_its_limit(queue, greedy) > 0.25
    assert is_failed_by_its_limit(queue, family) > 0.25
    assert groups_of(worker) == []
    assert "control group" not in worker.log


def test_memory_that_processes_share_counts_once(workers: Workers, queue: Queue) -> None:
    """Resident memory counts it for each of them: programs that fork, or share memory over MPI, do that."""
    # With one child alone it is over the limit if it counts twice: only then is looked at more closely what is shared.
    code = (
        "import os, time\nblock = bytearray(b'x') * (256 * 2**20)\n"
        "def child():\n    time.sleep(2)\n    os._exit(0)\n"
        "pids = [os.fork() or child() for _ in range(4)]\n"
        "[os.waitpid(pid, 0) for pid in pids]"
    )
    workers.make().start(under=without_groups())
    used = queue.wait(queue.code(code, memory=0.4))["puffin"]["usage"]["peak_memory_gb"]
    assert 0.2 < used < 0.4, "once, with little of their own"


@pytest.mark.usefixtures("needs_groups")
def test_no_limit_is_no_limit(workers: Workers, queue: Queue) -> None:
    id_ = queue.code("data = b'x' * (300 * 2**20)", memory=0.1)
    workers.start(daemon={"enforce_memory_limit": False})
    assert queue.wait(id_)["puffin"]["usage"]["peak_memory_gb"] > 0.25


@pytest.mark.usefixtures("needs_groups")
def test_groups_of_the_killed_are_removed(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    """Keepers killed with the worker cannot remove their groups: the next incarnation does."""
    worker = workers.start()
    queue.wait(queue.code(BRIEF))
    until(lambda: groups_of(worker), "the group of the next job")
    worker.signal(signal.SIGSTOP)
    for process in worker.below():
        with contextlib.suppress(psutil.NoSuchProcess):  # a job dies with its keeper
            process.kill()
    worker.signal(signal.SIGKILL)
    worker.wait()
    worker.is_gone()
    left = groups_of(worker)
    assert left
    worker.start()
    queue.wait(queue.code(BRIEF))
    until(lambda: not set(left) & set(groups_of(worker)), "the old groups to be removed")
    worker.stop()
    are_removed(worker)


@pytest.mark.usefixtures("needs_groups")
@pytest.mark.parametrize("writable", [True, False])
def test_check_tells_how_memory_is_limited(writable: bool) -> None:
    code = "from puffin.cgroup import shown; print(shown('a lock') or 'nowhere')"
    under = [] if writable else without_groups()
    said = subprocess.run([*under, sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    base = cgroup.own_base()
    assert base is not None
    assert said.strip() == (base.shown if writable else "nowhere")
