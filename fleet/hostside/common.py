"""What every host-side program starts from: failures, paths, and the one line of reply.

These modules run on the hosts, as one text on the standard input of the host's own Python. They use
nothing but the standard library, and import nothing of this project but their neighbours in this package,
which travel with them. Of the library they leave out what takes long to import, such as dataclasses: a deploy
starts ten of these programs on every host.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]
"""What travels as JSON, in either direction."""

_HINTS = {
    errno.ENOSPC: "free some space there, or choose another directory",
    errno.EDQUOT: "the disk quota is used up: free some space there, or choose another directory",
    errno.EROFS: "the file system is read-only: choose another directory",
    errno.EACCES: "check who owns it, or choose another directory",
    errno.EPERM: "check who owns it, or choose another directory",
    errno.ENOLCK: "the file system offers no locks: choose a base_dir on another one",
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\Z")


class Failure(Exception):
    """An action cannot be done.

    Parameters
    ----------
    what
        What is wrong, and where.
    step
        What was being done.
    hint
        What to do next; may be empty.
    passing
        Whether the same may work in a moment, without anybody having done anything.
    """

    def __init__(self, what: str, step: str = "", hint: str = "", passing: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.step = step
        self.hint = hint
        self.passing = passing

    def as_reply(self) -> Json:
        """As it goes over the connection."""
        error = {"what": self.what, "step": self.step, "hint": self.hint, "passing": self.passing}
        return {"ok": False, "error": error}


def os_failure(error: OSError, step: str, path: object = None) -> Failure:
    """Name the place of an operating-system error, and what to do about it.

    Parameters
    ----------
    error
        The error.
    step
        What was being done.
    path
        The place; else the error's own.
    """
    place = path if path is not None else error.filename
    reason = os.strerror(error.errno) if error.errno else str(error)
    what = f"{reason}: {place}" if place is not None else reason
    return Failure(what, step, _HINTS.get(error.errno or 0, ""))


def answer(action: Callable[[Json], Json], request: Json) -> Json:
    """Do one action; whatever happens becomes a reply.

    Parameters
    ----------
    action
        The `main` of a module.
    request
        For it.

    Returns
    -------
    Json
        What it returns with `ok` true, or what went wrong with `ok` false.
    """
    try:
        return {"ok": True, **action(request)}
    except Failure as failure:
        return failure.as_reply()
    except OSError as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return os_failure(error, "").as_reply()
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        last = f"{type(error).__name__}: {error}"
        hint = "this is a defect of puffin-fleet: please report it"
        return Failure(last, "", hint).as_reply()


def run(action: Callable[[Json], Json], request: Json, marker: str) -> None:
    """Do one action and print the reply as a line of its own after the marker.

    Start-up files of shells print what they like, so the marker tells the reply from the noise.

    Parameters
    ----------
    action, request
        As for `answer`.
    marker
        A word that is in no other output.
    """
    # Others of the user's group must not be able to replace what his workers run, whatever his own umask is.
    os.umask(os.umask(0o077) | 0o022)
    reply = json.dumps(answer(action, {**request, "marker": marker}))
    sys.stdout.write(f"\n{marker} {reply}\n")
    sys.stdout.flush()


def expand(path: str) -> Path:
    """Make a path of hosts.yaml absolute on this host: `~` and relative paths start at the home directory.

    Parameters
    ----------
    path
        As it stands there.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.expanduser raises where there is no entry
    return Path(os.path.normpath(home / os.path.expanduser(path)))  # noqa: PTH111 - as above


def plain_name(name: str) -> str:
    """Refuse names that could lead out of a directory.

    Parameters
    ----------
    name
        The name.

    Returns
    -------
    str
        The same.

    Raises
    ------
    Failure
        It is no plain name.
    """
    if not _NAME.match(name):
        raise Failure(f"{name!r} is not a plain name", "checking the request")
    return name


def inside(root: Path, relative: str) -> Path:
    """Give a path below `root`; refuse one that leads out of it, also through symbolic links.

    Parameters
    ----------
    root
        The directory.
    relative
        The path below it.

    Raises
    ------
    Failure
        It leads out.
    """
    path = root / relative
    parts = Path(relative).parts
    if not parts or Path(relative).is_absolute() or ".." in parts:
        raise Failure(f"{relative!r} leads out of {root}", "checking the request")
    real = Path(os.path.realpath(path.parent))
    top = Path(os.path.realpath(root))
    if real != top and top not in real.parents:
        raise Failure(f"{relative!r} leads out of {root}, to {real}", "checking the request")
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OSError
        It cannot be read.
    """
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def read_text(path: Path, default: str = "") -> str:
    """Read a small file that may be missing or out of reach.

    Parameters
    ----------
    path
        The file.
    default
        What is returned without it.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return default


def tail_of(path: Path, lines: int = 20, block: int = 1 << 16) -> list[str]:
    """Read the last lines of a file that may be missing.

    Parameters
    ----------
    path
        The file.
    lines
        How many at the most.
    block
        How many bytes at the most.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - block))
            text = stream.read()
    except OSError:
        return []
    found = text.decode("utf-8", "replace").splitlines()
    if size > block:
        found = found[1:]  # its beginning is cut off
    return found[-lines:] if lines > 0 else []


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Look until the condition holds; say whether it does.

    Parameters
    ----------
    condition
        Looks.
    seconds
        For how long at the most.
    pause
        Seconds between two looks.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True


@contextlib.contextmanager
def locked(path: Path, seconds: float, step: str, sign: bool = True) -> Iterator[None]:
    """Hold a lock file that the kernel releases when this process ends, however it ends.

    Who holds it stands in the file, unless `sign` is false.

    Raises
    ------
    Failure
        Somebody else holds it for longer than `seconds`, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_failure(error, step, path) from error
    try:
        if not wait_until(lambda: _try_lock(descriptor, path, step), seconds, pause=0.1):
            hint = "wait for the other puffin-fleet to end, then try again"
            holder = read_text(path).strip() or "another process"
            raise Failure(f"{path} is held by {holder} for over {seconds:g} s", step, hint)
        if sign:
            _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Say who holds a lock file; a full disk keeps nobody from holding it."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _try_lock(descriptor: int, path: Path, step: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise os_failure(error, step, path) from error
    return True


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Drop what would bend another Python's or uv's behaviour, and what belongs to the SSH session only.

    Parameters
    ----------
    environment
        All variables.
    """
    unwanted = ("PYTHON", "UV_", "PIP_", "VIRTUAL_ENV", "CONDA_", "SSH_", "SUPERVISOR_", "PUFFIN_", "__PYVENV")
    return {name: value for name, value in environment.items() if not name.startswith(unwanted)}
