"""Action `install_release`: make a virtual environment from wheels that are on the host already.

Request: fleet_root, target (`releases/<id>` or `supervisor/<version>`), provides [paths that must be there],
and either path (an existing environment to link to), or uv (its path; null: the one on PATH),
wheels [{sha256, name}], python (null: the Python that runs this) and requirements (a text that names by version
and hash what the host's own package index has to give; null: nothing, and uv stays off the network), and
imports [modules that its Python must be able to import], limit (s; programs that run for longer are ended);
optional host_root and lock (token).
Reply: installed (bool: false if it was there), target (absolute), seconds.

Scripts in an environment hold its absolute path, so it is built in its final place; the file `.complete`
is written last, and a directory without it is removed and built again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Failure, Json, clean_environment, digest, inside, os_failure
from fleet.hostside.files import directory, link, write
from fleet.hostside.guard import require_lock, still_locked
from fleet.hostside.installed import COMPLETE, mark_of
from fleet.hostside.package_index import explain, index_environment, without_credentials

STEP = "installing"
_PATIENCE_S = 600.0
"""For another host that shares this directory and installs the same."""
_LIMIT_S = 870.0
"""Where the request names none: who asks does not wait for much longer."""


class Way(NamedTuple):
    """How programs are run.

    Parameters
    ----------
    environment
        Their variables.
    deadline
        When all must be done, on the monotonic clock.
    limit
        How long all may take, in seconds; for messages.
    """

    environment: Mapping[str, str]
    deadline: float
    limit: float

    def with_environment(self, environment: Mapping[str, str]) -> Way:
        """The same with other variables."""
        return Way(environment, self.deadline, self.limit)


def main(request: Json) -> Json:
    """Install, unless that is done.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The lock that it names is not ours any more, or it cannot be installed: uv says why.
    """
    require_lock(request)
    fleet = Path(request["fleet_root"])
    target = fleet / request["target"]
    directory(target.parent, 0o755)
    inside(fleet, request["target"])
    started = time.monotonic()
    limit = float(request.get("limit", _LIMIT_S))
    with still_locked(request, target.parent / ".lock", _PATIENCE_S, STEP):
        if request.get("path"):
            installed = _link(target, request)
        else:
            installed = _build(fleet, target, request, Way(_environment(fleet), started + limit, limit))
    return {"installed": installed, "target": str(target), "seconds": time.monotonic() - started}


def _environment(fleet: Path) -> dict[str, str]:
    return {
        **clean_environment(os.environ),
        "UV_CACHE_DIR": str(fleet / "cache"),
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
    }


def _link(target: Path, request: Json) -> bool:
    existing = Path(os.path.expanduser(request["path"]))  # noqa: PTH111 - raises nothing
    if not existing.is_absolute():
        raise Failure(f"{existing} is not absolute", STEP, "give release.path from / or ~")
    _check_provided(existing, request)
    if target.is_dir() and not target.is_symlink():
        raise Failure(f"{target} is an environment of its own, not a link", STEP, "remove it")
    return link(target, str(existing))


def _build(fleet: Path, target: Path, request: Json, way: Way) -> bool:
    if (target / COMPLETE).exists():
        return False
    wheels = _verified(fleet, request["wheels"])
    uv = _uv(request.get("uv"))
    python = _python(request.get("python"))
    _discard(target)
    _run("uv venv", [uv, "venv", "--offline", "--no-project", "--python", python, str(target)], way)
    if request.get("requirements"):
        _install_from_index(uv, target, request["requirements"], way)
    install = ["pip", "install", "--offline", "--no-index", "--no-deps", "--python", str(target / "bin/python")]
    if wheels:
        _run("uv pip install", [uv, *install, *map(str, wheels)], way)
    _check_provided(target, request)
    _try_imports(target, request.get("imports", ()), way)
    write(target / COMPLETE, mark_of(request["wheels"]), 0o644)
    return True


def _install_from_index(uv: str, target: Path, requirements: str, way: Way) -> None:
    """Let uv ask the index that this host's own settings name; nothing but the very files named is accepted."""
    file = target / "requirements.txt"
    write(file, requirements.encode(), 0o644)
    # Refresh: what was missing an hour ago may have been put into the index since.
    words = ["pip", "install", "--refresh", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    settings = {name: value for name, value in way.environment.items() if name != "UV_NO_CONFIG"}
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.expanduser raises where there is no entry
    command = [uv, *words, "--python", str(target / "bin/python"), "--requirement", str(file)]
    way = way.with_environment({**index_environment(os.environ, home), **settings})
    status, said = _execute("uv pip install", command, way)
    if status != 0 and (meaning := explain(said)):
        hint = "name an index that has it in pip's or uv's settings on the host, or set release.install to push"
        raise Failure(f"{meaning}:\n{said}", STEP, hint)
    if status != 0:
        raise _failed("uv pip install", status, said)


def _try_imports(target: Path, modules: Sequence[str], way: Way) -> None:
    """What this host cannot import shows before anything changes; and it is compiled once for all workers."""
    if modules:
        command = [str(target / "bin/python"), "-I", "-c", f"import {', '.join(modules)}"]
        _run("importing what was installed", command, way, "check release.python and release.extras")


def _verified(fleet: Path, wheels: Sequence[Json]) -> list[Path]:
    """Check what was uploaded. A damaged wheel is removed, so that the next deploy brings it again."""
    paths, problems = [], []
    for wheel in wheels:
        path = inside(fleet, f"wheels/{wheel['sha256']}/{wheel['name']}")
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif digest(path) != wheel["sha256"]:
            path.unlink()
            problems.append(f"{path} was damaged, and is removed")
        paths.append(path)
    if problems:
        raise Failure("; ".join(problems), STEP, "deploy again: what is missing will be uploaded")
    return paths


def _uv(path: str | None) -> str:
    found = path or shutil.which("uv")
    if not found or not os.access(found, os.X_OK):
        raise Failure(f"no uv at {path or 'any place of PATH'}", STEP, "deploy again: it will be uploaded")
    return found


def _python(name: str | None) -> str:
    if not name:
        return sys.executable
    found = shutil.which(os.path.expanduser(name))  # noqa: PTH111 - a bare name stays one
    if found is None:
        raise Failure(f"no Python called {name!r}", STEP, "install it or set release.python")
    return found


def _discard(target: Path) -> None:
    try:
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            shutil.rmtree(target)
    except OSError as error:
        raise os_failure(error, STEP, target) from error


def _run(what: str, words: Sequence[str], way: Way, hint: str = "") -> None:
    status, said = _execute(what, words, way)
    if status != 0:
        raise _failed(what, status, said, hint)


def _execute(what: str, words: Sequence[str], way: Way) -> tuple[int, str]:
    """Run a program to its end; its status and the last lines it wrote."""
    try:
        process = subprocess.Popen(
            words,
            env=way.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise os_failure(error, STEP, words[0]) from error
    try:
        output, _ = process.communicate(timeout=max(0.0, way.deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        hint = "look at the load, the disk and the package index of this host, then deploy again"
        raise Failure(f"{what} did not end within {way.limit:g} s", STEP, hint) from error
    finally:
        _end(process)
    said = without_credentials(output.decode("utf-8", "replace"))
    return process.returncode, "\n".join(said.splitlines()[-20:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program with all that it started: a lock must not stay held for what nobody waits for any more."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failed(what: str, status: int, said: str, hint: str = "") -> Failure:
    if "No space left" in said:
        hint = "free some space there"
    return Failure(f"{what} ended with status {status}:\n{said}", STEP, hint)


def _check_provided(environment: Path, request: Json) -> None:
    missing = [name for name in request.get("provides", ()) if not (environment / name).exists()]
    if missing:
        hint = "check release.package" if not request.get("path") else "install puffin-fleet there, or set release.path"
        raise Failure(f"{environment} has no {', '.join(missing)}", STEP, hint)
