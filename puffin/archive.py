"""Keeps the directories of finished attempts as tarballs."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path


def archive(directory: Path, calculation_id: str, target: Path) -> Path:
    """Pack an attempt's directory as ``<calculation id>.tar.gz``; never leaves half an archive behind.

    Parameters
    ----------
    directory
        The attempt's directory.
    calculation_id
        The calculation's id; also the name of the folder inside the archive.
    target
        Where the archive goes.

    Returns
    -------
    Path
        The archive.

    Raises
    ------
    OSError
        It could not be written, for instance because the disk is full.
    """
    target.mkdir(parents=True, exist_ok=True)
    final = target / f"{calculation_id}.tar.gz"
    temporary = target / f".{final.name}.{os.getpid()}"
    try:
        with tarfile.open(temporary, "w:gz") as tarball:
            tarball.add(directory, arcname=calculation_id)
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
    return final


def remove(directory: Path) -> None:
    """Remove an attempt's directory as far as that is possible.

    Parameters
    ----------
    directory
        The directory.
    """
    shutil.rmtree(directory, ignore_errors=True)
