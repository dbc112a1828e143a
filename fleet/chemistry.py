"""Molecules in files, and databases for them; the only module of the manager that imports SCINE.

Needs the extra ``scine``.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from fleet.errors import FleetError
from puffin.documents import Molecule

_CHARGE = re.compile(r"charge=([+-]?\d+)")
_MULTIPLICITY = re.compile(r"multiplicity=(\d+)")


def is_installed() -> bool:
    """Whether molecules can be read and calculated with on this machine."""
    return all(find_spec(name) for name in ("scine_utilities", "scine_database", "scine_sparrow", "scine_puffin"))


def read_molecule(path: Path) -> Molecule:
    """Read a molecule from a file.

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
    import scine_utilities as utils

    try:
        atoms, _ = utils.io.read(str(path))
        comment = path.read_text(encoding="utf-8").splitlines()[1]
    # The reader is C++ and throws whatever it likes.
    except Exception as error:
        raise FleetError(f"{path}: cannot be read as a molecule: {error}") from error
    charge, multiplicity = _CHARGE.search(comment), _MULTIPLICITY.search(comment)
    return Molecule(
        name=path.stem,
        elements=tuple(str(element).rpartition(".")[2] for element in atoms.elements),
        positions=tuple((float(x), float(y), float(z)) for x, y, z in atoms.positions),
        charge=int(charge[1]) if charge else 0,
        multiplicity=int(multiplicity[1]) if multiplicity else 1,
    )


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
    import scine_database as db

    manager = db.Manager()
    manager.set_uri(uri)
    manager.set_database_name(name)
    try:
        manager.connect()
        if not manager.has_collection("calculations"):
            manager.init()
    # As above.
    except Exception as error:
        raise FleetError(f"cannot prepare the database {name}: {error}") from error
