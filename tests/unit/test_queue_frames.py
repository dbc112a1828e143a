"""Files of molecules, cut and looked over."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.queue.frames import ATOMIC_NUMBERS, FORMATS, Flaw, Frame, frames, state_problem

WATER = "3\nwater charge=0 multiplicity=1\nO 0 0 0\nH 0 0 1\nH 0 1 0\n"
MOL = """{title}
  program
comment
  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 O   0{code}  0  0  0
    0.0000    0.0000    0.9600 H   0  0  0  0  0
  1  2  1  0
{state}M  END
"""
ATOM = "ATOM      1  O   HOH A   1    {x:8.3f}   0.000   0.000  1.00  0.00          {element:>2}{charge}\n"


def cut(suffix: str, text: str) -> list[Frame | Flaw]:
    return list(frames(suffix, text.splitlines(keepends=True)))


def one(suffix: str, text: str) -> Frame:
    (found,) = cut(suffix, text)
    assert isinstance(found, Frame), found
    return found


def flaw(suffix: str, text: str) -> str:
    (found,) = [item for item in cut(suffix, text) if isinstance(item, Flaw)]
    return str(found)


def mol(title: str = "hydroxide", code: str = "  0", state: str = "") -> str:
    return MOL.format(title=title, code=code, state=state)


def atom(x: float = 0.0, element: str = "O", charge: str = "") -> str:
    return ATOM.format(x=x, element=element, charge=charge)


def test_an_xyz_file() -> None:
    found = one("xyz", WATER)
    assert (found.suffix, found.line, found.charge, found.multiplicity) == ("xyz", 1, 0, 1)
    assert found.text == WATER


def test_several_molecules_in_one_xyz_file() -> None:
    found = cut("xyz", WATER + "\n" + WATER.replace("charge=0", "charge = -2").replace("\n", "\r\n"))
    assert [(item.line, item.charge) for item in found if isinstance(item, Frame)] == [(1, 0), (7, -2)]


def test_a_comment_that_says_nothing() -> None:
    found = one("xyz", "1\ndischarge=5\nHe 0 0 0")
    assert (found.charge, found.multiplicity) == (None, None)


@pytest.mark.parametrize(
    ("comment", "charge", "multiplicity"),
    [
        ("charge=-1, mult=2;", -1, 2),
        ("Charge = +1 Multiplicity = 2", 1, 2),
        ('charge="1" spin_multiplicity=2 spin=0.5', 1, 2),
        ("charge=1.0 multiplicity=2.0", 1, 2),
        ("partial-charge=0.3 result=4 charges=q", None, None),
        ("charge=one", "line 2: charge=one is no whole number", None),
        ("charge=1.5", "line 2: charge=1.5 is no whole number", None),
        ("charge= mult=two", "line 2: charge=mult=two is no whole number", "line 2: mult=two is no whole number"),
        ("charge=0 spin=2", 0, "line 2: spin=2 may mean many things: write multiplicity=, which is 2S+1"),
    ],
)
def test_what_the_comment_of_an_xyz_file_says(comment: str, charge: object, multiplicity: object) -> None:
    found = one("xyz", f"1\n{comment}\nHe 0 0 0")
    said = [str(value) if isinstance(value, Flaw) else value for value in (found.charge, found.multiplicity)]
    assert said == [charge, multiplicity]


def test_atomic_numbers_become_symbols_and_other_columns_are_dropped() -> None:
    assert one("xyz", "2\n\n8 0 0 0 0.1 0.2\n1\t0\t0\t1").text == "2\n\nO 0 0 0\nH 0 0 1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no molecule in it"),
        ("hello\n", "line 1: expected a number of atoms, not 'hello'"),
        ("0\n\n", "line 1: expected a number of atoms, not '0'"),
        ("-3\n\nH 0 0 0", "line 1: expected a number of atoms"),
        ("2\n\nH 0 0 0\n", "line 3: the file ends after 1 of the 2 atoms that line 1 promises"),
        ("3\n\nH 0 0 0\n\nH 0 0 1\n", "line 4: only 1 of the 3 atoms that line 1 promises"),
        ("2\n\nH 0 0 0\n2\n\nH 0 0 0\nH 0 0 1\n", "line 4: only 1 of the 2 atoms that line 1 promises"),
        ("1\n\nH 0 0\n", "line 3: expected an element and three coordinates, not 'H 0 0'"),
        ("1\n\nH 0 0 nan\n", "line 3: expected an element and three coordinates"),
        ("1\n\nH 0 0 1.0d0\n", "line 3: expected an element and three coordinates"),
        ("1\n\nXx 0 0 0\n", "line 3: unknown element 'Xx'"),
        ("1\n\n119 0 0 0\n", "line 3: unknown element '119'"),
        ("1\n\nHe 0 0 0\nHe 0 0 1\n", "line 4: expected a number of atoms, not 'He 0 0 1'"),
        ("99999999999\n\nHe 0 0 0\n", "line 3: the file ends after 1 of the 99999999999 atoms"),
    ],
)
def test_a_broken_xyz_file(text: str, said: str) -> None:
    assert said in flaw("xyz", text)


def test_nothing_is_found_after_a_flaw_in_an_xyz_file() -> None:
    found = cut("xyz", WATER + "1\n\nQq 0 0 0\n" + WATER)
    assert [type(item) for item in found] == [Frame, Flaw]


@pytest.mark.parametrize(
    ("text", "charge", "multiplicity"),
    [
        (mol(), None, None),
        (mol(state="M  CHG  1   1  -1\n"), -1, None),
        (mol(state="M  CHG  2   1  -1   2   2\n"), 1, None),
        (mol(state="M  RAD  1   1   2\n"), None, 2),
        (mol(code="  5"), -1, None),
        (mol(code="  4"), None, 2),
        # The lines of the property block win over the codes in the atoms' lines.
        (mol(code="  3", state="M  CHG  1   1  -1\n"), -1, None),
        (mol() + "> <charge>\n-1\n\n>  25  <MULTIPLICITY>\n3\n\n$$$$\n", -1, 3),
        (mol() + "> <charge>\nnone\n\n$$$$\n", None, None),
    ],
)
def test_charge_and_multiplicity_in_a_mol_file(text: str, charge: int | None, multiplicity: int | None) -> None:
    found = one("sdf", text)
    assert (found.name, found.charge, found.multiplicity) == ("hydroxide", charge, multiplicity)


def test_an_sdf_goes_on_after_a_bad_record() -> None:
    bad = mol("bad").replace(" O  ", " Qq ")
    found = cut("sdf", f"{mol('one')}$$$$\n{bad}$$$$\n{mol('three')}$$$$\n\n")
    assert [getattr(item, "name", "flaw") for item in found] == ["one", "flaw", "three"]
    assert str(found[1]) == "line 14: unknown element 'Qq'"


def test_what_a_reader_of_mol_files_gets() -> None:
    found = one("sdf", mol() + "> <energy>\n-1\n\n$$$$\n")
    assert (found.suffix, found.text) == ("mol", mol())
    assert one("mol", mol("Unnamed Molecule")).name == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\n\n", "no molecule"),
        ("a\nb\n", "line 2: expected the numbers of atoms and bonds"),
        (mol().replace("  2  1", "  x  1"), "line 4: expected the numbers of atoms and bonds"),
        (mol().replace("  2  1", "  0  0"), "line 4: there are no atoms"),
        (mol().replace("  2  1", "  9  1"), "line 8: it ends before the 9 atoms that line 4 promises"),
        (mol().replace("M  END\n", ""), "it ends before"),
        (mol().replace("V2000", "V3000"), "line 4: V3000 is not supported"),
        (mol().replace("0.9600", "0.96oo"), "line 6: expected three coordinates"),
    ],
)
def test_a_broken_mol_file(text: str, said: str) -> None:
    assert said in flaw("mol", text)


def test_models_of_a_pdb_file() -> None:
    model = f"MODEL        1\n{atom()}{atom(1.0, 'H')}ENDMDL\n"
    found = cut("pdb", f"REMARK x\n{model}{model}CONECT    1    2\nEND\n")
    assert [item.line for item in found if isinstance(item, Frame)] == [3, 7]
    assert one("pdb", atom()).text == atom() + "END\n"


def test_charges_in_a_pdb_file() -> None:
    assert one("pdb", atom(charge="1-") + atom(1.0, "ZN", "2+")).charge == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("END\n", "no molecule"),
        (atom(element="Qq"), "line 1: unknown element 'Qq'"),
        (atom(element=""), "line 1: columns 77 and 78 must hold the element"),
        (atom().replace("   0.000   0.000", "   0.0x0   0.000"), "line 1: expected three coordinates"),
        (
            "".join(atom(x).replace("  O   HOH", f"  O  {letter}HOH") for x, letter in ((0.0, "A"), (0.5, "B"))),
            "line 2: there are alternate locations",
        ),
    ],
)
def test_a_broken_pdb_file(text: str, said: str) -> None:
    assert said in flaw("pdb", text)


@pytest.mark.parametrize("suffix", FORMATS)
@given(text=st.text(alphabet="0123 \n.-HOeQxM$EATND", max_size=200))
def test_whatever_is_in_a_file_there_is_an_answer(suffix: str, text: str) -> None:
    found = cut(suffix, text)
    assert found
    assert all(isinstance(item, Frame | Flaw) for item in found)


WATERS = ("O", "H", "H")


@pytest.mark.parametrize(
    ("elements", "charge", "multiplicity", "said"),
    [
        (WATERS, 0, 1, ""),
        (WATERS, 0, 3, ""),
        (WATERS, 1, 2, ""),
        (WATERS, 0, 2, "leaves an even number of electrons (10), so that multiplicity 2 cannot be; 1, 3, ... can"),
        (WATERS, -1, 1, "charge -1 leaves an odd number of electrons (11)"),
        (WATERS, 11, 1, "charge +11 takes 1 electrons more than there are"),
        (("H",), 0, 4, "multiplicity 4 needs 3 electrons, and there are 1"),
        (("H",), 1, 1, ""),
        (("H",), 0, 0, "at least 1"),
    ],
)
def test_charge_and_multiplicity_that_can_be(
    elements: tuple[str, ...], charge: int, multiplicity: int, said: str
) -> None:
    problem = state_problem(elements, charge, multiplicity)
    assert said in problem
    assert bool(said) == bool(problem)


def test_the_table_of_elements() -> None:
    assert len(ATOMIC_NUMBERS) == 112
    assert Counter(ATOMIC_NUMBERS.values()).most_common(1)[0][1] == 1
    assert [ATOMIC_NUMBERS[symbol] for symbol in ("H", "Fe", "Xe", "Au", "U", "Cn")] == [1, 26, 54, 79, 92, 112]
