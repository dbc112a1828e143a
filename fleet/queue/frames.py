"""Cuts files of molecules into single ones, and says what is wrong in which line; pure.

The SCINE readers take one molecule per file, no SDF, and say no more than that a format "does not match"; so files
are cut and looked over here first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

FORMATS = ("xyz", "mol", "sdf", "pdb")
"""Suffixes of the files that can be read."""

_TABLE = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc
Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi
Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn
"""
_SYMBOLS = tuple(_TABLE.split())
ATOMIC_NUMBERS = {symbol: number for number, symbol in enumerate(_SYMBOLS, start=1)}
"""By element symbol; those that SCINE Utilities knows."""

_CHARGE = re.compile(r"(?<![\w-])charge\s*=\s*\"?([^\s,;\"]*)", re.IGNORECASE)
_MULTIPLICITY = re.compile(r"(?<![\w-])((?:spin_?)?multiplicity|mult|spin)\s*=\s*\"?([^\s,;\"]*)", re.IGNORECASE)
_CHARGE_CODES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}
_DOUBLET_CODE = 4
_PDB_CHARGE = re.compile(r"(\d)([+-])")
_DATA_ITEM = re.compile(r">.*<(charge|multiplicity)>", re.IGNORECASE)
_NO_TITLE = "Unnamed Molecule"


@dataclass(frozen=True)
class Frame:
    """One molecule of a file, as text that a SCINE reader takes.

    Parameters
    ----------
    suffix
        ``xyz``, ``mol`` or ``pdb``.
    text
        The text.
    line
        Where it begins in the file, counted from 1.
    name
        What the file calls it; may be empty.
    charge, multiplicity
        What the file says about them; None where it says nothing, a flaw where that cannot be understood.
    """

    suffix: str
    text: str
    line: int
    name: str = ""
    charge: int | Flaw | None = None
    multiplicity: int | Flaw | None = None


@dataclass(frozen=True)
class Flaw:
    """Something in a file that is no molecule.

    Parameters
    ----------
    line
        Where, counted from 1; 0 for the whole file.
    what
        What is wrong and what was expected.
    """

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}" if self.line else self.what


def frames(suffix: str, lines: Iterable[str]) -> Iterator[Frame | Flaw]:
    """Cut a file into molecules.

    Parameters
    ----------
    suffix
        One of :data:`FORMATS`.
    lines
        Its lines, with or without their ends.

    Yields
    ------
    Frame | Flaw
        One molecule, or what is wrong with it. After a flaw in an XYZ file nothing more is found in it.
    """
    numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, start=1))
    cut = {"xyz": _xyz, "mol": _mol, "sdf": _mol, "pdb": _pdb}[suffix]
    nothing = True
    for found in cut(numbered):
        nothing = False
        yield found
    if nothing:
        yield Flaw(0, "there is no molecule in it")


_Lines = Iterator[tuple[int, str]]


# XYZ ---------------------------------------------------------------------------------------------------


def _xyz(lines: _Lines) -> Iterator[Frame | Flaw]:
    for number, line in lines:
        if not line.strip():
            continue
        word = line.split()[0]
        if not word.isdigit() or int(word) == 0:
            yield Flaw(number, f"expected a number of atoms, not '{_short(line)}'")
            return
        found = _xyz_frame(number, int(word), lines)
        yield found
        if isinstance(found, Flaw):
            return


def _xyz_frame(start: int, count: int, lines: _Lines) -> Frame | Flaw:
    _, comment = next(lines, (0, ""))
    atoms: list[str] = []
    last = start + 1
    while len(atoms) < count:
        last, line = next(lines, (last, None))
        if line is None:
            return Flaw(last, f"the file ends after {len(atoms)} of the {count} atoms that line {start} promises")
        atom = _xyz_atom(line)
        if isinstance(atom, str):
            atoms.append(atom)
            continue
        if not line.strip() or line.strip().isdigit():
            return Flaw(last, f"only {len(atoms)} of the {count} atoms that line {start} promises")
        return Flaw(last, atom.what)
    return Frame(
        suffix="xyz",
        text="\n".join([str(count), comment, *atoms, ""]),
        line=start,
        charge=_xyz_charge(start + 1, comment),
        multiplicity=_xyz_multiplicity(start + 1, comment),
    )


def _xyz_atom(line: str) -> str | Flaw:
    """An atom's line, an atomic number replaced by the symbol."""
    words = line.split()
    if len(words) < 4 or not all(_is_finite(word) for word in words[1:4]):
        return Flaw(0, f"expected an element and three coordinates, not '{_short(line)}'")
    symbol = words[0]
    if symbol.isdigit() and 1 <= int(symbol) <= len(_SYMBOLS):
        symbol = _SYMBOLS[int(symbol) - 1]
    if not is_element(symbol):
        return Flaw(0, f"unknown element '{symbol}'")
    return " ".join([symbol, *words[1:4]])


def _xyz_charge(number: int, comment: str) -> int | Flaw | None:
    found = _CHARGE.search(comment)
    return _whole(number, "charge", found[1]) if found else None


def _xyz_multiplicity(number: int, comment: str) -> int | Flaw | None:
    found = {key.lower(): value for key, value in _MULTIPLICITY.findall(comment)}
    spin = found.pop("spin", None)
    if found:
        return _whole(number, *found.popitem())
    # Some mean 2S+1 by it, others 2S or S.
    return (
        None if spin is None else Flaw(number, f"spin={spin} may mean many things: write multiplicity=, which is 2S+1")
    )


def _whole(number: int, key: str, value: str) -> int | Flaw:
    if _is_finite(value) and float(value).is_integer():
        return int(float(value))
    return Flaw(number, f"{key}={_short(value)} is no whole number")


# MOL and SDF -------------------------------------------------------------------------------------------


def _mol(lines: _Lines) -> Iterator[Frame | Flaw]:
    block: list[tuple[int, str]] = []
    for number, line in lines:
        if line.startswith("$$$$"):
            yield from _mol_block(block)
            block = []
        else:
            block.append((number, line))
    yield from _mol_block(block)


def _mol_block(block: Sequence[tuple[int, str]]) -> Iterator[Frame | Flaw]:
    if not any(line.strip() for _, line in block):
        return
    lines = [line for _, line in block]
    start = block[0][0]
    end = next((index for index, line in enumerate(lines) if line.startswith("M  END")), None)
    flaw = _mol_flaw(start, lines, end)
    if flaw is not None:
        yield flaw
        return
    atoms = lines[4 : 4 + int(lines[3][:3])]
    charge, unpaired = _mol_state(lines[4 + len(atoms) : end], atoms)
    items = _data_items(lines[end + 1 :] if end is not None else [])
    title = lines[0].strip()
    yield Frame(
        suffix="mol",
        text="\n".join([*lines[: end + 1 if end is not None else None], ""]),
        line=start,
        name="" if title == _NO_TITLE else title,
        charge=items.get("charge", charge),
        multiplicity=items.get("multiplicity", None if unpaired is None else unpaired + 1),
    )


def _data_items(lines: Sequence[str]) -> dict[str, int]:
    """Charge and multiplicity, where an SDF has data items that are called so."""
    found = {}
    for heading, value in pairwise(lines):
        name = _DATA_ITEM.match(heading)
        if name and value.strip().lstrip("+-").isdigit():
            found[name[1].lower()] = int(value)
    return found


def _mol_flaw(start: int, lines: Sequence[str], end: int | None) -> Flaw | None:
    counts = lines[3] if len(lines) > 3 else ""
    if "V3000" in counts:
        return Flaw(start + 3, "V3000 is not supported by the SCINE reader: convert it to V2000 or XYZ")
    if not counts[:3].strip().isdigit():
        return Flaw(start + min(3, len(lines) - 1), f"expected the numbers of atoms and bonds, not '{_short(counts)}'")
    count = int(counts[:3])
    if count == 0:
        return Flaw(start + 3, "there are no atoms in it")
    if end is None or end < 4 + count:
        return Flaw(start + len(lines) - 1, f"it ends before the {count} atoms that line {start + 3} promises")
    flaws = (_mol_atom_flaw(number, line) for number, line in enumerate(lines[4 : 4 + count], start=start + 4))
    return next((flaw for flaw in flaws if flaw), None)


def _mol_atom_flaw(number: int, line: str) -> Flaw | None:
    words = [line[0:10].strip(), line[10:20].strip(), line[20:30].strip()]
    if not all(_is_finite(word) for word in words):
        return Flaw(number, f"expected three coordinates and an element, not '{_short(line)}'")
    element = line[31:34].strip()
    return None if is_element(element) else Flaw(number, f"unknown element '{element}'")


def _mol_state(properties: Sequence[str], atoms: Sequence[str]) -> tuple[int | None, int | None]:
    """Total charge and number of unpaired electrons; None where nothing is said."""
    charges = [value for line in properties if line.startswith("M  CHG") for value in _pairs(line)]
    radicals = [value for line in properties if line.startswith("M  RAD") for value in _pairs(line)]
    unpaired = sum(value - 1 for value in radicals) if radicals else None
    if charges or radicals:
        return (sum(charges) if charges else None), unpaired
    codes = [int(line[36:39]) for line in atoms if line[36:39].strip().isdigit()]
    charge = sum(_CHARGE_CODES.get(code, 0) for code in codes)
    doublets = codes.count(_DOUBLET_CODE)
    return (charge if any(code in _CHARGE_CODES for code in codes) else None), (doublets or None)


def _pairs(line: str) -> list[int]:
    words = line.split()[3:]
    return [int(word) for word in words[1::2] if word.lstrip("+-").isdigit()]


# PDB ---------------------------------------------------------------------------------------------------


def _pdb(lines: _Lines) -> Iterator[Frame | Flaw]:
    block: list[tuple[int, str]] = []
    for number, line in lines:
        if line.startswith(("ATOM", "HETATM")):
            block.append((number, line))
        elif line.startswith(("ENDMDL", "END")) and block:
            yield _pdb_model(block)
            block = []
    if block:
        yield _pdb_model(block)


def _pdb_model(block: Sequence[tuple[int, str]]) -> Frame | Flaw:
    places: dict[str, str] = {}
    charges: list[int] = []
    for number, line in block:
        words = [line[30:38].strip(), line[38:46].strip(), line[46:54].strip()]
        if not all(_is_finite(word) for word in words):
            return Flaw(number, f"expected three coordinates in columns 31 to 54, not '{_short(line)}'")
        element = line[76:78].strip()
        if not element:
            return Flaw(number, "columns 77 and 78 must hold the element")
        if not is_element(element):
            return Flaw(number, f"unknown element '{element}'")
        alternative = line[16:17].strip()
        if alternative and places.setdefault(line[17:27], alternative) != alternative:
            return Flaw(number, "there are alternate locations (column 17): keep one of them")
        charge = _PDB_CHARGE.fullmatch(line[78:80])
        if charge:
            charges.append(int(charge[1]) * (1 if charge[2] == "+" else -1))
    return Frame(
        suffix="pdb",
        text="\n".join([*(line for _, line in block), "END", ""]),
        line=block[0][0],
        charge=sum(charges) if charges else None,
    )


# All of them -------------------------------------------------------------------------------------------


def is_element(symbol: str) -> bool:
    """Whether this is the symbol of an element or of a hydrogen isotope, however it is written.

    Parameters
    ----------
    symbol
        The word.
    """
    return symbol.capitalize() in ATOMIC_NUMBERS or symbol.upper() in {"D", "T"}


def state_problem(elements: Sequence[str], charge: int, multiplicity: int) -> str:
    """Why a molecule cannot have this charge and multiplicity; empty if it can.

    Parameters
    ----------
    elements
        Its elements.
    charge
        Its charge in elementary charges.
    multiplicity
        Its spin multiplicity, 2S+1.
    """
    electrons = sum(ATOMIC_NUMBERS[element] for element in elements) - charge
    if electrons < 0:
        return f"charge {_signed(charge)} takes {-electrons} electrons more than there are"
    if multiplicity < 1:
        return f"multiplicity {multiplicity} cannot be: it is at least 1"
    if multiplicity - 1 > electrons:
        return f"multiplicity {multiplicity} needs {multiplicity - 1} electrons, and there are {electrons}"
    if (electrons - (multiplicity - 1)) % 2:
        kind = "odd" if electrons % 2 else "even"
        fits = "2, 4, ..." if electrons % 2 else "1, 3, ..."
        return (
            f"charge {_signed(charge)} leaves an {kind} number of electrons ({electrons}), so that multiplicity "
            f"{multiplicity} cannot be; {fits} can: see --charge and --multiplicity"
        )
    return ""


def _signed(charge: int) -> str:
    return f"{charge:+d}" if charge else "0"


def _is_finite(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _short(line: str) -> str:
    text = line.strip()
    return text if len(text) <= 40 else text[:37] + "..."
