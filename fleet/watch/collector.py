"""Fetches from hosts what tells why something failed: only what is missing, in one stream for each host."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.deployment.difftext import mask_lines
from fleet.errors import FleetError, RemoteError
from fleet.hostside import source
from fleet.reach.execute import ask, new_marker
from fleet.reach.packing import build_program
from fleet.reach.remote import Remote
from fleet.watch.blocks import Frames, Limited
from fleet.watch.collection import Listing, LocalFile, parse_listing, printable
from fleet.watch.collection_folder import Fetch, HostFolder

ACTION = "collect"
_BLOCK = 1 << 18
_CHECK_EVERY = 1 << 24


@dataclass
class HostCollection:
    """What was collected from one host."""

    files: dict[str, LocalFile] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    fetched: int = 0
    """Bytes that came this time."""
    spoiled: int = 0
    """Files that came and are not here as the host has them: damaged, or not written."""
    written: dict[str, int] = field(default_factory=dict)
    """Files that are written here and are no file of the host: configuration without its secrets, facts; bytes."""

    @property
    def count(self) -> int:
        """How many files of the host are here."""
        return len(self.files.keys() | self.written.keys())

    @property
    def size(self) -> int:
        """Their size, in bytes."""
        return sum({**{local: file.size for local, file in self.files.items()}, **self.written}.values())


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
        What is missing, and what is here, as `fleet.watch.collection_folder.Collection.prepare` left it.
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
    texts = {local: "\n".join(mask_lines(text.split("\n"))) for local, text in listing.texts.items()}
    texts["facts.json"] = json.dumps(listing.facts, indent=1, sort_keys=True)
    texts["supervisord.json"] = json.dumps(listing.facts.get("supervisord"), indent=1, sort_keys=True)
    try:
        for local, text in texts.items():
            place.write(local, text)
            done.written[local] = place.size(local)
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
