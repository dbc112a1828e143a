"""What is compiled once for all hosts, read by a real Python."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from fleet.release.bytecode import bytecode_wheel
from fleet.release.wheels import Platform, Wheel, WheelCache, write_wheel

HERE = "{}.{}".format(*sys.version_info)
FILES = {
    "puffin/__init__.py": b"",
    "puffin/one.py": b"# -*- coding: latin-1 -*-\nWORD = '\xe9'\ndef fail():\n    raise ValueError\n",
    "puffin/old.py": b"print 'of another Python'\n",
    "puffin/data.txt": b"no source",
    "fleet/__init__.py": b"",
}


@pytest.fixture
def store(tmp_path: Path) -> WheelCache:
    return WheelCache(tmp_path / "cache")


def wheel_of(store: WheelCache, files: Mapping[str, bytes], name: str = "puffin_fleet") -> Wheel:
    with store.workspace() as work:
        path = work / f"{name}-1.0-py3-none-any.whl"
        write_wheel(path, files, f"{name}-1.0.dist-info")
        return store.add(path)


def made_for(store: WheelCache, wheels: list[Wheel], python: str = HERE) -> tuple[Wheel | None, list[str]]:
    said: list[str] = []
    return bytecode_wheel(wheels, Platform(python, "riscv64", "2.36"), store, said.append), said


def imported(directory: Path, code: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.path.insert(0, {str(directory)!r}); {code}"
    return subprocess.run([sys.executable, "-I", "-B", "-v", "-c", program], capture_output=True, text=True)


def test_python_takes_it_for_its_own_until_the_source_is_changed(store: WheelCache, tmp_path: Path) -> None:
    own = wheel_of(store, FILES)
    made, said = made_for(store, [own, wheel_of(store, {"other/__init__.py": b""}, "other")])
    assert made is not None
    assert said == ["compiling what the workers import"]
    place = tmp_path / "site"
    for wheel in (own, made):
        with zipfile.ZipFile(wheel.path) as archive:
            archive.extractall(place)
    there = {path.relative_to(place).as_posix() for path in place.rglob("*.pyc")}
    tag = sys.implementation.cache_tag
    assert there == {f"puffin/__pycache__/{name}.{tag}.pyc" for name in ("__init__", "one")}
    found = imported(place, "import puffin.one; print(puffin.one.WORD); puffin.one.fail()")
    assert found.stdout.encode() in {"é\n".encode(), b"\xe9\n"}
    assert f"code object from '{place}/puffin/__pycache__/one.{tag}.pyc'" in found.stderr
    # Its traceback names the file that is there.
    assert f'File "{place}/puffin/one.py", line 4, in fail' in found.stderr
    (place / "puffin" / "one.py").write_text("WORD = 'corrected by hand'\n")
    found = imported(place, "import puffin.one; print(puffin.one.WORD)")
    assert found.stdout == "corrected by hand\n"


def test_it_is_made_once(store: WheelCache) -> None:
    own = wheel_of(store, FILES)
    first, _ = made_for(store, [own])
    assert made_for(store, [own]) == (first, [])
    changed = wheel_of(store, {**FILES, "puffin/__init__.py": b"CHANGED = 1\n"})
    second, said = made_for(store, [changed])
    assert said
    assert second != first


def test_it_is_the_same_whatever_the_operator_s_python_leaves_out(store: WheelCache) -> None:
    own = wheel_of(store, {"puffin/__init__.py": b'"""What it is."""\n'})
    program = f"""
import sys
from pathlib import Path
from fleet.release.bytecode import bytecode_wheel
from fleet.release.wheels import Platform, Wheel, WheelCache
own = Wheel("puffin-fleet", "1.0", "", "{own.sha256}", Path("{own.path}"))
print(bytecode_wheel([own], Platform("{HERE}", "x86_64", "2.36"), WheelCache(Path("{store.root}")), print).path)
"""
    done = subprocess.run([sys.executable, "-OO", "-c", program], capture_output=True, text=True, check=True)
    with zipfile.ZipFile(done.stdout.splitlines()[-1]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".pyc")]
        assert b"What it is." in archive.read(name)


def test_hosts_with_another_python_compile_by_themselves(store: WheelCache) -> None:
    assert made_for(store, [wheel_of(store, FILES)], "3.99") == (None, [])
