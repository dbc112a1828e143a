"""Fetches from hosts what tells why something failed: only what is missing, and only below one directory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.deployment.difftext import mask_lines
from fleet.errors import FleetError, RemoteError, UsageError
from fleet.hostside import source
from fleet.reach.execute import ask, new_marker
from fleet.reach.packing import build_program
from fleet.reach.remote import Remote
from fleet.watch.blocks import Frames, Limited
from fleet.watch.collection import (
    MANIFEST,
    SCHEMA,
    Listing,
    LocalFile,
    RemoteFile,
    file_record,
    parse_listing,
    parse_manifest,
    printable,
)

ACTION = "collect"
_BLOCK = 1 << 18
_CHECK_EVERY = 1 << 24
RESERVE = 1 << 28
"""Bytes that stay free on the disk here."""


@dataclass
class HostCollection:
    """What was collected from one host."""

    files: dict[str, LocalFile] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    fetched: int = 0
    """Bytes that came this time."""
    spoiled: int = 0
    """Files that came and are not here as the host has them: damaged, or not written."""


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
            self._hosts: dict[str, dict[str, Any]] = {}
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


def look(remote: Remote, request: Mapping[str, Any]) -> Listing:
    """Ask a host what it has; one round trip.

    Raises
    ------
    RemoteError
        It cannot be asked.
    """
    return parse_listing(remote.name, ask(remote, ACTION, {**request, "step": "list"}, timeout=300))


def fetch(
    remote: Remote,
    listing: Listing,
    wanted: Sequence[Fetch],
    known: Mapping[str, LocalFile],
    place: HostFolder,
    progress: Callable[[int], None],
) -> HostCollection:
    """Fetch what is missing of one host's files, and write down what it says of itself.

    Parameters
    ----------
    remote, listing
        The host, and what it has.
    wanted, known
        What is missing, and what is here, as `Collection.prepare` left it.
    place
        Where it goes.
    progress
        Called with the bytes that have come.

    Raises
    ------
    RemoteError
        The connection was lost, or the host does not send what was asked for; what has come stays.
    FleetError
        It cannot be written here.
    """
    done = HostCollection(problems=list(listing.problems))
    try:
        for local, text in listing.texts.items():
            place.write(local, "\n".join(mask_lines(text.split("\n"))))
        place.write("facts.json", json.dumps(listing.facts, indent=1, sort_keys=True))
        place.write("supervisord.json", json.dumps(listing.facts.get("supervisord"), indent=1, sort_keys=True))
    except OSError as error:
        raise FleetError(f"cannot write below {place.root}: {error.strerror}") from error
    fetching = {each.file.local for each in wanted}
    done.files.update({file.local: known[file.local] for file in listing.files if file.local not in fetching})
    if wanted:
        _Fetching(remote.name, wanted, place, done, progress).run(remote)
    # Of what was not asked for this time, or is gone over there, what came earlier stays.
    done.files.update(
        {local: file for local, file in known.items() if local not in done.files and place.holds(local, file.size)}
    )
    return done


class _Fetching:
    """One stream of files from one host."""

    def __init__(
        self,
        host: str,
        wanted: Sequence[Fetch],
        place: HostFolder,
        done: HostCollection,
        progress: Callable[[int], None],
    ) -> None:
        self._host = host
        self._wanted = wanted
        self._place = place
        self._done = done
        self._progress = progress
        self._digests: dict[int, str] = {}
        self._begun = [self._begin(each) for each in wanted]

    def _begin(self, each: Fetch) -> Any:
        """Digest of what is here of a file."""
        digest = hashlib.sha256()
        if each.there:
            with contextlib.suppress(OSError), os.fdopen(self._place.open(each.file.local), "rb") as stream:
                left = each.there
                while left and (block := stream.read(min(_BLOCK, left))):
                    digest.update(block)
                    left -= len(block)
        return digest

    def run(self, remote: Remote) -> None:
        request = {
            "step": "send",
            "files": [
                {
                    "at": each.file.at,
                    "file": list(each.file.file),
                    "size": each.file.size,
                    "offset": each.there,
                    "sha256": digest.hexdigest(),
                }
                for each, digest in zip(self._wanted, self._begun, strict=True)
            ],
        }
        marker = new_marker()
        chunks = remote.stream(build_program(ACTION, request, marker, source))
        stream = Frames(chunks, marker, self._host)
        try:
            stream.begin()
            # No more than read is asked of either.
            limited = Limited(gzip.GzipFile(fileobj=stream), sum(each.file.size + 2048 for each in self._wanted))  # type: ignore[call-overload]
            with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]  # as above
                for member in archive:
                    self._receive(archive, member)
            reply = stream.reply()
        except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
            raise self._wrong(f"what it sent cannot be unpacked: {error}") from error
        self._check(reply)

    def _wrong(self, what: str) -> RemoteError:
        return RemoteError(self._host, "collecting", what, "run it again: what has come stays")

    def _receive(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        number, offset = (int(word) for word in member.name.split(":"))
        if not 0 <= number < len(self._wanted) or number in self._digests or member.type != tarfile.REGTYPE:
            raise self._wrong("it sends what nobody asked for")
        each = self._wanted[number]
        if offset not in (0, each.there) or member.size < 0 or offset + member.size > each.file.size:
            raise self._wrong(f"it sends more of {printable(each.file.path)} than it said")
        content = archive.extractfile(member)
        assert content is not None  # noqa: S101 - it is a regular file
        digest = self._begun[number] if offset else hashlib.sha256()
        try:
            descriptor = self._place.open(each.file.local)
        except OSError as error:
            self._done.problems.append(f"{each.file.local}: cannot be written here: {error.strerror}")
            self._done.spoiled += 1
            return
        with os.fdopen(descriptor, "r+b") as target:
            target.truncate(offset)
            target.seek(offset)
            while block := content.read(_BLOCK):
                self._take(block)
                digest.update(block)
                try:
                    target.write(block)
                except OSError as error:
                    raise FleetError(f"cannot write {each.file.local}: {error.strerror}") from error
        self._digests[number] = digest.hexdigest()

    def _take(self, block: bytes) -> None:
        before, self._done.fetched = self._done.fetched, self._done.fetched + len(block)
        if before // _CHECK_EVERY != self._done.fetched // _CHECK_EVERY and self._place.free() < 0:
            raise FleetError("the disk here is almost full: free some space, then run it again")
        self._progress(self._done.fetched)

    def _check(self, reply: Mapping[str, Any]) -> None:
        """Hold what has come against what the host says it sent."""
        answers = reply.get("files")
        if not isinstance(answers, list) or len(answers) != len(self._wanted):
            raise self._wrong("malformed reply")
        for number, (each, answer) in enumerate(zip(self._wanted, answers, strict=True)):
            file, digest = each.file, self._digests.get(number)
            if answer.get("problem"):
                self._done.problems.append(f"{file.local}: {printable(str(answer['problem']))}")
            if digest is None:
                continue
            if answer.get("sha256") != digest:
                self._done.problems.append(f"{file.local}: arrived damaged; run it again")
                self._done.spoiled += 1
                self._place.remove(file.local)
                continue
            size = self._place.size(file.local)
            self._done.files[file.local] = LocalFile(file.at, size, digest, file.mtime, file.file)
