"""What calculations were about and what came of them, as people read it; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from puffin.documents import plain_settings
from puffin.entries import Entry


@dataclass(frozen=True)
class StructureInfo:
    """One structure.

    Parameters
    ----------
    id
        Its id.
    name
        What it was called when it was submitted.
    label
        SCINE's word for what it is.
    elements, positions
        Element symbols, and coordinates in bohr; empty where they were not asked for.
    formula
        In Hill's order.
    charge, multiplicity
        As in the database.
    """

    id: str
    name: str
    label: str
    elements: tuple[str, ...]
    positions: tuple[tuple[float, float, float], ...]
    formula: str
    charge: int
    multiplicity: int


def to_structure(document: Mapping[str, Any]) -> StructureInfo:
    """Read a structure.

    Parameters
    ----------
    document
        The document.
    """
    atoms = document.get("atoms") or ()
    elements = tuple(str(atom["element"]) for atom in atoms)
    return StructureInfo(
        id=str(document["_id"]),
        name=str(document.get("comment") or ""),
        label=str(document.get("label") or ""),
        elements=elements,
        positions=tuple((float(atom["x"]), float(atom["y"]), float(atom["z"])) for atom in atoms),
        formula=formula(elements),
        charge=int(document.get("charge", 0)),
        multiplicity=int(document.get("multiplicity", 1)),
    )


def formula(elements: Iterable[str]) -> str:
    """A molecular formula in Hill's order.

    Parameters
    ----------
    elements
        Element symbols.
    """
    counts = Counter(elements)
    first = ["C", "H"] if "C" in counts else []
    order = [symbol for symbol in first if symbol in counts] + sorted(set(counts) - set(first))
    return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order)


@dataclass(frozen=True)
class PropertyInfo:
    """One property.

    Parameters
    ----------
    id
        Its id.
    name
        Such as ``electronic_energy``, which is in hartree.
    structure
        Id of the structure that it belongs to.
    value
        A number, text or truth value; a list of numbers for a vector. None for a matrix.
    shape
        Of a vector or matrix.
    """

    id: str
    name: str
    structure: str
    value: float | str | bool | tuple[float, ...] | None
    shape: tuple[int, ...]


def to_property(document: Mapping[str, Any]) -> PropertyInfo:
    """Read a property.

    Parameters
    ----------
    document
        The document.
    """
    data = document.get("data")
    shape: tuple[int, ...] = ()
    value: float | str | bool | tuple[float, ...] | None = None
    if "rows" in document:
        shape = (int(document["rows"]), int(document["cols"]))
    elif isinstance(data, list):
        shape = (len(data),)
        value = tuple(float(item) for item in data)
    elif isinstance(data, bool | int | float | str):
        value = data
    return PropertyInfo(
        id=str(document["_id"]),
        name=str(document.get("property_name", "")),
        structure=str(document.get("structure", "")),
        value=value,
        shape=shape,
    )


@dataclass(frozen=True)
class CalculationOutcome:
    """A calculation with what it was about and what came of it.

    Parameters
    ----------
    entry
        The calculation.
    inputs
        The structures it was submitted with.
    properties
        What was calculated.
    structures
        The structures it made.
    """

    entry: Entry
    inputs: tuple[StructureInfo, ...]
    properties: tuple[PropertyInfo, ...]
    structures: tuple[StructureInfo, ...]

    @property
    def name(self) -> str:
        """What its structures were called when they were submitted."""
        return " + ".join(structure.name for structure in self.inputs if structure.name)

    @property
    def energy(self) -> float | None:
        """Its last electronic energy in hartree."""
        return self.number("electronic_energy")

    def number(self, name: str, structure: str = "") -> float | None:
        """The last number that is called so.

        Parameters
        ----------
        name
            The property.
        structure
            Only of this structure.
        """
        found = [
            item.value
            for item in self.properties
            if item.name == name and isinstance(item.value, float) and structure in {"", item.structure}
        ]
        return found[-1] if found else None


@dataclass(frozen=True)
class Details:
    """Everything about one calculation that a person may want to read.

    Parameters
    ----------
    outcome
        The calculation, its structures and results.
    cores, memory, disk
        What it asked for; memory and disk in GB.
    model
        All fields of its model.
    settings
        Its settings.
    usage
        What the last attempt used: seconds and GB, by name.
    lost_on
        Hosts that it was lost on.
    raw_output
        What the job printed.
    """

    outcome: CalculationOutcome
    cores: int
    memory: float
    disk: float
    model: Mapping[str, str]
    settings: Mapping[str, Any]
    usage: Mapping[str, float]
    lost_on: tuple[str, ...]
    raw_output: str


def to_details(document: Mapping[str, Any], outcome: CalculationOutcome) -> Details:
    """Read all of a calculation.

    Parameters
    ----------
    document
        The whole document.
    outcome
        What belongs to it.
    """
    job, ours = document.get("job") or {}, document.get("puffin") or {}
    return Details(
        outcome=outcome,
        cores=int(job.get("cores", 0)),
        memory=float(job.get("memory", 0)),
        disk=float(job.get("disk", 0)),
        model={key: str(value) for key, value in (document.get("model") or {}).items()},
        settings=plain_settings(document.get("settings") or {}),
        usage=dict(ours.get("usage") or {}),
        lost_on=tuple(ours.get("lost_on") or ()),
        raw_output=str(document.get("raw_output") or ""),
    )
