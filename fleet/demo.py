"""A whole fleet on this machine for a minute: database, workers, calculations; and nothing left of it afterwards."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from fleet.errors import FleetError
from fleet.hosts import yamlmap
from fleet.queue import chemistry
from puffin.documents import Model, Molecule, Request

DATABASE = "demo"
_SLEEPS = 20
_QUIET_CHECKS = 3
_SWEEP_S = 20.0


@dataclass(frozen=True)
class Task:
    """One calculation of the demo: what to call it, and what to submit."""

    name: str
    molecule: Molecule | None
    request: Request


def hosts_file(directory: Path, uri: str) -> str:
    """A hosts.yaml with two workers on this machine, or one where it has but one core.

    They run from the environment that runs this, so that nothing has to be installed.

    Parameters
    ----------
    directory
        Where everything of the demo goes.
    uri
        The database server.
    """
    workers = min(2, len(os.sched_getaffinity(0)))
    memory = min(2.0, psutil.virtual_memory().total / 1024**3 / (workers + 1))
    content = {
        "fleet": "demo",
        "database": {"uri": uri, "names": [DATABASE]},
        "release": {"install": "path", "path": sys.prefix, "python": sys.executable},
        "defaults": {
            "base_dir": str(directory / "base"),
            "scratch": str(directory / "scratch"),
            "boot": "none",
            "reserve": {"cores": 0, "memory": 0},
            "workers": {"cores": 1, "memory": round(memory, 2), "disk": 0.1, "count": workers},
            "puffin": {"daemon": {"cycle_time_in_s": 1.0}},
        },
        "update": {"min_healthy_time": "1s"},
        "hosts": {"here": {"connection": "local"}},
    }
    return yamlmap.write(content)


def tasks() -> list[Task]:
    """What the demo calculates: PM6 geometry optimizations, or short waits where SCINE is not installed."""
    if not chemistry.is_installed():
        waits = Request("sleep", Model(), settings={"time": 1}, cores=1, memory=0.1, disk=0.1)
        return [Task(f"wait {number}", None, waits) for number in range(1, _SLEEPS + 1)]
    model = Model(program="sparrow", method_family="PM6", method="PM6", spin_mode="any")
    request = Request("scine_geometry_optimization", model, cores=1, memory=1.0, disk=0.1)
    return [Task(path.stem.replace("_", " "), chemistry.read_molecule(path), request) for path in molecules()]


def molecules() -> list[Path]:
    """The molecules that come with the project.

    Raises
    ------
    FleetError
        They are not there.
    """
    package = Path(str(importlib.resources.files("fleet")))
    for directory in (package / "data" / "molecules", package.parent / "examples" / "molecules"):
        found = sorted(directory.glob("*.xyz"))
        if found:
            return found
    raise FleetError("the example molecules are missing: install puffin-fleet again")


def size_of(task: Task) -> int:
    """Number of atoms of a task; 0 without a molecule."""
    return len(task.molecule.elements) if task.molecule else 0


def sweep(directory: Path) -> list[str]:
    """End every process that runs from the demo's directory, until none has appeared for a while.

    A command that was interrupted may have a process under way that starts another.

    Parameters
    ----------
    directory
        The directory of this demo, which nothing else has in its command line.

    Returns
    -------
    list[str]
        What had to be ended.
    """
    ended: list[str] = []
    quiet = 0
    deadline = time.monotonic() + _SWEEP_S
    while quiet < _QUIET_CHECKS and time.monotonic() < deadline:
        found = _processes_of(directory)
        quiet = 0 if found else quiet + 1
        ended += [str(process.info["name"]) for process in found]
        # A worker that is told to go removes its own temporary files; what stays must be made to.
        _signal(found, signal.SIGQUIT)
        _, alive = psutil.wait_procs(found, timeout=3.0)
        _signal(alive, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=2.0)
        if not found:
            time.sleep(0.2)
    return ended


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def remove(directory: Path) -> None:
    """Remove the demo's directory.

    Parameters
    ----------
    directory
        The directory.
    """
    shutil.rmtree(directory, ignore_errors=True)


def _processes_of(directory: Path) -> list[psutil.Process]:
    mark = str(directory)
    return [
        process
        for process in psutil.process_iter(["cmdline", "name"])
        if process.pid != os.getpid() and any(mark in word for word in process.info["cmdline"] or ())
    ]
