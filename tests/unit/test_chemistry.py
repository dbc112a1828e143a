"""Molecules through the SCINE readers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.queue.chemistry import MoleculeReader, installed_jobs, mol_block, read_molecule
from fleet.queue.frames import ATOMIC_NUMBERS, Flaw
from fleet.queue.results import BOHR_PER_ANGSTROM
from puffin.documents import Molecule
from tests.lab.requirements import missing

MOLECULES = Path(__file__).resolve().parents[2] / "examples" / "molecules"


@pytest.fixture(autouse=True)
def _scine() -> None:
    if find_spec("scine_utilities") is None or find_spec("scine_puffin") is None:
        missing("the scine wheels are not installed: pip install 'puffin-fleet[scine]'")


def read(path: Path, charge: int | None = None, multiplicity: int | None = None) -> list[Molecule | Flaw]:
    with MoleculeReader(charge, multiplicity) as reader:
        return list(reader.read(path))


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(MOLECULES.glob("*.xyz")), ids=lambda path: path.stem)
def test_they_are_what_scine_reads(path: Path) -> None:
    import scine_utilities as utils

    (found,) = read(path)
    expected, _ = utils.io.read(str(path))
    assert isinstance(found, Molecule)
    assert (found.name, found.charge, found.multiplicity) == (path.stem, 0, 1)
    assert found.elements == tuple(str(element).rpartition(".")[2] for element in expected.elements)
    assert [list(position) for position in found.positions] == expected.positions.tolist()


@pytest.mark.parametrize("suffix", ["mol", "sdf", "pdb", "XYZ"])
def test_all_formats_give_the_same_molecule(tmp_path: Path, suffix: str) -> None:
    import scine_utilities as utils

    source = MOLECULES / "ethanol.xyz"
    atoms, _ = utils.io.read(str(source))
    if suffix == "XYZ":
        path = write(tmp_path, "ethanol.XYZ", source.read_text())
    else:
        written = tmp_path / f"ethanol.{suffix.replace('sdf', 'mol')}"
        utils.io.write_topology(str(written), atoms, utils.BondDetector.detect_bonds(atoms))
        path = written.rename(tmp_path / f"ethanol.{suffix}")
    (found,), (expected,) = read(path), read(source)
    assert isinstance(found, Molecule)
    assert isinstance(expected, Molecule)
    assert (found.name, found.elements) == ("ethanol", expected.elements)
    for mine, theirs in zip(found.positions, expected.positions, strict=True):
        # PDB has three decimals of an angstrom.
        assert mine == pytest.approx(theirs, abs=0.0006 * BOHR_PER_ANGSTROM)


def test_many_in_one_file_have_names_and_do_not_mix(tmp_path: Path) -> None:
    texts = [(MOLECULES / f"{name}.xyz").read_text() for name in ("benzene", "water", "methane")]
    found = read(write(tmp_path, "set.xyz", "\n".join(texts)))
    assert [molecule.name for molecule in found if isinstance(molecule, Molecule)] == ["set-1", "set-2", "set-3"]
    assert [len(molecule.elements) for molecule in found if isinstance(molecule, Molecule)] == [12, 3, 5]


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "cation.xyz", "1\ncharge=1 multiplicity=1\nLi 0 0 0\n")
    states = [
        (molecule.charge, molecule.multiplicity)
        for molecule in (read(path)[0], read(path, charge=0, multiplicity=2)[0])
        if isinstance(molecule, Molecule)
    ]
    assert states == [(1, 1), (0, 2)]


def test_what_a_file_says_badly_is_no_flaw_where_the_command_line_says_it(tmp_path: Path) -> None:
    path = write(tmp_path, "cation.xyz", "1\ncharge=one spin=0\nLi 0 0 0\n")
    said = [str(found) for found in (*read(path), *read(path, charge=1)) if isinstance(found, Flaw)]
    assert [text.partition(": ")[2].split()[0] for text in said] == ["charge=one", "spin=0"]
    assert isinstance(read(path, charge=1, multiplicity=1)[0], Molecule)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("odd.xyz", "1\n\nLi 0 0 0\n", "odd number of electrons (3)"),
        ("notes.txt", "", "'.txt' is no known format; known are .xyz, .mol, .sdf, .pdb"),
        ("broken.xyz", "2\n\nLi 0 0 0\n", "the file ends after 1 of the 2 atoms"),
        ("binary.xyz", "\udcff\udcfe\x00", "expected a number of atoms"),
    ],
)
def test_what_is_no_molecule(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    (found,) = read(path)
    assert isinstance(found, Flaw)
    assert said in str(found)


def test_a_directory_is_no_molecule(tmp_path: Path) -> None:
    (tmp_path / "odd.xyz").mkdir()
    (found,) = read(tmp_path / "odd.xyz")
    assert "cannot be read: Is a directory" in str(found)


def test_the_first_of_a_file_or_an_error_with_its_name(tmp_path: Path) -> None:
    assert read_molecule(MOLECULES / "water.xyz").elements == ("O", "H", "H")
    path = write(tmp_path, "broken.xyz", "1\n\nQq 0 0 0\n")
    with pytest.raises(FleetError) as caught:
        read_molecule(path)
    assert str(caught.value) == f"{path}: cannot be read as a molecule: line 3: unknown element 'Qq'"


def test_every_element_is_known_to_scine() -> None:
    import scine_utilities as utils

    for symbol, number in ATOMIC_NUMBERS.items():
        assert utils.ElementInfo.Z(utils.ElementInfo.element_from_symbol(symbol)) == number


def test_a_mol_block_can_be_read_again(tmp_path: Path) -> None:
    original = read_molecule(MOLECULES / "caffeine.xyz")
    (found,) = read(write(tmp_path, "caffeine.mol", mol_block(original) + "\n"))
    assert isinstance(found, Molecule)
    assert (found.name, found.elements) == ("caffeine", original.elements)
    counts = mol_block(original).splitlines()[3].split()
    assert counts[:2] == ["24", "25"]


def test_the_jobs_that_are_installed() -> None:
    assert {"scine_single_point", "scine_geometry_optimization"} <= set(installed_jobs())
