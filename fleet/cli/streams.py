"""Where output goes when nobody reads it any more, or when it cannot be written."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import IO, TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer


_NOBODY = frozenset({errno.EPIPE, errno.EIO})
"""A reader that has had enough; a terminal that is gone."""


class _Unfailing(io.FileIO):
    """A file whose first failure sends all that follows nowhere, instead of ending whoever writes."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        try:
            # None where somebody has set it not to block, and it is full; the type does not say so.
            while (written := cast("int | None", super().write(data))) is None:
                select.select([], [self], [])
            return written
        except OSError as error:
            self.failure = error
            _to_nowhere(self.fileno())
            return memoryview(data).nbytes


class UnfailingOutput:
    """Both outputs of a command that must go on with its work although nobody reads what it says of it.

    Half of a deploy must not depend on a ``| head`` behind it, nor on a full disk that takes its log.
    """

    def __init__(self) -> None:
        self._files: list[_Unfailing] = []
        sys.stdout, sys.stderr = self._instead_of(sys.stdout), self._instead_of(sys.stderr)

    def _instead_of(self, stream: TextIO) -> TextIO:
        if not isinstance(stream, io.TextIOWrapper) or stream not in (sys.__stdout__, sys.__stderr__):
            return stream  # closed from the start, or somebody has put another there
        stream.flush()
        raw = _Unfailing(stream.fileno())
        self._files.append(raw)
        return io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=stream.errors,
            # Where the other was not buffered at all, a line at a time is as good.
            line_buffering=stream.line_buffering or stream.write_through,
        )

    @property
    def failure(self) -> OSError | None:
        """Why output is missing that somebody may have wanted; None where all was written, or nobody is there."""
        found = (file.failure for file in self._files)
        return next((error for error in found if error is not None and error.errno not in _NOBODY), None)


def nobody_reads() -> bool:
    """Whether whoever read our output has had enough of it; then what is left of it goes nowhere."""
    gone = False
    for stream in _open_ones():
        looked = select.poll()
        looked.register(stream.fileno(), 0)  # an error is told in any case
        if any(event & select.POLLERR for _, event in looked.poll(0)):
            gone = True
            _to_nowhere(stream.fileno())
    return gone


def _open_ones() -> Sequence[IO[str]]:
    return [stream for stream in (sys.__stdout__, sys.__stderr__) if stream is not None and not stream.closed]


def is_of_output(error: OSError) -> bool:
    """Whether output could not be written, as on a full disk; then what is left of it goes nowhere.

    Parameters
    ----------
    error
        What was raised.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    raised = str(frame.tb_frame.f_globals.get("__name__", "")) if frame is not None else ""
    if raised not in {"fleet.cli", __name__} and raised.partition(".")[0] not in {"click", "rich"}:
        return False
    _to_nowhere(sys.stdout.fileno())
    return True


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)  # else Python complains when it flushes at its end
    os.close(nowhere)
