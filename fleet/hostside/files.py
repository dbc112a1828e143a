"""Writing files so that nobody ever sees half of one, or one that others may read for a moment."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Failure, os_failure

UNFINISHED = ".new~"


class Staged(NamedTuple):
    """A file written beside its place, to be put there.

    Parameters
    ----------
    temporary
        Where it is now.
    path
        Its place.
    """

    temporary: Path
    path: Path

    def commit(self) -> None:
        """Put it in its place.

        Raises
        ------
        Failure
            It cannot be moved there.
        """
        try:
            self.temporary.replace(self.path)
        except OSError as error:
            raise os_failure(error, "writing files", self.path) from error

    def discard(self) -> None:
        """Remove it, unless it was put in its place."""
        with contextlib.suppress(OSError):  # what is in the way is said by who writes
            self.temporary.unlink()


def stage(path: Path, content: bytes, mode: int, mark: str = "") -> Staged:
    """Write a file beside its place, complete and on disk, with its mode from the start.

    Two contents for one place need different marks.

    Raises
    ------
    Failure
        It cannot be written; then nothing of it is left.
    """
    staged = Staged(path.with_name(f".{path.name}{mark}{UNFINISHED}"), path)
    try:
        staged.discard()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(staged.temporary, flags, mode & 0o700)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
    except OSError as error:
        staged.discard()
        raise os_failure(error, "writing files", path) from error
    return staged


def write(path: Path, content: bytes, mode: int) -> None:
    """Write one file atomically.

    Parameters
    ----------
    path
        The file.
    content
        Its bytes.
    mode
        Its permissions.

    Raises
    ------
    Failure
        It cannot be written; what was there is unchanged.
    """
    stage(path, content, mode).commit()


def same(path: Path, content: bytes, mode: int) -> bool:
    """Whether a regular file is there already, with this content and mode.

    Parameters
    ----------
    path
        The file.
    content
        Its bytes.
    mode
        Its permissions.

    Raises
    ------
    Failure
        It cannot be read.
    """
    try:
        status = path.lstat()
        if not path.is_file() or path.is_symlink() or status.st_mode & 0o7777 != mode:
            return False
        return status.st_size == len(content) and path.read_bytes() == content
    except FileNotFoundError:
        return False
    except OSError as error:
        raise os_failure(error, "comparing files", path) from error


def directory(path: Path, mode: int) -> None:
    """Make a directory; tighten the mode of one that is there, never loosen it.

    Parents that are missing get what the umask leaves, which `common.run` keeps others from writing to.

    Parameters
    ----------
    path
        The directory.
    mode
        The most that is permitted.

    Raises
    ------
    Failure
        It cannot be made, or something else is in its place.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        found = path.stat().st_mode & 0o7777
        if found & ~mode & 0o777:
            path.chmod(found & (mode | 0o7000))
    except FileExistsError as error:
        raise Failure(f"{path} is not a directory", "making directories", "remove it") from error
    except OSError as error:
        raise os_failure(error, "making directories", path) from error


def foreign_directory(path: Path) -> None:
    """Make a directory, with its parents; one that is there is somebody else's to arrange.

    Parameters
    ----------
    path
        The directory.

    Raises
    ------
    Failure
        It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_failure(error, "making directories", path) from error


def private_directory(path: Path) -> None:
    """Make a directory in a place where others may write, too; refuse one that somebody else put there.

    Parameters
    ----------
    path
        The directory; the one above it is made as well.

    Raises
    ------
    Failure
        It cannot be made, or belongs to somebody else.
    """
    private_directories(path.parent.parent, path)


def private_directories(top: Path, path: Path) -> None:
    """Make a directory below `top`, where others may write, and each between them; refuse what somebody else put there.

    Who owns one of them could move away what is below it, and put something else in its place.

    Parameters
    ----------
    top
        The place; it is left as it is.
    path
        The directory.

    Raises
    ------
    Failure
        It cannot be made, or belongs to somebody else.
    """
    try:
        for step in (*reversed(list(_between(top, path))), path):
            with contextlib.suppress(FileExistsError):
                step.mkdir(mode=0o700)
            found = step.lstat()
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
                raise Failure(f"{step} belongs to somebody else", "making directories", "have it removed")
            step.chmod(0o700)
    except OSError as error:
        raise os_failure(error, "making directories", path) from error


def _between(top: Path, path: Path) -> Iterator[Path]:
    """The directories that lead from one to the other, the last first."""
    if top not in path.parents:
        raise Failure(f"{path} is not below {top}", "making directories")
    for parent in path.parents:
        if parent == top:
            return
        yield parent


def link(path: Path, target: str) -> bool:
    """Make a symbolic link, or turn it elsewhere in one step.

    Parameters
    ----------
    path
        The link.
    target
        What it says, as it is.

    Returns
    -------
    bool
        Whether that changed anything.

    Raises
    ------
    Failure
        It cannot be made.
    """
    if path.is_symlink() and os.readlink(path) == target:  # noqa: PTH115 - as written, not resolved
        return False
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(target)
        temporary.replace(path)
    except OSError as error:
        raise os_failure(error, "making links", path) from error
    return True
