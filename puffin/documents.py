"""New documents of a SCINE database, with the fields and the strict types that its readers insist on; pure.

They are what ``Structure.create`` and ``Calculation.create`` of SCINE Database 1.5 make.
"""

from __future__ import annotations

import hashlib
import json
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


_STEPS_PER_BOHR = 100_000


def structure_key(molecule: Molecule) -> str:
    """What two submissions of the same structure have in common.

    Parameters
    ----------
    molecule
        The structure; its name does not count, its positions to five decimals.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    positions = [[round(value * _STEPS_PER_BOHR) for value in position] for position in molecule.positions]
    return _key([list(molecule.elements), positions, molecule.charge, molecule.multiplicity])


def calculation_key(request: Request, structure_keys: Sequence[str]) -> str:
    """What two submissions of the same calculation have in common.

    Kept in the document, because a job may complete the model that it was submitted with.

    Parameters
    ----------
    request
        The calculation; what it may use of a machine, and how urgent it is, do not count.
    structure_keys
        Keys of its structures, in order.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    return _key([request.order, asdict(request.model), dict(request.settings), list(structure_keys)])


def _key(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def structure_document(molecule: Molecule, now: datetime) -> Document:
    """The document of a new structure, with its key.

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
        "puffin": {"key": structure_key(molecule)},
    }


def calculation_document(request: Request, now: datetime, key: str = "") -> Document:
    """The document of a new calculation.

    Parameters
    ----------
    request
        The calculation.
    now
        The time to stamp it with.
    key
        Its key, if it is to be found again by what it is.
    """
    document = {
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
        "settings": stored_settings(request.settings),
        "status": Status.NEW.value,
        "priority": request.priority,
        "results": {"properties": [], "structures": [], "elementary_steps": []},
        "raw_output": "",
        "comment": "",
        "executor": "",
        "runtime": "",
    }
    if key:
        document["puffin"] = {"key": key}
    return document


_LIST_TYPES = ((int, "int"), (float, "double"), (str, "str"), (Mapping, "value_coll"), (list, "list_of_lists"))


def stored_settings(settings: Mapping[str, Any]) -> Document:
    """Settings as SCINE Database stores them: it notes with every list what is in it.

    Parameters
    ----------
    settings
        Whole numbers, numbers, truth values, texts, mappings of these, and lists of items of one kind.
    """
    return {name: _stored(value) for name, value in settings.items()}


def _stored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return stored_settings(value)
    if not isinstance(value, list | tuple):
        return value
    kind = next((name for type_, name in _LIST_TYPES if value and isinstance(value[0], type_)), "int")
    items = [_stored(item) for item in value]
    return {"type": kind, "list": [{"sub_list": item} for item in items] if kind == "list_of_lists" else items}


def plain_settings(stored: Mapping[str, Any]) -> Document:
    """The same the other way round.

    Parameters
    ----------
    stored
        Settings as they are in the database.
    """
    return {name: _plain(value) for name, value in stored.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"type", "list"} and isinstance(value["list"], list):
        nested = value["type"] == "list_of_lists"
        return [_plain(item["sub_list"] if nested else item) for item in value["list"]]
    return plain_settings(value)


def _common(kind: str, now: datetime) -> Document:
    return {
        "_created": now,
        "_lastmodified": now,
        "_objecttype": kind,
        "analysis_disabled": False,
        "exploration_disabled": False,
    }
