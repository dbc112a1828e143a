"""A host with Python only: `puffin bootstrap` brings the SCINE modules from the index, and a worker uses them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from puffin.errors import ProgramError
from puffin.programs.building import uv_program, uv_settings
from puffin.programs.program import Program
from tests.lab.bootstrapping import Host
from tests.lab.fixtures_database import Database
from tests.lab.requirements import missing
from tests.lab.worker import Queue, queue_of

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_NO_CACHE": "1", "UV_FIND_LINKS": ""}
WATER = "O 0.0 0.0 0.117\nH 0.0 0.757 -0.471\nH 0.0 -0.757 -0.471"


@pytest.fixture(scope="module")
def bare_puffin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `puffin`, installed without any SCINE module."""
    venv = tmp_path_factory.mktemp("bare") / "venv"
    environment = {**os.environ, **uv_settings()}
    for words in (
        ["venv", "--quiet", "--python", sys.executable, str(venv)],
        ["pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), str(ROOT)],
    ):
        done = subprocess.run([uv_program(), *words], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            missing(f"the project cannot be installed from the package index: {done.stderr[-500:]}")
    return venv / "bin" / "puffin"


@pytest.fixture(scope="module")
def host(bare_puffin: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The host after its first bootstrap, with the defaults and xtb."""
    host = Host(tmp_path_factory.mktemp("host") / "one", bare_puffin)
    before = host.run("check")
    assert before.returncode == 1
    assert "FAIL  program sparrow" in before.stdout
    assert "run 'puffin" in before.stdout
    host.configure({**DEFAULTS, "xtb": {}})
    done = host.bootstrap()
    assert done.returncode == 0, done.stderr
    assert "wheels        installed" in done.stderr
    assert "PM6" in done.stderr
    assert "GFN2" in done.stderr
    return host


DEFAULTS: dict[str, dict[str, str]] = {
    name: {} for name in ("core", "utils", "database", "readuct", "sparrow", "molassembler", "kinetx")
}


def test_a_second_run_does_nothing_and_needs_no_network(host: Host) -> None:
    before = host.state()
    done = host.bootstrap(**NOWHERE)
    assert done.returncode == 0, done.stderr
    assert "installed" not in done.stderr
    assert host.state() == before


def test_a_worker_needs_no_script_to_find_them(host: Host, database: Database) -> None:
    host.configure({**DEFAULTS, "xtb": {}}, database={"uri": database.uri, "name": database.name})
    check = host.run("check")
    assert check.returncode == 0, check.stdout + check.stderr
    assert "FAIL" not in check.stdout

    with contextlib.contextmanager(queue_of)(database) as queue:
        ids = [submit(queue, *model) for model in (("sparrow", "PM6"), ("sparrow", "DFTB3"), ("xtb", "GFN2"))]
        with running_worker(host):
            for id_ in ids:
                document = queue.wait(id_, "complete", "failed", patience_s=120.0)
                assert document["status"] == "complete", document["comment"]
                assert document["results"]["properties"]


def submit(queue: Queue, program: str, method: str) -> str:
    from puffin.documents import Model, Molecule, Request

    bohr = 1.8897261
    rows = [line.split() for line in WATER.splitlines()]
    positions = tuple((float(x) * bohr, float(y) * bohr, float(z) * bohr) for _, x, y, z in rows)
    water = Molecule("water", tuple(symbol for symbol, *_ in rows), positions)
    model = Model(program=program, method_family=method, method=method, spin_mode="any")
    [id_] = queue.store.submit(queue.name, [(water, Request("scine_single_point", model, memory=0.5, disk=0.05))])
    return id_


@contextlib.contextmanager
def running_worker(host: Host) -> Iterator[None]:
    started = host.run("start")
    assert started.returncode == 0, started.stderr
    try:
        yield
    finally:
        assert host.run("kill").returncode == 0


def test_a_version_that_cannot_be_had_leaves_the_old_ones_in_place(host: Host) -> None:
    installed = host.current("wheels")
    host.configure({**DEFAULTS, "xtb": {"version": "99.0"}})
    done = host.bootstrap()
    assert done.returncode == 1
    assert "wheels: the package index has no such version" in done.stderr
    assert "scine-xtb-wrapper==99.0" in done.stderr
    assert str(host.software / "log" / "wheels.log") in done.stderr
    assert host.current("wheels") == installed
    host.configure({**DEFAULTS, "xtb": {}})
    again = host.bootstrap(**NOWHERE)
    assert again.returncode == 0, again.stderr


def test_without_a_network_it_says_so(bare_puffin: Path, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", bare_puffin)
    done = host.bootstrap(**NOWHERE)
    assert done.returncode == 1
    assert "wheels: the package index cannot be reached" in done.stderr
    assert "sparrow: scine_sparrow is not installed: run 'puffin bootstrap'" in done.stderr


def test_one_package_may_be_installed_by_a_script(tmp_path: Path) -> None:
    Program.pip_package_install("iniconfig==2.0.0", str(tmp_path / "prefix"))
    [package] = tmp_path.glob("prefix/lib/python3.*/site-packages/iniconfig")
    assert (package / "__init__.py").is_file()
    assert "iniconfig" in (tmp_path / "prefix.log").read_text()
    with pytest.raises(ProgramError, match=r"cannot install iniconfig==0\.0\.0"):
        Program.pip_package_install("iniconfig==0.0.0", str(tmp_path / "prefix"))


def test_what_is_installed_beside_puffin_is_not_installed_again(tmp_path: Path) -> None:
    if shutil.which("puffin", path=str(Path(sys.executable).parent)) is None:
        missing("the project is not installed where the tests run")
    pytest.importorskip("scine_puffin", reason="needs the extra 'scine'")
    host = Host(tmp_path / "host")
    done = host.bootstrap(**NOWHERE)
    assert done.returncode == 0, done.stderr
    assert not list(host.software.glob("install/*/wheels/current"))
    assert host.python("import scine_sparrow; print(1)") == "1"
