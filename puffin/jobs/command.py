"""A job that runs one of the programs that the worker's configuration allows."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from puffin.jobs.base import JobContext, Outcome
from puffin.verdicts import signal_name


def run(context: JobContext) -> Outcome:
    """Run a program without a shell, in the job's directory, with no standard input.

    The calculation's setting ``program`` is the name or the path of a program in ``daemon.commands``, ``arguments``
    a list of texts. What the program prints is the output of the job.

    Parameters
    ----------
    context
        The job's surroundings.
    """
    try:
        words = command_line(context.claim.settings, context.settings.daemon.commands)
        status = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    except ValueError as error:
        return Outcome(success=False, comment=str(error))
    except OSError as error:
        return Outcome(success=False, comment=f"{words[0]} cannot be run: {error.strerror}")
    if status == 0:
        return Outcome(success=True)
    how = f"exited with code {status}" if status > 0 else f"was killed by {signal_name(-status)}"
    return Outcome(success=False, comment=f"{words[0]} {how}")


def command_line(settings: Mapping[str, Any], allowed: tuple[str, ...]) -> list[str]:
    """The words to run.

    Parameters
    ----------
    settings
        Those of the calculation.
    allowed
        Paths of the programs that may be run.

    Raises
    ------
    ValueError
        The program is not allowed, or the arguments are no list of texts.
    """
    program, arguments = settings.get("program"), settings.get("arguments", [])
    if isinstance(arguments, Mapping):
        # As SCINE stores a list in a value collection.
        arguments = arguments.get("list")
    found = [path for path in allowed if program in {path, PurePath(path).name}]
    if not found:
        raise ValueError(f"program {program!r} is not in daemon.commands of this worker: {', '.join(allowed)}")
    if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
        raise ValueError(f"arguments must be a list of texts, not {arguments!r}")
    return [found[0], *arguments]
