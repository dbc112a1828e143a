"""Action `probe`: everything there is to know about a host before a deploy, in one round trip; changes nothing.

Request: base_dir, fleet, host, scratch (or null), python (as configured); `gpus` where GPUs matter,
since asking for them takes long; `look_around` where a place for scratch is sought.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import re
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from fleet.hostside import boot, hardware
from fleet.hostside.common import Json, digest, expand, read_text
from fleet.hostside.gpus import gpus
from fleet.hostside.guard import holder_of, serial_of
from fleet.hostside.installed import releases
from fleet.hostside.places import (
    Places,
    drained,
    link_name,
    on_network,
    roomy_places,
    run_directory,
    stop_file,
    stopped,
    suffixes,
)
from fleet.hostside.processes import orphans
from fleet.hostside.rpc import drifted, observe


def main(request: Json) -> Json:
    """Look at the host.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        A name is none.
    """
    places = Places.of(request)
    scratch = expand(request["scratch"]) if request.get("scratch") else None
    run_dir = run_directory(places.host, os.environ, os.getuid())
    supervisord = observe(places.host)
    return {
        "user": _user(),
        "home": str(expand("~")),
        "hostname": socket.gethostname(),
        "clock": time.time(),
        "base_dir": str(places.base),
        "fleet_root": str(places.fleet),
        "host_root": str(places.host),
        "scratch": str(scratch) if scratch else None,
        "run_dir": str(run_dir),
        "shared": on_network(places.base),
        "hardware": {
            "cores": hardware.cores(frozenset(os.sched_getaffinity(0))),
            "memory": hardware.memory(),
            "disk": hardware.disk(places.base),
            "scratch": hardware.disk(scratch) if scratch else None,
            "gpus": gpus() if request.get("gpus") else None,
        },
        "roomy": roomy_places(_user()) if request.get("look_around") else [],
        "python": python_facts(),
        **_installed(places),
        **_deployed(places.host),
        "lock": {"serial": serial_of(places.host), "holder": holder_of(places.host)},
        "boot": boot.look(places.host),
        "supervisord": supervisord,
        "drifted": drifted(places.host) if supervisord["reachable"] else [],
        "fresh": _fresh(places.host, supervisord["programs"]),
        "orphans": orphans(places.host, run_dir, supervisord["pid"]),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())  # no entry in the user database


def python_facts() -> Json:
    """What decides which wheels fit: the interpreter, the machine, the C library."""
    library, version = platform.libc_ver()
    if not library:
        library, version = _musl()
    return {
        "executable": sys.executable,
        "version": platform.python_version(),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "system": platform.system(),
        "libc": library,
        "libc_version": version,
        "platform": sysconfig.get_platform(),
    }


def _musl() -> tuple[str, str]:
    """Only musl's loader tells its version, and only on its standard error."""
    for loader in sorted(Path("/lib").glob("ld-musl-*.so.1")):
        shown = subprocess.run([loader], capture_output=True, text=True, check=False, timeout=10)
        found = re.search(r"Version (\d+\.\d+)", shown.stderr)
        return "musl", found[1] if found else ""
    return "", ""


def _installed(places: Places) -> Json:
    """What hosts that share this home directory have in common."""
    wheels = [
        {"sha256": path.parent.name, "name": path.name, "size": path.stat().st_size}
        for path in sorted((places.fleet / "wheels").glob("*/*.whl"))
    ]
    tools = sorted((places.fleet / "tools").glob("uv-*/uv"))
    return {
        "releases": releases(places.fleet / "releases"),
        "wheels": wheels,
        "uv": {
            "installed": [path.parent.name[len("uv-") :] for path in tools if os.access(path, os.X_OK)],
        },
        "supervisors": [path.parent.name for path in sorted((places.fleet / "supervisor").glob("*/.complete"))],
    }


def _deployed(root: Path) -> Json:
    """What is this host's own."""
    return {
        "current": link_name(root / "current"),
        "previous": link_name(root / "previous"),
        "supervisor": read_text(root / "etc" / "supervisor").strip() or None,
        "files": {
            str(path.relative_to(root)): {"sha256": digest(path), "mode": path.stat().st_mode & 0o7777}
            for path in _files(root)
        },
        "stop": stop_file(root).exists(),
        "stopped": stopped(root),
        "drained": drained(root),
        "recycling": suffixes(root / "run", "recycle."),
        "manifest": read_text(root / "manifest.json") or None,
        "good": _deploy_of(root / "good" / "manifest.json"),
    }


def _fresh(root: Path, programs: Sequence[Json]) -> list[str]:
    """Workers whose process began after all that it reads was written, whatever the one before it has reported."""
    found = []
    for program in programs:
        name = program["name"]
        read = (root / "current", root / f"etc/workers/{name}.yaml", root / f"etc/workers/{name}.env")
        with contextlib.suppress(OSError):
            # When it came to its place, not when it was written beside it.
            if program["start"] > max(path.lstat().st_ctime for path in read):
                found.append(name)
    return found


def _deploy_of(manifest: Path) -> str | None:
    try:
        return str(json.loads(read_text(manifest))["deploy"])
    except (ValueError, KeyError, TypeError):
        return None


def _files(root: Path) -> list[Path]:
    found = [*(root / "bin").glob("*"), *(root / "etc").glob("**/*")]
    ours = (path for path in found if path.is_file() and not path.name.endswith(".new~"))
    return sorted(path for path in ours if os.access(path, os.R_OK))  # what cannot be read is not ours
