"""The programs for hosts, in this process: hardware, places, files, logs."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

from fleet.hostside import (
    apply,
    begin,
    command,
    common,
    control,
    fetch_texts,
    files,
    good,
    gpus,
    halt,
    hardware,
    install_release,
    places,
    probe,
    processes,
    receive,
    rpc,
    states,
    supervise,
)
from fleet.hostside.common import Failure

# What a probe finds ------------------------------------------------------------------------------------


def test_who_began_after_all_was_written_is_fresh(tmp_path: Path) -> None:
    (tmp_path / "etc/workers").mkdir(parents=True)
    for name in ("etc/workers/n-1.yaml", "etc/workers/n-1.env", "etc/workers/n-2.yaml"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (100, 100))  # written long ago, and put in its place now
    (tmp_path / "current").symlink_to("nowhere")
    now = int((tmp_path / "current").lstat().st_ctime)

    def fresh(**starts: int) -> list[str]:
        return probe._fresh(tmp_path, [{"name": name.replace("_", "-"), "start": at} for name, at in starts.items()])

    assert fresh(n_1=now + 1, other=now + 1) == ["n-1"]
    assert fresh(n_1=now - 1) == []
    assert fresh(n_2=now + 1) == [], "it lacks one of its files"


# Hardware ----------------------------------------------------------------------------------------------


def cpuinfo(*threads: tuple[int, int, int]) -> str:
    return "\n".join(
        f"processor\t: {number}\nmodel name\t: Some CPU\nphysical id\t: {socket}\ncore id\t\t: {core}\n"
        for number, socket, core in threads
    )


HYPERTHREADED = cpuinfo((0, 0, 0), (1, 0, 1), (2, 0, 0), (3, 0, 1), (4, 1, 0), (5, 1, 0))


def system(tmp_path: Path, **texts: str) -> Path:
    """A file system with these files, `__` standing for `/`."""
    for name, text in texts.items():
        path = tmp_path / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "affinity", "expected"),
    [
        (HYPERTHREADED, {0, 1, 2, 3, 4, 5}, [0, 1, 4]),
        (HYPERTHREADED, {2, 3}, [2, 3]),
        (HYPERTHREADED, {0, 2}, [0]),
    ],
)
def test_physical_cores_within_the_affinity(tmp_path: Path, text: str, affinity: set[int], expected: list[int]) -> None:
    found = hardware.cores(frozenset(affinity), system(tmp_path, proc__cpuinfo=text))
    assert (found["cores"], found["physical"], found["cpus"]) == (len(expected), len(expected), expected)


def test_cores_without_a_quota(tmp_path: Path) -> None:
    root = system(tmp_path, proc__cpuinfo=HYPERTHREADED)
    assert hardware.cores(frozenset(range(6)), root) == {
        "cores": 3,
        "physical": 3,
        "logical": 6,
        "quota": None,
        "cpus": [0, 1, 4],
        "processors": [
            {"cpu": cpu, "core": core, "node": 0} for cpu, core in [(0, 0), (1, 1), (2, 0), (3, 1), (4, 4), (5, 4)]
        ],
    }


def two_sockets(root: Path, threads: int = 2, siblings: str = "core_cpus_list") -> Path:
    """As a machine of two sockets with four cores each shows itself; second threads are numbered after all first."""
    for core in range(8):
        numbers = [core + 8 * thread for thread in range(threads)]
        for number in numbers:
            place = root / f"sys/devices/system/cpu/cpu{number}/topology"
            place.mkdir(parents=True)
            (place / siblings).write_text(",".join(map(str, numbers)) + "\n")
    for node, text in enumerate(["0-3,8-11", "4-7,12-15"]):
        place = root / f"sys/devices/system/node/node{node}"
        place.mkdir(parents=True)
        (place / "cpulist").write_text(text + "\n")
    return root


@pytest.mark.parametrize("siblings", ["core_cpus_list", "thread_siblings_list"])
def test_cores_and_numa_nodes_as_the_kernel_tells_them(tmp_path: Path, siblings: str) -> None:
    # What cpuinfo says is not looked at: on many machines it says nothing of cores.
    root = system(two_sockets(tmp_path, siblings=siblings), proc__cpuinfo="processor\t: 0\n")
    found = hardware.cores(frozenset(range(16)), root)
    assert (found["cores"], found["logical"], found["cpus"]) == (8, 16, list(range(8)))
    assert found["processors"][12] == {"cpu": 12, "core": 4, "node": 1}


def test_a_core_is_named_by_the_first_of_its_processors_that_is_allowed(tmp_path: Path) -> None:
    found = hardware.cores(frozenset({1, 9, 12}), two_sockets(tmp_path))
    assert found["cpus"] == [1, 12]
    assert found["processors"] == [
        {"cpu": 1, "core": 1, "node": 0},
        {"cpu": 9, "core": 1, "node": 0},
        {"cpu": 12, "core": 12, "node": 1},
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sys__fs__cgroup__slice__cpusetDOTcpusDOTeffective", "0-1,8-9\n", [0, 1]),
        ("sys__fs__cgroup__cpusetDOTcpusDOTeffective", "4\n", [4]),
        ("sys__fs__cgroup__slice__cpusetDOTcpusDOTeffective", "\n", list(range(8))),
        ("sys__fs__cgroup__slice__cpusetDOTcpusDOTeffective", "64-127\n", list(range(8))),  # another container's view
    ],
)
def test_processors_are_within_the_cpuset_of_the_control_group(
    tmp_path: Path, name: str, text: str, expected: list[int]
) -> None:
    root = system(two_sockets(tmp_path), proc__self__cgroup="0::/slice\n", **{name: text})
    # A version 2 hierarchy is named by no controller, so it is asked for all of them.
    assert hardware.cores(frozenset(range(16)), root)["cpus"] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("", set()), ("\n", set()), ("a-b", set()), ("0-1,,3", {0, 1, 3})],
)
def test_lists_of_numbers(text: str, expected: set[int]) -> None:
    assert hardware.numbers(text) == expected


SMI = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: Tesla V100-PCIE-16GB (UUID: GPU-b22cb098-d92f-1806-5a8d-fad8a1d14ab5)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SMI,
            [
                ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "NVIDIA A100-SXM4-40GB 3g.20gb"),
                ("MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", "NVIDIA A100-SXM4-40GB 1g.5gb"),
                ("1", "Tesla V100-PCIE-16GB"),
            ],
        ),
        (
            "GPU 10: GeForce (TM) X (UUID: GPU-1)\nGPU 11: GeForce (TM) X\n",
            [("10", "GeForce (TM) X"), ("11", "GeForce (TM) X")],
        ),
        ("No devices found.\n", []),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", []),
        ("", []),
    ],
)
def test_what_nvidia_smi_lists(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(gpu["id"], gpu["name"]) for gpu in gpus.parse_nvidia_smi(text)] == expected


def test_gpus_without_nvidia_smi(tmp_path: Path) -> None:
    for address, model in [("0000:81:00.0", "Tesla T4"), ("0000:3b:00.0", "NVIDIA A40")]:
        place = tmp_path / "proc/driver/nvidia/gpus" / address
        place.mkdir(parents=True)
        (place / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 77\nGPU UUID: \t GPU-?\n")
    assert gpus.nvidia_in_proc(tmp_path) == [{"id": "0", "name": "NVIDIA A40"}, {"id": "1", "name": "Tesla T4"}]
    assert gpus.nvidia_in_proc(tmp_path / "none") == []


def test_gpus_of_amd(tmp_path: Path) -> None:
    root = system(tmp_path, dev__kfd="")
    for number, units in [(0, 0), (1, 0), (2, 440), (10, 304)]:
        place = root / f"sys/class/kfd/kfd/topology/nodes/{number}"
        place.mkdir(parents=True)
        (place / "properties").write_text(f"cpu_cores_count 0\nsimd_count {units}\nmem_banks_count 1\n")
        (place / "name").write_text(f"gfx{number}\n")
    assert gpus.amd(root) == [{"id": "0", "name": "AMD gfx2"}, {"id": "1", "name": "AMD gfx10"}]
    (root / "dev/kfd").unlink()
    assert gpus.amd(root) == []


def test_gpus_are_asked_of_nvidia_smi_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n[ \"$1\" = -L ] && echo 'GPU 0: Some GPU (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpus.gpus(tmp_path) == [{"id": "0", "name": "Some GPU"}]
    tool.write_text("#!/bin/sh\necho 'GPU 0: Some GPU (UUID: GPU-1)'\nexit 9\n")
    assert gpus.gpus(tmp_path) == []
    tool.write_text("#!/bin/sh\necho 'GPU 0: Some GPU (UUID: GPU-1)'\nexec sleep 1000\n")
    assert gpus.gpus(tmp_path, patience=0.2) == []


def test_cores_where_the_processor_tells_nothing(tmp_path: Path) -> None:
    found = hardware.cores(frozenset({3, 1}), tmp_path)
    assert (found["cores"], found["physical"], found["cpus"]) == (2, None, [1, 3])


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 3), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_a_quota_of_a_parent_control_group_counts(tmp_path: Path, quota: str, cores: int) -> None:
    root = system(
        tmp_path,
        proc__cpuinfo=HYPERTHREADED,
        proc__self__cgroup="0::/user.slice/session.scope\n",
        **{"sys__fs__cgroup__userDOTslice__cpuDOTmax": quota + "\n"},
    )
    assert hardware.cores(frozenset(range(6)), root)["cores"] == cores


def test_a_quota_of_a_version_1_control_group_counts(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        proc__self__cgroup="4:cpu,cpuacct:/job\n9:name=systemd:/\n",
        **{
            "sys__fs__cgroup__cpu,cpuacct__job__cpuDOTcfs_quota_us": "150000\n",
            "sys__fs__cgroup__cpu,cpuacct__job__cpuDOTcfs_period_us": "100000\n",
            "sys__fs__cgroup__cpu,cpuacct__cpuDOTcfs_quota_us": "-1\n",
            "sys__fs__cgroup__cpu,cpuacct__cpuDOTcfs_period_us": "100000\n",
        },
    )
    assert hardware.cpu_quota(root) == 1.5


MEMINFO = "MemTotal:       16777216 kB\nMemFree:        1 kB\nMemAvailable:    8388608 kB\n"


@pytest.mark.parametrize(("limit", "total"), [("max", 16.0), (str(4 << 30), 4.0), (str(9223372036854771712), 16.0)])
def test_memory_is_within_the_limit_of_the_control_group(tmp_path: Path, limit: str, total: float) -> None:
    root = system(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/a/b\n",
        **{"sys__fs__cgroup__a__memoryDOTmax": limit + "\n"},
    )
    assert hardware.memory(root) == {"total": total}


def test_disk_of_a_place_that_is_not_there_yet(tmp_path: Path) -> None:
    found = hardware.disk(tmp_path / "a" / "b")
    assert found["exists"] is False
    assert found["writable"] is True
    assert found["free"] == pytest.approx(
        os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 2**30, rel=0.1
    )


def test_disk_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert hardware.disk(tmp_path / "file" / "b")["writable"] is False


# Places ------------------------------------------------------------------------------------------------

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /home rw,relatime shared:20 - nfs4 server:/home rw
41 40 0:36 / /home/with\\040space rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/opt", "ext4"), ("/home/chem", "nfs4"), ("/homely", "ext4"), ("/home/with space/x", "xfs"), ("/", "ext4")],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert places.file_system(Path(path), MOUNTS) == kind


def run_directory(root: Path, machine: Path, **environment: str) -> Path:
    return places.run_directory(root, environment, 1234, machine)


def test_the_run_directory_is_the_hosts_own_where_that_works(tmp_path: Path) -> None:
    assert run_directory(Path("/pool/f/hosts/n1"), tmp_path) == Path("/pool/f/hosts/n1/run")


@pytest.mark.parametrize("length", [97, 98])
def test_the_run_directory_moves_where_the_socket_path_would_be_too_long(tmp_path: Path, length: int) -> None:
    root = Path("/" + "x" * (length - len("//run/sv.sock")))
    assert len(str(root / "run/sv.sock")) == length
    found = run_directory(root, tmp_path)
    assert (found == root / "run") is (length == 97)
    assert len(str(found / "sv.sock")) <= 97


def test_the_run_directory_moves_from_a_network_file_system(tmp_path: Path) -> None:
    machine = system(tmp_path, proc__self__mountinfo=MOUNTS)
    found = run_directory(Path("/home/chem/pool/f/hosts/n1"), machine)
    assert found.parent == Path("/var/tmp/puffin-fleet-1234")
    assert found != run_directory(Path("/home/chem/pool/f/hosts/n2"), machine)


@pytest.mark.parametrize("lingers", [True, False])
def test_the_session_directory_is_used_only_where_it_outlives_the_session(tmp_path: Path, lingers: bool) -> None:
    machine = system(tmp_path / "machine", proc__self__mountinfo=MOUNTS)
    if lingers:
        system(machine, var__lib__systemd__linger__chem="")
    found = run_directory(Path("/home/chem/pool"), machine, XDG_RUNTIME_DIR=str(tmp_path), USER="chem")
    assert (found.parent == tmp_path / "puffin-fleet") is lingers


def test_a_run_directory_once_chosen_stays(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("/var/tmp/chosen before")
    assert run_directory(tmp_path, tmp_path) == Path("/var/tmp/chosen before")


def test_paths_of_hosts_yaml_start_at_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/with space")
    assert common.expand("~/a/../b") == Path("/home/with space/b")
    assert common.expand("relative") == Path("/home/with space/relative")
    assert common.expand("/absolute") == Path("/absolute")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "-a", "a\nb", ".hidden", "a b"])
def test_names_that_could_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(Failure, match="not a plain name"):
        places.Places.of({"base_dir": "~", "fleet": name, "host": "node1"})


def test_roomy_places_are_local_disks_each_once(tmp_path: Path) -> None:
    for name in ("scratch", "local", "var/tmp", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    assert [place["path"] for place in places.roomy_places("chem", tmp_path)] == ["/scratch"]
    mounts = "".join(
        f"36 35 0:50 / {tmp_path}/{name} rw - {kind} somewhere rw\n"
        for name, kind in [("scratch", "nfs4"), ("local", "tmpfs")]
    )
    root = system(tmp_path, proc__self__mountinfo=mounts)
    (found,) = places.roomy_places("chem", root)
    assert found["path"] == "/var/tmp"
    assert found["free"] == pytest.approx(
        os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 2**30, rel=0.1
    )


# Files -------------------------------------------------------------------------------------------------


def entry(path: str, content: bytes, mode: int = 0o644) -> dict[str, Any]:
    return {"path": path, "mode": mode, "content_b64": base64.b64encode(content).decode()}


def applied(root: Path, **request: Any) -> dict[str, Any]:
    host = root / "f" / "hosts" / "n"
    return apply.main({"fleet_root": str(root / "f"), "host_root": str(host), "run_dir": str(host / "run"), **request})


def release(root: Path, name: str) -> None:
    (root / "f" / "releases" / name).mkdir(parents=True)
    (root / "f" / "releases" / name / ".complete").touch()


def test_apply_writes_what_differs_and_nothing_else(tmp_path: Path) -> None:
    wanted = [entry("etc/workers/n-1.yaml", b"secret", 0o600), entry("bin/worker", b"#!/bin/sh\n", 0o755)]
    assert applied(tmp_path, files=wanted)["written"] == ["etc/workers/n-1.yaml", "bin/worker"]
    host = tmp_path / "f/hosts/n"
    before = (host / "bin/worker").stat()
    again = applied(tmp_path, files=[wanted[1], entry("etc/workers/n-1.yaml", b"other", 0o600)])
    assert (again["written"], again["unchanged"]) == (["etc/workers/n-1.yaml"], ["bin/worker"])
    assert (host / "bin/worker").stat().st_ino == before.st_ino
    assert (host / "etc/workers/n-1.yaml").read_bytes() == b"other"


def test_apply_mends_modes(tmp_path: Path) -> None:
    wanted = [entry("etc/workers/n-1.yaml", b"secret", 0o600)]
    applied(tmp_path, files=wanted)
    file = tmp_path / "f/hosts/n/etc/workers/n-1.yaml"
    file.chmod(0o644)
    assert applied(tmp_path, files=wanted)["written"] == ["etc/workers/n-1.yaml"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_directories_are_private_where_they_should_be(tmp_path: Path) -> None:
    scratch = tmp_path / "place" / "scratch"
    applied(tmp_path, scratch=str(scratch), directories=[str(scratch / "reactions/n-1/jobs")])
    host = tmp_path / "f/hosts/n"
    private = ("etc", "etc/workers", "run", "orders", "error", "archive")
    assert {name: (host / name).stat().st_mode & 0o777 for name in private} == dict.fromkeys(private, 0o700)
    assert (host / "log").stat().st_mode & 0o777 == 0o755
    for path in ("reactions", "reactions/n-1", "reactions/n-1/jobs"):
        assert (scratch / path).stat().st_mode & 0o777 == 0o700
    assert scratch.stat().st_mode & 0o077 != 0  # that is the operator's, who may share it
    for name in private:
        (host / name).chmod(0o755)
    applied(tmp_path)
    assert {name: (host / name).stat().st_mode & 0o777 for name in private} == dict.fromkeys(private, 0o700)


@pytest.mark.parametrize("taken", ["reactions", "reactions/n-1"])
def test_job_directories_are_not_made_below_what_somebody_else_put_there(tmp_path: Path, taken: str) -> None:
    """In a scratch where everybody may write: its owner could move them away."""
    (tmp_path / "scratch" / taken).mkdir(parents=True)
    (tmp_path / "scratch").chmod(0o1777)
    try:
        os.chown(tmp_path / "scratch" / taken, 4001, 4001)
    except PermissionError:
        (tmp_path / "scratch" / taken).rmdir()
        (tmp_path / "scratch" / taken).symlink_to("/root")
    with pytest.raises(Failure, match=f"{taken} belongs to somebody else"):
        applied(tmp_path, scratch=str(tmp_path / "scratch"), directories=[str(tmp_path / "scratch/reactions/n-1/jobs")])


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_never_has_a_looser_mode_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int, mode: int
) -> None:
    """Watched where it matters: when the content is written to the disk, before the name is given."""
    seen: list[int] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        seen.append(os.fstat(descriptor).st_mode & 0o777)
        real(descriptor)

    opened: list[int] = []
    real_open = os.open

    def watch_open(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        opened.append(mode)
        return real_open(path, flags, mode, **more)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(os, "open", watch_open)
    old = os.umask(umask)
    try:
        files.write(tmp_path / "file", b"content", mode)
    finally:
        os.umask(old)
    assert seen == [mode]
    assert [found & ~mode for found in opened] == [0]
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("path", ["../escape", "/etc/escape", "etc/../../escape", "", ".", "out/escape"])
@pytest.mark.parametrize("request_key", ["files", "remove"])
def test_paths_that_lead_out_are_refused_before_anything_is_written(
    tmp_path: Path, path: str, request_key: str
) -> None:
    host = tmp_path / "f/hosts/n"
    host.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (host / "out").symlink_to(tmp_path / "elsewhere")
    bad = [entry("bin/worker", b"x"), entry(path, b"x")] if request_key == "files" else ["bin/worker", path]
    with pytest.raises(Failure, match="leads out of"):
        applied(tmp_path, **{request_key: bad})
    assert sorted(found.name for found in host.iterdir()) == ["out"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_release_is_switched_and_the_one_before_kept(tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        release(tmp_path, name)
    host = tmp_path / "f/hosts/n"
    assert applied(tmp_path, current="r1")["switched"] is True
    assert applied(tmp_path, current="r1")["switched"] is False
    found = applied(tmp_path, current="r2")
    assert (found["switched"], found["previous"]) == (True, "r1")
    assert (host / "current").readlink() == Path("../../releases/r2")
    assert (host / "previous").readlink() == Path("../../releases/r1")
    assert (host / "current" / ".complete").exists()


def test_an_incomplete_release_is_not_switched_to(tmp_path: Path) -> None:
    release(tmp_path, "r1")
    applied(tmp_path, current="r1")
    (tmp_path / "f/releases/half").mkdir()
    with pytest.raises(Failure, match="release half is not installed"):
        applied(tmp_path, current="half")
    assert (tmp_path / "f/hosts/n/current").readlink() == Path("../../releases/r1")


def test_what_a_killed_apply_left_is_swept(tmp_path: Path) -> None:
    applied(tmp_path)
    left = tmp_path / "f/hosts/n/etc/workers/.n-1.yaml.new~"
    left.write_text("half")
    applied(tmp_path, files=[entry("etc/workers/n-1.yaml", b"whole", 0o600)])
    assert not left.exists()


def test_files_are_removed_once(tmp_path: Path) -> None:
    applied(tmp_path, files=[entry("etc/conf.d/n-2.conf", b"x")])
    assert applied(tmp_path, remove=["etc/conf.d/n-2.conf"])["removed"] == ["etc/conf.d/n-2.conf"]
    assert applied(tmp_path, remove=["etc/conf.d/n-2.conf"])["removed"] == []


def test_where_one_file_cannot_be_written_none_is_changed(tmp_path: Path) -> None:
    applied(tmp_path, files=[entry("etc/a", b"old")])
    (tmp_path / "f/hosts/n/etc/b").mkdir()
    with pytest.raises(Failure):
        applied(tmp_path, files=[entry("etc/a", b"new"), entry("etc/b/c" + "x" * 300, b"new")])
    assert (tmp_path / "f/hosts/n/etc/a").read_bytes() == b"old"
    assert [path.name for path in (tmp_path / "f/hosts/n/etc").glob(".*")] == []


def manifests(**texts: str) -> dict[str, str]:
    return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}


def test_what_is_refused_once_all_is_staged_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock may be lost while files are written beside their places, which a slow disk makes long."""
    host = tmp_path / "f/hosts/n"
    applied(tmp_path, files=[entry("etc/a", b"old")])

    def lost(_request: dict[str, Any]) -> None:
        if len(list(host.rglob("*.new~"))) == 4:
            raise Failure("the lock of this host is gone")

    monkeypatch.setattr(apply, "require_lock", lost)
    with pytest.raises(Failure, match="is gone"):
        applied(
            tmp_path, files=[entry("etc/a", b"new"), entry("etc/b", b"new")], manifest=manifests(begin="1", end="2")
        )
    assert [path.name for path in host.rglob("*") if path.is_file()] == [".lock", "a"]
    assert (host / "etc/a").read_text() == "old"


def test_a_last_manifest_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    """It takes space as well, and all was done by the time that its place was sought."""
    release(tmp_path, "r1")
    host = tmp_path / "f/hosts/n"
    applied(tmp_path, files=[entry("etc/a", b"old")])
    (host / ".manifest.json.end.new~").mkdir()
    with pytest.raises(Failure, match=r"manifest\.json"):
        applied(tmp_path, files=[entry("etc/a", b"new")], current="r1", manifest=manifests(begin="1", end="2"))
    assert (host / "etc/a").read_text() == "old"
    assert not (host / "current").is_symlink()
    assert not (host / "manifest.json").exists()
    (host / ".manifest.json.end.new~").rmdir()
    applied(tmp_path, files=[entry("etc/a", b"new")], current="r1", manifest=manifests(begin="1", end="2"))
    assert (host / "manifest.json").read_text() == "2"


def test_the_run_directory_becomes_a_link_where_it_is_elsewhere(tmp_path: Path) -> None:
    place = tmp_path / "local" / "abc"
    host = tmp_path / "f/hosts/n"
    applied(tmp_path)
    applied(tmp_path, run_dir=str(place))
    applied(tmp_path, run_dir=str(place))
    assert (host / "run").readlink() == place
    assert place.stat().st_mode & 0o777 == 0o700
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_a_run_directory_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs").symlink_to(tmp_path / "mine")
    with pytest.raises(Failure, match="belongs to somebody else"):
        files.private_directory(tmp_path / "theirs")
    with pytest.raises(Failure, match="belongs to somebody else"):
        files.private_directory(tmp_path / "theirs" / "run")


def test_texts_are_fetched(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "a").write_text("text ☃\n")
    request = {"host_root": str(tmp_path), "paths": ["etc/a", "etc/none"]}
    assert fetch_texts.main(request)["texts"] == {"etc/a": "text ☃\n", "etc/none": None}
    with pytest.raises(Failure, match="leads out"):
        fetch_texts.main({"host_root": str(tmp_path), "paths": ["../x"]})


def test_a_damaged_upload_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    good = {"path": str(target), "mode": 0o600, "size": 3, "sha256": hashlib.sha256(b"new").hexdigest()}
    with pytest.raises(Failure, match="arrived damaged"):
        receive.receive(io.BytesIO(b"nex"), good)
    with pytest.raises(Failure, match="the connection ended before"):
        receive.receive(io.BytesIO(b"ne"), good)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    receive.receive(io.BytesIO(b"new and more"), good)
    assert target.read_bytes() == b"new"


def test_what_is_packed_is_unpacked_or_nothing_is_there(tmp_path: Path) -> None:
    content = os.urandom(1000) * 1000
    packed, target = zlib.compress(content), tmp_path / "file"

    def entry(sent: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(sent).hexdigest()
        return {"path": str(target), "mode": 0o755, "size": len(sent), "sha256": digest, "packed": True}

    for broken in (packed[:-100], b"no" + packed, packed + b"more", b""):
        with pytest.raises(Failure, match="arrived damaged"):
            receive.receive(io.BytesIO(broken), entry(broken))
    assert list(tmp_path.iterdir()) == []
    receive.receive(io.BytesIO(packed), entry(packed))
    assert target.read_bytes() == content
    assert target.stat().st_mode & 0o777 == 0o755


# Installing --------------------------------------------------------------------------------------------


def test_all_damaged_and_missing_wheels_are_named(tmp_path: Path) -> None:
    damaged = tmp_path / "wheels" / "aa" / "one.whl"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"x")
    request = {
        "fleet_root": str(tmp_path),
        "target": "releases/r1",
        "wheels": [{"sha256": "aa", "name": "one.whl"}, {"sha256": "bb", "name": "two.whl"}],
    }
    with pytest.raises(Failure, match=r"one.whl was damaged, and is removed; .*two.whl is missing"):
        install_release.main(request)
    assert not damaged.exists()
    assert not (tmp_path / "releases" / "r1").exists()


def test_an_existing_environment_is_linked_to(tmp_path: Path) -> None:
    request = {
        "fleet_root": str(tmp_path / "f"),
        "target": "releases/linked",
        "path": str(tmp_path / "venv"),
        "provides": ["bin/puffin"],
    }
    with pytest.raises(Failure, match="has no bin/puffin"):
        install_release.main(request)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/puffin").touch()
    assert install_release.main(request)["installed"] is True
    assert install_release.main(request)["installed"] is False
    assert (tmp_path / "f/releases/linked/bin/puffin").exists()


def test_a_target_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="leads out"):
        install_release.main({"fleet_root": str(tmp_path / "f"), "target": "../r", "wheels": []})


def test_what_takes_too_long_to_install_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """Else it would hold the lock of installations until somebody looks for it."""
    uv, started = tmp_path / "uv", tmp_path / "started"
    uv.write_text(f"#!/bin/sh\nsleep 600 &\necho $! >{started}\nwait\n")
    uv.chmod(0o755)
    request = {"fleet_root": str(tmp_path / "f"), "target": "releases/r1", "wheels": [], "uv": str(uv)}
    with pytest.raises(Failure, match=r"uv venv did not end within 0.5 s"):
        install_release.main({**request, "limit": 0.5})
    pid = int(started.read_text())
    assert common.wait_until(lambda: not processes.alive(pid), 30)
    with common.locked(tmp_path / "f/releases/.lock", 0, "installing"):
        pass


def test_a_lock_that_is_held_is_named(tmp_path: Path) -> None:
    with common.locked(tmp_path / ".lock", 1, "installing"):  # noqa: SIM117 - the second is the one that fails
        with pytest.raises(Failure, match=rf"\.lock is held by process {os.getpid()} on .* for over 0.2 s"):
            with common.locked(tmp_path / ".lock", 0.2, "installing"):
                pass
    with common.locked(tmp_path / ".lock", 0, "installing"):
        pass


# Control -----------------------------------------------------------------------------------------------


def controlled(root: Path, *operations: dict[str, Any]) -> dict[str, Any]:
    return control.main({"host_root": str(root), "operations": list(operations)})


def test_stop_files_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    found = controlled(
        tmp_path,
        {"operation": "stop_file"},
        {"operation": "stop_file", "workers": ["n-1", "n-2"]},
        {"operation": "clear_stop_file", "workers": ["n-2"]},
        {"operation": "clear_stop_file", "workers": ["n-3"]},
    )
    assert (found["stop"], found["stopped"]) == (True, ["n-1"])
    assert found["done"][-1] == {"operation": "clear_stop_file", "worker": "n-3", "changed": False}
    found = controlled(tmp_path, {"operation": "clear_stop_file"})
    assert (found["stop"], found["stopped"]) == (False, [])


def test_a_worker_that_does_not_run_is_not_recycled(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert controlled(tmp_path, {"operation": "recycle", "workers": ["n-1"]})["done"] == []


def test_a_worker_that_is_about_to_be_tried_again_is_not_recycled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would start, obey and end too quickly: one end more of the few that supervisord forgives."""
    for name in ("etc", "run"):
        (tmp_path / name).mkdir()
    states = {"n-1": "BACKOFF", "n-2": "STARTING", "n-3": "RUNNING", "n-4": "EXITED"}
    programs = [{"name": name, "state": state} for name, state in states.items()]
    monkeypatch.setattr(control, "_observed", lambda root: {"programs": programs})
    order = {"operation": "recycle", "workers": list(states)}
    assert [entry["worker"] for entry in controlled(tmp_path, order)["done"]] == ["n-2", "n-3"]


def test_whoever_may_have_been_told_to_end_is_not_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal has a worker give its calculation back; a silent supervisord obeys when it wakes up."""
    told: list[object] = []

    class Silent(rpc.Supervisor):
        def programs(self) -> list[dict[str, Any]]:
            return [{"name": "n-1", "state": "RUNNING", "pid": 7, "start": 1}]

        def attempt(self, method: str, *arguments: object, accept: tuple[int, ...] = ()) -> bool:
            told.append(arguments)
            raise rpc.Unreachable("timed out")

    monkeypatch.setattr(control, "Supervisor", Silent)
    for name in ("etc", "run"):
        (tmp_path / name).mkdir()
    order = {"operation": "end", "workers": ["n-1"]}
    with pytest.raises(Failure, match="timed out"):
        controlled(tmp_path, order)
    assert controlled(tmp_path, order)["done"] == [{"operation": "end", "worker": "n-1", "changed": False}]
    assert told == [("n-1", "TERM")]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"operation": "explode"}, "no operation 'explode'"),
        ({"operation": "stop"}, "no operation 'stop'"),
        ({"operation": "stop_file", "workers": ["../x"]}, "not a plain name"),
        ({"operation": "start"}, "supervisord does not run on this host"),
    ],
)
def test_orders_that_cannot_be_followed(tmp_path: Path, operation: dict[str, Any], message: str) -> None:
    (tmp_path / "etc").mkdir()
    with pytest.raises(Failure, match=message):
        controlled(tmp_path, operation)


def test_a_host_without_a_deployment_cannot_be_controlled(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="nothing is deployed"):
        controlled(tmp_path, {"operation": "stop_file"})


def test_a_drain_before_the_first_deploy_is_kept_until_it_is_lifted(tmp_path: Path) -> None:
    place = {"base_dir": str(tmp_path), "fleet": "f", "host": "n"}
    order = {**place, "patterns": None, "now": True}
    stopped = halt.main({**order, "drain": None})
    assert (stopped["deployed"], stopped["told"], stopped["changed"], stopped["stop"]) == (False, [], False, False)
    assert not (tmp_path / "f").exists()

    drained = halt.main({**order, "drain": {"who": "me", "why": "new disk"}})
    assert (drained["deployed"], drained["told"], drained["changed"], drained["stop"]) == (False, ["*"], True, True)
    assert halt.main({**order, "drain": {"who": "me", "why": "new disk"}})["changed"] is False
    refused = begin.main({**place, "patterns": None, "resume": False})
    assert (refused["refused"], refused["resumed"], refused["drained"]["why"]) == (True, False, "new disk")
    resumed = begin.main({**place, "patterns": None, "resume": True})
    assert (resumed["refused"], resumed["resumed"], resumed["stop"], resumed["drained"]) == (False, True, False, None)


@pytest.mark.parametrize(("patterns", "told"), [(["n-*"], ["n-1", "n-2"]), (["*-2"], ["n-2"]), (["x"], [])])
def test_a_look_at_who_would_be_started_changes_nothing(tmp_path: Path, patterns: list[str], told: list[str]) -> None:
    root = tmp_path / "f" / "hosts" / "n"
    for name in ("etc/workers", "orders"):
        (root / name).mkdir(parents=True)
    (root / "current").symlink_to(tmp_path)
    for name in ("etc/workers/n-1.yaml", "etc/workers/n-2.yaml", "orders/stop"):
        (root / name).touch()
    place = {"base_dir": str(tmp_path), "fleet": "f", "host": "n"}
    found = begin.main({**place, "patterns": patterns, "resume": False, "only_look": True})
    assert (found["deployed"], found["told"], found["stop"]) == (True, told, True)


def test_whoever_is_told_to_end_at_once_cannot_be_started_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = {"name": "n-1", "state": "RUNNING", "pid": 7, "start": 1}

    class Obedient(rpc.Supervisor):
        def programs(self) -> list[dict[str, Any]]:
            return [program]

        def answers(self) -> bool:
            return True

        def attempt(self, method: str, *arguments: object, accept: tuple[int, ...] = ()) -> bool:
            return True

    monkeypatch.setattr(control, "Supervisor", Obedient)
    for name in ("etc", "run"):
        (tmp_path / name).mkdir()
    controlled(tmp_path, {"operation": "signal", "signal": "QUIT", "workers": ["n-1"]})
    assert states.ending(tmp_path, [program]) == ["n-1"]


def test_a_supervisord_that_goes_while_its_programs_are_changed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/supervisord.conf").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "log").mkdir()
    (tmp_path / "log/supervisord.log").write_text("received SIGKILL\n")
    monkeypatch.setattr(supervise, "_ensure_running", lambda *_: False)
    with pytest.raises(Failure, match="supervisord does not run on this host: no answer at ") as caught:
        supervise.main({"host_root": str(tmp_path), "direct": True})
    assert "received SIGKILL" in caught.value.what
    assert caught.value.hint == "deploy to this host, which starts supervisord"


def test_a_stale_socket_and_pid_file_are_not_a_running_supervisord(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/sv.sock").touch()
    (tmp_path / "run/supervisord.pid").write_text(str(os.getpid()))  # runs, but is another program
    found = rpc.observe(tmp_path)
    assert (found["running"], found["reachable"], found["pid"], found["problem"]) == (False, False, None, None)


def test_processes() -> None:
    assert processes.alive(os.getpid())
    assert not processes.alive(99999999)
    assert os.getpid() in {process.pid for process in processes.own_processes()}


def test_what_cannot_be_copied_keeps_nobody_from_keeping_the_good_state(tmp_path: Path) -> None:
    root = tmp_path / "hosts/n"
    for path in ("bin/worker", "etc/conf.d/n-1.conf", "../../releases/r1/file"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    os.mkfifo(root / "etc/pipe")
    (root / "etc/lost").symlink_to("nowhere")
    (root / "etc/conf.d/circle").symlink_to("..")
    (root / "etc/conf.d/linked.conf").symlink_to("n-1.conf")
    (root / "current").symlink_to("../../releases/r1")
    assert good.keep(root) == {"release": "r1"}
    kept = sorted(str(path.relative_to(root / "good")) for path in (root / "good").rglob("*") if path.is_file())
    assert kept == ["bin/worker", "etc/conf.d/linked.conf", "etc/conf.d/n-1.conf", "release"]


def test_what_was_put_back_goes_back_to_what_it_would_have_gone_back_to(tmp_path: Path) -> None:
    """Not to the release that has just failed."""
    host = tmp_path / "f/hosts/n"

    def operation(what: str) -> None:
        good.main({"fleet_root": str(tmp_path / "f"), "host_root": str(host), "operation": what})

    def links() -> tuple[str | None, str | None]:
        return places.link_name(host / "current"), places.link_name(host / "previous")

    for name in ("r1", "r2", "r3"):
        release(tmp_path, name)
    for name, before in (("r1", None), ("r2", "r1")):
        applied(tmp_path, current=name)
        operation("keep")
        applied(tmp_path, current="r3")
        for _ in range(2):  # the answer may be lost
            operation("restore")
            assert links() == (name, before)
    shutil.rmtree(tmp_path / "f/releases/r1")
    operation("restore")
    assert links() == ("r2", None)
    assert not (host / "previous").is_symlink()


# Logs --------------------------------------------------------------------------------------------------


def test_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert common.tail_of(log) == []
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    assert common.tail_of(log, 2) == ["line 98", "line 99"]
    assert common.tail_of(log, 0) == []
    assert common.tail_of(log, 10, block=20) == ["line 98", "line 99"]


def test_waiting_ends_as_soon_as_there_is_no_reason() -> None:
    event = threading.Event()
    threading.Timer(0.05, event.set).start()
    assert common.wait_until(event.is_set, 30)
    assert not common.wait_until(lambda: False, 0)


def test_the_last_words_of_a_worker_that_starts(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    program = {"name": "n-1", "pid": 0, "start": 0}
    assert states.last_words(tmp_path, program) == ""
    log, out = tmp_path / "log/n-1.log", tmp_path / "log/n-1.out"
    out.write_text("Traceback\nImportError: libfoo.so\n\n")
    assert states.last_words(tmp_path, program) == "ImportError: libfoo.so"
    out.write_text("\033[2J\033]0;mine\007gone\n")
    assert states.last_words(tmp_path, program) == "[2J ]0;mine gone"
    log.write_text("2026-11-22T12:00:00.000Z WARNING n-1 - waiting for the database: no answer\n")
    os.utime(out, (1000, 1000))
    assert states.last_words(tmp_path, program) == "waiting for the database: no answer"
    later = log.stat().st_mtime + 10
    assert states.last_words(tmp_path, {**program, "pid": 7, "start": later}) == ""  # an earlier process said it


@pytest.mark.parametrize(
    ("word", "hint"), [("no-such-command", "in PATH"), ("echo a; echo b", "say --shell"), ("ls *.log", "say --shell")]
)
def test_a_command_that_is_for_a_shell_is_told_from_one_that_is_not_there(word: str, hint: str) -> None:
    with pytest.raises(Failure, match=f"no command '{re.escape(word)}' here") as caught:
        command._begin({"words": [word]})
    assert hint in caught.value.hint


def test_a_command_as_a_worker_finds_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUFFIN_CONFIG", "/mine.yaml")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    workers = tmp_path / "f" / "hosts" / "n" / "etc" / "workers"
    workers.mkdir(parents=True)
    (workers / "n-1.yaml").touch()
    (workers / "n-1.env").write_text("export OMP_NUM_THREADS=4\n")
    place = {"base_dir": str(tmp_path), "fleet": "f", "host": "n"}
    words = ["echo $PUFFIN_CONFIG $OMP_NUM_THREADS"]
    process = command._begin({**place, "words": words, "shell": True, "as_worker": "n-1"})
    assert process.communicate()[0].decode() == f"{workers}/n-1.yaml 4\n"
    process = command._begin({**place, "words": words, "shell": True})
    assert process.communicate()[0] == b"\n"
