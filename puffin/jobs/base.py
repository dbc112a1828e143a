"""What a job is to the worker: its kind, what it is given, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import cast

from puffin.calculations import Claim, Usage
from puffin.settings import Settings


@dataclass(frozen=True)
class JobKind:
    """One value of ``job.order`` and the code that runs it.

    Parameters
    ----------
    order
        The order's name.
    provider
        The distribution that brings it, with its version.
    required_programs
        Programs that must be available.
    target
        ``module:function`` of a :data:`JobFunction`.
    writes_own_end
        Whether the job writes that its calculation is complete itself, and its comment and output. That it failed it
        leaves to its worker, which knows whether the machine or the database was to blame.
    problem
        Why it cannot be used on this machine at all; empty if it can.
    needs_setting
        Key of the section ``daemon`` that must not be empty; empty if it needs none.
    """

    order: str
    provider: str
    required_programs: tuple[str, ...]
    target: str
    writes_own_end: bool = False
    problem: str = ""
    needs_setting: str = ""

    def refusal(self, available_programs: tuple[str, ...]) -> str:
        """Why a worker does not accept the job; empty if it does.

        Parameters
        ----------
        available_programs
            What the worker has.
        """
        missing = [program for program in self.required_programs if program not in available_programs]
        return self.problem or (f"needs {', '.join(missing)}" if missing else "")


@dataclass(frozen=True)
class JobContext:
    """Everything a running job is given.

    Parameters
    ----------
    claim
        The attempt.
    kind
        The job's kind.
    directory
        Its own directory, which is also its working directory.
    settings
        The worker's settings.
    uri
        Connection string of the calculation's database; may hold a password.
    """

    claim: Claim
    kind: JobKind
    directory: Path
    settings: Settings
    uri: str

    @property
    def cores(self) -> int:
        """Threads the job may use."""
        return self.settings.resources.cores


@dataclass(frozen=True)
class Outcome:
    """How a job says that it ended.

    Parameters
    ----------
    success
        Whether it did what was asked.
    comment
        Why it did not.
    has_output
        Whether it has stored its output in the calculation itself.
    """

    success: bool
    comment: str = ""
    has_output: bool = False


class Cause(Enum):
    """Why a job is no longer running."""

    ENDED = "ended"
    KILLED = "killed"
    LIMIT = "limit"


@dataclass(frozen=True)
class Ended:
    """The job has ended, and none of its processes is left.

    Parameters
    ----------
    cause
        Why.
    outcome
        What the job said itself; None if it could not say anything.
    exit_status
        Exit code, or minus the number of the signal that killed it.
    detail
        Which limit it exceeded.
    usage
        What it used.
    terminated_s
        How many seconds before its end a SIGTERM went to every process, its keeper's too; None if none did.
    """

    cause: Cause
    outcome: Outcome | None
    exit_status: int
    detail: str
    usage: Usage
    terminated_s: float | None = None


JobFunction = Callable[[JobContext], Outcome]


def load(target: str) -> JobFunction:
    """Import a job's function.

    Parameters
    ----------
    target
        ``module:function``.

    Raises
    ------
    ImportError, AttributeError
        There is no such module or function.
    """
    module, _, name = target.partition(":")
    return cast("JobFunction", getattr(import_module(module), name))
