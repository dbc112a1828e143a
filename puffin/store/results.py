"""What has become of calculations that somebody waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from puffin.calculations import Status


@dataclass(frozen=True)
class CalculationResult:
    """What has become of one calculation.

    Parameters
    ----------
    status
        Its status.
    runtime_s
        Seconds it took; None while it has not ended.
    worker
        Who ran it last.
    comment
        Why it failed.
    energy
        Its electronic energy in hartree, if it has one.
    """

    status: Status
    runtime_s: float | None
    worker: str
    comment: str
    energy: float | None


def to_result(document: Mapping[str, Any], energy_of: Mapping[Any, float]) -> CalculationResult:
    """Read a calculation.

    Parameters
    ----------
    document
        The calculation.
    energy_of
        Energies in hartree, by the ids of their properties.
    """
    energies = [energy_of[item] for item in document["results"]["properties"] if item in energy_of]
    return CalculationResult(
        status=Status(document["status"]),
        runtime_s=document["runtime"] if isinstance(document["runtime"], float) else None,
        worker=str((document.get("puffin") or {}).get("worker", "")),
        comment=str(document.get("comment", "")),
        energy=energies[-1] if energies else None,
    )
