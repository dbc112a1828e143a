"""Action `destroy`: remove what deploys have put on this host, and keep what calculations have left.

Request: fleet_root, host_root, scratch (absolute), lock (token, or null).
Reply: removed [paths], left [{path, what, files}], shared [host directories here that still use the installations].

Everything below the host's own directory goes but logs, the directories of failed and archived calculations, the audit,
and lock files, which somebody else may be waiting for; then the installations, unless another host that shares them is
still deployed. Nothing may run any more. Each step may be the last one: done again, it goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from fleet.hostside.audit import AUDIT, OLDER
from fleet.hostside.common import Failure, Json, locked, os_failure
from fleet.hostside.guard import LOCK, SERIAL, read_holder, require_lock
from fleet.hostside.lock import MUTEX
from fleet.hostside.places import MUTEX_OF_BOOT, host_root, run_name
from fleet.hostside.rpc import daemon_pid
from fleet.hostside.states import running_pids

STEP = "destroying"
_LEFT = {
    "log": "logs",
    "error": "failed calculations",
    "archive": "archived calculations",
    AUDIT: "what was done to this host",
    OLDER: "what was done to this host before",
}
_LOCKS = frozenset({LOCK, SERIAL, MUTEX})
MUTEX_OF_FLEET = ".destroy.lock"
_FIRST = ("etc", "bin", "current", "previous", "good", "good-before", "manifest.json")
"""Without these it is no deployed host any more."""

_INSTALLATIONS = ("releases", "supervisor", "wheels", "tools", "cache")


def main(request: Json) -> Json:
    """Remove, unless something runs.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The lock that it names is not ours any more, something runs, or cannot be removed.
    """
    require_lock(request)
    root, fleet = host_root(request), Path(request["fleet_root"])
    scratch = Path(request["scratch"]) / fleet.name
    removed: list[str] = []
    shared: list[str] = []
    if root.is_dir():
        _refuse_running(root)
        with locked(fleet / MUTEX_OF_FLEET, 600, STEP):
            removed += _own(root)
            shared = sorted(path.name for path in (fleet / "hosts").glob("*") if _needs(path, request.get("lock")))
            removed += [] if shared else _installations(fleet)
    removed += _empty_scratch(scratch, root.name, fleet.parent)
    left = [*_left_of_host(root), *_left_in_scratch(scratch, root.name), *_left_locks(root, fleet)]
    return {"removed": removed, "left": left, "shared": shared}


def _refuse_running(root: Path) -> None:
    pid, workers = daemon_pid(root), running_pids(root)
    if pid is not None or workers:
        names = [f"supervisord (pid {pid})"] if pid is not None else []
        names += [f"{worker} (pid {number})" for worker, number in workers.items()]
        raise Failure(f"still running: {', '.join(names)}", STEP, "'puffin-fleet stop --supervisord', then try again")


def _needs(root: Path, token: str | None) -> bool:
    """Whether a host uses what is installed: it is deployed, or somebody else is just installing there."""
    holder = read_holder(root)
    deployed = (root / "etc").exists() or (root / "current").is_symlink()
    return deployed or (holder is not None and holder["token"] != token)


def _own(root: Path) -> list[str]:
    """What is this host's own; first what makes it a deployed host."""
    names = [*_FIRST, *sorted(path.name for path in root.iterdir())]
    removed = []
    for name in dict.fromkeys(names):
        if name in _LOCKS or name in (AUDIT, OLDER):
            continue
        if name in _LEFT:
            with contextlib.suppress(OSError):
                (root / name).rmdir()  # only if there is nothing in it
        elif name == "run":
            removed += [*_remove_run(root, Path(os.path.realpath(root / name))), *_remove(root / name)]
        else:
            removed += _remove(root / name)
    return removed


def _remove_run(root: Path, run: Path) -> list[str]:
    """The whole directory only where a deploy chose it: somebody may have turned the link to a place of his own."""
    if run.parent == Path(os.path.realpath(root)) or run.name == run_name(root):
        return _remove(run)
    patterns = ("sv.sock*", "supervisord.pid", ".supervise.lock", f"{root.name}-*.pid", "recycle.*", "ending.*")
    found = [path for pattern in patterns for path in sorted(run.glob(pattern))]
    removed = [name for path in found for name in _remove(path)]
    with contextlib.suppress(OSError):
        run.rmdir()
    return removed


def _installations(fleet: Path) -> list[str]:
    return [path for name in _INSTALLATIONS for path in _remove(fleet / name)]


def _remove(path: Path) -> list[str]:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise os_failure(error, STEP, error.filename or path) from error
    return [str(path)]


def _job_directories(scratch: Path, host: str) -> Iterator[Path]:
    """Where workers of this host ran their jobs; other hosts may have theirs in the same place."""
    pattern = re.compile(re.escape(host) + r"-\d+")
    for path in sorted(scratch.glob("*")):
        if pattern.fullmatch(path.name) and path.is_dir():
            yield path


def _empty_scratch(scratch: Path, host: str, base: Path) -> list[str]:
    removed = []
    for place in _job_directories(scratch, host):
        for directory, _, _ in os.walk(place, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
        if not place.exists():
            removed.append(str(place))
    with contextlib.suppress(OSError):
        scratch.rmdir()
        # Another one was there before the fleet, perhaps made by an administrator.
        if scratch.parent == base / "scratch":
            scratch.parent.rmdir()
    return removed


def _left_of_host(root: Path) -> list[Json]:
    return [_left(root / name, what) for name, what in _LEFT.items() if (root / name).exists()]


def _left_in_scratch(scratch: Path, host: str) -> list[Json]:
    found = []
    for place in _job_directories(scratch, host):
        spooled = any(place.rglob("*.result.json"))
        found.append(_left(place, "results that are not yet in the database" if spooled else "files of calculations"))
    with contextlib.suppress(OSError):  # it may be one that nobody may list, or go while it is looked at
        if scratch.parent.is_dir() and not any(scratch.parent.iterdir()):
            found.append(_left(scratch.parent, "empty; hosts.yaml names it as scratch"))
    return found


def _left_locks(root: Path, fleet: Path) -> list[Json]:
    names = (root / SERIAL, root / MUTEX, fleet / MUTEX_OF_FLEET, fleet.parent / MUTEX_OF_BOOT)
    return [_left(path, "lock file") for path in names if path.exists()]


def _left(path: Path, what: str) -> Json:
    files = sum(len(names) for _, _, names in os.walk(path)) if path.is_dir() else 1
    return {"path": str(path), "what": what, "files": files}
