from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.release.bundle import assemble, supply
from fleet.release.requirements import split_lock, worker_requirements
from fleet.release.tools import BundleError, ToolFailed, explain, run_tool
from fleet.release.wheels import (
    Platform,
    Wheel,
    WheelCache,
    digest,
    extract_program,
    parse_filename,
    repack,
    wheel_metadata,
    write_atomically,
    write_wheel,
)

HOST = Platform(python="3.11", machine="x86_64", libc_version="2.36")
REQUIRES = [
    "click>=8.1",
    "fabric>=3.2",
    "psutil>=5.9",
    "pymongo>=4.6",
    "pyyaml>=6.0",
    "rich>=13.7",
    "uv>=0.5",
    "scine-database>=1.4; extra == 'scine'",
    "tomli>=2; (python_version < '3.11') and extra == 'scine'",
    'ruff>=0.6; extra == "dev"',
]


def wheel(name: str, sha256: str = "0" * 64, version: str = "1.0") -> Wheel:
    filename = f"{name}-{version}-py3-none-any.whl"
    return Wheel(name, version, filename, sha256, Path(filename))


# Platforms and names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("Scine_Puffin-2.1.0-py3-none-any.whl", ("scine-puffin", "2.1.0", "py3-none-any")),
        ("a.b-1-2-cp311-abi3-linux_x86_64.whl", ("a-b", "1", "cp311-abi3-linux_x86_64")),
    ],
)
def test_parse_filename(filename: str, expected: tuple[str, str, str]) -> None:
    assert parse_filename(filename) == expected


@pytest.mark.parametrize("filename", ["scine-puffin-2.1.0.tar.gz", "x.whl", "a-1-none-any.whl", ""])
def test_not_a_wheel(filename: str) -> None:
    with pytest.raises(BundleError, match="not the name of a wheel"):
        parse_filename(filename)


@pytest.mark.parametrize(
    ("libc", "version", "machine", "accepted", "refused"),
    [
        ("glibc", "2.36", "x86_64", "manylinux_2_36_x86_64", "manylinux_2_37_x86_64"),
        ("glibc", "2.36", "x86_64", "manylinux2014_x86_64", "musllinux_1_1_x86_64"),
        ("glibc", "2.17", "aarch64", "manylinux2014_aarch64", "manylinux_2_28_aarch64"),
        ("glibc", "2.12", "x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"),
        ("musl", "1.2", "x86_64", "musllinux_1_1_x86_64", "manylinux_2_17_x86_64"),
    ],
)
def test_tags(libc: str, version: str, machine: str, accepted: str, refused: str) -> None:
    tags = Platform(python="3.11", machine=machine, libc=libc, libc_version=version).tags()
    assert accepted in tags
    assert refused not in tags


@pytest.mark.parametrize(
    ("libc", "version", "target"),
    [
        ("glibc", "2.36", "x86_64-manylinux_2_36"),
        ("glibc", "2.99", "x86_64-manylinux_2_40"),
        ("glibc", "2.30", "x86_64-manylinux_2_28"),
        ("glibc", "2.17", "x86_64-manylinux_2_17"),
        ("musl", "1.2", "x86_64-unknown-linux-musl"),
    ],
)
def test_uv_target_is_never_newer_than_the_host(libc: str, version: str, target: str) -> None:
    assert Platform("3.11", "x86_64", version, libc).uv_target() == target


def test_a_host_older_than_all_wheels_is_told_what_to_do() -> None:
    with pytest.raises(BundleError, match=r"glibc 2\.12 .*install: path"):
        Platform("3.11", "x86_64", "2.12").uv_target()


def test_pip_chooses_for_the_host_and_not_for_this_python() -> None:
    arguments = Platform("3.12", "aarch64", "2.28").pip_arguments()
    assert arguments[:4] == ["--python-version", "3.12", "--implementation", "cp"]
    assert "cp312" in arguments
    assert "manylinux_2_28_aarch64" in arguments


# Requirements ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extras", "expected"),
    [
        ([], ("click>=8.1", "psutil>=5.9", "pymongo>=4.6", "pyyaml>=6.0")),
        (
            ["scine"],
            (
                "click>=8.1",
                "psutil>=5.9",
                "pymongo>=4.6",
                "pyyaml>=6.0",
                "scine-database>=1.4",
                "tomli>=2; (python_version < '3.11')",
            ),
        ),
    ],
)
def test_worker_requirements(extras: list[str], expected: tuple[str, ...]) -> None:
    assert worker_requirements(REQUIRES, extras) == expected


def test_an_unknown_extra_is_named_beside_those_that_exist() -> None:
    with pytest.raises(BundleError, match="no extra named sciene; there are: dev, scine"):
        worker_requirements(REQUIRES, ["sciene"])


def test_split_lock() -> None:
    text = (
        "# made by uv\nclick==8.5.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "PyYAML==6 \\\n    --hash=sha256:cc\n"
    )
    entries = split_lock(text)
    assert [entry.name for entry in entries] == ["click", "pyyaml"]
    assert entries[0].text == "click==8.5.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb"


# Releases ----------------------------------------------------------------------------------------------


@given(st.permutations([wheel("a", "1" * 64), wheel("b", "2" * 64), wheel("c", "3" * 64)]))
def test_the_release_id_does_not_depend_on_the_order(others: list[Wheel]) -> None:
    own = wheel("puffin-fleet", "f" * 64, "0.1.0")
    bundle = assemble(own, others, HOST)
    assert bundle.release_id == assemble(own, sorted(others, key=lambda w: w.name), HOST).release_id
    assert bundle.release_id.startswith("0.1.0-")
    assert [one.name for one in bundle.wheels] == ["a", "b", "c", "puffin-fleet"]


def test_the_release_id_depends_on_content_and_platform() -> None:
    own = wheel("puffin-fleet", "f" * 64)
    ids = {
        assemble(own, [wheel("a", "1" * 64)], HOST).release_id,
        assemble(own, [wheel("a", "2" * 64)], HOST).release_id,
        assemble(own, [wheel("a", "1" * 64)], Platform("3.12", "x86_64", "2.36")).release_id,
        assemble(wheel("puffin-fleet", "e" * 64), [wheel("a", "1" * 64)], HOST).release_id,
    }
    assert len(ids) == 4


def test_the_release_id_does_not_depend_on_byte_code() -> None:
    """Which another machine may make of the same sources in other words: the hosts would be deployed for nothing."""
    own, others = wheel("puffin-fleet", "f" * 64), [wheel("a", "1" * 64)]
    bytecode = wheel("puffin-fleet-bytecode", "2" * 64)
    bundle = assemble(own, others, HOST, bytecode)
    assert bytecode in bundle.wheels
    assert bundle.release_id == assemble(own, others, HOST).release_id


def test_a_host_with_its_own_index_is_sent_only_what_no_index_has() -> None:
    own, built, theirs = wheel("puffin-fleet", "f" * 64), wheel("scine-puffin", "e" * 64), wheel("click", "1" * 64)
    compiled = wheel("puffin-fleet-bytecode", "2" * 64)
    indexed = supply((theirs, own, built, compiled), own_index=True)
    assert indexed.brought == (own, built, compiled)
    assert indexed.requirements == f"click==1.0 --hash=sha256:{'1' * 64}\n"
    pushed = supply((theirs, own, built), own_index=False)
    assert (set(pushed.brought), pushed.requirements) == ({theirs, own, built}, "")


def test_the_lock_names_each_file_by_its_hash() -> None:
    bundle = assemble(wheel("puffin-fleet", "f" * 64), [wheel("a", "1" * 64)], HOST)
    assert bundle.lock == (f"a==1.0 --hash=sha256:{'1' * 64}\npuffin-fleet==1.0 --hash=sha256:{'f' * 64}\n")


# Wheels as files ---------------------------------------------------------------------------------------

METADATA = b"Metadata-Version: 2.1\nName: sample\nVersion: 1.0\nRequires-Dist: click\n"


def sample_files(tag: str = "py3-none-any") -> dict[str, bytes]:
    return {
        "sample/__init__.py": b"VALUE = 1\n",
        "sample/data.txt": "Ångström\n".encode(),
        "sample-1.0.dist-info/METADATA": METADATA,
        "sample-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n".encode(),
        "sample-1.0.dist-info/entry_points.txt": b"[console_scripts]\nsample = sample:main\n",
    }


def installed(site: Path, tag: str = "py3-none-any") -> metadata.Distribution:
    """Lay out what an installer leaves behind: the wheel's files and notes and launchers of its own."""
    extra = {
        "sample/__pycache__/__init__.cpython-311.pyc": b"\0",
        "sample-1.0.dist-info/INSTALLER": b"uv",
        "sample-1.0.dist-info/direct_url.json": b"{}",
        "sample-1.0.dist-info/RECORD": b"",
    }
    files = {**sample_files(tag), **extra}
    files["sample-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in [*files, "../bin/sample"]).encode()
    for name, content in files.items():
        write_atomically(site / name, content)
    return metadata.Distribution.at(site / "sample-1.0.dist-info")


def test_a_wheel_is_made_again_from_an_installation(tmp_path: Path) -> None:
    path = repack(installed(tmp_path / "site"), tmp_path)
    assert path.name == "sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    record = contents.pop("sample-1.0.dist-info/RECORD").decode()
    assert contents == sample_files()
    sha256 = base64.urlsafe_b64encode(hashlib.sha256(b"VALUE = 1\n").digest()).decode().rstrip("=")
    assert f"sample/__init__.py,sha256={sha256},10" in record.splitlines()
    assert wheel_metadata(path)["Name"] == "sample"


def test_the_same_files_give_the_same_wheel(tmp_path: Path) -> None:
    names = ("first.whl", "second.whl")
    orders = (list(sample_files().items()), list(reversed(sample_files().items())))
    for name, files in zip(names, orders, strict=True):
        write_wheel(tmp_path / name, dict(files), "sample-1.0.dist-info")
    assert digest(tmp_path / names[0]) == digest(tmp_path / names[1])


def test_an_incomplete_installation_is_not_packed(tmp_path: Path) -> None:
    distribution = installed(tmp_path / "site")
    (tmp_path / "site/sample/data.txt").unlink()
    with pytest.raises(BundleError, match=r"sample cannot be packed \(missing .*data\.txt\).*install it again"):
        repack(distribution, tmp_path)


def test_a_platform_wheel_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a pure Python wheel"):
        repack(installed(tmp_path / "site", "cp311-cp311-linux_x86_64"), tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK not really", b"\0" * 100])
def test_a_broken_wheel_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken-1-py3-none-any.whl"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"broken-1-py3-none-any\.whl is not a readable wheel"):
        wheel_metadata(path)


# The cache ---------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> WheelCache:
    return WheelCache(tmp_path / "cache")


@pytest.fixture
def stored(cache: WheelCache, tmp_path: Path) -> Wheel:
    path = tmp_path / "sample-1.0-py3-none-any.whl"
    write_wheel(path, {**sample_files(), "sample-1.0.data/scripts/tool": b"#!tool"}, "sample-1.0.dist-info")
    return cache.add_copy(path)


def test_a_wheel_is_found_by_its_content(cache: WheelCache, stored: Wheel) -> None:
    assert stored.path == cache.root / "wheels" / stored.sha256 / "sample-1.0-py3-none-any.whl"
    assert digest(stored.path) == stored.sha256
    cache.remember("locks", "key", [stored])
    assert cache.recall("locks", "key") == (stored,)


@pytest.mark.parametrize("damage", ["delete", "change", "note"])
def test_what_is_damaged_is_not_recalled(cache: WheelCache, stored: Wheel, damage: str) -> None:
    cache.remember("locks", "key", [stored])
    if damage == "delete":
        stored.path.unlink()
    elif damage == "change":
        stored.path.write_bytes(b"half a wh")
    else:
        (cache.root / "locks/key.json").write_text("{")
    assert cache.recall("locks", "key") is None


def test_what_was_never_remembered_is_not_recalled(cache: WheelCache) -> None:
    assert cache.recall("locks", "key") is None


def test_a_program_is_taken_out_ready_to_run(stored: Wheel, tmp_path: Path) -> None:
    target = extract_program(stored, "tool", tmp_path / "tools" / "tool")
    assert target.read_bytes() == b"#!tool"
    assert target.stat().st_mode & 0o777 == 0o755
    with pytest.raises(BundleError, match="no program named uv"):
        extract_program(stored, "uv", tmp_path / "uv")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, None)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Running uv and pip ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "hint: Wheels are required for `scipy` because building from source is disabled",
            "There is no wheel of scipy for cp3.11 x86_64 glibc 2.36.",
        ),
        ("  Caused by: dns error: failed to lookup", "The package index cannot be reached"),
        (
            "WARNING: Retrying ... Failed to establish a new connection: [Errno 111]\n"
            "ERROR: No matching distribution found for click==8.5.1",
            "The package index cannot be reached",
        ),
        (
            "Because sciene-puffin was not found in the package registry and you require it",
            "The package index has no package sciene-puffin",
        ),
        ("ERROR: No matching distribution found for click==99", "no wheel of click==99 for cp3.11"),
        ("error: something else entirely", "Could not resolve."),
    ],
)
def test_failures_are_explained_and_shown(output: str, expected: str) -> None:
    message = str(explain(ToolFailed("Could not resolve.", output), HOST.label))
    assert expected in message
    assert output.splitlines()[-1].strip() in message


def test_only_the_end_of_a_long_output_is_shown() -> None:
    message = str(ToolFailed("Could not do it.", "\n".join(f"line {number}" for number in range(100))))
    assert "line 80" in message
    assert "line 79" not in message


def test_a_failing_program_shows_its_output_without_passwords() -> None:
    script = "echo fetching https://user:geheim@index.example/simple >&2; exit 3"
    with pytest.raises(ToolFailed, match=r"Could not fetch\.\n.*//\*\*\*@index\.example") as caught:
        run_tool(["sh", "-c", script], "fetch")
    assert "geheim" not in str(caught.value)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ToolFailed, match="Could not fetch: /nowhere/uv: No such file"):
        run_tool(["/nowhere/uv"], "fetch")
