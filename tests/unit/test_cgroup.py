"""Where a process is among the control groups, as the kernel's tables tell it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from puffin import cgroup

V1 = "9:name=systemd:/\n4:cpu,memory:/batch/job1\n0::/\n"
V2 = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/fleet.service\n"
MOUNT_V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
MOUNT_V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = (
    "23 1 0:20 / / rw - ext4 /dev/vda rw,memory\n33 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
)


@pytest.mark.parametrize(
    ("groups", "mounts", "path", "version"),
    [
        (V1, OTHERS + MOUNT_V1 + MOUNT_V2, "/sys/fs/cgroup/memory/batch/job1", 1),
        (V2, OTHERS + MOUNT_V2, "/sys/fs/cgroup" + V2.strip()[3:], 2),
        # A container: its part of the hierarchy is mounted as the whole, and the path told from the top.
        ("4:memory:/docker/abc\n", MOUNT_V1.replace(" / /sys", " /docker/abc /sys"), "/sys/fs/cgroup/memory", 1),
        ("4:memory:/docker/abc/x\n", MOUNT_V1.replace(" / /sys", " /docker/abc /sys"), "/sys/fs/cgroup/memory/x", 1),
        # A worker that has moved all processes into a group below makes the jobs' beside that.
        ("0::/fleet.service/puffin.workers\n", MOUNT_V2, "/sys/fs/cgroup/fleet.service", 2),
    ],
)
def test_where_groups_of_jobs_can_be_made(groups: str, mounts: str, path: str, version: int) -> None:
    base = cgroup.locate(groups, mounts)
    assert base is not None
    assert (base.path, base.shown) == (Path(path), f"version {version}, below {path}")


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [("", MOUNT_V2), (V1, OTHERS), (V2, OTHERS + MOUNT_V1), ("4:memory:/../outside\n", MOUNT_V1)],
)
def test_where_none_can_be_made(groups: str, mounts: str) -> None:
    assert cgroup.locate(groups, mounts) is None


def test_groups_of_two_workers_have_different_names() -> None:
    assert cgroup.prefix("/run/1.pid") != cgroup.prefix("/run/2.pid")
    # Another process of the same worker must find it again, whatever it salts its hashes with.
    words = [sys.executable, "-c", "from puffin import cgroup; print(cgroup.prefix('/run/1.pid'))"]
    assert subprocess.check_output(words, text=True).strip() == cgroup.prefix("/run/1.pid")


def test_without_a_lock_there_is_no_group_that_nobody_could_remove() -> None:
    assert cgroup.JobGroup.make("") is None
