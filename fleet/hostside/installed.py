"""Environments that were installed for a fleet, and the wheels they were made of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Json, read_text

COMPLETE = ".complete"
"""The last file that an installation writes; it holds the digests of its wheels."""


class Environment(NamedTuple):
    """One directory of `releases` or `supervisor`, or a link to an existing environment.

    Parameters
    ----------
    path
        The directory or link.
    complete
        Whether its installation came to its end.
    made
        When it was made, in seconds since 1970.
    """

    path: Path
    complete: bool
    made: float


def mark_of(wheels: Sequence[Json]) -> bytes:
    """What an installation from these wheels writes when it is complete.

    Parameters
    ----------
    wheels
        As in a request.
    """
    return json.dumps({"wheels": sorted(wheel["sha256"] for wheel in wheels)}).encode()


def environments(directory: Path) -> list[Environment]:
    """All that is in a directory, complete or not.

    Parameters
    ----------
    directory
        Such as `releases`.
    """
    found = sorted(path for path in directory.glob("*") if path.is_symlink() or path.is_dir())
    return [_environment(path) for path in found if not path.name.startswith(".")]


def _environment(path: Path) -> Environment:
    mark = path if path.is_symlink() else path / COMPLETE
    try:
        return Environment(path, True, mark.lstat().st_mtime)
    except OSError:
        return Environment(path, False, 0.0)


def releases(directory: Path) -> list[Json]:
    """Complete releases only: an interrupted installation is as good as none.

    Parameters
    ----------
    directory
        That of the releases.

    Returns
    -------
    list[Json]
        For each id, and path where it is a link.
    """
    found = []
    for path in sorted(directory.glob("*")):
        if path.name.startswith("."):
            continue
        link = path.is_symlink()
        complete = (path / "bin" / "puffin").exists() if link else (path / COMPLETE).exists()
        if complete:
            target = os.readlink(path) if link else None  # noqa: PTH115 - as written, not resolved
            found.append({"id": path.name, "path": target})
    return found


def wheels_of(found: Iterable[Environment]) -> set[str] | None:
    """The digests of the wheels that environments were made of; None where one of them does not tell.

    Parameters
    ----------
    found
        The environments; incomplete ones and links count for nothing.
    """
    wheels: set[str] = set()
    for environment in found:
        if environment.path.is_symlink() or not environment.complete:
            continue
        try:
            wheels.update(json.loads(read_text(environment.path / COMPLETE))["wheels"])
        except (ValueError, KeyError, TypeError):
            return None  # made before this was written down
    return wheels
