"""Action `good`: keep the state in which all workers were healthy, and bring it back.

Request: fleet_root, host_root, operation (`keep` or `restore`), lock (token, or null).
Reply of `keep`: release. Reply of `restore`: release, workers {name: first 12 hex digits of its settings' SHA-256},
written, removed (paths).

What is kept is everything that a deploy writes below the host's own directory, and which release was current. The
copy is made beside its place and renamed, so there is always a whole one.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from fleet.hostside.apply import Wanted, put_files, switch_release
from fleet.hostside.common import Failure, Json, locked, os_failure, read_text
from fleet.hostside.files import UNFINISHED, same, write
from fleet.hostside.guard import require_lock
from fleet.hostside.places import host_root
from fleet.hostside.probe import link_name

STEP = "putting back"
KEPT = ("bin", "etc")
SINGLE = ("manifest.json",)
OWNED = ("etc/conf.d", "etc/workers")
"""Where files of workers are; what was not there in the good state is removed."""


def main(request: Json) -> Json:
    """Keep or restore."""
    root = host_root(request)
    require_lock(request)
    with locked(root / ".lock", 60, STEP):
        if request["operation"] == "keep":
            return keep(root)
        return restore(root, Path(request["fleet_root"]))


def keep(root: Path) -> Json:
    """Copy the present state."""
    release = link_name(root / "current")
    if release is None:
        raise Failure(f"{root / 'current'} names no release", STEP, "deploy to this host again")
    place, fresh, old = root / "good", root / f".good{UNFINISHED}", root / f".good-old{UNFINISHED}"
    try:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for name in KEPT:
            shutil.copytree(root / name, fresh / name, copy_function=_copy)
        for name in SINGLE:
            if (root / name).exists():
                _copy(str(root / name), str(fresh / name))
        write(fresh / "release", f"{release}\n".encode(), 0o600)
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise os_failure(error, "keeping the good state") from error
    return {"release": release}


def _copy(source: str, target: str) -> str:
    """Copy a file that may be secret: its mode is there before its content is."""
    path = Path(source)
    write(Path(target), path.read_bytes(), path.stat().st_mode & 0o777)
    return target


def restore(root: Path, fleet: Path) -> Json:
    """Bring the good state back; release and files as they were."""
    place = root / "good"
    if not place.exists() and (root / f".good-old{UNFINISHED}").exists():
        place = root / f".good-old{UNFINISHED}"  # cut off between the two renames
    release = read_text(place / "release").strip()
    if not release:
        raise Failure("there is no earlier good state", STEP, "correct hosts.yaml and deploy again")
    found = [path for path in sorted(place.rglob("*")) if path.is_file() and path.name != "release"]
    wanted = [_wanted(root, place, path) for path in found]
    names = {file.name for file in wanted}
    switch_release(root, fleet, release)  # first, since it is refused where the release is gone
    changed = [file for file in wanted if not same(file.path, file.content, file.mode)]
    put_files(changed)
    removed = [name for name in _owned(root) if name not in names]
    for name in removed:
        (root / name).unlink(missing_ok=True)
    workers = {
        Path(file.name).stem: hashlib.sha256(file.content).hexdigest()[:12]
        for file in wanted
        if file.name.startswith("etc/workers/") and file.name.endswith(".yaml")
    }
    return {"release": release, "workers": workers, "written": [file.name for file in changed], "removed": removed}


def _wanted(root: Path, place: Path, path: Path) -> Wanted:
    name = str(path.relative_to(place))
    return Wanted(name, root / name, path.read_bytes(), path.stat().st_mode & 0o777)


def _owned(root: Path) -> list[str]:
    found = [path for name in OWNED for path in (root / name).glob("*") if not path.name.startswith(".")]
    return sorted(str(path.relative_to(root)) for path in found if path.suffix in {".conf", ".yaml", ".env"})
