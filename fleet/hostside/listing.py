"""Action `listing`: every process of this host's part of the fleet.

Request: base_dir, fleet, host.
Reply: deployed (bool), processes [{pid, parent, kind (supervisord, worker, helper, job or stray), worker,
calculation, orphan (bool), cpu (percent of one core, since it began), memory (GB, resident), age (s), state, command}].

A helper serves a worker and runs no calculation; a job is everything below a worker that works in the directory of a
calculation. An orphan is looked after by nobody: a worker whose supervisord is gone, or what a job left behind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Json, read_text
from fleet.hostside.places import host_root, run_directory
from fleet.hostside.processes import Process, own_processes
from fleet.hostside.rpc import daemon_pid

_JOB = re.compile(r"/jobs/([0-9a-fA-F]{24})\.\d+(?:/|\Z)")
_GB = 1024**3


class _Usage(NamedTuple):
    cpu_s: float
    age_s: float
    memory: float
    state: str


def main(request: Json) -> Json:
    """Look.

    Parameters
    ----------
    request
        As this module says; so is the reply.
    """
    root = host_root(request)
    if not (root / "etc").is_dir():
        return {"deployed": False, "processes": []}
    run_dir = run_directory(root, os.environ, os.getuid())
    found = {process.pid: process for process in own_processes()}
    return {"deployed": True, "processes": _listed(root, run_dir, found)}


def _listed(root: Path, run_dir: Path, found: Mapping[int, Process]) -> list[Json]:
    daemon = daemon_pid(root)
    named = {pid: _worker_of(process, root) for pid, process in found.items()}
    url = f"unix://{run_dir}/sv.sock"
    uptime = float(read_text(Path("/proc/uptime"), "0").split()[0])
    result = []
    for pid, process in found.items():
        if pid == os.getpid():
            continue
        ancestors = _ancestors(pid, found)
        worker = next((named[each] for each in (pid, *ancestors) if named.get(each)), "")
        if pid != daemon and not worker and process.server_url != url:
            continue
        calculation = _calculation(pid)
        top = not any(named.get(each) for each in ancestors)
        kind = _kind(process, daemon, bool(named[pid]) and top, bool(worker), calculation)
        orphan = kind == "stray" or (kind == "worker" and (daemon is None or process.parent != daemon))
        usage = _usage(pid, uptime)
        if usage is None:
            continue  # it ended meanwhile
        result.append(
            {
                "pid": pid,
                "parent": process.parent,
                "kind": kind,
                "worker": worker,
                "calculation": calculation,
                "orphan": orphan,
                "cpu": 100 * usage.cpu_s / usage.age_s if usage.age_s > 0 else 0.0,
                "memory": usage.memory,
                "age": usage.age_s,
                "state": usage.state,
                "command": " ".join(process.command)[:300],
            }
        )
    return sorted(result, key=lambda entry: (entry["kind"] != "supervisord", entry["worker"], entry["pid"]))


def _kind(process: Process, daemon: int | None, is_worker: bool, below_worker: bool, calculation: str) -> str:
    if process.pid == daemon:
        return "supervisord"
    if is_worker:
        return "worker"
    if below_worker:
        return "job" if calculation else "helper"
    return "stray"


def _worker_of(process: Process, root: Path) -> str:
    """The worker that a process is, by its settings file; or by the wrapper that is about to become it."""
    prefix = f"{root}/etc/workers/"
    for at, word in enumerate(process.command):
        if word.startswith(prefix) and word.endswith(".yaml"):
            return word[len(prefix) : -len(".yaml")]
        if word == f"{root}/bin/worker":
            return (*process.command, "")[at + 1]
    return ""


def _ancestors(pid: int, found: Mapping[int, Process]) -> list[int]:
    above: list[int] = []
    while pid in found and found[pid].parent not in above:
        pid = found[pid].parent
        above.append(pid)
    return above


def _calculation(pid: int) -> str:
    try:
        place = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - a link of the kernel's, not a path to resolve
    except OSError:
        return ""
    found = _JOB.search(place)
    return found[1] if found else ""


def _usage(pid: int, uptime: float) -> _Usage | None:
    _, _, rest = read_text(Path(f"/proc/{pid}/stat")).rpartition(")")
    fields = rest.split()
    if len(fields) < 22:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    cpu = (int(fields[11]) + int(fields[12])) / tick
    age = max(0.0, uptime - int(fields[19]) / tick)
    return _Usage(cpu, age, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / _GB, fields[0])
