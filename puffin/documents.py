"""New documents of a SCINE database, with the fields and the strict types that its readers insist on; pure.

They are what ``Structure.create`` and ``Calculation.create`` of SCINE Database 1.5 make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from puffin.calculations import Document, Status


@dataclass(frozen=True)
class Molecule:
    """A structure that is about to be submitted.

    Parameters
    ----------
    name
        What to call it.
    elements
        Element symbols.
    positions
        Cartesian coordinates in bohr, in the same order.
    charge
        Total charge in elementary charges.
    multiplicity
        Spin multiplicity, 2S+1.
    """

    name: str
    elements: tuple[str, ...]
    positions: tuple[tuple[float, float, float], ...]
    charge: int = 0
    multiplicity: int = 1


@dataclass(frozen=True)
class Model:
    """How to calculate; the fields of ``scine_database.Model``."""

    program: str = "any"
    version: str = "any"
    method_family: str = "any"
    method: str = "any"
    basis_set: str = ""
    spin_mode: str = "any"
    solvation: str = "none"
    solvent: str = "none"
    embedding: str = "none"
    periodic_boundaries: str = "none"
    external_field: str = "none"
    electronic_temperature: str = "any"
    temperature: str = "298.15"
    pressure: str = "101325.0"


@dataclass(frozen=True)
class Request:
    """A calculation that is about to be submitted.

    Parameters
    ----------
    order
        The job's order.
    model
        How to calculate.
    structures
        Ids of its structures, in the driver's own type.
    settings
        The job's settings.
    cores, memory, disk
        What it needs; memory and disk in GB.
    priority
        1 (first) to 10 (last).
    """

    order: str
    model: Model
    structures: Sequence[Any] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    cores: int = 1
    memory: float = 1.0
    disk: float = 1.0
    priority: int = 5


def structure_document(molecule: Molecule, now: datetime) -> Document:
    """The document of a new structure.

    Parameters
    ----------
    molecule
        The structure.
    now
        The time to stamp it with.
    """
    atoms = [
        {"element": element, "x": float(x), "y": float(y), "z": float(z)}
        for element, (x, y, z) in zip(molecule.elements, molecule.positions, strict=True)
    ]
    return {
        **_common("structure", now),
        "model": asdict(Model(method_family="guess", method="")),
        "nAtoms": len(atoms),
        "atoms": atoms,
        "charge": molecule.charge,
        "multiplicity": molecule.multiplicity,
        "label": "user_guess",
        "properties": {},
        "calculations": {},
        "comment": molecule.name,
        "aggregate": "",
        "duplicate_of": "",
        "graphs": {},
    }


def calculation_document(request: Request, now: datetime) -> Document:
    """The document of a new calculation.

    Parameters
    ----------
    request
        The calculation.
    now
        The time to stamp it with.
    """
    return {
        **_common("calculation", now),
        "job": {
            "order": request.order,
            "memory": float(request.memory),
            "cores": int(request.cores),
            "disk": float(request.disk),
        },
        "model": asdict(request.model),
        "structures": list(request.structures),
        "auxiliaries": {},
        "restart_information": {},
        "settings": dict(request.settings),
        "status": Status.NEW.value,
        "priority": request.priority,
        "results": {"properties": [], "structures": [], "elementary_steps": []},
        "raw_output": "",
        "comment": "",
        "executor": "",
        "runtime": "",
    }


def _common(kind: str, now: datetime) -> Document:
    return {
        "_created": now,
        "_lastmodified": now,
        "_objecttype": kind,
        "analysis_disabled": False,
        "exploration_disabled": False,
    }
