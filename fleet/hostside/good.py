"""Action `good`: keep the state in which all workers were healthy, and bring it back.

Request: fleet_root, host_root, operation (`keep` or `restore`), lock (token, or null); with `restore` also undo (id of
the deploy that is taken back, or null).
Reply of `keep`: release. Reply of `restore`: release, workers {name: first 12 hex digits of its settings' SHA-256},
written, removed (paths).

What is kept is everything that a deploy writes below the host's own directory, which release was current, and which
was the one before. The copy is made beside its place and renamed, so there is always a whole one.

A deploy that was good on one host may be taken back all the same, since it was not on others. So the state before is
kept as well, and a state that the deploy to be undone has kept itself is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from fleet.hostside.apply import WantedFile, put_files, switch_previous, switch_release
from fleet.hostside.common import Failure, Json, digest, os_failure, read_text
from fleet.hostside.files import UNFINISHED, same, write
from fleet.hostside.guard import still_locked
from fleet.hostside.places import host_root, link_name

STEP = "putting back"
GOOD, BEFORE = "good", "good-before"
KEPT = ("bin", "etc")
MANIFEST = "manifest.json"
OWNED = ("etc/conf.d", "etc/workers")
"""Where files of workers are; what was not there in the good state is removed."""


def main(request: Json) -> Json:
    """Keep or restore.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The lock that it names is not ours any more, there is no such state, or it cannot be written.
    """
    root = host_root(request)
    with still_locked(request, root / ".lock", 60, STEP):
        if request["operation"] == "keep":
            return keep(root)
        return restore(root, Path(request["fleet_root"]), request.get("undo"))


def keep(root: Path) -> Json:
    """Copy the present state.

    Parameters
    ----------
    root
        The host's own directory.

    Returns
    -------
    Json
        The reply.

    Raises
    ------
    Failure
        No release is in use, or the copy cannot be written.
    """
    release = link_name(root / "current")
    if release is None:
        raise Failure(f"{root / 'current'} names no release", STEP, "deploy to this host again")
    place, before, fresh = root / GOOD, root / BEFORE, root / f".good{UNFINISHED}"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for name in KEPT:
            shutil.copytree(root / name, fresh / name, copy_function=_copy, ignore=_not_ours)
        if (root / MANIFEST).exists():
            _copy(str(root / MANIFEST), str(fresh / MANIFEST))
        write(fresh / "release", f"{release}\n".encode(), 0o600)
        if previous := link_name(root / "previous"):
            write(fresh / "previous", f"{previous}\n".encode(), 0o600)
        if place.exists():
            # Once more by the same deploy, whose answer was lost: what was before it still is.
            if _deploy_of(place) != _deploy_of(fresh) or not _deploy_of(place):
                shutil.rmtree(before, ignore_errors=True)
                place.rename(before)
            else:
                _make_way(root)
        fresh.rename(place)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise os_failure(error, "keeping the good state") from error
    return {"release": release}


def _not_ours(directory: str, names: list[str]) -> list[str]:
    """What no deploy writes and cannot be copied: a pipe would never end, a link may lead nowhere or in circles."""
    return [name for name in names if not _can_be_copied(Path(directory, name))]


def _can_be_copied(path: Path) -> bool:
    return os.access(path, os.R_OK) and (path.is_file() or (path.is_dir() and not path.is_symlink()))


def _copy(source: str, target: str) -> str:
    """Copy a file that may be secret: its mode is there before its content is."""
    path = Path(source)
    write(Path(target), path.read_bytes(), path.stat().st_mode & 0o777)
    return target


def restore(root: Path, fleet: Path, undo: str | None = None) -> Json:
    """Bring the good state back; release and files as they were.

    Parameters
    ----------
    root
        The host's own directory.
    fleet
        The fleet's directory.
    undo
        Id of the deploy that is taken back: what it made good does not count.

    Returns
    -------
    Json
        The reply.

    Raises
    ------
    Failure
        There is none, its release is gone, or it cannot be written.
    """
    place = _place(root, undo)
    release = read_text(place / "release").strip()
    if not release:
        raise Failure("there is no earlier good state", STEP, "correct hosts.yaml and deploy again")
    ours = _ours(root, place)
    found = [path for name in KEPT for path in sorted((place / name).rglob("*")) if path.is_file()]
    wanted = [_wanted(root, place, path) for path in found]
    wanted = [file for file in wanted if ours is None or file.name in ours]
    names = {file.name for file in wanted}
    switch_release(root, fleet, release)  # first, since it is refused where the release is gone
    # What failed must not be what a rollback goes to.
    switch_previous(root, fleet, read_text(place / "previous").strip())
    _begin(root, place)
    changed = [file for file in wanted if not same(file.path, file.content, file.mode)]
    put_files(changed)
    removed = [name for name in _owned(root) if name not in names and (ours is None or name in ours)]
    for name in removed:
        (root / name).unlink(missing_ok=True)
    if (place / MANIFEST).exists():
        write(root / MANIFEST, (place / MANIFEST).read_bytes(), 0o600)
    if place.name == BEFORE:
        _make_way(root)
        place.rename(root / GOOD)
    workers = {
        Path(file.name).stem: hashlib.sha256(file.content).hexdigest()[:12]
        for file in wanted
        if file.name.startswith("etc/workers/") and file.name.endswith(".yaml")
    }
    return {"release": release, "workers": workers, "written": [file.name for file in changed], "removed": removed}


def _place(root: Path, undo: str | None) -> Path:
    """The state to go back to: the last good one, but none that was only kept by what is to be undone."""
    place = root / GOOD
    if not place.exists() or (undo and _deploy_of(place) == undo):
        return root / BEFORE
    return place


def _make_way(root: Path) -> None:
    """Under another name first: half of it must never pass for a state."""
    gone = root / f".{GOOD}-gone{UNFINISHED}"
    shutil.rmtree(gone, ignore_errors=True)
    if (root / GOOD).exists():
        (root / GOOD).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _deploy_of(place: Path) -> str:
    """The id of the deploy that a state comes from; empty where that was not written down."""
    try:
        return str(json.loads(read_text(place / MANIFEST))["deploy"])
    except (ValueError, KeyError, TypeError):
        return ""


def _ours(root: Path, place: Path) -> frozenset[str] | None:
    """The files that deploys wrote, then or now; others are somebody else's. None where it was not written down."""
    now, then = _listed(root / MANIFEST), _listed(place / MANIFEST)
    return None if now is None or then is None else frozenset({*now, *then})


def _listed(manifest: Path) -> Json | None:
    try:
        content = json.loads(read_text(manifest))
        return {**(content.get("before") or {}), **content["files"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _begin(root: Path, place: Path) -> None:
    """Have each file accepted as it is and as it will be: cut off, this must not look like the work of a hand.

    `fleet.deployment.manifest` has the whole story. A host without a manifest has nothing to hold its files against.
    """
    now, then = _listed(root / MANIFEST), _listed(place / MANIFEST)
    if now is None or then is None:
        (root / MANIFEST).unlink(missing_ok=True)
        return
    there = {name: root / name for name in {*now, *then} if (root / name).is_file()}
    files = {
        name: {"sha256": digest(path), "mode": f"{path.stat().st_mode & 0o7777:04o}"} for name, path in there.items()
    }
    content = {**json.loads(read_text(root / MANIFEST)), "files": files, "before": then}
    write(root / MANIFEST, json.dumps(content, indent=1).encode(), 0o600)


def _wanted(root: Path, place: Path, path: Path) -> WantedFile:
    name = str(path.relative_to(place))
    return WantedFile(name, root / name, path.read_bytes(), path.stat().st_mode & 0o777)


def _owned(root: Path) -> list[str]:
    found = [path for name in OWNED for path in (root / name).glob("*") if not path.name.startswith(".")]
    return sorted(str(path.relative_to(root)) for path in found if path.suffix in {".conf", ".yaml", ".env"})
