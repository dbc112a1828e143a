from __future__ import annotations

import configparser
import hashlib
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError, InventoryError
from fleet.hosts import yamlmap
from fleet.hosts.inventory import Fleet, parse_inventory
from fleet.hosts.layout import Worker
from fleet.hosts.paths import HostPaths, host_paths, job_directories
from fleet.hosts.render import RenderedFile, configuration_hash, render_host, worker_settings, worker_uuid
from puffin import overlay

AWKWARD = "/home/chem/a dir 100% of it's"

HOSTS = """\
fleet: lab
database: {uri: "mongodb://db:27017", names: [a, b], username: chem, password_file: ~/p}
defaults:
  workers: {cores: 2, memory: 4}
  environment: {NOTE: "it's 5% $HOME", OMP_NUM_THREADS: "1"}
  puffin: {daemon: {cycle_time_in_s: 5, archive_dir: ~/archive}, programs: {orca: {available: true}}}
hosts: {node1: }
update: {drain_timeout: 90s}
"""

WORKER = Worker("node1-1", "node1", 2, 4.0, 10.0)


def fleet(text: str = HOSTS) -> Fleet:
    return parse_inventory(text, "hosts.yaml")


def paths(base: str = "/base", run: str = "/base/lab/hosts/node1/run") -> HostPaths:
    return host_paths(
        base_dir_abs=base,
        home="/home/chem",
        fleet_name="lab",
        host_name="node1",
        run_dir=run,
        scratch_abs="/scratch",
        supervisor_version="4.3.0",
    )


def render(text: str = HOSTS, base: str = "/base", worker: Worker = WORKER) -> dict[str, RenderedFile]:
    described = fleet(text)
    password = "geheim" if described.database.password_file else None
    files = render_host(described, described.hosts[0], (worker,), paths(base), password)
    assert len({file.path for file in files}) == len(files)
    return {file.path: file for file in files}


def settings(files: dict[str, RenderedFile]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(files["etc/workers/node1-1.yaml"].content)
    return loaded


def test_the_files_and_their_modes() -> None:
    assert {path: (file.mode, file.secret) for path, file in render().items()} == {
        "bin/worker": (0o755, False),
        "bin/boot": (0o755, False),
        "etc/database.password": (0o600, True),
        "etc/workers/node1-1.env": (0o600, False),
        "etc/workers/node1-1.yaml": (0o600, False),
        "etc/conf.d/node1-1.conf": (0o644, False),
        "etc/supervisor": (0o644, False),
        "etc/supervisord.conf": (0o644, False),
    }


def test_paths() -> None:
    assert paths() == HostPaths(
        root="/base/lab/hosts/node1",
        releases="/base/lab/releases",
        supervisor="/base/lab/supervisor/4.3.0",
        run="/base/lab/hosts/node1/run",
        scratch="/scratch",
        home="/home/chem",
    )
    assert job_directories(fleet(), (WORKER,), paths()) == ("/scratch/lab/node1-1/jobs",)


@pytest.mark.parametrize("base", ["/a ;b", "/a #b", "/a[1]", "/a:b", "relative", "/a\nb"])
def test_directories_that_supervisord_or_python_cannot_use(base: str) -> None:
    with pytest.raises(InventoryError, match="node1: base_dir on the host is"):
        paths(base)


def test_the_password_stands_in_one_file_only() -> None:
    files = render()
    assert [path for path, file in files.items() if b"geheim" in file.content] == ["etc/database.password"]
    assert "geheim" not in repr(tuple(files.values()))
    assert files["etc/database.password"].content == b"geheim"


def test_a_password_that_was_not_read_is_an_error() -> None:
    described = fleet()
    with pytest.raises(FleetError, match=r"database\.password_file: ~/p was not read"):
        render_host(described, described.hosts[0], (WORKER,), paths(), None)


def test_the_worker_settings() -> None:
    root = "/base/lab/hosts/node1"
    assert settings(render()) == {
        "fleet": {"name": "lab", "host": "node1", "worker": "node1-1"},
        "daemon": {
            "mode": "release",
            "uuid": "puffin-lab@node1-1",
            "job_dir": "/scratch/lab/node1-1/jobs",
            "software_dir": f"{root}/software",
            "error_dir": f"{root}/error",
            "archive_dir": "/home/chem/archive",
            "pid": f"{root}/run/node1-1.pid",
            "pid_dir": f"{root}/run",
            "log": f"{root}/log/node1-1.log",
            "stop": f"{root}/orders/stop.node1-1",
            "stop_shared": f"{root}/orders/stop",
            "recycle": f"{root}/run/recycle.node1-1",
            "remove_stop_file": False,
            "timeout_in_h": -1,
            "cycle_time_in_s": 5,
        },
        "database": {
            "uri": "mongodb://db:27017",
            "name": "a,b",
            "username": "chem",
            "password_file": f"{root}/etc/database.password",
        },
        "resources": {"cores": 2, "memory": 4.0, "disk": 10.0},
        "programs": {"orca": {"available": True}},
    }
    assert worker_uuid(fleet(), WORKER.name) == "puffin-lab@node1-1"


def test_the_worker_understands_its_settings() -> None:
    parsed = overlay.parse([("rendered", settings(render(base=AWKWARD)))])
    assert parsed.resources.memory == 4.0
    assert parsed.database.names == ("a", "b")
    assert parsed.daemon.stop_shared == f"{AWKWARD}/lab/hosts/node1/orders/stop"
    assert parsed.fleet.worker == "node1-1"


def test_jobs_of_a_shape_reach_the_settings() -> None:
    worker = Worker("node1-1", "node1", 2, 4.0, 10.0, jobs=("sleep",))
    parsed = overlay.parse([("rendered", settings(render(worker=worker)))])
    assert parsed.daemon.jobs == ("sleep",)
    assert "jobs" not in settings(render())["daemon"]
    for_the_host = HOSTS.replace("cycle_time_in_s: 5", "jobs: [a, b]")
    assert settings(render(for_the_host))["daemon"]["jobs"] == ["a", "b"]
    assert settings(render(for_the_host, worker=worker))["daemon"]["jobs"] == ["sleep"]


@pytest.mark.parametrize(
    ("database", "override", "expected"),
    [
        ("{ip: db, names: [a]}", "", {"ip": "db", "port": 27017, "name": "a"}),
        ("{uri: 'mongodb://db/a'}", "", {"uri": "mongodb://db/a", "name": "a"}),
        (
            "{ip: db, names: [a], tls: true, tls_ca_file: /a b/ca}",
            "",
            {"uri": "mongodb://db:27017/?tls=true&tlsCAFile=/a%20b/ca", "name": "a"},
        ),
        (
            "{uri: 'mongodb://db/a?x=1', tls: true}",
            "",
            {"uri": "mongodb://db/a?x=1&tls=true", "name": "a"},
        ),
        (
            "{uri: 'mongodb://db/a'}",
            "puffin: {database: {ip: 127.0.0.1, port: 5000}}",
            {"ip": "127.0.0.1", "port": 5000, "name": "a"},
        ),
    ],
)
def test_the_database_section(database: str, override: str, expected: dict[str, Any]) -> None:
    text = f"fleet: lab\ndatabase: {database}\nhosts: {{node1: {{workers: {{cores: 1}}, {override}}}}}\n"
    files = render(text)
    assert settings(files)["database"] == expected
    assert "etc/database.password" not in files


def test_the_hash_is_of_the_bytes_and_covers_the_environment() -> None:
    name = "etc/workers/node1-1.yaml"
    first, again = render()[name].content, render()[name].content
    other = render(HOSTS.replace("5%", "6%"))[name].content
    assert configuration_hash(first) == hashlib.sha256(first).hexdigest()[:12] == configuration_hash(again)
    assert configuration_hash(other) != configuration_hash(first)


def test_a_change_of_settings_or_release_leaves_supervisord_alone() -> None:
    before, after = render(), render(HOSTS.replace("cycle_time_in_s: 5", "cycle_time_in_s: 6").replace("5%", "6%"))
    changed = {path for path, file in after.items() if file != before[path]}
    assert changed == {"etc/workers/node1-1.env", "etc/workers/node1-1.yaml"}


def test_the_program_section() -> None:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(render(base=AWKWARD)["etc/conf.d/node1-1.conf"].content.decode())
    section = dict(parser["program:node1-1"])
    root = f"{AWKWARD}/lab/hosts/node1"
    assert shlex.split(section.pop("command") % {}) == [f"{root}/bin/worker", "node1-1"]
    assert section.pop("stdout_logfile") % {} % {} == f"{root}/log/node1-1.out"
    assert section.pop("directory") % {} == root
    assert section == {
        "autostart": "true",
        "autorestart": "unexpected",
        "exitcodes": "0,2,3",
        "startsecs": "2",
        "startretries": "3",
        "stopsignal": "TERM",
        "stopasgroup": "false",
        "killasgroup": "true",
        "stopwaitsecs": "315360000",
        "redirect_stderr": "true",
        "stdout_logfile_maxbytes": "1MB",
        "stdout_logfile_backups": "1",
    }


@pytest.mark.parametrize("link", [True, False], ids=["link", "directory"])
def test_the_wrapper_runs_the_worker_of_the_current_release(tmp_path: Path, link: bool) -> None:
    base = tmp_path / 'a dir 100% of "it\'s" $HOME'
    files = render(base=str(base))
    root = base / "lab/hosts/node1"
    for file in files.values():
        target = root / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    release = base / "lab/releases/0.1.0-abc" if link else root / "current"
    (release / "bin").mkdir(parents=True)
    if link:
        (root / "current").symlink_to("../../releases/0.1.0-abc")
    stub = release / "bin/puffin"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$PUFFIN_RELEASE" "$OMP_NUM_THREADS" "$MKL_NUM_THREADS" "$NOTE"\n')
    stub.chmod(0o755)
    (root / "run").mkdir()
    orders = [root / "run" / f"recycle.node1-{number}" for number in (1, 2)]
    for order in orders:
        order.touch()
    subprocess.run(["sh", root / "bin/worker", "node1-1", "check"], capture_output=True, check=True)
    assert [order.exists() for order in orders] == [True, True]
    done = subprocess.run(["sh", root / "bin/worker", "node1-1"], capture_output=True, text=True, check=True)
    assert [order.exists() for order in orders] == [False, True], "it is starting just now"
    assert done.stdout.splitlines() == [
        "-c",
        f"{root}/etc/workers/node1-1.yaml",
        "container",
        "0.1.0-abc" if link else "current",
        "1",  # hosts.yaml wins
        "2",  # the worker's cores
        "it's 5% $HOME",
    ]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_what_is_written_as_yaml_is_read_back(data: dict[str, Any]) -> None:
    text = yamlmap.write(data)
    assert (yaml.safe_load(text) or {}) == data
    if text:
        assert yamlmap.read(text, "x").value == data


def test_processors_and_gpus_are_written_only_where_there_are_some() -> None:
    plain = worker_settings(fleet(), fleet().hosts[0], WORKER, paths())
    assert set(plain["resources"]) == {"cores", "memory", "disk"}
    bound = replace(WORKER, cpus=(2, 3), gpus=("0", "GPU-1"))
    settings = worker_settings(fleet(), fleet().hosts[0], bound, paths())
    assert settings["resources"] == {**plain["resources"], "cpus": [2, 3], "gpus": ["0", "GPU-1"]}
    del settings["resources"]["cpus"], settings["resources"]["gpus"]
    assert settings == plain


def test_programs_of_a_worker_win_over_those_of_its_host() -> None:
    worker = replace(WORKER, programs={"orca": {"root": "~/orca5"}, "xtb": {"available": True}})
    programs = worker_settings(fleet(), fleet().hosts[0], worker, paths())["programs"]
    assert programs == {"orca": {"available": True, "root": "/home/chem/orca5"}, "xtb": {"available": True}}
