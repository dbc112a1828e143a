"""Action `good`: keep the state in which all workers were healthy, and bring it back.

Request: fleet_root, host_root, operation (`keep` or `restore`), deed (id of the command), lock (token, or null).
Reply of `keep`: release. Reply of `restore`: release, workers {name: first 12 hex digits of its settings' SHA-256},
written, removed (paths).

What is kept is everything that a deploy writes below the host's own directory, and which release was current. The
copy is made beside its place and renamed, so there is always a whole one.

The state kept before stays in `good-before`: a host that is deployed, and healthy, may have to be put back all the
same when the rollout halts later. So `restore` never goes to what the same command has kept, if there was another.
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
NOTES = ("release", "deed")
"""What is written beside the copies: the release that was current, and the command that kept them."""

GOOD, BEFORE = "good", "good-before"
OWNED = ("etc/conf.d", "etc/workers")
"""Where files of workers are; what was not there in the good state is removed."""


def main(request: Json) -> Json:
    """Keep or restore."""
    root = host_root(request)
    require_lock(request)
    with locked(root / ".lock", 60, STEP):
        if request["operation"] == "keep":
            return keep(root, request["deed"])
        return restore(root, Path(request["fleet_root"]), request["deed"])


def keep(root: Path, deed: str) -> Json:
    """Copy the present state."""
    release = link_name(root / "current")
    if release is None:
        raise Failure(f"{root / 'current'} names no release", STEP, "deploy to this host again")
    place, before, fresh = root / GOOD, root / BEFORE, root / f".good{UNFINISHED}"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for name in KEPT:
            shutil.copytree(root / name, fresh / name, copy_function=_copy)
        for name in SINGLE:
            if (root / name).exists():
                _copy(str(root / name), str(fresh / name))
        write(fresh / "release", f"{release}\n".encode(), 0o600)
        write(fresh / "deed", f"{deed}\n".encode(), 0o600)
        if place.exists() and not (_kept_by(place, deed) and before.exists()):
            shutil.rmtree(before, ignore_errors=True)
            place.rename(before)
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise os_failure(error, "keeping the good state") from error
    return {"release": release}


def _copy(source: str, target: str) -> str:
    """Copy a file that may be secret: its mode is there before its content is."""
    path = Path(source)
    write(Path(target), path.read_bytes(), path.stat().st_mode & 0o777)
    return target


def _kept_by(place: Path, deed: str) -> bool:
    return read_text(place / "deed").strip() == deed


def restore(root: Path, fleet: Path, deed: str) -> Json:
    """Bring the good state back that was there before this command; release and files as they were."""
    place, before = root / GOOD, root / BEFORE
    # It is missing where keeping was cut off between the two renames.
    if before.exists() and (not place.exists() or _kept_by(place, deed)):
        shutil.rmtree(place, ignore_errors=True)
        before.rename(place)
    release = read_text(place / "release").strip()
    if not release:
        raise Failure("there is no earlier good state", STEP, "correct hosts.yaml and deploy again")
    notes = {place / name for name in NOTES}
    found = [path for path in sorted(place.rglob("*")) if path.is_file() and path not in notes]
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
