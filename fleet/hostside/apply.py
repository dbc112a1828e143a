"""Action `apply`: write what differs under the host's own directory, and switch the release.

Request: fleet_root, host_root, run_dir, files [{path, mode, content_b64}], remove [paths],
current (release id, or null to leave it), scratch (absolute), directories [absolute paths below scratch, made 0700
with all between], lock (token, or null),
manifest {begin, end (or null): base64 of manifest.json before and after everything else} (or null).
Reply: written, unchanged, removed (paths), switched (bool), previous (release id or null).

All files, the last manifest as well, are first written beside their places, then put there one after the other: where
the disk is full, or the connection is cut while they are written, nothing has changed.
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Failure, Json, inside, os_failure
from fleet.hostside.files import (
    UNFINISHED,
    Staged,
    directory,
    foreign_directory,
    link,
    private_directories,
    private_directory,
    same,
    stage,
)
from fleet.hostside.guard import require_lock, still_locked
from fleet.hostside.installed import releases
from fleet.hostside.places import host_root, link_name

DIRECTORIES = {
    "bin": 0o755,
    "etc": 0o700,
    "etc/conf.d": 0o700,
    "etc/workers": 0o700,
    "orders": 0o700,
    "log": 0o755,
    # With what the calculations wrote, whose running directories are private too.
    "error": 0o700,
    "archive": 0o700,
}


class WantedFile(NamedTuple):
    """One file as it shall be.

    Parameters
    ----------
    name
        As in the request.
    path
        Its place.
    content
        Its bytes.
    mode
        Its permissions.
    """

    name: str
    path: Path
    content: bytes
    mode: int


def main(request: Json) -> Json:
    """Write, remove, switch.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The lock that it names is not ours any more, a path leads out of the directory, or something cannot be
        written.
    """
    root = host_root(request)
    require_lock(request)
    wanted = [_wanted(root, entry) for entry in request.get("files", ())]
    unwanted = [(name, inside(root, name)) for name in request.get("remove", ())]
    manifest = request.get("manifest") or {}
    begin, end = (_manifest(root, manifest.get(name)) for name in ("begin", "end"))
    directory(root, 0o755)
    with still_locked(request, root / ".lock", 60, "writing files"):
        _directories(root, request)
        changed = [file for file in wanted if not same(file.path, file.content, file.mode)]
        with _staged([*begin, *changed]) as first, _staged(end, ".end") as last:
            require_lock(request)  # once more: that may have taken long
            _commit(first)
            switched = switch_release(root, Path(request["fleet_root"]), request.get("current"))
            removed = [name for name, path in unwanted if _remove(path)]
            _commit(last)
        _sweep(root)
    written = [file.name for file in changed]
    unchanged = [file.name for file in wanted if file.name not in written]
    return {
        "written": written,
        "unchanged": unchanged,
        "removed": removed,
        "switched": switched,
        "previous": link_name(root / "previous"),
    }


def _wanted(root: Path, entry: Json) -> WantedFile:
    content = base64.b64decode(entry["content_b64"], validate=True)
    return WantedFile(entry["path"], inside(root, entry["path"]), content, int(entry["mode"]))


def _manifest(root: Path, content: str | None) -> list[WantedFile]:
    """Nobody else may read it: digests of secrets are in it."""
    if content is None:
        return []
    return [WantedFile("manifest.json", root / "manifest.json", base64.b64decode(content, validate=True), 0o600)]


def _directories(root: Path, request: Json) -> None:
    for name, mode in DIRECTORIES.items():
        directory(root / name, mode)
    _run_directory(root / "run", Path(request["run_dir"]))
    for path in request.get("directories", ()):
        foreign_directory(Path(request["scratch"]))
        private_directories(Path(request["scratch"]), Path(path))


def _run_directory(run: Path, place: Path) -> None:
    if place == run:
        directory(run, 0o700)
        return
    private_directory(place)
    if run.is_dir() and not run.is_symlink():
        _empty(run)
    link(run, str(place))


def _empty(run: Path) -> None:
    """A directory can only give way to a link when nothing is in it."""
    try:
        run.rmdir()
    except OSError as error:
        hint = "stop the host's workers, remove the directory, and deploy again"
        raise Failure(f"{run} has to move to another file system but is in use", "making links", hint) from error


def put_files(files: Sequence[WantedFile]) -> None:
    """Write files, all beside their places before the first is put there.

    Parameters
    ----------
    files
        The files.

    Raises
    ------
    Failure
        One of them cannot be written; where that is seen in time, none is.
    """
    with _staged(files) as steps:
        _commit(steps)


@contextlib.contextmanager
def _staged(files: Sequence[WantedFile], mark: str = "") -> Iterator[list[Staged]]:
    """Files written beside their places; what is not put there goes again."""
    steps: list[Staged] = []
    try:
        for file in files:
            directory(file.path.parent, 0o755)
            steps.append(stage(file.path, file.content, file.mode, mark))
        yield steps
    finally:
        for step in steps:
            step.discard()


def _commit(steps: Sequence[Staged]) -> None:
    for step in steps:
        step.commit()


def switch_release(root: Path, fleet: Path, release: str | None) -> bool:
    """Point `current` to a complete release, and `previous` to the one before.

    Parameters
    ----------
    root
        The host's own directory.
    fleet
        The fleet's directory.
    release
        Its id; None leaves what is there.

    Returns
    -------
    bool
        Whether that changed anything.

    Raises
    ------
    Failure
        It is not installed, or the links cannot be made.
    """
    if release is None:
        return False
    if release not in {entry["id"] for entry in releases(fleet / "releases")}:
        hint = "deploy again: it will be installed anew"
        raise Failure(f"release {release} is not installed in {fleet / 'releases'}", "switching the release", hint)
    before = link_name(root / "current")
    if before == release:
        return False
    if before is not None:
        link(root / "previous", _release_link(root, fleet, before))
    return link(root / "current", _release_link(root, fleet, release))


def switch_previous(root: Path, fleet: Path, release: str) -> None:
    """Point `previous` to a complete release; remove it where there is none by that name.

    Parameters
    ----------
    root
        The host's own directory.
    fleet
        The fleet's directory.
    release
        Its id.

    Raises
    ------
    Failure
        The link cannot be made or removed.
    """
    if release in {entry["id"] for entry in releases(fleet / "releases")}:
        link(root / "previous", _release_link(root, fleet, release))
    else:
        _remove(root / "previous")


def _release_link(root: Path, fleet: Path, release: str) -> str:
    """Relative, so that a home directory may be mounted elsewhere on another host."""
    return os.path.relpath(fleet / "releases" / release, root)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise os_failure(error, "removing files", path) from error
    return True


def _sweep(root: Path) -> None:
    """Remove what an apply that was killed midway left beside its files."""
    for place in (root, root / "bin", root / "etc", root / "etc/conf.d", root / "etc/workers"):
        for path in place.glob(f".*{UNFINISHED}"):
            with contextlib.suppress(OSError):
                path.unlink()
