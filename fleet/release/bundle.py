"""The wheels a host needs, made and fetched here, so that a host needs no internet.

A *bundle* is the project's own wheel and everything a worker imports, for one platform. A *toolbox* is what
installs and supervises a release: uv and supervisor. Both come out of a content-addressed cache; what was
resolved once is reused until a refresh is asked for, so a second deploy needs no network.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import fleet
from fleet.reach.execute import THIS_MACHINE
from fleet.release.tools import BundleError, ToolFailed, explain, run_tool, uv_program, uv_settings
from fleet.release.wheels import (
    Platform,
    Progress,
    Wheel,
    WheelCache,
    extract_program,
    normalised,
    parse_filename,
    repack,
    wheel_metadata,
    write_atomically,
)

__all__ = ["Bundle", "BundleError", "Platform", "Supply", "Toolbox", "Wheel", "build_bundle", "build_toolbox", "supply"]

PROJECT = "puffin-fleet"
WORKER_RUNTIME = frozenset({"click", "psutil", "pymongo", "pyyaml"})
"""The part of the project's requirements that the worker imports; the rest serves the controller."""

SOURCE_ONLY = frozenset({"scine-puffin"})
"""Published without a wheel although pure Python: built here, and only these are ever built."""

_OVERRIDES = Path(fleet.__file__).parent / "data" / "overrides.txt"
_SUPERVISOR = "supervisor>=4.3"
_PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "puffin", "fleet", "examples/molecules")
_REPRODUCIBLE = {"SOURCE_DATE_EPOCH": "1580601600"}


@dataclass(frozen=True)
class Bundle:
    """One release for one platform.

    Parameters
    ----------
    release_id
        ``<version>-<12 hex digits>``; equal content gives an equal id.
    version
        Version of the project's own wheel.
    platform
        What the wheels were chosen for.
    wheels
        All of them, the project's own included, sorted by name.
    lock
        Requirements file that names exactly these files by hash, for an installation without dependencies.
    """

    release_id: str
    version: str
    platform: Platform
    wheels: tuple[Wheel, ...]
    lock: str


@dataclass(frozen=True)
class Toolbox:
    """What a host needs beside releases.

    Parameters
    ----------
    supervisor
        Wheels of supervisor's own environment.
    supervisor_version, uv_version
        Exact versions, used in directory names on the host.
    uv
        The uv program for the host's platform, on this machine.
    """

    platform: Platform
    supervisor: tuple[Wheel, ...]
    supervisor_version: str
    uv: Path
    uv_version: str


@dataclass(frozen=True)
class Supply:
    """How an environment on a host comes to its wheels.

    Parameters
    ----------
    brought
        Those that are uploaded.
    requirements
        Requirements file of those that the host's own package index gives, by version and hash; empty for none.
    """

    brought: tuple[Wheel, ...]
    requirements: str = ""


def supply(wheels: Sequence[Wheel], own_index: bool) -> Supply:
    """Say how wheels come to a host.

    Parameters
    ----------
    wheels
        All of an environment.
    own_index
        Whether hosts ask their own package index. What was made here no index has: it is brought all the same.
    """
    if not own_index:
        return Supply(tuple(wheels))
    made_here = {PROJECT, *SOURCE_ONLY}
    brought = tuple(wheel for wheel in wheels if wheel.name in made_here)
    return Supply(brought, lock_of(wheel for wheel in wheels if wheel.name not in made_here))


def default_cache() -> Path:
    """Return the cache directory of the user: ``$XDG_CACHE_HOME/puffin-fleet``, else below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / PROJECT


def _quiet(_line: str) -> None:
    """Report no progress."""


def build_bundle(
    package: str,
    extras: Sequence[str],
    platform: Platform,
    cache: Path,
    progress: Progress = _quiet,
    *,
    refresh: bool = False,
) -> Bundle:
    """Make and fetch all wheels of one release for one platform.

    Parameters
    ----------
    package
        ``"auto"`` (what is running now), a source tree, a wheel, or a requirement for the package index.
    extras
        Extras of the project that its workers need, as in ``["scine"]``.
    platform
        Of the hosts.
    cache
        Directory that keeps wheels and resolutions.
    progress
        Called with a line at the start of each slow step.
    refresh
        Resolve again instead of reusing what was resolved before.

    Raises
    ------
    BundleError
        No network, no such package or extra, no wheel for this platform, or the project cannot be packed.
    """
    store = WheelCache(cache)
    with store.locked(progress):
        own = _own_wheel(package, store, progress, refresh)
        requires = wheel_metadata(own.path).get_all("Requires-Dist") or []
        resolver = _Resolver(store, platform, progress, refresh)
        others = resolver.resolve(worker_requirements(requires, extras))
    return assemble(own, others, platform)


def build_toolbox(platform: Platform, cache: Path, progress: Progress = _quiet, *, refresh: bool = False) -> Toolbox:
    """Fetch supervisor and uv for one platform.

    Parameters
    ----------
    platform, cache, progress, refresh
        As in `build_bundle`.

    Raises
    ------
    BundleError
        No network, or no wheel for this platform.
    """
    store = WheelCache(cache)
    with store.locked(progress):
        resolver = _Resolver(store, platform, progress, refresh)
        supervisor = resolver.resolve([_SUPERVISOR])
        version = metadata.version("uv")
        uv = _installed_uv(platform) or _downloaded_uv(resolver, version)
    return Toolbox(
        platform=platform,
        supervisor=supervisor,
        supervisor_version=next(wheel.version for wheel in supervisor if wheel.name == "supervisor"),
        uv=uv,
        uv_version=version,
    )


def assemble(own: Wheel, others: Iterable[Wheel], platform: Platform) -> Bundle:
    """Put a bundle together; the release id depends on the content of the wheels and the platform alone.

    Parameters
    ----------
    own
        The wheel of this project.
    others
        All that it needs.
    platform
        Of the hosts.
    """
    wheels = tuple(sorted([own, *others], key=lambda wheel: wheel.name))
    content = "\n".join([*sorted(wheel.sha256 for wheel in wheels), platform.label])
    release_id = f"{own.version}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    return Bundle(release_id, own.version, platform, wheels, lock_of(wheels))


def lock_of(wheels: Iterable[Wheel]) -> str:
    """Return a requirements file that accepts exactly these files."""
    return "".join(f"{wheel.requirement}\n" for wheel in wheels)


# What the worker requires ------------------------------------------------------------------------------


def worker_requirements(requires: Iterable[str], extras: Sequence[str]) -> tuple[str, ...]:
    """Choose from the project's requirements those that its workers need.

    Parameters
    ----------
    requires
        The ``Requires-Dist`` lines of the project.
    extras
        Chosen extras; all that they name is taken, whatever it is.

    Raises
    ------
    BundleError
        An extra does not exist.
    """
    lines = [_split_extra(line) for line in requires]
    known = {extra for _, extra in lines if extra}
    wanted = {normalised(extra) for extra in extras}
    if wanted - known:
        raise BundleError(
            f"release.extras: {PROJECT} has no extra named {', '.join(sorted(wanted - known))}; "
            f"there are: {', '.join(sorted(known))}."
        )
    chosen = {line for line, extra in lines if (extra in wanted if extra else _name(line) in WORKER_RUNTIME)}
    return tuple(sorted(chosen))


def _split_extra(line: str) -> tuple[str, str]:
    """Split a requirement into what is required and the extra that asks for it ("" if none does)."""
    found = re.search(r"""(?:\s+and\s+)?extra\s*==\s*['"]([^'"]+)['"]""", line)
    if found is None:
        return line.strip(), ""
    rest = (line[: found.start()] + line[found.end() :]).strip()
    return rest.removesuffix(";").strip(), normalised(found[1])


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return normalised(found[0]) if found else ""


# The project's own wheel -------------------------------------------------------------------------------


def source_tree() -> Path | None:
    """Return the source tree that this code runs from, or None if it runs from an installed wheel."""
    root = Path(fleet.__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def _own_wheel(package: str, store: WheelCache, progress: Progress, refresh: bool) -> Wheel:
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
    key = _key(*(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in files.items()))
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
        run_tool([*command, "--offline"], "build the project's wheel", _REPRODUCIBLE)
    except ToolFailed:  # the build backend is not in uv's cache yet
        try:
            run_tool(command, "build the project's wheel", {**_REPRODUCIBLE, **uv_settings()})
        except ToolFailed as failure:
            raise explain(failure) from failure
    return next(out.glob("*.whl"))


def _repacked(store: WheelCache) -> Wheel:
    with store.workspace() as work:
        return store.add(repack(metadata.distribution(PROJECT), work))


def _from_index(requirement: str, store: WheelCache, progress: Progress, refresh: bool) -> Wheel:
    known = None if refresh else store.recall("own", _key(requirement))
    if known:
        return known[0]
    progress(f"fetching {requirement}")
    with store.workspace() as work:
        _pip(["download", "--only-binary=:all:", "--dest", str(work), requirement], f"fetch {requirement}")
        wheel = store.add(next(work.glob("*.whl")))
    store.remember("own", _key(requirement), [wheel])
    return wheel


# Resolving and fetching --------------------------------------------------------------------------------


@dataclass(frozen=True)
class LockEntry:
    """One requirement of a lock file, with its hashes."""

    name: str
    text: str


def split_lock(text: str) -> tuple[LockEntry, ...]:
    """Split the output of ``uv pip compile --generate-hashes`` into its requirements."""
    blocks = re.split(r"\n(?=\S)", text.strip())
    return tuple(LockEntry(_name(block), block) for block in blocks if re.match(r"[A-Za-z0-9]", block))


@dataclass(frozen=True)
class _Resolver:
    """Turns requirements into wheels in the cache, for one platform."""

    store: WheelCache
    platform: Platform
    progress: Progress
    refresh: bool

    def resolve(self, requirements: Sequence[str]) -> tuple[Wheel, ...]:
        key = _key(*sorted(requirements), self.platform.label, _OVERRIDES.read_text(encoding="utf-8"))
        known = None if self.refresh else self.store.recall("locks", key)
        if known is not None:
            return known
        lock = self.store.root / "locks" / f"{key}.txt"
        if self.refresh or not lock.is_file():
            self.progress(f"resolving requirements for {self.platform.label}")
            write_atomically(lock, self._compile(requirements).encode())
        wheels = self._fetch(split_lock(lock.read_text(encoding="utf-8")))
        self.store.remember("locks", key, wheels)
        return wheels

    def _compile(self, requirements: Sequence[str]) -> str:
        with self.store.workspace() as work:
            source = work / "requirements.in"
            source.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            command = [
                *(uv_program(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
                *("--generate-hashes", "--overrides", str(_OVERRIDES), "--python", sys.executable),
                *("--python-version", self.platform.python, "--python-platform", self.platform.uv_target()),
                *("--only-binary", ":all:", str(source)),
                *(word for name in sorted(SOURCE_ONLY) for word in ("--no-binary", name)),
            ]
            return self._explained(command, "resolve the requirements", uv_settings())

    def _fetch(self, entries: Sequence[LockEntry]) -> tuple[Wheel, ...]:
        ready = [entry for entry in entries if entry.name not in SOURCE_ONLY]
        built = [self._build_pure(entry) for entry in entries if entry.name in SOURCE_ONLY]
        self.progress(f"fetching {len(ready)} wheels for {self.platform.label}")
        with self.store.workspace() as work:
            arguments = ["--only-binary=:all:", *self.platform.pip_arguments(), "--dest", str(work)]
            self._pip("download", arguments, ready, work, "fetch the wheels")
            fetched = [self.store.add(path) for path in sorted(work.glob("*.whl"))]
        return tuple(sorted([*fetched, *built], key=lambda wheel: wheel.name))

    def _build_pure(self, entry: LockEntry) -> Wheel:
        known = self.store.recall("built", _key(entry.text))
        if known:
            return known[0]
        self.progress(f"building {entry.name}, which is published without a wheel")
        with self.store.workspace() as work:
            self._pip("wheel", ["--wheel-dir", str(work)], [entry], work, f"build {entry.name}")
            path = next(work.glob("*.whl"))
            if not path.name.endswith("-none-any.whl"):
                raise BundleError(f"{entry.name} is no longer pure Python ({path.name}): it needs a wheel.")
            wheel = self.store.add(path)
        self.store.remember("built", _key(entry.text), [wheel])
        return wheel

    def _pip(self, verb: str, arguments: Sequence[str], entries: Sequence[LockEntry], work: Path, what: str) -> None:
        lock = work / "lock.txt"
        lock.write_text("\n".join(entry.text for entry in entries) + "\n", encoding="utf-8")
        _pip([verb, *arguments, "--require-hashes", "--requirement", str(lock)], what, self.platform)

    def _explained(self, command: Sequence[str], what: str, environment: Mapping[str, str]) -> str:
        try:
            return run_tool(command, what, environment)
        except ToolFailed as failure:
            raise explain(failure, self.platform.label) from failure


def _pip(arguments: Sequence[str], what: str, platform: Platform | None = None) -> None:
    verb, *rest = arguments
    command = [sys.executable, "-m", "pip", verb, "--no-deps", "--no-input", *rest]
    try:
        run_tool(command, what, {**_REPRODUCIBLE, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    except ToolFailed as failure:
        raise explain(failure, platform.label if platform else THIS_MACHINE) from failure


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


# uv for the hosts ---------------------------------------------------------------------------------------


def _installed_uv(platform: Platform) -> Path | None:
    """Return this machine's uv where it runs on the hosts too, which saves a download."""
    here = Platform.here()
    same = (here.machine, here.libc) == (platform.machine, platform.libc)
    tags = metadata.distribution("uv").read_text("WHEEL") or ""
    fits = any(f"-none-{tag}\n" in f"{tags}\n" for tag in platform.tags())
    return Path(uv_program()) if same and fits else None


def _downloaded_uv(resolver: _Resolver, version: str) -> Path:
    (wheel,) = resolver.resolve([f"uv=={version}"])
    return extract_program(wheel, "uv", resolver.store.root / "tools" / wheel.sha256 / "uv")
