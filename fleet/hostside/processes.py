"""Processes of this user, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Json, read_text


class Process(NamedTuple):
    """One process as /proc showed it.

    Parameters
    ----------
    pid, parent
        Its number and its parent's.
    command
        Its command line.
    server_url
        SUPERVISOR_SERVER_URL of its environment: supervisord gives it to every child, and children inherit it.
    """

    pid: int
    parent: int
    command: tuple[str, ...]
    server_url: str


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not.

    Parameters
    ----------
    pid
        Its number.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _status(pid)[0] != "Z"


def _status(pid: int) -> tuple[str, int]:
    """State letter and parent of a process. The command between the brackets may hold anything."""
    _, _, rest = read_text(Path(f"/proc/{pid}/stat")).rpartition(")")
    fields = rest.split()
    return (fields[0], int(fields[1])) if len(fields) > 1 else ("", 0)


def read_pid(path: Path) -> int | None:
    """The pid in a pid file, running or not.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    int | None
        The number; None where there is none.
    """
    text = read_text(path).split()
    return int(text[0]) if text and text[0].isdigit() and int(text[0]) > 0 else None


def command_of(pid: int) -> tuple[str, ...]:
    """The command line of a process; empty if it is gone.

    Parameters
    ----------
    pid
        Its number.
    """
    return tuple(part for part in read_text(Path(f"/proc/{pid}/cmdline")).split("\0") if part)


def own_processes() -> Iterator[Process]:
    """Every process of this user that can be read."""
    uid = os.getuid()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != uid:
                continue
        except OSError:
            continue  # it ended meanwhile
        pid = int(entry.name)
        state, parent = _status(pid)
        if state not in ("", "Z"):
            yield Process(pid, parent, command_of(pid), _server_url(entry))


def _server_url(entry: Path) -> str:
    key = "SUPERVISOR_SERVER_URL="
    for part in read_text(entry / "environ").split("\0"):
        if part.startswith(key):
            return part[len(key) :]
    return ""


def orphans(root: Path, run_dir: Path, supervisord: int | None) -> list[Json]:
    """Find processes of this host's workers that no running supervisord looks after.

    They stay when supervisord is killed: workers whose parent is gone, and what jobs left behind.

    Parameters
    ----------
    root
        The host's own directory.
    run_dir
        Where its sockets are.
    supervisord
        Number of the one that runs.
    """
    found = {process.pid: process for process in own_processes()}
    prefix = f"{root}/etc/workers/"
    workers = {pid: _worker_of(process, prefix) for pid, process in found.items()}
    url = f"unix://{run_dir}/sv.sock"
    result = []
    for pid, process in found.items():
        if pid in (supervisord, os.getpid()):
            continue
        tended = process.parent == supervisord or bool(workers.get(process.parent))
        lost_worker = bool(workers[pid]) and not tended
        stray = process.server_url == url and process.parent == 1
        if lost_worker or stray:
            command = " ".join(process.command)[:200]
            result.append({"pid": pid, "parent": process.parent, "worker": workers[pid] or None, "command": command})
    return sorted(result, key=lambda orphan: int(orphan["pid"]))


def _worker_of(process: Process, prefix: str) -> str:
    for word in process.command:
        if word.startswith(prefix) and word.endswith(".yaml"):
            return word[len(prefix) : -len(".yaml")]
    return ""
