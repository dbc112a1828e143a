"""One run of a command that changes hosts: its name, and what came of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fleet.deployment.difftext import mask_secrets


@dataclass(frozen=True, order=True)
class Deed:
    """One run of a command that changes hosts.

    Parameters
    ----------
    id
        Unique, and sorts by time, such as ``20261122T144500Z-3f9a``.
    verb
        The command, such as ``deploy``.
    who
        As user@machine.
    """

    id: str
    verb: str
    who: str


class Result(Enum):
    """How a deed ended on a host."""

    DONE = "done"
    FAILED = "failed"
    UNCHANGED = "unchanged"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class DeedOutcome:
    """What is written down on a host about a deed.

    Parameters
    ----------
    result
        How it ended.
    error
        Why it failed; never anything secret.
    release
        The release the host has now; empty where that does not matter.
    """

    result: Result
    error: str = ""
    release: str = ""


def outcome_of(error: Exception | None) -> DeedOutcome:
    """What is written down about a host on which something went well, or failed with an error.

    Parameters
    ----------
    error
        Why it failed; its first line is written down.
    """
    if error is None:
        return DeedOutcome(Result.DONE)
    return DeedOutcome(Result.FAILED, mask_secrets(str(error).partition("\n")[0]))
