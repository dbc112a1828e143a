"""The wheels a host needs, made and fetched here, so that a host needs no internet.

A *bundle* is the project's own wheel and everything a worker imports, for one platform. A *toolbox* is what
installs and supervises a release: uv and supervisor. Both come out of a content-addressed cache; what was
resolved once is reused until a refresh is asked for, so a second deploy needs no network.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fleet.release.bytecode import bytecode_wheel
from fleet.release.own_wheel import own_wheel
from fleet.release.requirements import BYTECODE, PROJECT, SOURCE_ONLY, worker_requirements
from fleet.release.resolver import Resolver
from fleet.release.tools import uv_program
from fleet.release.wheels import (
    Platform,
    Progress,
    Wheel,
    WheelCache,
    digest,
    extract_program,
    wheel_metadata,
    write_atomically,
)

_SUPERVISOR = "supervisor>=4.3"


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
        The uv program for the host's platform, on this machine, packed by zlib.
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
    made_here = {PROJECT, BYTECODE, *SOURCE_ONLY}
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
        own = own_wheel(package, store, progress, refresh)
        requires = wheel_metadata(own.path).get_all("Requires-Dist") or []
        resolver = Resolver(store, platform, progress, refresh)
        others = resolver.resolve(worker_requirements(requires, extras))
        bytecode = bytecode_wheel([own, *others], platform, store, progress)
    return assemble(own, others, platform, bytecode)


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
        resolver = Resolver(store, platform, progress, refresh)
        supervisor = resolver.resolve([_SUPERVISOR])
        version = metadata.version("uv")
        program = _installed_uv(platform) or _downloaded_uv(resolver, version)
        uv = _packed(program, f"uv-{version}-{platform.machine}-{platform.libc}", store.root, progress)
    return Toolbox(
        platform=platform,
        supervisor=supervisor,
        supervisor_version=next(wheel.version for wheel in supervisor if wheel.name == "supervisor"),
        uv=uv,
        uv_version=version,
    )


def assemble(own: Wheel, others: Sequence[Wheel], platform: Platform, bytecode: Wheel | None = None) -> Bundle:
    """Put a bundle together; the release id depends on the content of the wheels and the platform alone.

    It does not depend on byte code, which follows from the wheels, but need not be the same bytes wherever it is made.

    Parameters
    ----------
    own
        The wheel of this project.
    others
        All that it needs.
    platform
        Of the hosts.
    bytecode
        What was compiled of them; None for nothing.
    """
    content = "\n".join([*sorted(wheel.sha256 for wheel in (own, *others)), platform.label])
    release_id = f"{own.version}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    everything = [own, *others, *([bytecode] if bytecode else [])]
    wheels = tuple(sorted(everything, key=lambda wheel: wheel.name))
    return Bundle(release_id, own.version, platform, wheels, lock_of(wheels))


def lock_of(wheels: Iterable[Wheel]) -> str:
    """Return a requirements file that accepts exactly these files."""
    return "".join(f"{wheel.requirement}\n" for wheel in wheels)


# uv for the hosts ---------------------------------------------------------------------------------------


def _installed_uv(platform: Platform) -> Path | None:
    """Return this machine's uv where it runs on the hosts too, which saves a download."""
    here = Platform.here()
    same = (here.machine, here.libc) == (platform.machine, platform.libc)
    tags = metadata.distribution("uv").read_text("WHEEL") or ""
    fits = any(f"-none-{tag}\n" in f"{tags}\n" for tag in platform.tags())
    return Path(uv_program()) if same and fits else None


def _packed(program: Path, name: str, cache: Path, progress: Progress) -> Path:
    """The program packed by zlib, less than half as large: many hosts may be sent it over a slow line."""
    directory, name = cache / "tools" / "packed", f"{name}-{program.stat().st_size}"
    for path in directory.glob(f"{name}-*"):
        if digest(path) == path.name.removeprefix(f"{name}-"):
            return path
        path.unlink(missing_ok=True)  # damaged, such as by a machine that lost its power
    progress("packing uv")
    content = zlib.compress(program.read_bytes())
    path = directory / f"{name}-{hashlib.sha256(content).hexdigest()}"
    write_atomically(path, content)
    return path


def _downloaded_uv(resolver: Resolver, version: str) -> Path:
    (wheel,) = resolver.resolve([f"uv=={version}"])
    return extract_program(wheel, "uv", resolver.store.root / "tools" / wheel.sha256 / "uv")
