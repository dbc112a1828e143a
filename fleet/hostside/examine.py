"""Action `examine`: what a probe finds, and whether a worker would find what it needs; leaves nothing behind.

Request: that of `probe`; addresses [[host, port]] of the database, for hosts on which nothing is deployed; and
members [[host, port]] of its replica set.
Reply: that of `probe`, and examination {clock_first, clock_last, python_home, base, scratch, limits {name: [soft,
hard]}, release_problem, unfinished, logs {worker: [lines]}, reachable [{address, problem}], members [{address,
problem}], worker, worker_findings [{check, severity, what}], worker_problem}.

Where a worker is deployed, its own `check` is asked, in the environment that supervisord has: only that way the
credentials, and the paths of programs, are the ones that it will use.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fleet.hostside import probe
from fleet.hostside.common import Json, clean_environment, read_text, tail_of
from fleet.hostside.files import UNFINISHED
from fleet.hostside.places import Places, file_system, nearest_existing

CONNECT_SECONDS = 5.0
CHECK_SECONDS = 60.0
_SEVERITIES = ("fail", "warn", "ok")
_EARLIER = {"check": "subject", "severity": "verdict", "what": "detail"}
VERSION_SECONDS = 20.0
_TROUBLE = frozenset({"FATAL", "BACKOFF", "EXITED"})
_LINES = 5


def main(request: Json) -> Json:
    """Examine the host.

    Parameters
    ----------
    request
        As this module says; so is the reply.
    """
    first = time.time()
    found = probe.main(request)
    places = Places.of(request)
    root = places.host
    examination = {
        "python_home": _home_of_python(),
        "base": place(places.base, program=True),
        "scratch": place(Path(found["scratch"])) if found["scratch"] else None,
        "limits": limits(),
        "release_problem": release_problem(root),
        "unfinished": _unfinished(places),
        "logs": _logs(root, found["supervisord"]["programs"]),
        **_database(root, found, request.get("addresses", ())),
        "members": list(_reached(request.get("members", ()))),
    }
    return {**found, "examination": {**examination, "clock_first": first, "clock_last": time.time()}}


def _home_of_python() -> str:
    """Where Python was made for somebody's project, and may go with it; empty for one of the system."""
    home = Path(sys.executable).parent.parent
    return str(home) if (home / "pyvenv.cfg").exists() or (home / "conda-meta").exists() else ""


def place(path: Path, program: bool = False) -> Json:
    """Whether a directory, or the nearest one above it that is there, can hold what we would put there.

    Parameters
    ----------
    path
        The directory; may be missing.
    program
        Whether programs are to be started from there.
    """
    existing = nearest_existing(path)
    kind = file_system(existing, read_text(Path("/proc/self/mountinfo")))
    report: Json = {"path": str(path), "tried": str(existing), "file_system": kind, "write": "", "link": "", "run": ""}
    try:
        with tempfile.TemporaryDirectory(prefix=".puffin-check-", dir=existing) as made:
            report.update(_tried(Path(made), program))
    except OSError as error:
        report["write"] = error.strerror or str(error)
    return report


def _tried(directory: Path, program: bool) -> Json:
    file = directory / "file"
    script = b"#!/bin/sh\nexit 0\n"
    with file.open("wb") as stream:
        stream.write(script + b"#" * 4096)
        stream.flush()
        os.fsync(stream.fileno())
    file.chmod(0o700)
    return {"link": _problem_of_link(file), "run": _problem_of_run(file) if program else ""}


def _problem_of_link(file: Path) -> str:
    try:
        os.link(file, file.with_name("link"))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _problem_of_run(file: Path) -> str:
    try:
        done = subprocess.run([str(file)], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return getattr(error, "strerror", None) or str(error)
    return f"status {done.returncode}" if done.returncode else ""


def limits() -> Json:
    """What the kernel allows a process of this session; -1 for no limit."""
    kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC, "core": resource.RLIMIT_CORE}
    return {name: list(resource.getrlimit(kind)) for name, kind in kinds.items()}


def release_problem(root: Path) -> str:
    """Why the present release does not work; empty if it does, or if there is none.

    Parameters
    ----------
    root
        The host's own directory.
    """
    current = root / "current"
    if not current.is_symlink():
        return ""
    if not current.exists():
        return f"{current} points to {os.readlink(current)}, which is not there"  # noqa: PTH115 - as written
    try:
        done = subprocess.run(
            [str(current / "bin/puffin"), "--version"],
            env=clean_environment(os.environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"'puffin --version' does not end within {VERSION_SECONDS:g} s"
    except OSError as error:
        return f"{current / 'bin/puffin'} cannot be run: {error.strerror}"
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"'puffin --version' ends with status {done.returncode}: {said[-1] if said else ''}" * bool(done.returncode)


def _unfinished(places: Places) -> list[str]:
    """What something that was killed midway left; the next deploy clears it away."""
    found = [*places.host.glob(f"**/.*{UNFINISHED}*"), *(places.fleet / "wheels").glob(f"*/.*{UNFINISHED}*")]
    return sorted(str(path) for path in found)[:10]


def _logs(root: Path, programs: list[Json]) -> Json:
    """The last words of workers that are down and should not be."""
    bad = [each["name"] for each in programs if each["state"] in _TROUBLE and (each["exitstatus"] or each["spawnerr"])]
    # What a worker said before it had a log comes last: it is the reason if there is one.
    return {
        name: [line for suffix in ("log", "out") for line in tail_of(root / "log" / f"{name}.{suffix}", _LINES)]
        for name in bad
    }


def _database(root: Path, found: Json, addresses: list[list[object]]) -> Json:
    workers = sorted(path.stem for path in (root / "etc/workers").glob("*.yaml"))
    if not workers or not (root / "current").exists():
        return {"worker": None, "worker_findings": [], "worker_problem": "", "reachable": list(_reached(addresses))}
    findings, problem = _ask_worker(root, workers[0], found["supervisord"]["pid"])
    return {"worker": workers[0], "worker_findings": findings, "worker_problem": problem, "reachable": []}


def _reached(addresses: list[list[object]]) -> Iterator[Json]:
    for host, port in addresses:
        problem = ""
        try:
            with socket.create_connection((str(host), int(str(port))), timeout=CONNECT_SECONDS):
                pass
        except OSError as error:
            problem = error.strerror or str(error)
        yield {"address": f"{host}:{port}", "problem": problem}


def _ask_worker(root: Path, worker: str, supervisord: int | None) -> tuple[list[Json], str]:
    """What `puffin check` finds, asked as supervisord would start the worker."""
    if '"$@"' not in read_text(root / "bin/worker"):
        return [], f"{root / 'bin/worker'} is of an older puffin-fleet, which could only start it"
    try:
        done = subprocess.run(
            [str(root / "bin/worker"), worker, "check", "--json"],
            env=_environment(supervisord),
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [], f"'puffin check' does not end within {CHECK_SECONDS:g} s"
    except OSError as error:
        return [], f"{root / 'bin/worker'} cannot be run: {error.strerror}"
    findings = list(_findings(done.stdout.decode("utf-8", "replace")))
    if findings:
        return findings, ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return [], f"'puffin check' ends with status {done.returncode}: {said[-1] if said else 'without a word'}"


def _findings(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and (finding := _finding(entry)):
                yield finding


def _finding(entry: Json) -> Json | None:
    """One finding; None if it is none. Release 0.1.0 had other words for the same."""
    words = {new: entry.get(new, entry.get(old)) for new, old in _EARLIER.items()}
    severity = str(words["severity"]).lower()
    if severity not in _SEVERITIES or None in words.values():
        return None
    return {"check": str(words["check"]), "severity": severity, "what": str(words["what"])}


def _environment(supervisord: int | None) -> dict[str, str]:
    if supervisord is None:
        return clean_environment(os.environ)
    entries = read_text(Path(f"/proc/{supervisord}/environ")).split("\0")
    found = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    return found or clean_environment(os.environ)
