"""Every error this project raises on purpose, and the exit codes of the worker."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a worker ends. supervisord restarts after FAILED and RECYCLE, never after the others."""

    DONE = 0
    FAILED = 1
    CONFIGURATION = 2
    QUARANTINED = 3
    RECYCLE = 75


class PuffinError(Exception):
    """Base of all errors; the message says what, where and what to do next."""

    exit_code = ExitCode.FAILED


class ConfigurationError(PuffinError):
    """The configuration cannot be used.

    Parameters
    ----------
    problems
        One sentence each; all that were found, not only the first.
    """

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DatabaseError(PuffinError):
    """The database refused what was asked: wrong credentials, missing rights, malformed data."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached just now; the same call may succeed later."""


class DaemonError(PuffinError):
    """A worker cannot be started or stopped: already running, not ours, not there."""


class CannotFork(DaemonError):
    """No process for a job can be made, or none lives for long enough: a crash of the worker, as it were."""


class ProgramError(PuffinError):
    """A program that jobs need cannot be installed, found or used."""
