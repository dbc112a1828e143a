"""Action `states`: the cheap look at the workers that waiting for something repeats.

Request: host_root; words [workers whose last words are wanted]; lock (token; null where none is held): who lost it is
told so, and not what others have made of the workers. Reply: words {worker: text}, supervisord, stop, stopped, drained
{who, why, since} (or null), recycling, ending [workers whose present process was told to end by `control`], pids
{worker: pid that runs}, current, clock, free (bytes that its user may still write).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

from fleet.hostside.common import Json, read_text, tail_of
from fleet.hostside.files import write
from fleet.hostside.guard import require_lock
from fleet.hostside.loglines import LINE
from fleet.hostside.places import drained, host_root, link_name, nearest_existing, stop_file, stopped, suffixes
from fleet.hostside.processes import alive, read_pid
from fleet.hostside.rpc import observe

_RECENT_S = 120.0
_LINES, _LONGEST = 5, 300


def main(request: Json) -> Json:
    """Look.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The lock that it names is not ours any more.
    """
    require_lock(request)
    root = host_root(request)
    found = look(root)
    programs = {program["name"]: program for program in found["supervisord"]["programs"]}
    said = {}
    for name in request.get("words", ()):
        # A log may be moved away in the same moment: nobody waits for its words, but for the states.
        with contextlib.suppress(OSError):
            said[name] = last_words(root, programs[name]) if name in programs else ""
    return {**found, "words": {name: text for name, text in said.items() if text}}


def last_words(root: Path, program: Json) -> str:
    """What a worker said last: in its log, or before it had one; only what its present process said, if it has one.

    Parameters
    ----------
    root
        The host's own directory.
    program
        As supervisord tells it.
    """
    since = program["start"] if program["pid"] else time.time() - _RECENT_S
    files = [root / "log" / f"{program['name']}.{suffix}" for suffix in ("log", "out")]
    for file in sorted(filter(Path.is_file, files), key=lambda file: file.stat().st_mtime, reverse=True):
        lines = [line for line in tail_of(file, _LINES) if line.strip()] if file.stat().st_mtime >= since else []
        if lines:
            found = LINE.match(lines[-1])
            text = found["message"] or "" if found else lines[-1]
            # Somebody's program wrote it, perhaps with what a terminal would obey.
            return "".join(each if each.isprintable() else " " for each in text).strip()[:_LONGEST]
    return ""


def look(root: Path) -> Json:
    """The states of all workers of this host.

    Parameters
    ----------
    root
        The host's own directory.

    Returns
    -------
    Json
        The reply of `states`, without the words.
    """
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
    """The programs whose present process has been told to end, and has not yet.

    Parameters
    ----------
    root
        The host's own directory.
    programs
        As supervisord tells them.
    """
    return sorted(
        program["name"]
        for program in programs
        if program["pid"] and read_text(_told(root, program["name"])) == _identity(program)
    )


def note_ending(root: Path, program: Json) -> None:
    """Remember that this process has been told to end.

    Parameters
    ----------
    root
        The host's own directory.
    program
        As supervisord tells it.

    Raises
    ------
    Failure
        It cannot be written.
    """
    write(_told(root, program["name"]), _identity(program).encode(), 0o600)


def _told(root: Path, worker: str) -> Path:
    return root / "run" / f"ending.{worker}"


def forget_ending(root: Path, worker: str) -> None:
    """Forget that a worker was told to end: it has.

    Parameters
    ----------
    root
        The host's own directory.
    worker
        Its name.
    """
    _told(root, worker).unlink(missing_ok=True)


def _identity(program: Json) -> str:
    return f"{program['pid']} {program['start']}"


def running_pids(root: Path) -> dict[str, int]:
    """The workers that hold the lock on their pid file; a number left in one may be anybody's by now.

    Parameters
    ----------
    root
        The host's own directory.

    Returns
    -------
    dict[str, int]
        Their processes, by name.
    """
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
