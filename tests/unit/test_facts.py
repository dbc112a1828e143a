"""Reading the reply of a real probe of this machine, and refusing what is none."""

from __future__ import annotations

import copy
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import RemoteError
from fleet.hostside import probe, states
from fleet.reach import facts, probing


@pytest.fixture
def reply(tmp_path: Path) -> dict[str, Any]:
    request = probing.probe_request("reactions", "node1", str(tmp_path / "pool"), str(tmp_path / "scratch"))
    found: dict[str, Any] = json.loads(json.dumps(probe.main(request)))
    return found


def test_a_probe_of_an_empty_host(reply: dict[str, Any], tmp_path: Path) -> None:
    found = probing.parse("node1", reply)
    assert found.host_root == f"{tmp_path}/pool/reactions/hosts/node1"
    assert found.hardware.disk.writable
    assert not found.hardware.disk.exists
    assert 1 <= found.hardware.cores <= found.hardware.logical <= (os.cpu_count() or 1)
    assert found.hardware.memory > 0
    assert (found.current, found.manifest, found.releases, found.files) == (None, None, (), ())
    assert not found.supervisord.running
    assert found.python.machine == os.uname().machine


def test_processors_of_this_machine(reply: dict[str, Any]) -> None:
    hardware = probing.parse("node1", reply).hardware
    assert {processor.cpu for processor in hardware.processors} <= os.sched_getaffinity(0)
    assert len(hardware.processors) == hardware.logical
    assert {processor.core for processor in hardware.processors} == set(hardware.cpus)


def test_gpus_and_roomy_places_are_looked_for_only_where_asked_for(
    reply: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: Some GPU (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = probing.parse("node1", reply)
    assert (found.hardware.gpus, found.roomy) == (None, ())
    request = probing.probe_request("reactions", "node1", str(tmp_path), gpus=True, look_around=True)
    found = probing.parse("node1", probe.main(request))
    assert found.hardware.gpus == (facts.Gpu("0", "Some GPU"),)
    assert all(place.free > 0 and os.access(place.path, os.W_OK) for place in found.roomy)


def test_a_probe_changes_nothing(reply: dict[str, Any], tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []


def test_what_was_deployed_is_seen(tmp_path: Path) -> None:
    fleet = tmp_path / "reactions"
    root = fleet / "hosts" / "node1"
    for directory in ("releases/r1", "releases/half", "supervisor/4.3.0", "wheels/abc", "tools/uv-1.2"):
        (fleet / directory).mkdir(parents=True)
    for directory in ("run", "etc/workers", "bin"):
        (root / directory).mkdir(parents=True)
    for name in ("releases/r1/.complete", "supervisor/4.3.0/.complete", "wheels/abc/a.whl", "tools/uv-1.2/uv"):
        (fleet / name).touch()
    (fleet / "tools/uv-1.2/uv").chmod(0o755)
    (root / "current").symlink_to("../../releases/r1")
    (root / "previous").symlink_to("../../releases/gone")
    (root / "etc/workers/node1-1.yaml").write_bytes(b"x")
    (root / "etc/workers/node1-1.yaml").chmod(0o600)
    (root / "orders").mkdir()
    (root / "orders/stop.node1-2").touch()
    (root / "run/recycle.node1-1").touch()
    (root / "manifest.json").write_text("{}")
    found = probing.parse("node1", probe.main(probing.probe_request("reactions", "node1", str(tmp_path))))
    assert found.releases == (facts.Release("r1", None),)
    assert (found.current, found.previous) == ("r1", None)
    assert found.supervisors == ("4.3.0",)
    assert found.uv_versions == ("1.2",)
    assert found.wheels == (facts.Wheel("abc", "a.whl", 0),)
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert found.files == (facts.FileFact("etc/workers/node1-1.yaml", digest, 0o600),)
    assert found.file("etc/workers/node1-1.yaml") == found.files[0]
    assert found.file("bin/worker") is None
    assert (found.stop, found.stopped, found.recycling) == (
        False,
        frozenset({"node1-2"}),
        frozenset({"node1-1"}),
    )
    assert found.manifest == "{}"


def test_a_release_that_links_to_an_environment_counts_while_that_is_there(tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "linked").symlink_to(environment)
    assert probe.releases(tmp_path / "releases") == []
    (environment / "bin" / "puffin").touch()
    assert probe.releases(tmp_path / "releases") == [{"id": "linked", "path": str(environment)}]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("user",), None, "user should be a text, not null"),
        (("lock", "serial"), "0", 'lock.serial should be a whole number, not "0"'),
        (("lock", "serial"), True, "lock.serial should be a whole number, not true"),
        (("shared",), 0, "shared should be true or false"),
        (("hardware", "cores", "cores"), 1.5, "hardware.cores.cores should be a whole number"),
        (("hardware", "cores", "cpus"), ["0"], "hardware.cores.cpus should be a list of whole numbers"),
        (("hardware", "cores", "processors"), [{"cpu": 0, "core": 0}], r"hardware.cores.processors\[0\].node should"),
        (("hardware", "gpus"), [{"id": 0, "name": ""}], r"hardware.gpus\[0\].id should be a text, not 0"),
        (("roomy",), None, "roomy should be a list"),
        (("hardware", "disk"), None, "hardware.disk should be a JSON object"),
        (("releases",), {}, "releases should be a list"),
        (("releases",), [{}], r"releases\[0\].id should be a text"),
        (("files",), {"bin/worker": {"mode": 1}}, "files.bin/worker.sha256 should be a text"),
        (("supervisord", "programs"), [3], r"supervisord.programs\[0\] should be a JSON object, not 3"),
    ],
)
def test_a_malformed_reply_names_the_entry(
    reply: dict[str, Any], path: tuple[str, ...], value: object, message: str
) -> None:
    broken = copy.deepcopy(reply)
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(RemoteError, match=f"node1: probe: malformed reply: {message}"):
        probing.parse("node1", broken)


def test_states_of_a_host_without_anything(tmp_path: Path) -> None:
    found = probing.parse_states("node1", states.main({"host_root": str(tmp_path)}))
    assert not found.supervisord.reachable
    assert (found.stop, found.stopped, found.pids, found.current) == (False, frozenset(), {}, None)


def test_a_worker_counts_as_running_only_while_its_process_does(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "node1-1.pid").write_text(f"{os.getpid()}\n")
    # A number left by a worker that is gone, which is somebody else's process by now.
    (tmp_path / "run" / "node1-4.pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "run" / "node1-2.pid").write_text("99999999\n")
    (tmp_path / "run" / "node1-3.pid").write_text("nonsense")
    with (tmp_path / "run" / "node1-1.pid").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = probing.parse_states("node1", states.main({"host_root": str(tmp_path)}))
    assert found.pids == {"node1-1": os.getpid()}
