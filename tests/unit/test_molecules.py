"""The molecules that ship for the demo are what their names say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.lab.requirements import missing

try:
    import scine_molassembler as molassembler
    import scine_utilities as utils
except ImportError:
    missing_scine = True
else:
    missing_scine = False

MOLECULES = Path(__file__).resolve().parents[2] / "examples" / "molecules"

# Name, formula and, for the bonds, SMILES.
EXPECTED = [
    ("acetaldehyde", {"C": 2, "H": 4, "O": 1}, "CC=O"),
    ("acetic_acid", {"C": 2, "H": 4, "O": 2}, "CC(=O)O"),
    ("acetone", {"C": 3, "H": 6, "O": 1}, "CC(=O)C"),
    ("ammonia", {"N": 1, "H": 3}, "N"),
    ("benzene", {"C": 6, "H": 6}, "c1ccccc1"),
    ("caffeine", {"C": 8, "H": 10, "N": 4, "O": 2}, "Cn1cnc2c1c(=O)n(C)c(=O)n2C"),
    ("carbon_dioxide", {"C": 1, "O": 2}, "O=C=O"),
    ("dimethyl_ether", {"C": 2, "H": 6, "O": 1}, "COC"),
    ("ethane", {"C": 2, "H": 6}, "CC"),
    ("ethanol", {"C": 2, "H": 6, "O": 1}, "CCO"),
    ("ethene", {"C": 2, "H": 4}, "C=C"),
    ("formaldehyde", {"C": 1, "H": 2, "O": 1}, "C=O"),
    ("formic_acid", {"C": 1, "H": 2, "O": 2}, "C(=O)O"),
    ("furan", {"C": 4, "H": 4, "O": 1}, "c1ccoc1"),
    ("glycine", {"C": 2, "H": 5, "N": 1, "O": 2}, "NCC(=O)O"),
    ("hydrogen_cyanide", {"H": 1, "C": 1, "N": 1}, "C#N"),
    ("methane", {"C": 1, "H": 4}, "C"),
    ("methanol", {"C": 1, "H": 4, "O": 1}, "CO"),
    ("urea", {"C": 1, "H": 4, "N": 2, "O": 1}, "NC(=O)N"),
    ("water", {"H": 2, "O": 1}, "O"),
]
SHORTEST_DISTANCE_ANGSTROM = 0.6


@pytest.fixture(autouse=True)
def _scine() -> None:
    if missing_scine:
        missing("the scine wheels are not installed: pip install 'puffin-fleet[scine]'")


def read(name: str) -> Any:
    structure, _ = utils.io.read(str(MOLECULES / f"{name}.xyz"))
    return structure


def test_the_table_covers_every_file() -> None:
    assert sorted(path.stem for path in MOLECULES.glob("*.xyz")) == [name for name, _, _ in EXPECTED]


@pytest.mark.parametrize(("name", "formula"), [(name, formula) for name, formula, _ in EXPECTED])
def test_formula(name: str, formula: dict[str, int]) -> None:
    assert Counter(str(element).split(".")[-1] for element in read(name).elements) == formula


@pytest.mark.parametrize("name", [name for name, _, _ in EXPECTED])
def test_no_two_atoms_on_top_of_each_other(name: str) -> None:
    positions = read(name).positions / utils.BOHR_PER_ANGSTROM
    distances = [
        float(((first - second) @ (first - second)) ** 0.5)
        for index, first in enumerate(positions)
        for second in positions[:index]
    ]
    assert min(distances) > SHORTEST_DISTANCE_ANGSTROM


@pytest.mark.parametrize(("name", "smiles"), [(name, smiles) for name, _, smiles in EXPECTED])
def test_bonds(name: str, smiles: str) -> None:
    structure = read(name)
    bonds = utils.BondDetector.detect_bonds(structure)
    discretization = molassembler.interpret.BondDiscretization.Binary
    found = molassembler.interpret.molecules(structure, bonds, discretization).molecules
    expected = molassembler.io.experimental.from_smiles(smiles)
    assert len(found) == 1
    components = molassembler.AtomEnvironmentComponents.ElementTypes
    assert found[0].modular_isomorphism(expected, components) is not None


@pytest.mark.parametrize("name", [name for name, _, _ in EXPECTED])
def test_the_comment_says_charge_and_multiplicity(name: str) -> None:
    comment = (MOLECULES / f"{name}.xyz").read_text(encoding="utf-8").splitlines()[1]
    assert comment == f"{name} charge=0 multiplicity=1"
