"""Running uv and pip: found, configured alike, silent unless they fail, their failures explained."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleet.errors import FleetError
from fleet.reach.execute import THIS_MACHINE
from puffin.indexes import uv_environment

_TAIL_LINES = 20
REPRODUCIBLE = {"SOURCE_DATE_EPOCH": "1580601600"}
"""Variables with which equal content makes an equal wheel."""


class BundleError(FleetError):
    """The wheels for the hosts could not be made or fetched."""


def run_tool(argv: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program and return its standard output; what it printed is shown only if it fails.

    Parameters
    ----------
    argv
        Program and arguments.
    what
        What was being done, for the error: "resolve the worker's requirements".
    environment
        Variables set on top of the present ones.

    Raises
    ------
    ToolFailed
        The program could not be started, or exited with another status than 0.
    """
    try:
        done = subprocess.run(
            list(argv),
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ToolFailed(f"Could not {what}: {argv[0]}: {error.strerror}.", output="") from error
    if done.returncode != 0:
        raise ToolFailed(f"Could not {what}.", output=_without_credentials(done.stderr + done.stdout))
    return done.stdout


class ToolFailed(BundleError):
    """A program run for us failed; the last lines it printed are part of the message."""

    def __init__(self, summary: str, output: str) -> None:
        lines = [f"    {line}" for line in output.splitlines() if line.strip()][-_TAIL_LINES:]
        super().__init__("\n".join([summary, *lines]))
        self.summary = summary
        self.output = output


def _without_credentials(text: str) -> str:
    return re.sub(r"//[^/\s@]+@", "//***@", text)


_NO_NETWORK = (
    r"dns error|error sending request|Failed to establish a new connection|Temporary failure in name"
    r"|Connection refused|Connection timed out|Network is unreachable|NameResolutionError|tunnel error"
    r"|network was disabled|No route to host"
)
_SYMPTOMS = (
    (r"Wheels are required for `([^`]+)`", "There is no wheel of {name} for {platform}."),
    (
        _NO_NETWORK,
        "The package index cannot be reached from this machine: check the network, or the mirror in "
        "pip's or uv's settings. (The hosts themselves need no internet.)",
    ),
    (
        r"[Bb]ecause (\S+) was not found in the package registry",
        "The package index has no package {name}: check the spelling and the index in pip's settings.",
    ),
    (r"No matching distribution found for (\S+)", "The package index has no wheel of {name} for {platform}."),
)


def explain(failure: ToolFailed, platform: str = THIS_MACHINE) -> BundleError:
    """Say what a failed run of uv or pip means; its last lines stay below as the evidence."""
    for pattern, message in _SYMPTOMS:
        found = re.search(pattern, failure.output)
        if found:
            name = found[1] if found.re.groups else ""
            return BundleError(f"{message.format(name=name, platform=platform)}\n{failure}")
    return failure


def run_pip(arguments: Sequence[str], what: str, platform: str = THIS_MACHINE) -> None:
    """Run pip for wheels alone, without what they depend on.

    Parameters
    ----------
    arguments
        Its verb, and what follows.
    what
        What was being done, for the error.
    platform
        Whose wheels these are, for the error.

    Raises
    ------
    BundleError
        It failed.
    """
    verb, *rest = arguments
    command = [sys.executable, "-m", "pip", verb, "--no-deps", "--no-input", *rest]
    try:
        run_tool(command, what, {**REPRODUCIBLE, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    except ToolFailed as failure:
        raise explain(failure, platform) from failure


def uv_program() -> str:
    """Return the path of uv: the installed package's, else the one on the PATH.

    Raises
    ------
    BundleError
        There is none.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise BundleError("uv is not installed: run `pip install uv`.")
    return found


def uv_settings() -> dict[str, str]:
    """Return variables that make uv use pip's index and certificates, unless uv has settings of its own."""
    own = [Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "uv/uv.toml"]
    settings = {"UV_PYTHON_DOWNLOADS": "never"}
    if any(path.is_file() for path in [*own, Path("/etc/uv/uv.toml")]):
        return settings
    text = run_tool([sys.executable, "-m", "pip", "config", "list"], "read pip's settings")
    return {**settings, **uv_environment(text, os.environ, "download")}
