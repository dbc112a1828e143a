"""A collection on this machine: a directory for each host, what is missing in it, and the manifest that says so."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.errors import UsageError
from fleet.watch.collection import MANIFEST, SCHEMA, Listing, LocalFile, RemoteFile, file_record, parse_manifest

RESERVE = 1 << 28
"""Bytes that stay free on the disk here."""


@dataclass(frozen=True)
class Fetch:
    """A file to fetch, and how much of it is here already."""

    file: RemoteFile
    there: int

    @property
    def missing(self) -> int:
        """Bytes that are still to be fetched."""
        return self.file.size - self.there


class Collection:
    """A directory with a directory for each host, and a manifest.

    Parameters
    ----------
    directory
        Where; made if it is not there.
    fleet
        Name of the fleet.

    Raises
    ------
    UsageError
        It holds something else.
    """

    def __init__(self, directory: Path, fleet: str) -> None:
        self._directory = directory
        self._fleet = fleet
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.known = self._read()
            self.write_manifest({})
        except OSError as error:
            raise UsageError(f"-o: cannot write to {directory}: {error.strerror}") from error

    def _read(self) -> dict[str, dict[str, LocalFile]]:
        try:
            content = json.loads((self._directory / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if any(self._directory.iterdir()):
                raise UsageError(
                    f"-o: {self._directory} holds something else: name a new or an empty directory"
                ) from None
            return {}
        except ValueError:
            return {}  # cut off; everything is compared with the hosts
        if isinstance(content, Mapping) and content.get("fleet") != self._fleet:
            raise UsageError(
                f"-o: {self._directory} is a collection of fleet {content.get('fleet')!r}: name another one"
            )
        return parse_manifest(content)

    def free(self) -> int:
        """Bytes that may be written here."""
        return shutil.disk_usage(self._directory).free - RESERVE

    def prepare(self, host: str, listing: Listing) -> list[Fetch]:
        """Find out which files of a host are missing or have grown; what only has another name by now is renamed.

        What was `x.log` is `x.log.1` after a rotation, and need not come again.
        """
        place = self.place(host)
        known = self.known.get(host, {})
        now = {file.file: file.local for file in listing.files}
        moving = [(local, now[file.file]) for local, file in known.items() if now.get(file.file, local) != local]
        moving = [(local, to) for local, to in moving if place.size(local)]
        if moving:
            moved = {to: known[local] for local, to in moving}
            changed = {*moved, *(local for local, _ in moving)}
            self.known[host] = {local: file for local, file in known.items() if local not in changed}
            self.write_manifest({})  # so that nothing is taken for something else if this ends half-way
            for number, (local, _) in enumerate(moving):
                place.rename(local, f".moving-{number}")  # first out of each other's way
            for number, (_, to) in enumerate(moving):
                place.rename(f".moving-{number}", to)
            known = self.known[host] = {**self.known[host], **moved}
            self.write_manifest({})
        sizes = {file.local: place.size(file.local) for file in listing.files}
        return [
            Fetch(file, sizes[file.local] if sizes[file.local] <= file.size else 0)
            for file in listing.files
            if file.local not in known or not known[file.local].is_still(file, sizes[file.local])
        ]

    def place(self, host: str) -> HostFolder:
        """The directory of one host."""
        return HostFolder(self._directory / host, self.free)

    def write_manifest(self, hosts: Mapping[str, Mapping[str, Any]], **about: object) -> None:
        """Say what is here.

        Parameters
        ----------
        hosts
            What is to be said of each host; of others what was there before stays.
        about
            What else is to be said.
        """
        before = {
            host: {"files": {local: file_record(file) for local, file in files.items()}}
            for host, files in self.known.items()
        }
        content = {"schema": SCHEMA, "fleet": self._fleet, **about, "hosts": {**before, **hosts}}
        _write(self._directory / MANIFEST, json.dumps(content, indent=1, ensure_ascii=True).encode())


def _write(path: Path, content: bytes) -> None:
    """Write a small file for nobody but us, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as stream:
        stream.write(content)
    temporary.replace(path)


class HostFolder:
    """Where files of one host are written: never through a link, never outside, for nobody else to read.

    Parameters
    ----------
    root
        The directory.
    free
        How many bytes may still be written there.
    """

    def __init__(self, root: Path, free: Callable[[], int]) -> None:
        self.root = root
        self.free = free

    @contextlib.contextmanager
    def _parent(self, local: str) -> Iterator[tuple[int, str]]:
        *parts, name = local.split("/")
        self.root.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        descriptor = os.open(self.root, flags)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=descriptor)
                below = os.open(part, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor, name
        finally:
            os.close(descriptor)

    def open(self, local: str) -> int:
        """Open a file for reading and writing.

        Raises
        ------
        OSError
            It cannot be, or is a link or no file.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self._parent(local) as (parent, name):
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(0, "is no file")
        return descriptor

    def size(self, local: str) -> int:
        """How much of a file is here; 0 where it is not one."""
        path = self.root / local
        with contextlib.suppress(OSError):
            status = path.lstat()
            return status.st_size if stat.S_ISREG(status.st_mode) else 0
        return 0

    def holds(self, local: str, size: int) -> bool:
        """Whether a file is here, and so large."""
        with contextlib.suppress(OSError):
            status = (self.root / local).lstat()
            return stat.S_ISREG(status.st_mode) and status.st_size == size
        return False

    def remove(self, local: str) -> None:
        """Remove a file, if that is possible."""
        with contextlib.suppress(OSError), self._parent(local) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def rename(self, local: str, to: str) -> None:
        """Give a file another name within this place."""
        with self._parent(local) as (old, name), self._parent(to) as (new, other):
            os.replace(name, other, src_dir_fd=old, dst_dir_fd=new)

    def write(self, local: str, content: str) -> None:
        """Write a small file."""
        descriptor = self.open(local)
        with os.fdopen(descriptor, "r+b") as stream:
            os.fchmod(descriptor, 0o600)
            stream.truncate()
            stream.write(content.encode("utf-8", "backslashreplace"))
