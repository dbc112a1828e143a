"""What came of calculations, as people read it."""

from __future__ import annotations

from typing import Any

import pytest

from puffin.entries import to_entry
from puffin.outcomes import CalculationOutcome, PropertyInfo, formula, to_property


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        (("O", "H", "H"), "H2O"),
        (("H", "C", "H", "N", "H", "H", "C", "H"), "C2H5N"),
        (("Cl", "Na"), "ClNa"),
        (("Br", "C", "F"), "CBrF"),
        ((), ""),
    ],
)
def test_formula(elements: tuple[str, ...], expected: str) -> None:
    assert formula(elements) == expected


@pytest.mark.parametrize(
    ("fields", "value", "shape"),
    [
        ({"data": -1.5}, -1.5, ()),
        ({"data": [1.0, 2.0]}, (1.0, 2.0), (2,)),
        ({"data": "text"}, "text", ()),
        ({"data": True}, True, ()),
        ({"rows": 3, "cols": 2}, None, (3, 2)),
    ],
)
def test_properties(fields: dict[str, Any], value: Any, shape: tuple[int, ...]) -> None:
    found = to_property({"_id": "p", "property_name": "x", "structure": "s", **fields})
    assert (found.value, found.shape, found.structure) == (value, shape, "s")


def test_the_energy_is_the_last_one_and_may_be_asked_for_one_structure() -> None:
    energies = [
        PropertyInfo("1", "electronic_energy", "a", -1.0, ()),
        PropertyInfo("2", "electronic_energy", "b", -2.0, ()),
        PropertyInfo("3", "dipole", "b", (1.0,), (1,)),
    ]
    entry = to_entry("db", {"_id": "1" * 24, "status": "complete"})
    outcome = CalculationOutcome(entry, (), tuple(energies), ())
    assert outcome.energy == -2.0
    assert outcome.number("electronic_energy", "a") == -1.0
    assert outcome.number("electronic_energy", "c") is None
    assert outcome.number("dipole") is None
