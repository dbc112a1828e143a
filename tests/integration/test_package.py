"""What is built is all that is needed: the wheel works in a clean environment, far from the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from puffin import __version__

ROOT = Path(__file__).parents[2]
OVERRIDES = ROOT / "fleet" / "data" / "overrides.txt"
UV = Path(sys.executable).with_name("uv")


def uv(*words: object) -> None:
    """Run uv, from its cache where that has everything."""
    for offline in (["--offline"], []):
        done = subprocess.run([UV, *map(str, words), *offline], capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from the source tree."""
    out = tmp_path_factory.mktemp("dist")
    uv("build", "--sdist", "--wheel", "--out-dir", out, ROOT)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@dataclass(frozen=True)
class Clean:
    """An environment of its own, and a folder that is not the source tree."""

    python: Path
    place: Path

    def run(self, command: str, *words: object, code: int = 0, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.python.with_name(command), *map(str, words)],
            capture_output=True,
            text=True,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}},
            timeout=seconds,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done


def clean(wheel: Path, extras: Sequence[str], place: Path) -> Clean:
    uv("venv", "--python", sys.executable, place / "venv")
    python = place / "venv" / "bin" / "python"
    wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
    uv("pip", "install", "--python", python, "--overrides", OVERRIDES, wanted)
    (place / "elsewhere").mkdir()
    return Clean(python, place / "elsewhere")


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Clean:
    return clean(built[1], (), tmp_path_factory.mktemp("clean"))


def test_the_source_distribution_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    sdist, wheel = built
    uv("build", "--wheel", "--out-dir", tmp_path, sdist)
    (again,) = tmp_path.glob("*.whl")
    assert again.name == wheel.name == f"puffin_fleet-{__version__}-py3-none-any.whl"
    assert content(again) == content(wheel)


def test_the_wheel_has_everything_and_nothing_else(built: tuple[Path, Path]) -> None:
    names = content(built[1]).keys()
    assert {name.split("/")[0] for name in names} == {"puffin", "fleet", f"puffin_fleet-{__version__}.dist-info"}
    tree = {
        path.relative_to(ROOT).as_posix() for package in ("puffin", "fleet") for path in (ROOT / package).rglob("*")
    }
    assert {name for name in tree if name.endswith((".py", ".txt", ".typed"))} - names == set()
    assert sum(name.startswith("fleet/data/molecules/") and name.endswith(".xyz") for name in names) == 20


def test_the_version_stands_in_one_place(installed: Clean) -> None:
    for command in ("puffin", "puffin-fleet"):
        assert installed.run(command, "--version").stdout.split() == [f"{command},", "version", __version__]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in text
    assert f'"{__version__}"' not in text


def test_both_commands_work_without_any_extra(installed: Clean) -> None:
    where = installed.run("python", "-c", "import fleet; print(fleet.__file__)").stdout
    assert where.startswith(str(installed.python.parents[1]))
    assert "puffin -c puffin.yaml start" in installed.run("puffin", "--help").stdout
    assert "puffin-fleet deploy" in installed.run("puffin-fleet", "--help").stdout
    schema = json.loads(installed.run("puffin-fleet", "schema").stdout)
    assert schema["properties"].keys() >= {"fleet", "database", "hosts"}
    words = ("--fleet", "f", "--database", "mongodb://db.example", "--name", "explore", "--host", "node1", "--no-probe")
    installed.run("puffin-fleet", "init", *words)
    assert yaml.safe_load((installed.place / "hosts.yaml").read_text())["hosts"].keys() == {"node1"}
    assert installed.run("puffin", "configure").stdout.startswith("daemon:")
    kinds = [line.split() for line in installed.run("puffin", "jobs").stdout.splitlines()]
    assert ["sleep", "puffin-fleet", __version__, "accepted"] in kinds


def test_without_the_embedded_database_the_demo_says_what_to_install(installed: Clean) -> None:
    said = installed.run("puffin-fleet", "demo", code=1).stderr
    assert "puffin-fleet[embedded]" in said
    assert "Traceback" not in said


@pytest.mark.soak
def test_the_demo_of_the_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    environment = clean(built[1], ("scine", "embedded"), tmp_path)
    done = environment.run("puffin-fleet", "demo", "--json", seconds=200)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["status"] for result in results] == ["complete"] * 20
    assert all(result["energy_hartree"] < 0 for result in results)
