"""One log and its rotated files, read in the order in which they were written, and gone on with after a break.

What rotates logs differs: workers and supervisord rename `x.log` to `x.log.1` and begin a new file; others copy it
and cut the first one short. A position is an inode, an offset, and a digest of what stands before it, so that it is
found again in either case.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Json
from fleet.hostside.loglines import Gathering, Line, Message, MessageFilter

_MARK = 256
"""Bytes before a position that tell it from the same offset in another file."""

_BLOCK = 1 << 18
_LONGEST_LINE = 1 << 20
_TRIES = 20


class Piece:
    """A file of a log, open for as long as somebody may still ask for a position in it.

    Parameters
    ----------
    descriptor
        The file; closed here.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def status(self) -> os.stat_result:
        """What the system says of the file, whatever it is called by now."""
        return os.fstat(self._descriptor)

    def file(self) -> tuple[int, int]:
        """What tells this file from all others of the host: device and number."""
        found = self.status()
        return found.st_dev, found.st_ino

    def read(self, size: int, offset: int) -> bytes:
        """Read some bytes; fewer at the end of the file.

        Parameters
        ----------
        size
            How many.
        offset
            From where on.
        """
        return os.pread(self._descriptor, size, offset)

    def mark(self, offset: int) -> str:
        """Digest of what stands before an offset.

        Parameters
        ----------
        offset
            Where.
        """
        before = self.read(min(offset, _MARK), max(0, offset - _MARK))
        return hashlib.sha256(before).hexdigest()[:16]

    def holds(self, offset: int, mark: str) -> bool:
        """Whether what somebody read up to an offset is the beginning of this file.

        Parameters
        ----------
        offset
            Where he was.
        mark
            What `mark` said then.
        """
        return self.status().st_size >= offset and self.mark(offset) == mark

    def lines(self, offset: int, until: int | None = None) -> Iterator[Line]:
        """The complete lines from an offset on.

        Parameters
        ----------
        offset
            Where to begin.
        until
            Where to end; None for the end of the file.
        """
        while until is None or offset < until:
            block = self.read(_BLOCK, offset)
            if b"\n" not in block and len(block) == _BLOCK:
                block = self.read(_LONGEST_LINE, offset)
            complete, end, _ = block.rpartition(b"\n")
            if not end:
                if len(block) < _LONGEST_LINE:
                    return
                complete = block  # one that never ends is shown in parts
            neighbour = self.status().st_mtime
            for text in complete.split(b"\n") if end else [complete]:
                start, offset = offset, offset + len(text) + len(end)
                yield Line(text.decode("utf-8", "replace"), start, offset, neighbour)

    def end(self) -> int:
        """Where its last complete line ends."""
        size = self.status().st_size
        begin = max(0, size - _LONGEST_LINE)
        return begin + self.read(size - begin, begin).rfind(b"\n") + 1

    def rest(self, offset: int) -> Iterator[Line]:
        """What stands behind the last complete line.

        Parameters
        ----------
        offset
            Where that line ends.
        """
        rest = self.read(_LONGEST_LINE, offset)
        if rest:
            yield Line(rest.decode("utf-8", "replace"), offset, offset + len(rest), self.status().st_mtime)


def pieces(path: Path) -> list[Piece]:
    """Open all files of a log, the oldest first; none twice and none left out, also while they are being renamed.

    Parameters
    ----------
    path
        The file that is written to now.
    """
    opened: list[Piece] = []
    for _ in range(_TRIES):
        opened = [found for name in _names(path) if (found := _open(name)) is not None]
        known = [each.file() for each in opened]
        if len(set(known)) == len(known) and known == [file for name in _names(path) if (file := _file(name))]:
            break
        time.sleep(0.01)
    return opened


def _names(path: Path) -> list[Path]:
    pattern = re.compile(re.escape(path.name) + r"\.(\d{1,6})")
    try:
        there = {entry.name for entry in path.parent.iterdir()}
    except OSError:
        return []
    numbered = [(int(found[1]), name) for name in there if (found := pattern.fullmatch(name))]
    older = [path.with_name(name) for _, name in sorted(numbered, reverse=True)]
    return [*older, path] if path.name in there else older


def _open(path: Path) -> Piece | None:
    # No link, and no waiting for the other end of a pipe: others may write to this directory.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        if _file(path) is not None:
            return Piece(os.open(path, flags))
    except OSError:
        pass  # renamed this very moment, or not for us
    return None


def _file(path: Path) -> tuple[int, int] | None:
    """What a regular file is known by."""
    try:
        found = path.lstat()
    except OSError:
        return None
    regular = 0o100000
    return (found.st_dev, found.st_ino) if found.st_mode & 0o170000 == regular else None


class Last(NamedTuple):
    """One of the last messages.

    Parameters
    ----------
    at
        Seconds since 1970.
    height
        Lines that it takes.
    piece
        Which file.
    start
        Where it starts there.
    """

    at: float
    height: int
    piece: int
    start: int


def last_messages(
    opened: Sequence[Piece], count: int, wanted: MessageFilter, alive: Callable[[], None] = lambda: None
) -> list[Last]:
    """The last messages that are wanted, with so many lines or, for the first of them, more; reads no more for it.

    Parameters
    ----------
    opened
        The files of the log, the oldest first.
    count
        How many lines.
    wanted
        Which messages.
    alive
        Called now and then, for whoever waits.
    """
    found: list[Last] = []
    left = count
    for index in reversed(range(len(opened))):
        if left <= 0 or (wanted.since is not None and opened[index].status().st_mtime < wanted.since):
            break
        alive()
        ending = _ending(opened[index], left, wanted)
        left -= sum(message.height for message in ending)
        found = [Last(message.at, message.height, index, message.start) for message in ending] + found
    return found


def _ending(piece: Piece, count: int, wanted: MessageFilter) -> list[Message]:
    size = piece.status().st_size
    window = _BLOCK
    while True:
        begin = max(0, size - window)
        messages = list(Gathering().all(piece.lines(begin, size)))
        if begin:
            messages = messages[1:]  # its beginning may be cut off
        messages = [message for message in messages if wanted.holds(message)]
        lines = 0
        for number, message in enumerate(reversed(messages), 1):
            lines += message.height
            if lines >= count:
                return messages[-number:]
        if begin == 0:
            return messages
        window *= 8


class Position(NamedTuple):
    """Where a reader is; finding it again takes reading a little, so that is done only when somebody asks.

    Parameters
    ----------
    piece
        The file; None where there is none.
    offset
        Where in it.
    after
        Where there is no file: one that is written to later than this is new, in nanoseconds since 1970.
    """

    piece: Piece | None
    offset: int
    after: int

    def record(self) -> Json:
        """The same for another reader."""
        if self.piece is None:
            return {"file": [0, 0], "offset": 0, "mark": "", "mtime": self.after}
        file, mark, mtime = list(self.piece.file()), self.piece.mark(self.offset), self.piece.status().st_mtime_ns
        return {"file": file, "offset": self.offset, "mark": mark, "mtime": mtime}


class LogReader:
    """One log, from some position on.

    Parameters
    ----------
    path
        Its newest file, which may come later.
    after
        Where there is no position: files that were last written to before are old, nanoseconds since 1970.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        self.path = path
        self.cut = False
        """Whether something may be missing: it was thrown away before it was read."""
        self._after = after
        self._piece: Piece | None = None
        self._rest: list[Piece] = []
        self._offset = 0
        self._mark = ""
        self._seen = (-1, -1)
        self._gathering = Gathering()

    def start(self, opened: Sequence[Piece], index: int, offset: int = 0) -> None:
        """Read from an offset in one of these files on.

        Parameters
        ----------
        opened
            The files, the oldest first.
        index
            Which of them.
        offset
            Where in it.
        """
        self._rest = list(opened[index:])
        self._piece = self._rest.pop(0) if self._rest else None
        self._offset = offset
        self._mark = self._piece.mark(offset) if self._piece else ""
        self._seen = (-1, -1)

    def resume(self, position: Json) -> None:
        """Read on where an earlier reader was.

        Parameters
        ----------
        position
            What `Position.record` said.
        """
        offset, mark, self._after = int(position["offset"]), str(position["mark"]), int(position["mtime"])
        opened = pieces(self.path)
        for index, piece in enumerate(opened):
            if list(piece.file()) == position["file"] and piece.holds(offset, mark):
                return self.start(opened, index, offset)
        copy = _copy(opened, offset, mark)
        if copy is not None:
            return self.start(opened, copy, offset)
        self.cut = offset > 0
        return self._start_after(opened)

    def position(self) -> Json:
        """Where the first message starts that was not yet given."""
        return self._next_position().record()

    def _next_position(self) -> Position:
        start = self._gathering.start
        return self._position(self._offset if start is None else start)

    def messages(self, flush: bool = False) -> Iterator[tuple[Message, Position]]:
        """Give what was added since the last call, and with each message the position of the next.

        Parameters
        ----------
        flush
            Give the last message although more may belong to it; else it waits until nothing more comes.
        """
        before = self._offset
        if self._is_cut():
            last = self._gathering.close()
            self._was_cut()
            if last is not None:
                yield last, self._next_position()
            before = -1
        while True:
            for line in self._complete():
                yield from self._given(self._gathering.add(line))
            if not self._is_over():
                break
            # Written between the last look and the renaming; and what has no end of line.
            for line in self._last_of_piece():
                yield from self._given(self._gathering.add(line))
            yield from self._given(self._gathering.close())
            self._next()
            before = -1
            if self._piece is None:
                break
        if flush or self._offset == before:
            yield from self._given(self._gathering.close())

    def _given(self, message: Message | None) -> Iterator[tuple[Message, Position]]:
        if message is not None:
            yield message, self._position(message.end)

    def _position(self, offset: int) -> Position:
        return Position(self._piece, offset, self._after)

    def _is_cut(self) -> bool:
        if self._piece is None:
            return False
        status = self._piece.status()
        seen, self._seen = self._seen, (status.st_size, status.st_mtime_ns)
        return seen != self._seen and not self._piece.holds(self._offset, self._mark)

    def _complete(self) -> Iterator[Line]:
        if self._piece is None:
            return
        for line in self._piece.lines(self._offset):
            self._offset = line.end
            yield line
        self._mark = self._piece.mark(self._offset)

    def _last_of_piece(self) -> Iterator[Line]:
        yield from self._complete()
        if self._piece is not None:
            yield from self._piece.rest(self._offset)

    def _is_over(self) -> bool:
        """Whether there is another file after the present one."""
        if self._rest:
            return True
        now = _file(self.path)
        # None: not there yet, or just being renamed.
        return now is not None and (self._piece is None or self._piece.file() != now)

    def _next(self) -> None:
        if self._piece is not None and self._rest:
            self._piece = self._rest.pop(0)
            self._offset, self._mark, self._seen = 0, self._piece.mark(0), (-1, -1)
            return None
        opened = pieces(self.path)
        if self._piece is None:
            return self._start_after(opened)
        known = [piece.file() for piece in opened]
        if self._piece.file() in known:
            return self.start(opened, known.index(self._piece.file()) + 1)
        # So many files later that it is gone: those that are newer have not been read.
        self._after = self._piece.status().st_mtime_ns - 1
        return self._start_after(opened)

    def _start_after(self, opened: Sequence[Piece]) -> None:
        newer = [piece.status().st_mtime_ns > self._after for piece in opened]
        self.start(opened, newer.index(True) if True in newer else len(opened))

    def _was_cut(self) -> None:
        """Go on in the copy that was made before this file was cut short, else with what is in it now."""
        opened = pieces(self.path)
        copy = _copy(opened, self._offset, self._mark)
        if copy is not None:
            self.start(opened, copy, self._offset)
        else:
            self.start(opened, max(0, len(opened) - 1))


def _copy(opened: Sequence[Piece], offset: int, mark: str) -> int | None:
    """The newest file that begins with what was read."""
    found = [index for index, piece in enumerate(opened) if offset and piece.holds(offset, mark)]
    return found[-1] if found else None
