"""Molecules in files, and databases for them; the only module of the manager that imports SCINE.

Needs the extra ``scine``.
"""

from __future__ import annotations

import pkgutil
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from fleet.errors import FleetError
from fleet.interruption import undisturbed
from fleet.queue.frames import FORMATS, Flaw, Frame, frames, is_element, state_problem
from puffin.documents import Molecule


def is_installed() -> bool:
    """Whether molecules can be read and calculated with on this machine."""
    return can_read() and all(find_spec(name) for name in ("scine_sparrow", "scine_puffin"))


def can_read() -> bool:
    """Whether molecules can be read and databases made on this machine."""
    return all(find_spec(name) for name in ("scine_utilities", "scine_database"))


def installed_jobs() -> tuple[str, ...]:
    """The SCINE jobs that are installed on this machine; nothing is imported for it but their package."""
    if find_spec("scine_puffin") is None:
        return ()
    spec = find_spec("scine_puffin.jobs")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return tuple(module.name for module in pkgutil.iter_modules(places) if not module.ispkg)


def read_molecule(path: Path) -> Molecule:
    """Read the first molecule of a file.

    Parameters
    ----------
    path
        The file. Charge and multiplicity are taken from words such as ``charge=0 multiplicity=1`` in the second
        line; 0 and 1 without them.

    Returns
    -------
    Molecule
        The molecule, its coordinates in bohr.

    Raises
    ------
    FleetError
        The file cannot be read as a molecule.
    """
    with MoleculeReader() as reader:
        found = next(reader.read(path))
    if isinstance(found, Flaw):
        raise FleetError(f"{path}: cannot be read as a molecule: {found}")
    return found


class MoleculeReader:
    """Reads molecules from files, one at a time; a context manager.

    Parameters
    ----------
    charge, multiplicity
        Of every molecule; None for what its file says, else 0 and 1.
    """

    def __init__(self, charge: int | None = None, multiplicity: int | None = None) -> None:
        self._charge = charge
        self._multiplicity = multiplicity
        # The SCINE readers want a file with one molecule and the right suffix.
        self._directory = tempfile.TemporaryDirectory(prefix="puffin-molecules-")
        self._files: dict[str, TextIO] = {}

    def __enter__(self) -> MoleculeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        self._directory.cleanup()

    def read(self, path: Path) -> Iterator[Molecule | Flaw]:
        """Read all molecules of a file.

        Parameters
        ----------
        path
            The file.

        Yields
        ------
        Molecule | Flaw
            A molecule, its coordinates in bohr, or what is wrong; at least one of them.
        """
        suffix = path.suffix.lower().lstrip(".")
        if suffix not in FORMATS:
            known = ", ".join(f".{name}" for name in FORMATS)
            yield Flaw(0, f"'{path.suffix}' is no known format; known are {known}")
            return
        try:
            # What is not UTF-8 can only be in comments, or is no molecule anyway.
            with path.open(encoding="utf-8", errors="replace") as file:
                found = frames(suffix, file)
                yield from self._molecules(path, found)
        except OSError as error:
            yield Flaw(0, f"cannot be read: {error.strerror or error}")

    def _molecules(self, path: Path, found: Iterator[Frame | Flaw]) -> Iterator[Molecule | Flaw]:
        count = 0
        current = next(found, None)
        while current is not None:
            following = next(found, None)
            count += 1
            alone = count == 1 and following is None
            name = path.stem if alone else f"{path.stem}-{count}"
            yield current if isinstance(current, Flaw) else self._molecule(current, current.name or name)
            current = following

    def _molecule(self, frame: Frame, name: str) -> Molecule | Flaw:
        utils = _utilities()
        file = self._file(frame)
        try:
            atoms, _ = utils.io.read(file.name)
        # The reader is C++ and throws whatever it likes.
        except Exception as error:  # noqa: BLE001
            return Flaw(frame.line, f"cannot be read: {' '.join(str(error).split())}")
        elements = tuple(str(utils.ElementInfo.symbol(element)) for element in atoms.elements)
        charge = next((value for value in (self._charge, frame.charge) if value is not None), 0)
        multiplicity = next((value for value in (self._multiplicity, frame.multiplicity) if value is not None), 1)
        if isinstance(charge, Flaw):
            return charge
        if isinstance(multiplicity, Flaw):
            return multiplicity
        problem = state_problem(elements, charge, multiplicity)
        if problem:
            return Flaw(frame.line, problem)
        positions = tuple((float(x), float(y), float(z)) for x, y, z in atoms.positions)
        return Molecule(name, elements, positions, charge, multiplicity)

    def _file(self, frame: Frame) -> TextIO:
        """The frame in a file; the same one again and again, for a new one takes a file system milliseconds."""
        if frame.suffix not in self._files:
            path = Path(self._directory.name) / f"frame.{frame.suffix}"
            self._files[frame.suffix] = path.open("w", encoding="utf-8")
        file = self._files[frame.suffix]
        file.seek(0)
        file.write(frame.text)
        file.truncate()
        file.flush()
        return file


def mol_block(molecule: Molecule) -> str:
    """A molecule in the MOL format (V2000), with the bonds that its distances suggest.

    Its charge is not in it, because it is not known which atoms have it.

    Parameters
    ----------
    molecule
        The molecule; at most 999 atoms.

    Raises
    ------
    FleetError
        It cannot be written so.
    """
    utils = _utilities()
    unknown = [element for element in molecule.elements if not is_element(element)]
    if unknown or len(molecule.elements) > 999:
        raise FleetError(f"{molecule.name}: cannot be written as SDF: more than 999 atoms, or unknown elements")
    elements = [getattr(utils.ElementType, element) for element in molecule.elements]
    atoms = utils.AtomCollection(elements, [list(position) for position in molecule.positions])
    with tempfile.TemporaryDirectory(prefix="puffin-molecules-") as directory:
        file = Path(directory) / "molecule.mol"
        utils.io.write_topology(str(file), atoms, utils.BondDetector.detect_bonds(atoms))
        lines = file.read_text(encoding="utf-8").splitlines()
    end = next(at for at, line in enumerate(lines) if line.startswith("M  END"))
    return "\n".join([molecule.name, *lines[1:end], "M  END"])


def prepare_database(uri: str, name: str) -> None:
    """Make a SCINE database with its collections and indices, unless it is there.

    Parameters
    ----------
    uri
        Connection string.
    name
        The database's name.

    Raises
    ------
    FleetError
        It cannot be made.
    """
    manager = _database().Manager()
    manager.set_uri(uri)
    manager.set_database_name(name)
    try:
        manager.connect()
        if not manager.has_collection("calculations"):
            manager.init()
    # As above.
    except Exception as error:
        raise FleetError(f"cannot prepare the database {name}: {error}") from error


# What is interrupted while it is imported cannot be imported again: its types are registered already.


@cache
def _utilities() -> Any:
    with undisturbed():
        import scine_utilities
    return scine_utilities


@cache
def _database() -> Any:
    with undisturbed():
        import scine_database
    return scine_database
