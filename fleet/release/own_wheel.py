"""The project's own wheel: built from a source tree, made again from what is installed, or fetched."""

from __future__ import annotations

import hashlib
import sys
from importlib import metadata
from pathlib import Path

import fleet
from fleet.release.requirements import PROJECT
from fleet.release.tools import (
    REPRODUCIBLE,
    BundleError,
    ToolFailed,
    explain,
    run_pip,
    run_tool,
    uv_program,
    uv_settings,
)
from fleet.release.wheels import Progress, Wheel, WheelCache, cache_key, parse_filename, repack, write_atomically

_PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "puffin", "fleet", "examples/molecules")


def source_tree() -> Path | None:
    """Return the source tree that this code runs from, or None if it runs from an installed wheel."""
    root = Path(fleet.__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def own_wheel(package: str, store: WheelCache, progress: Progress, refresh: bool) -> Wheel:
    """Make or fetch the project's own wheel.

    Parameters
    ----------
    package, progress, refresh
        As in `fleet.release.bundle.build_bundle`.
    store
        Keeps it.

    Raises
    ------
    BundleError
        There is no such package, or it cannot be packed.
    """
    path = Path(package).expanduser()
    if package == "auto":
        tree = source_tree()
        return _built_from(tree, store, progress) if tree else _repacked(store)
    if path.is_dir():
        return _built_from(path, store, progress)
    if path.is_file():
        parse_filename(path.name)
        return store.add_copy(path)
    if "/" in package or package.endswith(".whl"):
        raise BundleError(f"release.package: {package} does not exist.")
    return _from_index(package, store, progress, refresh)


def _built_from(tree: Path, store: WheelCache, progress: Progress) -> Wheel:
    files = _packaged_files(tree)
    key = cache_key(*(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in files.items()))
    known = store.recall("built", key)
    if known:
        return known[0]
    progress(f"building the wheel of {tree}")
    with store.workspace() as work:
        for name, content in files.items():
            write_atomically(work / "tree" / name, content)
        wheel = store.add(_build(work / "tree", work / "out"))
    store.remember("built", key, [wheel])
    return wheel


def _packaged_files(tree: Path) -> dict[str, bytes]:
    """Read what goes into the wheel, once: what is hashed is then what is built."""
    if not all((tree / name).exists() for name in ("pyproject.toml", "puffin", "fleet")):
        raise BundleError(f"release.package: {tree} is not a source tree of {PROJECT}.")
    paths = [path for name in _PACKAGED for path in sorted([tree / name, *(tree / name).rglob("*")])]
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in paths
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }


def _build(tree: Path, out: Path) -> Path:
    command = [uv_program(), "build", "--wheel", "--python", sys.executable, "--out-dir", str(out), str(tree)]
    try:
        run_tool([*command, "--offline"], "build the project's wheel", REPRODUCIBLE)
    except ToolFailed:  # the build backend is not in uv's cache yet
        try:
            run_tool(command, "build the project's wheel", {**REPRODUCIBLE, **uv_settings()})
        except ToolFailed as failure:
            raise explain(failure) from failure
    return next(out.glob("*.whl"))


def _repacked(store: WheelCache) -> Wheel:
    with store.workspace() as work:
        return store.add(repack(metadata.distribution(PROJECT), work))


def _from_index(requirement: str, store: WheelCache, progress: Progress, refresh: bool) -> Wheel:
    known = None if refresh else store.recall("own", cache_key(requirement))
    if known:
        return known[0]
    progress(f"fetching {requirement}")
    with store.workspace() as work:
        run_pip(["download", "--only-binary=:all:", "--dest", str(work), requirement], f"fetch {requirement}")
        wheel = store.add(next(work.glob("*.whl")))
    store.remember("own", cache_key(requirement), [wheel])
    return wheel
