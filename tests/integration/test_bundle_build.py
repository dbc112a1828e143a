"""Bundles from the real package index, installed without one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

import fleet.release.bundle
from fleet.release.bundle import Bundle, build_bundle, build_toolbox
from fleet.release.tools import BundleError, uv_program
from fleet.release.wheels import Platform, Wheel, WheelCache

ROOT = Path(__file__).resolve().parents[2]
HERE = Platform.here()
NO_NETWORK = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_RETRIES": "0",
    "PIP_NO_CACHE_DIR": "1",
    "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
    "UV_HTTP_RETRIES": "0",
    "UV_NO_CACHE": "1",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, so that an edit during the tests changes nothing."""
    return copy_of_the_tree(ROOT, tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def bundle(tree: Path, cache: Path) -> Bundle:
    return build_bundle(str(tree), [], HERE, cache)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_what_a_worker_imports_and_nothing_of_the_manager(bundle: Bundle) -> None:
    names = {wheel.name for wheel in bundle.wheels}
    assert {"puffin-fleet", "pymongo", "psutil", "pyyaml", "click"} <= names
    assert not names & {"fabric", "paramiko", "pydantic", "rich", "textual", "supervisor", "uv", "pip"}


def test_a_worker_finds_compiled_what_it_imports(release: Path) -> None:
    shown = subprocess.run(
        [release / "bin/python", "-I", "-v", "-c", "import puffin.cli, puffin.daemon"], capture_output=True, text=True
    ).stderr
    assert "pymongo/__pycache__/collection" in shown
    # What Python has to compile it writes down.
    assert [line for line in shown.splitlines() if line.startswith("# wrote") and "site-packages" in line] == []


@pytest.fixture(scope="module")
def release(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment made from the bundle alone."""
    place = tmp_path_factory.mktemp("release")
    python, lock = place / "venv" / "bin" / "python", place / "lock.txt"
    lock.write_text(bundle.lock)
    links = [word for wheel in bundle.wheels for word in ("--find-links", wheel.path.parent)]
    options = ("--offline", "--no-index", "--no-deps", "--require-hashes")
    run(uv_program(), "venv", "--quiet", "--python", sys.executable, place / "venv")
    run(uv_program(), "pip", "install", "--quiet", "--python", python, *options, *links, "-r", lock)
    return place / "venv"


def test_it_installs_offline_and_the_worker_starts(bundle: Bundle, release: Path) -> None:
    script = "import puffin, pathlib; print(puffin.__version__, pathlib.Path(puffin.__file__).parents[4])"
    assert run(release / "bin/python", "-P", "-c", script).split() == [bundle.version, str(release)]
    assert "container" in run(release / "bin/puffin", "--help")


def test_an_installed_project_is_packed_again_as_it_was(bundle: Bundle, release: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\nfrom importlib.metadata import distribution\nfrom fleet.release.wheels import repack\n"
        "print(repack(distribution('puffin-fleet'), pathlib.Path(sys.argv[1])))"
    )
    packed = Path(run(release / "bin/python", "-P", "-c", script, tmp_path).strip())
    original = own_wheel(bundle)
    assert packed.name == original.filename
    assert contents(packed) == contents(original.path)


def test_auto_takes_the_code_that_is_running(cache: Path) -> None:
    own = own_wheel(build_bundle("auto", [], HERE, cache))
    source = Path(fleet.release.bundle.__file__)
    assert contents(own.path)["fleet/release/bundle.py"] == source.read_bytes()
    assert "fleet/data/overrides.txt" in contents(own.path)
    assert "fleet/data/molecules/water.xyz" in contents(own.path)


def test_a_second_bundle_needs_no_network(bundle: Bundle, tree: Path, cache: Path, no_network: None) -> None:
    steps: list[str] = []
    assert build_bundle(str(tree), [], HERE, cache, steps.append) == bundle
    assert steps == []


def test_an_unchanged_tree_gives_the_same_wheel_in_another_place(bundle: Bundle, tree: Path, tmp_path: Path) -> None:
    copy = copy_of_the_tree(tree, tmp_path / "elsewhere")
    again = build_bundle(str(copy), [], HERE, tmp_path / "cache")
    assert again.release_id == bundle.release_id
    assert own_wheel(again).sha256 == own_wheel(bundle).sha256


def test_a_changed_tree_gives_another_release(bundle: Bundle, tree: Path, cache: Path, tmp_path: Path) -> None:
    copy = copy_of_the_tree(tree, tmp_path / "changed")
    with (copy / "puffin" / "errors.py").open("a") as source:
        source.write("# changed\n")
    changed = build_bundle(str(copy), [], HERE, cache)
    assert own_wheel(changed) != own_wheel(bundle)
    assert changed.release_id != bundle.release_id
    assert changed.version == bundle.version


def test_a_wheel_can_be_given(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    own = own_wheel(bundle)
    given = tmp_path / own.filename
    shutil.copyfile(own.path, given)
    assert build_bundle(str(given), [], HERE, cache) == bundle
    assert given.is_file()


def test_a_deleted_wheel_is_fetched_again(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    own = own_wheel(bundle)
    first = build_bundle(str(own.path), [], HERE, cache)
    next(wheel for wheel in first.wheels if wheel.name == "click").path.unlink()
    assert build_bundle(str(own.path), [], HERE, cache) == first
    assert all(wheel.path.is_file() for wheel in first.wheels)


def test_another_platform_gets_wheels_of_its_own(bundle: Bundle, tree: Path, cache: Path) -> None:
    machine = "aarch64" if HERE.machine == "x86_64" else "x86_64"
    other = build_bundle(str(tree), [], Platform("3.12", machine, "2.28"), cache)
    native = next(wheel.filename for wheel in other.wheels if wheel.name == "psutil")
    assert machine in native
    assert own_wheel(other) == own_wheel(bundle)
    assert other.release_id != bundle.release_id


def unpacked(packed: Path, directory: Path) -> Path:
    program = directory / "program"
    program.write_bytes(zlib.decompress(packed.read_bytes()))
    program.chmod(0o755)
    return program


def test_the_toolbox_holds_supervisor_and_a_uv_that_runs(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toolbox = build_toolbox(HERE, cache)
    assert "supervisor" in {wheel.name for wheel in toolbox.supervisor}
    program = unpacked(toolbox.uv, tmp_path)
    assert toolbox.uv_version in run(program, "--version")
    assert toolbox.uv.stat().st_size < program.stat().st_size / 2
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    assert build_toolbox(HERE, cache) == toolbox
    # As a machine leaves it that lost its power: every host would refuse it.
    toolbox.uv.write_bytes(b"")
    assert build_toolbox(HERE, cache) == toolbox
    assert unpacked(toolbox.uv, tmp_path).read_bytes() == Path(uv_program()).read_bytes()


def test_a_host_of_another_kind_gets_a_uv_of_its_own(cache: Path, tmp_path: Path) -> None:
    machine = "aarch64" if HERE.machine == "x86_64" else "x86_64"
    uv = unpacked(build_toolbox(Platform("3.11", machine, "2.28"), cache).uv, tmp_path)
    header = uv.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == {"aarch64": 183, "x86_64": 62}[machine]


def test_without_network_the_message_says_so(tmp_path: Path, bundle: Bundle, no_network: None) -> None:
    own = own_wheel(bundle)
    with pytest.raises(BundleError, match="package index cannot be reached from this machine"):
        build_bundle(str(own.path), [], HERE, tmp_path / "empty")
    assert list((tmp_path / "empty").glob("work-*")) == []


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("./no/such/tree", r"release\.package: \./no/such/tree does not exist"),
        ("puffin_fleet-9-py3-none-any.whl", r"release\.package: puffin_fleet-9-py3-none-any\.whl does not"),
        ("puffin-fleet-that-nobody-published==1", "no wheel of puffin-fleet-that-nobody-published==1"),
    ],
)
def test_a_package_that_is_not_there(package: str, message: str, cache: Path) -> None:
    with pytest.raises(BundleError, match=message):
        build_bundle(package, [], HERE, cache)


def test_a_directory_that_is_not_the_project(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a source tree of puffin-fleet"):
        build_bundle(str(tmp_path), [], HERE, cache)


def test_a_python_that_has_no_wheels_is_named(bundle: Bundle, cache: Path) -> None:
    own = own_wheel(bundle)
    ancient = Platform("3.11", HERE.machine.replace("x86_64", "riscv64"), "2.36")
    with pytest.raises(BundleError, match="riscv64"):
        build_bundle(str(own.path), [], ancient, cache)


def test_two_runs_at_once_wait_for_each_other(tmp_path: Path) -> None:
    store = WheelCache(tmp_path)
    held = subprocess.Popen(["flock", str(tmp_path / "lock"), "cat"], stdin=subprocess.PIPE)
    assert held.stdin is not None
    try:
        while subprocess.run(["flock", "--nonblock", str(tmp_path / "lock"), "true"]).returncode == 0:
            assert held.poll() is None
        steps: list[str] = []

        def on_progress(line: str) -> None:
            steps.append(line)
            held.communicate(b"")  # the other run ends only after we were seen to wait

        with store.locked(on_progress):
            assert steps == ["waiting for another run that uses the same cache"]
    finally:
        held.kill()
        held.wait()


def own_wheel(bundle: Bundle) -> Wheel:
    return next(wheel for wheel in bundle.wheels if wheel.name == "puffin-fleet")


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


def copy_of_the_tree(source: Path, target: Path) -> Path:
    for name in ("puffin", "fleet", "examples"):
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(source / name, target / name)
    return target
