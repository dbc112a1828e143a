"""Every error the manager raises on purpose, and the exit codes of `puffin-fleet`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """How `puffin-fleet` ends."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    LOCKED = 4
    INTERRUPTED = 130


class FleetError(Exception):
    """Base of all errors; the message says what, where and what to do next."""

    exit_code = ExitCode.FAILED


class UsageError(FleetError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = ExitCode.USAGE


class Declined(FleetError):
    """Whoever was asked said no; as Ctrl-C at the question, it ends the command."""

    exit_code = ExitCode.INTERRUPTED


class RemoteError(FleetError):
    """A step failed on one host.

    Parameters
    ----------
    host
        Name of the host in hosts.yaml.
    step
        What was being done there, for example "install release".
    what
        What went wrong, in one line.
    hint
        What to do next; may be empty.
    """

    verdict = "failed at"
    """What it means for the host; the step follows."""

    def __init__(self, host: str, step: str, what: str, hint: str = "") -> None:
        super().__init__(f"{host}: {step}: {what}" + (f"\n  {hint}" if hint else ""))
        self.host = host
        self.step = step
        self.what = what
        self.hint = hint


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the description of a fleet.

    Parameters
    ----------
    message
        What is wrong and what is expected instead; never a value that may be secret.
    path
        Where in the description, for example ``hosts.node3.workers[0].cores``; empty for the whole.
    source
        The file; empty where the problem does not come from one place in a file.
    line
        Line in the file, counted from 1.
    """

    message: str
    path: str = ""
    source: str = ""
    line: int | None = None

    def __str__(self) -> str:
        file = self.source if self.line is None else f"{self.source}:{self.line}"
        where = " ".join(part for part in (file, self.path) if part)
        return f"{where}: {self.message}" if where else self.message


class InventoryError(FleetError):
    """The description of the fleet cannot be used.

    Parameters
    ----------
    problems
        All that were found, not only the first; one line each in the message.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
