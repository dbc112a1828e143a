"""Action `states`: the cheap look at the workers that waiting for something repeats.

Request: host_root. Reply: supervisord, stop, stopped, recycling, pids {worker: pid that runs}, current, clock.
"""

from __future__ import annotations

import time
from pathlib import Path

from fleet.hostside.common import Json
from fleet.hostside.places import host_root
from fleet.hostside.probe import link_name, suffixes
from fleet.hostside.processes import alive, read_pid
from fleet.hostside.rpc import observe


def main(request: Json) -> Json:
    """Look."""
    return look(host_root(request))


def look(root: Path) -> Json:
    """The states of all workers of this host."""
    return {
        "supervisord": observe(root),
        "stop": (root / "run" / "stop").exists(),
        "stopped": suffixes(root / "run", "stop."),
        "recycling": suffixes(root / "run", "recycle."),
        "pids": running_pids(root),
        "current": link_name(root / "current"),
        "clock": time.time(),
    }


def running_pids(root: Path) -> dict[str, int]:
    """The workers whose pid file names a process that runs."""
    found = {path.stem: read_pid(path) for path in (root / "run").glob("*.pid") if path.stem != "supervisord"}
    return {worker: pid for worker, pid in found.items() if pid is not None and alive(pid)}
