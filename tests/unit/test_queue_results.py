"""Results as text, and the words of lists."""

from __future__ import annotations

import csv
import dataclasses
import json
from datetime import datetime
from typing import Any

import pytest

from fleet.cli.queue_results import _row
from fleet.queue.frames import Frame, frames
from fleet.queue.results import (
    BOHR_PER_ANGSTROM,
    csv_text,
    entry_record,
    method_of,
    numbers_in,
    outcome_record,
    sdf_text,
    title_of,
    xyz_text,
)
from fleet.queue.text import model_text
from puffin.documents import Model
from puffin.entries import to_entry
from puffin.outcomes import CalculationOutcome, PropertyInfo, StructureInfo

NOW = datetime(2025, 1, 1, 12)
ENTRY = to_entry(
    "db",
    {
        "_id": "a" * 24,
        "status": "complete",
        "job": {"order": "scine_geometry_optimization"},
        "model": {"program": "sparrow", "method_family": "PM6", "method": "PM6", "basis_set": ""},
        "runtime": 1.5,
        "_created": NOW,
    },
)
GUESS = StructureInfo("g", "hydrogen, charged", "user_guess", ("H", "H"), ((0, 0, 0), (0, 0, 2.0)), "H2", 1, 2)
MADE = StructureInfo("m", "", "user_optimized", ("H", "H"), ((0, 0, 0), (0, 0, 1.5)), "H2", 1, 2)
ENERGY = PropertyInfo("e", "electronic_energy", "m", -0.123456789012, ())
OTHERS = (
    PropertyInfo("q", "atomic_charges", "m", (0.5, 0.5), (2,)),
    PropertyInfo("z", "a_number", "m", 3.0, ()),
    PropertyInfo("h", "hessian", "m", None, (6, 6)),
)
OUTCOME = CalculationOutcome(ENTRY, (GUESS,), (ENERGY, *OTHERS), (MADE,))
SINGLE = CalculationOutcome(ENTRY, (GUESS,), (dataclasses.replace(ENERGY, structure="g"),), ())


def test_csv() -> None:
    (row,) = csv.DictReader(csv_text([OUTCOME]).splitlines())
    assert row["name"] == "hydrogen, charged"
    assert (row["formula"], row["charge"], row["multiplicity"]) == ("H2", "1", "2")
    assert float(row["electronic_energy_hartree"]) == -0.123456789012
    assert (row["a_number"], row["runtime_s"], row["status"]) == ("3.0", "1.5", "complete")
    assert "atomic_charges" not in row


def test_csv_of_calculations_with_different_properties() -> None:
    rows = list(csv.DictReader(csv_text([SINGLE, OUTCOME]).splitlines()))
    assert [row["a_number"] for row in rows] == ["", "3.0"]


def test_energies_come_first() -> None:
    assert numbers_in([OUTCOME]) == ["electronic_energy", "a_number"]


def test_json() -> None:
    record = json.loads(json.dumps(outcome_record(OUTCOME)))
    assert record["energy_hartree"] == -0.123456789012
    assert [item["name"] for item in record["inputs"]] == ["hydrogen, charged"]
    assert [item["label"] for item in record["structures"]] == ["user_optimized"]
    properties = {item["name"]: item for item in record["properties"]}
    assert properties["atomic_charges"]["value"] == [0.5, 0.5]
    assert (properties["hessian"]["value"], properties["hessian"]["shape"]) == (None, [6, 6])
    assert properties["electronic_energy"]["unit"] == "hartree"
    assert record["structures"][0]["positions"][1][2] == pytest.approx(1.5 / BOHR_PER_ANGSTROM)
    assert record["created"] == "2025-01-01T12:00:00.000+00:00"


def test_an_entry_tells_the_ids_of_its_structures() -> None:
    assert entry_record(dataclasses.replace(ENTRY, structures=("g",)))["inputs"] == ["g"]


@pytest.mark.parametrize(("outcome", "label"), [(OUTCOME, "user_optimized"), (SINGLE, "user_guess")])
def test_xyz_can_be_submitted_again(outcome: CalculationOutcome, label: str) -> None:
    text = xyz_text(outcome)
    (frame,) = frames("xyz", text.splitlines())
    assert isinstance(frame, Frame)
    assert (frame.charge, frame.multiplicity) == (1, 2)
    assert text.startswith("2\nhydrogen,_charged charge=1 multiplicity=2 energy_hartree=-0.123456789012 label=" + label)
    expected = (outcome.structures or outcome.inputs)[0].positions[1][2] / BOHR_PER_ANGSTROM
    assert float(text.splitlines()[-1].split()[-1]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("comment", ["water\n2 of 3", "water\r\n2  of 3\n", "water\v2\u2028of\x853"])
def test_a_comment_of_several_lines_breaks_no_file(comment: str) -> None:
    outcome = dataclasses.replace(OUTCOME, inputs=(dataclasses.replace(GUESS, name=comment),))
    (frame,) = frames("xyz", xyz_text(outcome).splitlines())
    assert isinstance(frame, Frame)
    assert xyz_text(outcome).splitlines()[1].startswith("water_2_of_3 charge=1 ")
    titles: list[str] = []
    assert sdf_text(outcome, lambda molecule: titles.append(molecule.name) or "M  END").endswith("$$$$\n")  # type: ignore[func-returns-value]
    assert titles == ["water 2 of 3"]
    assert _row(outcome, [])[0] == "water"


def test_sdf_has_charge_and_numbers_as_data() -> None:
    block = "name\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n"
    block += "    0.0000    0.0000    0.0000   H   0  0\nM  END"
    text = sdf_text(OUTCOME, lambda _: block)
    (frame,) = frames("sdf", text.splitlines())
    assert isinstance(frame, Frame)
    assert (frame.charge, frame.multiplicity) == (1, 2)
    assert "> <electronic_energy_hartree>\n-0.123456789012\n\n" in text
    assert "> <a_number>\n3.0\n" in text
    assert text.endswith("$$$$\n")


def test_names() -> None:
    assert title_of(dataclasses.replace(OUTCOME, inputs=(MADE,))) == "H2"
    assert method_of(dataclasses.replace(ENTRY, method="PBE", basis_set="def2-SVP")) == "PBE/def2-SVP"
    assert method_of(dataclasses.replace(ENTRY, method="")) == "PM6"


def test_a_model_says_only_what_is_unusual() -> None:
    model = dataclasses.asdict(Model(program="orca", method="PBE", solvent="water"))
    assert model_text(model) == "program=orca, method_family=any, method=PBE, solvent=water"


def test_records_are_plain_json() -> None:
    record: dict[str, Any] = entry_record(ENTRY)
    assert json.loads(json.dumps(record)) == record
