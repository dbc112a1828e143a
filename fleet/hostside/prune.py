"""Action `prune`: remove installations that nothing needs any more.

Request: fleet_root, keep (newest releases to keep), used [releases and supervisors that must stay, whatever is seen
here], carry_out (bool; else only look), only [paths] (null: all that is found), host_root, lock (token, or null).
Reply: removals [{kind, name, path, bytes}], kept [{name, why}], frees (bytes), in_use [releases], hosts [all that
keep their directories here], removed (bool).

Kinds: release, wheel, tool, supervisor, cache. What is removed is worked out again when it is carried out, under the
locks of installations. A release stays if any host directory here names it (current, previous, good, good-before), if
a process on this machine uses it, or if it is among the newest.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Failure, Json, locked, os_failure, read_text
from fleet.hostside.guard import read_holder, require_lock, still_locked
from fleet.hostside.installed import COMPLETE, Environment, environments, wheels_of
from fleet.hostside.processes import own_processes
from fleet.hostside.sizes import freed_by, freed_by_each

STEP = "pruning"
_LOCK_S = 600.0
_REFERENCES = {
    "current": "current",
    "previous": "previous",
    "good/release": "good",
    "good-before/release": "good before",
}
_WORTH_REMOVING = 1 << 20


class Removal(NamedTuple):
    """Something that nothing needs.

    Parameters
    ----------
    kind
        Such as release or wheel.
    path
        Where it is.
    """

    kind: str
    path: Path

    def as_reply(self, size: int) -> Json:
        """As it goes over the connection, with the bytes that removing it gives back.

        Parameters
        ----------
        size
            The bytes.
        """
        return {"kind": self.kind, "name": self.path.name, "path": str(self.path), "bytes": size}


def main(request: Json) -> Json:
    """Look, and remove if that is asked for.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The lock that it names is not ours any more, another host of the fleet is being changed, or something
        cannot be removed.
    """
    require_lock(request)
    fleet = Path(request["fleet_root"])
    if not request["carry_out"] or not fleet.is_dir():
        return _reply(fleet, *_look(fleet, request), removed=False)
    _refuse_locked(fleet, request.get("lock"))
    with (
        locked(fleet / "releases" / ".lock", _LOCK_S, STEP),
        still_locked(request, fleet / "supervisor" / ".lock", _LOCK_S, STEP),
    ):
        _refuse_locked(fleet, request.get("lock"))  # once more: that may have been waited for
        removals, kept, in_use = _look(fleet, request)
        only = request.get("only")
        chosen = [one for one in removals if only is None or str(one.path) in only]
        reply = _reply(fleet, chosen, kept, in_use, removed=True)
        for removal in chosen:
            _remove(removal.path)
    return reply


def _reply(fleet: Path, removals: Sequence[Removal], kept: dict[str, str], in_use: set[str], removed: bool) -> Json:
    sizes = freed_by_each(removal.path for removal in removals)
    return {
        "removals": [removal.as_reply(size) for removal, size in zip(removals, sizes, strict=True)],
        "kept": [{"name": name, "why": why} for name, why in kept.items()],
        "frees": sum(sizes),
        "in_use": sorted(in_use),
        "hosts": sorted(path.name for path in (fleet / "hosts").glob("*")),
        "removed": removed,
    }


def _refuse_locked(fleet: Path, token: str | None) -> None:
    """Another host that shares this place may be about to install from wheels that look unneeded."""
    for root in sorted((fleet / "hosts").glob("*")):
        holder = read_holder(root)
        if holder is not None and holder["token"] != token:
            what = f"{root.name} shares {fleet} and is locked by {holder['who']} for '{holder['verb']}'"
            raise Failure(what, STEP, "wait for it to end, then prune again")


def _look(fleet: Path, request: Json) -> tuple[list[Removal], dict[str, str], set[str]]:
    releases = environments(fleet / "releases")
    in_use = used_by_processes(fleet)
    kept = _reasons(fleet, releases, set(request["used"]), in_use["releases"], int(request["keep"]))
    supervisors = environments(fleet / "supervisor")
    wanted = _supervisors_named(fleet) | in_use["supervisor"] | set(request["used"])
    gone = [Removal("release", one.path) for one in releases if one.path.name not in kept]
    gone += [Removal("supervisor", one.path) for one in supervisors if one.path.name not in wanted]
    removed = {removal.path for removal in gone}
    needed = wheels_of(one for one in (*releases, *supervisors) if one.path not in removed)
    if needed is not None:
        gone += [Removal("wheel", path) for path in sorted((fleet / "wheels").glob("*")) if path.name not in needed]
    gone += [Removal("tool", path) for path in _older_tools(fleet / "tools")]
    gone += _cache(fleet / "cache", [removal.path for removal in gone])
    return gone, kept, in_use["releases"]


def _reasons(
    fleet: Path, releases: Sequence[Environment], reported: set[str], in_use: set[str], keep: int
) -> dict[str, str]:
    """The releases that stay, and why."""
    kept: dict[str, str] = {}
    for root in sorted((fleet / "hosts").glob("*")):
        for name, word in _REFERENCES.items():
            release = _named(root / name)
            if release:
                kept.setdefault(release, f"{word} of {root.name}")
    kept.update({release: "a process uses it" for release in sorted(in_use) if release not in kept})
    kept.update({release: "a worker runs it" for release in sorted(reported) if release not in kept})
    newest = sorted((one for one in releases if one.complete), key=lambda one: one.made, reverse=True)[:keep]
    kept.update({one.path.name: "one of the newest" for one in newest if one.path.name not in kept})
    return {name: why for name, why in kept.items() if name in {one.path.name for one in releases}}


def _named(path: Path) -> str:
    """The release that a link, or a file with its name in it, stands for."""
    if path.is_symlink():
        return Path(os.readlink(path)).name  # noqa: PTH115 - also where nothing is there any more
    return read_text(path).strip()


def used_by_processes(fleet: Path) -> dict[str, set[str]]:
    """The environments of which a process on this machine has anything open, mapped or named.

    Parameters
    ----------
    fleet
        The fleet's directory.

    Returns
    -------
    dict[str, set[str]]
        Names, for `releases` and for `supervisor`.
    """
    roots = {str(fleet), os.path.realpath(fleet)}
    found: dict[str, set[str]] = {"releases": set(), "supervisor": set()}
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, roots))})/(releases|supervisor)/([^/\s\0]+)")
    for process in own_processes():
        if process.pid != os.getpid():
            for kind, name in pattern.findall(_traces(process.pid, process.command)):
                found[kind].add(name)
    return found


def _traces(pid: int, command: Sequence[str]) -> str:
    place = Path(f"/proc/{pid}")
    links = []
    for name in ("exe", "cwd"):
        try:
            links.append(os.readlink(place / name))  # noqa: PTH115 - as the kernel says it
        except OSError:
            continue  # it ended meanwhile
    return "\0".join([*command, *links, read_text(place / "maps")])


def _supervisors_named(fleet: Path) -> set[str]:
    """What the hosts start supervisord from, also after a reboot."""
    names = [
        path for place in ("", "good/", "good-before/") for path in (fleet / "hosts").glob(f"*/{place}etc/supervisor")
    ]
    return {Path(read_text(path).strip()).name for path in names}


def _older_tools(tools: Path) -> list[Path]:
    """All but the newest of each platform, whose hash is the last part of the name."""
    kinds: dict[tuple[str, str], list[Path]] = {}
    for path in tools.glob("*-*"):
        tool, _, rest = path.name.partition("-")
        kinds.setdefault((tool, rest.partition("-")[2]), []).append(path)
    older = [path for found in kinds.values() for path in sorted(found, key=_changed)[:-1]]
    return sorted(older)


def _changed(path: Path) -> float:
    return path.lstat().st_mtime


def _cache(cache: Path, removed: Sequence[Path]) -> list[Removal]:
    """Files of the cache are linked into environments: only what no environment shares takes space of its own."""
    if not cache.is_dir() or freed_by([*removed, cache]) - freed_by(removed) < _WORTH_REMOVING:
        return []
    return [Removal("cache", cache)]


def _remove(path: Path) -> None:
    try:
        if path.is_symlink():
            path.unlink()
            return
        # First of all: what is removed by half must not pass for an installation.
        (path / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise os_failure(error, STEP, path) from error
