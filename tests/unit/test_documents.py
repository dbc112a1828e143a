"""What is written for a new structure and a new calculation, and what makes two of them the same."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import pytest

from puffin.documents import (
    Model,
    Molecule,
    Request,
    calculation_document,
    calculation_key,
    plain_settings,
    stored_settings,
    structure_document,
    structure_key,
)

NOW = datetime(2025, 1, 2, 3, 4, 5)
HYDROGEN = Molecule("hydrogen", ("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 1.4)))
REQUEST = Request("scine_single_point", Model(program="sparrow", method="PM6"), settings={"a": 1, "b": True})


def of_structure(**changes: Any) -> str:
    return structure_key(dataclasses.replace(HYDROGEN, **changes))


def of_calculation(structures: tuple[str, ...] = ("k",), **changes: Any) -> str:
    return calculation_key(dataclasses.replace(REQUEST, **changes), structures)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"positions": ((0.0, 0.0, 0.0), (0.0, 0.0, 1.400001))},
        {"positions": ((-0.0, 0.0, 0.0), (0.0, 0.0, 1.4))},
    ],
)
def test_the_same_structure(changes: dict[str, Any]) -> None:
    assert of_structure(**changes) == of_structure()


@pytest.mark.parametrize(
    "changes",
    [
        {"elements": ("H", "He")},
        {"positions": ((0.0, 0.0, 0.0), (0.0, 0.0, 1.4001))},
        {"positions": ((0.0, 0.0, 1.4), (0.0, 0.0, 0.0))},
        {"charge": 1},
        {"multiplicity": 3},
    ],
)
def test_another_structure(changes: dict[str, Any]) -> None:
    assert of_structure(**changes) != of_structure()


@pytest.mark.parametrize(
    "changes",
    [{"settings": {"b": True, "a": 1}}, {"priority": 1}, {"cores": 8, "memory": 9.0, "disk": 9.0}],
)
def test_the_same_calculation(changes: dict[str, Any]) -> None:
    assert of_calculation(**changes) == of_calculation()


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "scine_hessian"},
        {"model": Model(program="sparrow", method="PM3")},
        {"settings": {}},
        {"settings": {"a": 1.0, "b": True}},
        {"settings": {"a": 1, "b": 1}},
        {"settings": {"a": "1", "b": True}},
        {"structures": ("other",)},
    ],
)
def test_another_calculation(changes: dict[str, Any]) -> None:
    assert of_calculation(**changes) != of_calculation()


def test_the_types_that_scine_readers_insist_on() -> None:
    document = calculation_document(dataclasses.replace(REQUEST, cores=2, memory=4, disk=1), NOW, "key")
    assert {name: type(value) for name, value in document["job"].items()} == {
        "order": str,
        "memory": float,
        "cores": int,
        "disk": float,
    }
    assert all(isinstance(value, str) for value in document["model"].values())
    assert (document["status"], document["runtime"], document["executor"]) == ("new", "", "")
    assert document["puffin"] == {"key": "key"}


def test_a_calculation_without_a_key_has_no_field_for_it() -> None:
    assert "puffin" not in calculation_document(REQUEST, NOW)


def test_a_structure_carries_its_key_and_its_name() -> None:
    document = structure_document(HYDROGEN, NOW)
    assert document["puffin"] == {"key": structure_key(HYDROGEN)}
    assert (document["comment"], document["nAtoms"]) == ("hydrogen", 2)
    assert document["atoms"][1] == {"element": "H", "x": 0.0, "y": 0.0, "z": 1.4}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (5, 5),
        ("text", "text"),
        ([1, 2], {"type": "int", "list": [1, 2]}),
        ([1.5], {"type": "double", "list": [1.5]}),
        (["x"], {"type": "str", "list": ["x"]}),
        ([], {"type": "int", "list": []}),
        ([[1], [2]], {"type": "list_of_lists", "list": [{"sub_list": {"type": "int", "list": [n]}} for n in (1, 2)]}),
        ({"a": [1]}, {"a": {"type": "int", "list": [1]}}),
        ([{"a": [1]}], {"type": "value_coll", "list": [{"a": {"type": "int", "list": [1]}}]}),
    ],
)
def test_settings_as_scine_stores_them(value: Any, stored: Any) -> None:
    assert stored_settings({"name": value}) == {"name": stored}
    assert plain_settings({"name": stored}) == {"name": value}
