"""Feeding a program on a host while its output is read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable

from fleet.errors import FleetError


class Sender(threading.Thread):
    """Writes a program and its data in a thread of its own: it may answer before it has read everything.

    Parameters
    ----------
    write
        Writes all of a block, or raises OSError or EOFError when nobody reads any more.
    finish
        Says that nothing more will come.
    program
        What goes first.
    data
        What follows; may raise FleetError where it cannot be had.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        finish: Callable[[], object],
        program: bytes,
        data: Iterable[bytes] = (),
    ) -> None:
        super().__init__(daemon=True)
        self._write = write
        self._finish = finish
        self._program = program
        self._data = data
        self._error: FleetError | None = None

    def run(self) -> None:
        """Write all of it; an error is kept for whoever waits."""
        try:
            self._write(self._program)
            for block in self._data:
                self._write(block)
        except FleetError as error:
            self._error = error
        except (OSError, EOFError):
            pass  # the program ended early; what it wrote, and its status, say why
        finally:
            with contextlib.suppress(OSError, EOFError):
                self._finish()

    def check(self) -> None:
        """Raise what kept the data from being had."""
        if self._error is not None:
            raise self._error
