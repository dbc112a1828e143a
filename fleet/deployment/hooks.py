"""The operator's own programs, run on this machine before and after a deploy.

They are run without a shell. A hook may itself run `puffin-fleet plan` or `deploy` for hosts of the fleet: it finds
the token of the lock in its environment, so that the lock it runs under does not stop it. Such a command runs no hooks
of the same fleet: they would run themselves for ever.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from fleet.deployment.lock import TOKEN_VARIABLE
from fleet.errors import ExitCode, FleetError, InventoryError, Problem
from fleet.hosts.inventory import Fleet

TIMEOUT_S = 3600.0
FILE_VARIABLE = "PUFFIN_FLEET"
_LAST_LINES = 10
_END_S = 5.0


class Hook(Enum):
    """When a hook is run; the value is its key in the section `hooks` of hosts.yaml."""

    PRE_DEPLOY = "pre_deploy"
    POST_DEPLOY = "post_deploy"


@dataclass(frozen=True)
class HookEnvironment:
    """What a hook is told.

    Parameters
    ----------
    token
        Of the lock it runs under; empty where nothing is locked.
    hosts
        The hosts that the command is about.
    deed
        Id of the command, as `history` shows it.
    verb
        The command.
    outcome
        For `post_deploy`: ``done`` or ``failed``.
    failed
        For `post_deploy`: the hosts that failed.
    """

    token: str
    hosts: Sequence[str]
    deed: str
    verb: str
    outcome: str = ""
    failed: Sequence[str] = ()


class HookFailed(FleetError):
    """A hook ended with another status than 0, took too long, or could not be started."""

    exit_code = ExitCode.FAILED


def check_hooks(fleet: Fleet) -> None:
    """See that the hooks can be run, before any host is touched.

    Parameters
    ----------
    fleet
        The fleet.

    Raises
    ------
    InventoryError
        A hook is no file or cannot be executed; all of them at once.
    """
    found = [(hook, path) for hook in Hook if (path := hook_path(fleet, hook)) is not None]
    problems = [_problem(fleet, hook, message) for hook, path in found if (message := _wrong_with(path))]
    if problems:
        raise InventoryError(tuple(problems))


def _problem(fleet: Fleet, hook: Hook, message: str) -> Problem:
    path = f"hooks.{hook.value}"
    source, line = fleet.places.get(path, (fleet.source, None))
    return Problem(message, path, source, line)


def _wrong_with(path: Path) -> str:
    if not path.is_file():
        return f"no file {path}"
    if not os.access(path, os.X_OK):
        return f"{path} cannot be executed: 'chmod +x' it"
    return ""


def hook_path(fleet: Fleet, hook: Hook) -> Path | None:
    """Where a hook is, absolute; None where hosts.yaml names none. A relative path starts at hosts.yaml.

    Parameters
    ----------
    fleet
        The fleet.
    hook
        Which.
    """
    named: str | None = getattr(fleet.hooks, hook.value)
    if named is None:
        return None
    return Path(os.path.abspath(Path(fleet.source).parent / Path(named).expanduser()))  # noqa: PTH100 - links stay


def run_hook(fleet: Fleet, hook: Hook, environment: HookEnvironment, timeout_s: float = TIMEOUT_S) -> bool:
    """Run a hook to its end, in the directory of hosts.yaml; what it writes goes to our standard error.

    Parameters
    ----------
    fleet
        The fleet.
    hook
        Which.
    environment
        What it is told.
    timeout_s
        How long it may take, in seconds.

    Returns
    -------
    bool
        Whether it was run: there is such a hook, and it is not a hook of this fleet that runs this command.

    Raises
    ------
    HookFailed
        It did not end with status 0; the message has its last lines.
    """
    path = hook_path(fleet, hook)
    if path is None or _inside_hook_of(fleet):
        return False
    name = f"hooks.{hook.value} ({path})"
    try:
        process = subprocess.Popen(
            [str(path)],
            env={**os.environ, **_variables(fleet, environment)},
            cwd=path_of(fleet).parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "does its first line name its interpreter, such as '#!/bin/sh'?"
        raise HookFailed(f"{name} cannot be started: {reason}\n  {hint}") from error
    lines = _see_through(process, name, timeout_s)
    if process.returncode != 0:
        raise HookFailed(f"{name} {_ending(process.returncode)}{_quoted(lines)}")
    return True


def _inside_hook_of(fleet: Fleet) -> bool:
    return bool(os.environ.get(TOKEN_VARIABLE)) and os.environ.get(FILE_VARIABLE) == str(path_of(fleet))


def path_of(fleet: Fleet) -> Path:
    """The absolute path of hosts.yaml.

    Parameters
    ----------
    fleet
        The fleet.
    """
    return Path(os.path.abspath(fleet.source))  # noqa: PTH100 - links stay


def _variables(fleet: Fleet, environment: HookEnvironment) -> dict[str, str]:
    told = {
        FILE_VARIABLE: str(path_of(fleet)),
        TOKEN_VARIABLE: environment.token,
        "PUFFIN_FLEET_HOSTS": " ".join(environment.hosts),
        "PUFFIN_FLEET_DEPLOY": environment.deed,
        "PUFFIN_FLEET_VERB": environment.verb,
    }
    if environment.outcome:
        told["PUFFIN_FLEET_OUTCOME"] = environment.outcome
        told["PUFFIN_FLEET_FAILED"] = " ".join(environment.failed)
    return told


def _see_through(process: subprocess.Popen[bytes], name: str, timeout_s: float) -> list[str]:
    """Wait until the hook itself has ended; what it left running in the background is not waited for."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    last: deque[str] = deque(maxlen=_LAST_LINES)
    reader = threading.Thread(target=_pass_on, args=(process.stdout, last), daemon=True)
    try:
        reader.start()
        process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        _end(process)
        reader.join(_END_S)
        raise HookFailed(f"{name} did not end within {timeout_s:g} s, and was ended{_quoted(list(last))}") from error
    except BaseException:
        _end(process)  # Ctrl-C is for the hook as well
        raise
    reader.join(_END_S)
    return list(last)


def _pass_on(stream: IO[bytes], last: deque[str]) -> None:
    for line in stream:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        last.append(text)
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
            return


def _ending(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _quoted(lines: Sequence[str]) -> str:
    return "; its last lines:\n    " + "\n    ".join(lines) if lines else ""
