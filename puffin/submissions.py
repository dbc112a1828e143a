"""What is put into a database to be calculated, and what became of it; pure."""

from __future__ import annotations

from dataclasses import dataclass

from puffin.calculations import Status
from puffin.documents import Molecule, Request


@dataclass(frozen=True)
class Submission:
    """A structure and the calculation to do with it.

    Parameters
    ----------
    molecule
        The structure.
    request
        The calculation, without structures.
    """

    molecule: Molecule
    request: Request


@dataclass(frozen=True)
class Submitted:
    """What became of a submission.

    Parameters
    ----------
    id
        The calculation.
    status
        Its status.
    added
        Whether it was added; else the identical calculation was there already.
    needs
        What that one asks for: cores, memory and disk in GB; None for one that was added.
    """

    id: str
    status: Status
    added: bool
    needs: tuple[int, float, float] | None = None
