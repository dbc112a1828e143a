"""Action `states`: the cheap look at the workers that waiting for something repeats.

Request: host_root. Reply: supervisord, stop, stopped, drained {who, why, since} (or null), recycling, ending [workers
whose present process was told to end by `control`], pids {worker: pid that runs}, current, clock, free (bytes that its
user may still write).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

from fleet.hostside.common import Json, read_text
from fleet.hostside.files import write
from fleet.hostside.places import drained, host_root, nearest_existing, stop_file, stopped
from fleet.hostside.probe import link_name, suffixes
from fleet.hostside.processes import alive, read_pid
from fleet.hostside.rpc import observe


def main(request: Json) -> Json:
    """Look."""
    return look(host_root(request))


def look(root: Path) -> Json:
    """The states of all workers of this host."""
    seen = observe(root)
    return {
        "supervisord": seen,
        "stop": stop_file(root).exists(),
        "stopped": stopped(root),
        "drained": drained(root),
        "recycling": suffixes(root / "run", "recycle."),
        "ending": ending(root, seen["programs"]),
        "pids": running_pids(root),
        "current": link_name(root / "current"),
        "clock": time.time(),
        "free": _free(root),
    }


def _free(root: Path) -> int:
    space = os.statvfs(nearest_existing(root))
    return space.f_bavail * space.f_frsize


def ending(root: Path, programs: Sequence[Json]) -> list[str]:
    """The programs whose present process has been told to end, and has not yet."""
    return sorted(
        program["name"]
        for program in programs
        if program["pid"] and read_text(_told(root, program["name"])) == _identity(program)
    )


def note_ending(root: Path, program: Json) -> None:
    """Remember that this process has been told to end."""
    write(_told(root, program["name"]), _identity(program).encode(), 0o600)


def _told(root: Path, worker: str) -> Path:
    return root / "run" / f"ending.{worker}"


def forget_ending(root: Path, worker: str) -> None:
    """Forget that a worker was told to end: it has."""
    _told(root, worker).unlink(missing_ok=True)


def _identity(program: Json) -> str:
    return f"{program['pid']} {program['start']}"


def running_pids(root: Path) -> dict[str, int]:
    """The workers that hold the lock on their pid file; a number left in one may be anybody's by now."""
    found = {path.stem: read_pid(path) for path in (root / "run").glob("*.pid") if _is_locked(path)}
    return {worker: pid for worker, pid in found.items() if pid is not None and alive(pid)}


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
