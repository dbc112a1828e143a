"""What is to be installed on the hosts of each platform, or which release they have that they can go back to."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import FleetError, RemoteError
from fleet.hosts.hostsfile import Release
from fleet.hosts.names import condensed
from fleet.reach.execute import Say
from fleet.reach.facts import Facts
from fleet.release.bundle import Bundle, Toolbox, build_bundle, build_toolbox
from fleet.release.wheels import Platform

EXISTING = "existing"
"""Stands for supervisor's version where an existing environment brings it."""

PREVIOUS = "previous"
"""Stands for the release that a host had before its present one."""


@dataclass(frozen=True)
class Kit:
    """What is installed on hosts of one platform.

    Parameters
    ----------
    release
        Id of the release.
    supervisor
        Directory of supervisor below that of all its versions, or `EXISTING`.
    bundle, toolbox
        The wheels and tools for it; None where it is there already.
    """

    release: str
    supervisor: str
    bundle: Bundle | None = None
    toolbox: Toolbox | None = None


def platform_of(facts: Facts) -> Platform:
    """What wheels for a host must fit.

    Raises
    ------
    RemoteError
        There are no wheels for its Python.
    """
    python = facts.python
    if python.implementation != "cpython" or python.libc not in {"glibc", "musl"}:
        what = f"{python.implementation} {python.version} with the C library '{python.libc or 'unknown'}'"
        raise RemoteError(facts.host, "choosing wheels", f"no wheels for {what}", "set release.python to a CPython")
    version = ".".join(python.version.split(".")[:2])
    return Platform(python=version, machine=python.machine, libc_version=python.libc_version, libc=python.libc)


def kits_for(
    release: Release, found: Sequence[Facts], cache: Path, say: Say, *, refresh: bool
) -> dict[Platform, Kit | FleetError]:
    """What to install on each platform, or why there is nothing; that concerns only the hosts of that platform.

    Parameters
    ----------
    release
        What hosts.yaml says of it.
    found
        The hosts.
    cache
        Where wheels are kept on this machine.
    say
        Told what takes long.
    refresh
        Whether to look for newer versions of what is required.
    """
    platforms: list[Platform] = []
    for facts in found:
        with contextlib.suppress(RemoteError):  # It is reported for its host.
            platforms.append(platform_of(facts))
    kits: dict[Platform, Kit | FleetError] = {}
    for platform in dict.fromkeys(platforms):
        try:
            kits[platform] = _kit(release, platform, cache, say, refresh)
        except FleetError as error:
            kits[platform] = error
    return kits


def _kit(release: Release, platform: Platform, cache: Path, say: Say, refresh: bool) -> Kit:
    if release.path is not None:
        return Kit(_path_release(release.path), EXISTING)
    bundle = build_bundle(release.package, release.extras, platform, cache, say, refresh=refresh)
    toolbox = build_toolbox(platform, cache, say, refresh=refresh)
    return Kit(bundle.release_id, tool_directory(toolbox.supervisor_version, platform), bundle, toolbox)


def refuse_mixture(found: Sequence[Facts]) -> None:
    """Refuse to go back to `PREVIOUS` where that is one release here and another there.

    So it is after a deploy that came to some hosts only. Hosts of different platforms never have a release in common.
    """
    releases: dict[str, dict[str, list[str]]] = {}
    for facts in found:
        if facts.previous is not None:
            releases.setdefault(_family(facts), {}).setdefault(facts.previous, []).append(facts.host)
    mixed = [family for family in releases.values() if len(family) > 1]
    if mixed:
        lines = [f"{condensed(hosts)}: {release}" for family in mixed for release, hosts in family.items()]
        what = "nothing was changed: the hosts would go back to different releases:\n    " + "\n    ".join(lines)
        hint = "if an earlier rollback was cut off, say the release that it went to: --release ID; or choose hosts"
        raise FleetError(f"{what}\n  {hint} with --host")


def _family(facts: Facts) -> str:
    """The same for hosts that may have a release in common."""
    try:
        return platform_of(facts).label
    except RemoteError:
        return ""


def kit_there(release: str, facts: Facts) -> Kit:
    """A release that a host has already, with the supervisor that it uses now; the last part of its id may do."""
    have = [known.id for known in facts.releases]
    alike = [known for known in have if known.endswith(f"-{release}")]
    wanted = facts.previous if release == PREVIOUS else alike[0] if len(alike) == 1 else release
    if facts.supervisor is None or wanted not in have:
        what = f"it has no {'previous release' if wanted is None else f'release {wanted}'}"
        raise RemoteError(facts.host, "looking", what, f"its releases are {', '.join(have) or 'none'}")
    place, _, name = facts.supervisor.rpartition("/")
    return Kit(wanted, name if place.endswith("/supervisor") else EXISTING)


def tool_directory(version: str, platform: Platform) -> str:
    """Name of the directory of a tool: hosts of several platforms may share a home directory.

    Parameters
    ----------
    version
        The tool's version.
    platform
        What it was chosen for.
    """
    return f"{version}-{hashlib.sha256(platform.label.encode()).hexdigest()[:8]}"


def _path_release(path: str) -> str:
    return f"path-{hashlib.sha256(path.encode()).hexdigest()[:12]}"
