"""The user's crontab: one line of ours in it, and every other line left as it is.

A line of a crontab cannot be quoted as a whole: cron turns `%` into a line break unless a backslash stands before
it, and hands the rest to whatever shell the crontab names. The line is therefore one call of /bin/sh, and its
marker is an argument of that call, since not every shell takes `#` for a comment there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from fleet.hostside.common import Failure, read_text

STEP = "arranging the start at boot"
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"
_DAEMONS = frozenset({"cron", "crond", "fcron", "cronie", "busybox", "anacron"})
_SECONDS = 10.0

# A home directory on the network may be mounted minutes after cron is started.
WAIT_AND_RUN = 'n=0; until [ -x "$1" ] || [ $n -ge 360 ]; do n=$((n+1)); /bin/sleep 5; done; exec /bin/sh "$1"'
"""Script for /bin/sh that runs the file named by its argument, once it is there; waits for half an hour at most."""


def marker(fleet: str, host: str) -> str:
    """The word by which our line is known; fleet and host are plain names.

    Parameters
    ----------
    fleet, host
        Their names.
    """
    return f"puffin-fleet:{fleet}/{host}"


def line(fleet: str, host: str, program: Path) -> str:
    """Our line: run a program when the machine has started.

    Raises
    ------
    Failure
        The path of the program holds a line break, which a crontab cannot.
    """
    if "\n" in str(program):
        raise Failure(f"{str(program)!r} cannot stand in a crontab", STEP)
    command = shlex.join(["/bin/sh", "-c", WAIT_AND_RUN, marker(fleet, host), str(program)])
    return "@reboot " + command.replace("%", "\\%")


def with_line(text: str, mark: str, wanted: str | None) -> str:
    """Put our line in the place of the one we had, or at the end; None takes it out.

    Parameters
    ----------
    text
        The crontab.
    mark
        The word by which our line is known.
    wanted
        The line as it shall be.
    """
    found: list[str] = []
    rest = wanted
    for each in _lines(text):
        if not _is_ours(each, mark):
            found.append(each)
        elif rest is not None:
            found.append(rest)
            rest = None
    if rest is not None:
        found.append(rest)
    return "".join(f"{each}\n" for each in found)


def _lines(text: str) -> list[str]:
    """Not at every character that Python takes for the end of a line: other lines must stay as they are."""
    return text.removesuffix("\n").split("\n") if text else []


def our_line(text: str, mark: str) -> str | None:
    """Our line in a crontab.

    Parameters
    ----------
    text
        The crontab.
    mark
        See `marker`.

    Returns
    -------
    str | None
        The line; None where it is not there.
    """
    return next((each for each in _lines(text) if _is_ours(each, mark)), None)


def _is_ours(text: str, mark: str) -> bool:
    return text.startswith("@reboot ") and f" {mark} " in text


def read() -> str:
    """The user's crontab; empty where there is none.

    Raises
    ------
    Failure
        There is no cron, or this user may not use it.
    """
    done = _run("-l")
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "surrogateescape")
    # BusyBox says that it cannot open the file.
    if "no crontab" in said.lower() or "can't open" in said.lower():
        return ""
    raise Failure(f"crontab cannot be used: {said or f'status {done.returncode}'}", STEP)


def write(text: str) -> None:
    """Replace the user's crontab, and look whether it is there.

    Parameters
    ----------
    text
        All of it.

    Raises
    ------
    Failure
        cron does not take it.
    """
    done = _run("-", text=text)
    if done.returncode != 0 or our_lines(read()) != our_lines(text):
        said = done.stderr.decode("utf-8", "replace").strip()
        raise Failure(f"crontab does not take the line: {said or f'status {done.returncode}'}", STEP)


def our_lines(text: str) -> list[str]:
    """The lines of all fleets in a crontab.

    Parameters
    ----------
    text
        The crontab.
    """
    return [each for each in _lines(text) if each.startswith("@reboot ") and " puffin-fleet:" in each]


def daemon_seen() -> bool:
    """Whether a cron daemon was seen; where /proc is hidden from users, none is, though one may run."""
    try:
        names = {read_text(entry / "comm").strip() for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    except OSError:
        return False
    return bool(names & _DAEMONS)


def _run(argument: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("crontab", path=_PATH)
    if program is None:
        raise Failure("there is no cron", STEP)
    try:
        return subprocess.run(
            [program, argument],
            input=text.encode("utf-8", "surrogateescape"),
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"crontab does not answer within {_SECONDS:g} s", STEP) from error
    except OSError as error:
        raise Failure(f"crontab cannot be run: {error.strerror}", STEP) from error
