"""Action `tail`: the last lines of log files, and then what is added to them.

Request: host_root, files [{worker, path (relative)}], lines, follow (bool), heartbeat (s).
Reply without follow: entries [{worker, line}], in the order of each file.
With follow: a line `<marker> {worker, line, offset}` each, and `<marker> {heartbeat: true}` when there is
nothing to say, until the reader is gone.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fleet.hostside.common import Json, inside, tail_of
from fleet.hostside.places import host_root

PAUSE = 0.2
LONGEST = 1 << 23
"""At most this many bytes of a log are searched for its last lines."""


class Follower:
    """One log file, through its rotations.

    Parameters
    ----------
    worker
        Whose log it is.
    path
        Where it is, or will be.
    """

    def __init__(self, worker: str, path: Path) -> None:
        self.worker = worker
        self._path = path
        self._stream: BinaryIO | None = None
        self._rest = b""
        self.offset = 0

    def begin(self, count: int) -> list[str]:
        """Give the last complete lines that are there now; what follows them is given by `lines`."""
        self._open()
        if self._stream is None:
            return []
        size = self._stream.seek(0, os.SEEK_END)
        self._stream.seek(max(0, size - LONGEST))
        before, _, self._rest = self._stream.read(min(size, LONGEST)).rpartition(b"\n")
        self.offset = size - len(self._rest)
        found = before.decode("utf-8", "replace").split("\n") if before else []
        return found[-count:] if count > 0 else []

    def lines(self) -> Iterator[str]:
        """What was added since the last call; then look whether the file was rotated or cut."""
        yield from self._added()
        if self._rotated():
            yield from self._added()  # written between the last look and the renaming
            if self._rest:
                yield self._rest.decode("utf-8", "replace")
            self._open()
            yield from self._added()

    def _open(self) -> None:
        if self._stream is not None:
            self._stream.close()
        try:
            self._stream = self._path.open("rb")
        except OSError:
            self._stream = None
        self._rest = b""
        self.offset = 0

    def _added(self) -> Iterator[str]:
        if self._stream is None:
            return
        *complete, self._rest = (self._rest + self._stream.read()).split(b"\n")
        for line in complete:
            self.offset += len(line) + 1
            yield line.decode("utf-8", "replace")

    def _rotated(self) -> bool:
        try:
            now = self._path.stat()
        except OSError:
            return False  # renamed, the new one is not there yet
        if self._stream is None:
            return True
        then = os.fstat(self._stream.fileno())
        return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) or now.st_size < self._stream.tell()


def main(request: Json) -> Json:
    """Show the last lines, or follow."""
    root = host_root(request)
    files = [(entry["worker"], inside(root, entry["path"])) for entry in request["files"]]
    count = int(request.get("lines", 10))
    if request.get("follow"):
        _follow(files, count, request["marker"], float(request.get("heartbeat", 10)))
    entries = [{"worker": worker, "line": line} for worker, path in files for line in tail_of(path, count, LONGEST)]
    return {"entries": entries}


def _follow(files: list[tuple[str, Path]], count: int, marker: str, heartbeat: float) -> None:
    """Write until the reader is gone, which ends this process: there is nobody left to reply to."""
    followers = [Follower(worker, path) for worker, path in files]
    try:
        for follower in followers:
            for line in follower.begin(count):
                _say(marker, {"worker": follower.worker, "line": line, "offset": follower.offset})
        _say_until_nobody_listens(followers, marker, heartbeat)
    except BrokenPipeError:
        pass
    os._exit(0)  # flushing at a normal end would fail again


def _say_until_nobody_listens(followers: list[Follower], marker: str, heartbeat: float) -> None:
    reader = select.poll()
    reader.register(sys.stdout.fileno(), select.POLLERR | select.POLLHUP)
    reader.register(sys.stdin.fileno(), select.POLLIN)  # nothing is sent any more: it can only be its end
    spoken = time.monotonic()
    while True:
        if _say_new(followers, marker):
            spoken = time.monotonic()
        elif time.monotonic() - spoken >= heartbeat:
            _say(marker, {"heartbeat": True})
            spoken = time.monotonic()
        sys.stdout.flush()
        if reader.poll(PAUSE * 1000):
            return


def _say_new(followers: list[Follower], marker: str) -> bool:
    said = False
    for follower in followers:
        for line in follower.lines():
            _say(marker, {"worker": follower.worker, "line": line, "offset": follower.offset})
            said = True
    return said


def _say(marker: str, entry: Json) -> None:
    sys.stdout.write(f"\n{marker} {json.dumps(entry)}\n")
