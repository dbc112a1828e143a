"""What a host sends of its files: blocks that say how long they are, between lines of the usual kind. Pure.

See `fleet.hostside.collect` for the other side.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from typing import Any

from fleet.errors import RemoteError
from fleet.reach.answers import parse_stream

_ACTION = "collect"
_BLOCK = 1 << 18
_ALIVE = b"\xff" * 4


class Limited:
    """What was packed, as far as it is no more than was asked for: a small archive may hold a full disk."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream = stream
        self._left = limit + (1 << 16)

    def read(self, size: int) -> bytes:
        """Read at most so many bytes; more than was announced is refused with a ValueError."""
        block = self._stream.read(min(size, self._left))
        self._left -= len(block)
        if self._left <= 0:
            raise ValueError("it is larger than it was said to be")
        return block


class Frames:
    """The output of the program on the host: noise, the first line, blocks, the reply.

    Parameters
    ----------
    chunks
        What it writes.
    marker
        Stands before the first line and the reply.
    host
        Its name.
    """

    def __init__(self, chunks: Iterator[bytes], marker: str, host: str) -> None:
        self._chunks = chunks
        self._marker = marker
        self._host = host
        self._rest = b""
        self._at = 0
        self._left = 0
        self._ended = False

    def _more(self) -> bool:
        chunk = next(self._chunks, b"")
        self._rest, self._at = self._rest[self._at :] + chunk, 0
        return bool(chunk)

    def begin(self) -> None:
        """Pass over what start-up files print.

        Raises
        ------
        RemoteError
            The host says that it cannot do it, or nothing at all.
        """
        start = f"\n{self._marker} ".encode()
        while (at := self._rest.find(start)) < 0 or b"\n" not in self._rest[at + 1 :]:
            if not self._more():
                raise RemoteError(self._host, "collecting", "the program on the host ended without a word", "try again")
        line, _, self._rest = self._rest[at + 1 :].partition(b"\n")
        for _ in parse_stream(self._host, _ACTION, [line + b"\n"], self._marker):
            pass  # raises what is wrong

    def read(self, size: int) -> bytes:
        """Read what is in the blocks."""
        while not self._ended and not self._left:
            self._header()
        if self._ended:
            return b""
        if self._at == len(self._rest) and not self._more():
            raise EOFError("the connection ended")
        found = self._rest[self._at : self._at + min(size, self._left)]
        self._at += len(found)
        self._left -= len(found)
        return found

    def _header(self) -> None:
        while len(self._rest) - self._at < 4:
            if not self._more():
                raise EOFError("the connection ended")
        said = self._rest[self._at : self._at + 4]
        self._at += 4
        if said != _ALIVE:
            self._left = int.from_bytes(said, "big")
            self._ended = self._left == 0

    def reply(self) -> Mapping[str, Any]:
        """Read what comes after the last block.

        Raises
        ------
        RemoteError
            The host says that something went wrong.
        """
        while self.read(_BLOCK):
            pass  # padding of the archive
        for entry in parse_stream(self._host, _ACTION, [self._rest[self._at :], *self._chunks, b"\n"], self._marker):
            return entry
        raise RemoteError(self._host, "collecting", "the program on the host ended early", "run it again")
