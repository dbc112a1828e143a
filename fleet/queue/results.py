"""Results of calculations as records, tables and files; pure."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from fleet.words import utc
from puffin.documents import Molecule
from puffin.entries import Entry
from puffin.outcomes import CalculationOutcome, PropertyInfo, StructureInfo

ENERGY = "electronic_energy"
BOHR_PER_ANGSTROM = 1.8897261254578281
"""As in SCINE Utilities."""


def method_of(entry: Entry) -> str:
    """How it was calculated, in short, such as ``PBE/def2-SVP``.

    Parameters
    ----------
    entry
        The calculation.
    """
    method = entry.method or entry.method_family
    return f"{method}/{entry.basis_set}" if entry.basis_set else method


def title_of(outcome: CalculationOutcome) -> str:
    """What to call it: the name of its structures, else their formula.

    Parameters
    ----------
    outcome
        The calculation.
    """
    return outcome.name or " + ".join(structure.formula for structure in outcome.inputs)


def numbers_in(outcomes: Iterable[CalculationOutcome]) -> list[str]:
    """The names of all properties that are numbers, energies first.

    Parameters
    ----------
    outcomes
        The calculations.
    """
    names = {item.name for outcome in outcomes for item in outcome.properties if isinstance(item.value, float)}
    return sorted(names, key=lambda name: (name != ENERGY, "energy" not in name, name))


def unit_of(name: str) -> str:
    """The unit of a property that is a number; empty where it is not known.

    Parameters
    ----------
    name
        The property's name.
    """
    return "hartree" if "energy" in name else ""


def entry_record(entry: Entry) -> dict[str, Any]:
    """A calculation for JSON.

    Parameters
    ----------
    entry
        The calculation.
    """
    return {
        "id": entry.id,
        "database": entry.database,
        "status": entry.status.value,
        "job": entry.order,
        "program": entry.program,
        "method_family": entry.method_family,
        "method": entry.method,
        "basis_set": entry.basis_set,
        "priority": entry.priority,
        "inputs": list(entry.structures),
        "created": _time(entry.created),
        "modified": _time(entry.modified),
        "runtime_s": entry.runtime_s,
        "worker": entry.by,
        "host": entry.host,
        "attempt": entry.attempt,
        "comment": entry.comment,
    }


def _time(when: Any) -> str | None:
    return None if when is None else utc(when)


def outcome_record(outcome: CalculationOutcome) -> dict[str, Any]:
    """A calculation with its results for JSON; lengths are in angstrom.

    Parameters
    ----------
    outcome
        The calculation.
    """
    return {
        **entry_record(outcome.entry),
        "name": title_of(outcome),
        "energy_hartree": outcome.energy,
        "properties": [_property_record(item) for item in outcome.properties],
        "inputs": [structure_record(structure) for structure in outcome.inputs],
        "structures": [structure_record(structure) for structure in outcome.structures],
    }


def _property_record(item: PropertyInfo) -> dict[str, Any]:
    value = list(item.value) if isinstance(item.value, tuple) else item.value
    record = {"name": item.name, "value": value, "unit": unit_of(item.name), "structure": item.structure}
    return {**record, "shape": list(item.shape)} if item.shape else record


def structure_record(structure: StructureInfo) -> dict[str, Any]:
    """A structure for JSON; its positions are in angstrom.

    Parameters
    ----------
    structure
        The structure.
    """
    return {
        "id": structure.id,
        "name": structure.name,
        "label": structure.label,
        "formula": structure.formula,
        "charge": structure.charge,
        "multiplicity": structure.multiplicity,
        "elements": list(structure.elements),
        "positions": [[round(value / BOHR_PER_ANGSTROM, 10) for value in atom] for atom in structure.positions],
    }


_CSV_FIELDS = (
    "id",
    "database",
    "status",
    "job",
    "program",
    "method_family",
    "method",
    "basis_set",
    "runtime_s",
    "worker",
)


def csv_text(outcomes: Sequence[CalculationOutcome]) -> str:
    """A table for a spreadsheet, with a column for every property that is a number.

    Parameters
    ----------
    outcomes
        The calculations.
    """
    names = numbers_in(outcomes)
    sink = _Sink()
    writer = csv.writer(sink, lineterminator="\n")
    headings = [f"{name}_{unit_of(name)}" if unit_of(name) else name for name in names]
    writer.writerow(["name", "formula", "charge", "multiplicity", *_CSV_FIELDS, *headings])
    for outcome in outcomes:
        record = entry_record(outcome.entry)
        first = outcome.inputs[0] if outcome.inputs else None
        of_structure = [first.formula, first.charge, first.multiplicity] if first else ["", "", ""]
        values = [_full(outcome.number(name)) for name in names]
        writer.writerow([title_of(outcome), *of_structure, *(_cell(record[field]) for field in _CSV_FIELDS), *values])
    return "".join(sink.parts)


class _Sink:
    """Takes what a writer writes."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, part: str) -> None:
        self.parts.append(part)


def _cell(value: Any) -> Any:
    return _full(value) if isinstance(value, float) else ("" if value is None else value)


def _full(value: float | None) -> str:
    return "" if value is None else repr(value)


def xyz_text(outcome: CalculationOutcome) -> str:
    """The structures that a calculation made, or else those it was about, in XYZ.

    What is in the second lines is understood by ``queue submit``.

    Parameters
    ----------
    outcome
        The calculation.
    """
    return "".join(_xyz_frame(outcome, structure) for structure in _shown(outcome))


def _xyz_frame(outcome: CalculationOutcome, structure: StructureInfo) -> str:
    words = [
        "_".join(title_of(outcome).split()),  # a line end would begin the atoms too early
        f"charge={structure.charge}",
        f"multiplicity={structure.multiplicity}",
    ]
    energy = outcome.number(ENERGY, structure.id)
    words += [f"energy_hartree={energy!r}"] if energy is not None else []
    words += [f"label={'_'.join(structure.label.split())}", f"calculation={outcome.entry.id}"]
    lines = [str(len(structure.elements)), " ".join(words)]
    lines += [
        f"{element:<2}" + "".join(f"{value / BOHR_PER_ANGSTROM:18.10f}" for value in position)
        for element, position in zip(structure.elements, structure.positions, strict=True)
    ]
    return "\n".join(lines) + "\n"


def sdf_text(outcome: CalculationOutcome, mol_block: Callable[[Molecule], str]) -> str:
    """The same in SDF, with the properties that are numbers as data items.

    Parameters
    ----------
    outcome
        The calculation.
    mol_block
        Writes a molecule in the MOL format.
    """
    return "".join(_sdf_record(outcome, structure, mol_block) for structure in _shown(outcome))


def _sdf_record(outcome: CalculationOutcome, structure: StructureInfo, mol_block: Callable[[Molecule], str]) -> str:
    molecule = Molecule(
        " ".join(title_of(outcome).split()),
        structure.elements,
        structure.positions,
        structure.charge,
        structure.multiplicity,
    )
    items = [("charge", str(structure.charge)), ("multiplicity", str(structure.multiplicity))]
    items += [("label", structure.label), ("calculation", outcome.entry.id)]
    for name in numbers_in([outcome]):
        value = outcome.number(name, structure.id)
        if value is not None:
            items.append((f"{name}_{unit_of(name)}" if unit_of(name) else name, repr(value)))
    lines = [mol_block(molecule)]
    for name, text in items:
        lines += [f"> <{name}>", " ".join(text.split()), ""]
    return "\n".join([*lines, "$$$$"]) + "\n"


def _shown(outcome: CalculationOutcome) -> Iterator[StructureInfo]:
    return (structure for structure in outcome.structures or outcome.inputs if structure.elements)
