"""Where bootstrap keeps things below ``daemon.software_dir``.

An installation is never changed: the next one is made beside it, and a link is switched when it is complete.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from puffin.errors import ProgramError

WHEELS = "wheels"
"""The name under which all programs from PyPI are installed, together, so that they fit each other."""

_CURRENT = "current"


@dataclass(frozen=True)
class Places:
    """The directories of one ``software_dir``.

    Parameters
    ----------
    root
        The directory itself.
    """

    root: Path

    def repository(self, name: str) -> Path:
        """The sources of a program; they stay, so that the next build only does what is new."""
        return self.root / "build" / name

    def log(self, name: str) -> Path:
        """What was printed when a program was installed."""
        return self.root / "log" / f"{name}.log"

    def installations(self, name: str) -> Path:
        """All installations of a program for this Python."""
        return self.root / "install" / str(sys.implementation.cache_tag) / name

    def current(self, name: str) -> Path:
        """The link to the installation in use; it may not be there."""
        return self.installations(name) / _CURRENT

    def use(self, name: str, installation: Path) -> None:
        """Switch to an installation, and remove all but it and the one before.

        The one before stays, because a running worker may still load parts of it.

        Parameters
        ----------
        name
            The program.
        installation
            A complete installation.
        """
        link = self.current(name)
        before = link.resolve() if link.exists() else None
        temporary = link.with_name(f".{_CURRENT}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(installation.name)
        temporary.replace(link)
        for other in self.installations(name).iterdir():
            if other.is_dir() and not other.is_symlink() and other not in (installation, before):
                shutil.rmtree(other, ignore_errors=True)


@contextmanager
def locked(places: Places) -> Iterator[None]:
    """Keep other bootstraps out of a ``software_dir``; hosts often share it.

    Parameters
    ----------
    places
        The directories.

    Raises
    ------
    ProgramError
        Another bootstrap is at work there.
    """
    path = places.root / ".bootstrap.lock"
    with path.open("a") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise ProgramError(f"another bootstrap is at work in {places.root}: wait until it has ended") from error
        yield
