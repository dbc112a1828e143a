"""A unit of the user's own systemd, which lingering starts with the machine.

How it ends matters more than how it starts:

- `KillMode=process`: systemd signals supervisord alone. Any other mode would send SIGTERM to the programs inside
  calculations, which then fail instead of being given back; and would kill all workers if supervisord died.
- `ExecStop` has the workers give their calculations back, which takes seconds, while the network is still up. A
  machine that is switched off cannot wait for a calculation of days.
- `OOMPolicy=continue`: one calculation that runs out of memory is no reason to end all workers.
- `ConditionHost`: hosts that share a home directory all see the units of all of them.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Failure, expand, read_text
from fleet.hostside.crontab import WAIT_AND_RUN
from fleet.hostside.files import directory, write

STEP = "arranging the start at boot"
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_SECONDS = 10.0
_LINGER = Path("/var/lib/systemd/linger")
STOP_SECONDS = 50
"""For giving calculations back; the user's systemd as a whole is given 120 s by the system's."""


class Unit(NamedTuple):
    """The unit of one host of one fleet.

    Parameters
    ----------
    name
        With its suffix. Six digits tell host `b-c` of fleet `a` from host `c` of fleet `a-b`.
    text
        Its content.
    directory
        Where the user's units are.
    """

    name: str
    text: str
    directory: Path

    @property
    def path(self) -> Path:
        """Where its file is."""
        return self.directory / self.name

    @property
    def in_place(self) -> bool:
        """Whether it is there as it shall be, enabled, and its user lingers."""
        return self.enabled and read_text(self.path) == self.text and lingers()

    @property
    def enabled(self) -> bool:
        """Whether systemd starts it with the user's session."""
        return os.path.lexists(self.directory / "default.target.wants" / self.name)


def unit(fleet: str, host: str, program: Path, pid_file: Path, hostname: str) -> Unit:
    """Build the unit that runs a program when the machine has started, and `<program> stop` before it ends.

    Parameters
    ----------
    fleet, host
        Their names.
    program
        What it runs.
    pid_file
        That of supervisord.
    hostname
        The machine on which alone it counts: homes are shared.
    """
    home = Path(os.environ.get("XDG_CONFIG_HOME") or expand("~/.config"))
    text = f"""\
# Written by puffin-fleet; the next deploy undoes changes made here.
[Unit]
Description=Puffin workers of fleet {fleet} on {host}
ConditionHost={hostname}

[Service]
Type=forking
PIDFile={_escaped(str(pid_file))}
ExecStart=/bin/sh -c {_quoted(WAIT_AND_RUN)} puffin-fleet {_quoted(str(program))}
# A home directory on the network may take its time.
TimeoutStartSec=infinity
# Gives the calculations back; then supervisord alone is told to end.
ExecStop=-/bin/sh {_quoted(str(program))} stop
KillMode=process
TimeoutStopSec={STOP_SECONDS}
OOMPolicy=continue
# For the limits of single calculations.
Delegate=memory
TasksMax=infinity

[Install]
WantedBy=default.target
"""
    digits = hashlib.sha256(f"{fleet}/{host}".encode()).hexdigest()[:6]
    return Unit(f"puffin-fleet-{fleet}-{host}-{digits}.service", text, home / "systemd" / "user")


def _escaped(text: str) -> str:
    """What follows a percent sign is the name of something else to systemd."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One word of a command line of a unit."""
    if any(ord(character) < 32 for character in word):
        raise Failure(f"{word!r} cannot stand in a unit of systemd", STEP)
    inner = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{inner}"'


def obstacle() -> str:
    """Why the user's systemd cannot be used here; empty if it can be, lingering aside."""
    if shutil.which("systemctl", path=_PATH) is None:
        return "there is no systemd"
    runtime = _runtime_directory()
    if not (runtime / "bus").exists() and not (runtime / "systemd" / "private").exists():
        return "the user has no systemd of its own in this session"
    try:
        _systemctl("show", "--property=Version")
    except Failure as failure:
        return failure.what
    return ""


def lingers() -> bool:
    """Whether the user's systemd is started with the machine."""
    return (_LINGER / user_name()).exists()


def linger() -> None:
    """Have the user's systemd started with the machine.

    Raises
    ------
    Failure
        This user may not ask for that.
    """
    if lingers():
        return
    _run("loginctl", "enable-linger")
    if not lingers():
        hint = f"an administrator can run: loginctl enable-linger {user_name()}"
        raise Failure("lingering, which starts the user's systemd with the machine, was not turned on", STEP, hint)


def install(wanted: Unit) -> None:
    """Write and enable a unit; it is not started.

    Parameters
    ----------
    wanted
        The unit.

    Raises
    ------
    Failure
        It cannot be written, or systemd refuses.
    """
    directory(wanted.directory, 0o755)
    if read_text(wanted.path) != wanted.text:
        write(wanted.path, wanted.text.encode(), 0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", wanted.name)


def remove(old: Unit) -> bool:
    """Disable and remove a unit; what runs goes on.

    Parameters
    ----------
    old
        The unit.

    Returns
    -------
    bool
        Whether it was there.
    """
    link = old.directory / "default.target.wants" / old.name
    there = old.path.exists() or os.path.lexists(link)
    # By hand, since it must also go where this session does not reach the user's systemd.
    link.unlink(missing_ok=True)
    old.path.unlink(missing_ok=True)
    if there and not obstacle():
        _systemctl("daemon-reload")
    return there


def start(wanted: Unit, seconds: float) -> None:
    """Start a unit, so that what it starts belongs to the user's systemd and not to this session.

    Raises
    ------
    Failure
        It does not start.
    """
    _systemctl("start", wanted.name, seconds=seconds)


def _runtime_directory() -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")


def user_name() -> str:
    """The name that lingering is noted under."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _systemctl(*words: str, seconds: float = _SECONDS) -> None:
    _run("systemctl", "--user", "--no-ask-password", *words, seconds=seconds)


def _run(name: str, *words: str, seconds: float = _SECONDS) -> None:
    program = shutil.which(name, path=_PATH)
    if program is None:
        raise Failure(f"there is no {name}", STEP)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(_runtime_directory()), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [program, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{name} does not answer within {seconds:g} s", STEP) from error
    except OSError as error:
        raise Failure(f"{name} cannot be run: {error.strerror}", STEP) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise Failure(f"{name} {words[0]}: {said or f'status {done.returncode}'}", STEP)
