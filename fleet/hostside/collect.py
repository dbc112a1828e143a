"""Action `collect`: what tells why something failed on this host: which files there are, and then their content.

Request: step `list`: that of `probe`, and failed, since (seconds since 1970, or null), calculation (or null),
error_dirs, archive_dirs (where hosts.yaml says other ones). Reply: files [{path, at, size, mtime, file}], problems
[{path, what}], texts {path: content of a configuration file}, and facts, the reply of `probe`.

Request: step `send`: files [{at, file, offset, size, sha256 (of what stands before the offset)}], heartbeat (s). First
a line `<marker> {begin: true}`, then a compressed tar archive in blocks of `<4 bytes: length><content>` up to one of
length 0, then the usual reply with files [{size, sha256, problem}]. Four bytes 255 are no length but a sign of life,
where reading takes long. A member is called `<number>:<offset>`, so that no name of
this host decides what is written where it arrives; its offset is 0 where the file is not the one that was begun.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from fleet.hostside import probe
from fleet.hostside.common import Failure, Json, expand
from fleet.hostside.places import Places

_BLOCK = 1 << 18
_MOST = 100_000
_LARGEST_TEXT = 1 << 18
_ALIVE = b"\xff" * 4
_CONFIGURATION = (".yaml", ".conf", ".env")


def main(request: Json) -> Json:
    """List, or send.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        There are too many files, or a name is none.
    """
    return _send(request) if request["step"] == "send" else _list(request)


def _list(request: Json) -> Json:
    found = _Found(request.get("since"))
    places = Places.of(request)
    root, calculation = places.host, request.get("calculation")
    errors = [root / "error", *map(expand, request.get("error_dirs", ()))]
    if calculation:
        archives = [root / "archive", *map(expand, request.get("archive_dirs", ()))]
        jobs = list(_job_directories(request, calculation))
        for directory, name in [*((each, "error") for each in errors), *((each, "archive") for each in archives)]:
            found.add_beginning(directory, calculation, name)
        for path in jobs:
            found.add(path, f"jobs/{path.name}")
        found.add(root / "log", "log", containing=calculation.encode())
    else:
        for directory in dict.fromkeys(errors):
            found.add(directory, "error")
        if not request.get("failed"):
            found.add(root / "log", "log")
    found.add_beginning(root / "log", "supervisord.", "log")
    for name in ("audit.jsonl", "manifest.json"):
        found.add(root / name, name)
    return {
        "files": list(found.files.values()),
        "texts": dict(_configuration(root, found.problems)),
        "problems": found.problems,
        "facts": probe.main(request),
    }


def _job_directories(request: Json, calculation: str) -> Iterator[Path]:
    if request.get("scratch"):
        scratch = expand(request["scratch"]) / request["fleet"]
        yield from sorted(scratch.glob(f"{request['host']}-*/jobs/{calculation}.*"))


def _configuration(root: Path, problems: list[Json]) -> Iterator[tuple[str, str]]:
    for path in sorted((root / "etc").glob("**/*")):
        wanted = path.suffix in _CONFIGURATION and "password" not in path.name and not path.is_symlink()
        if wanted and path.is_file() and path.stat().st_size <= _LARGEST_TEXT:
            name = str(path.relative_to(root))
            try:
                yield name, path.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                problems.append({"path": name, "what": f"cannot be read: {error.strerror}"})


class _Found:
    """Files that are wanted, and what was left out.

    Parameters
    ----------
    since
        Only those written to since, in seconds since 1970.
    """

    def __init__(self, since: float | None) -> None:
        self.files: dict[str, Json] = {}
        self.problems: list[Json] = []
        self._since = since

    def add(self, path: Path, name: str, containing: bytes = b"") -> None:
        """Add a file, or all that are below a directory; links are not followed."""
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                for each in sorted(os.listdir(path)):  # noqa: PTH208 - names only, whatever they are
                    self.add(path / each, f"{name}/{each}", containing)
            elif not stat.S_ISREG(status.st_mode):
                self.problems.append({"path": name, "what": "left out: neither a file nor a directory"})
            elif (self._since is None or status.st_mtime >= self._since) and _contains(path, containing):
                self._add_file(path, name, status)
        except FileNotFoundError:
            pass  # never made, or gone this very moment
        except OSError as error:
            self.problems.append({"path": name, "what": f"cannot be read: {error.strerror}"})

    def add_beginning(self, directory: Path, start: str, name: str) -> None:
        """Add what is in a directory and whose names begin so."""
        try:
            paths = sorted(path for path in directory.iterdir() if path.name.startswith(start))
        except FileNotFoundError:
            return  # as above
        except OSError as error:
            self.problems.append({"path": name, "what": f"cannot be read: {error.strerror}"})
            return
        for path in paths:
            self.add(path, f"{name}/{path.name}")

    def _add_file(self, path: Path, name: str, status: os.stat_result) -> None:
        if len(self.files) >= _MOST:
            raise Failure(f"more than {_MOST} files", "listing files", "say --since or --calculation")
        if not os.access(path, os.R_OK):
            self.problems.append({"path": name, "what": "cannot be read: Permission denied"})
            return
        file = [status.st_dev, status.st_ino]
        self.files[name] = {
            "path": name,
            "at": str(path),
            "size": status.st_size,
            "mtime": status.st_mtime,
            "file": file,
        }


def _contains(path: Path, text: bytes) -> bool:
    if not text:
        return True
    before = b""
    with os.fdopen(_open(path), "rb") as stream:
        while block := stream.read(_BLOCK):
            if text in before + block:
                return True
            before = block[-len(text) :]
    return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


# Sending -----------------------------------------------------------------------------------------------


class _Blocks(io.RawIOBase):
    """Writes what it gets in blocks that say how long they are.

    Parameters
    ----------
    stream
        Where to.
    heartbeat
        For how many seconds nothing may be written.
    """

    def __init__(self, stream: BinaryIO, heartbeat: float) -> None:
        super().__init__()
        self._stream = stream
        self._heartbeat = heartbeat
        self._spoken = time.monotonic()

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        data = bytes(content)  # type: ignore[call-overload]  # bytes or a view of some
        if data:
            self._say(len(data).to_bytes(4, "big") + data)
        return len(data)

    def alive(self) -> None:
        """Say so, where nothing was written for long: who is silent is taken for lost.

        Flushing what packs the archive would not do: where nothing is new it writes nothing.
        """
        if time.monotonic() - self._spoken >= self._heartbeat:
            self._say(_ALIVE)

    def end(self) -> None:
        self._say(bytes(4))

    def _say(self, content: bytes) -> None:
        self._stream.write(content)
        self._stream.flush()
        self._spoken = time.monotonic()


def _send(request: Json) -> Json:
    output = sys.stdout.buffer
    output.write(f"\n{request['marker']} {json.dumps({'begin': True})}\n".encode())
    blocks = _Blocks(output, float(request.get("heartbeat", 10)))
    sent: list[Json] = []
    buffered = io.BufferedWriter(blocks, _BLOCK)
    try:
        with (
            gzip.GzipFile(fileobj=buffered, mode="wb", compresslevel=4) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
        ):
            for number, wanted in enumerate(request["files"]):
                sent.append(_send_file(archive, number, wanted, blocks.alive))
        buffered.flush()
    finally:
        blocks.end()
    return {"files": sent}


def _send_file(archive: tarfile.TarFile, number: int, wanted: Json, alive: Callable[[], None]) -> Json:
    try:
        descriptor = _open(_renamed(Path(wanted["at"]), tuple(wanted["file"])))
    except OSError as error:
        return {"size": 0, "sha256": "", "problem": f"cannot be read: {error.strerror}"}
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return {"size": 0, "sha256": "", "problem": "is no file any more"}
        size = min(int(wanted["size"]), status.st_size)
        reader = _Reader(stream, alive)
        offset = min(int(wanted["offset"]), size)
        if reader.skip(offset) != wanted["sha256"] or offset != int(wanted["offset"]):
            offset = 0
            stream.seek(0)
            reader = _Reader(stream, alive)
        member = tarfile.TarInfo(f"{number}:{offset}")
        member.size = size - offset
        archive.addfile(member, reader)  # type: ignore[arg-type]  # no more than read is asked of it
        problem = "became shorter while it was read" if reader.short or size < int(wanted["size"]) else ""
        return {"size": size, "sha256": reader.sha256(), "problem": problem}


def _renamed(path: Path, file: tuple[int, int]) -> Path:
    """Where a file is now: logs are rotated at any time."""
    with contextlib.suppress(OSError):
        for entry in [path, *(path.parent.glob(path.name.split(".log")[0] + "*"))]:
            status = entry.lstat()
            if (status.st_dev, status.st_ino) == file:
                return entry
    return path


class _Reader:
    """Reads a file and takes its digest; gives zeros where it has become shorter, since its size was said before.

    Parameters
    ----------
    stream
        The file.
    alive
        Called with each block: a large file takes long, most of all what need not be sent again.
    """

    def __init__(self, stream: BinaryIO, alive: Callable[[], None]) -> None:
        self._stream = stream
        self._alive = alive
        self._digest = hashlib.sha256()
        self.short = False

    def skip(self, size: int) -> str:
        """Pass over the beginning; give the digest of it."""
        while size and (block := self._stream.read(min(_BLOCK, size))):
            self._digest.update(block)
            self._alive()
            size -= len(block)
        return self._digest.hexdigest()

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        if len(block) < size:
            self.short = True
            block += bytes(size - len(block))
        self._digest.update(block)
        self._alive()
        return block

    def sha256(self) -> str:
        return self._digest.hexdigest()
