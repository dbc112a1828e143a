"""Feeding a program on a host while its outputs are read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable

from fleet.errors import FleetError
from fleet.reach.answers import gather

SENDER_S = 10.0
"""How long to wait for a sender whose program has ended: the file that it reads may be out of reach."""


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
    taken
        Called when a block of data was written.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        finish: Callable[[], object],
        program: bytes,
        data: Iterable[bytes] = (),
        taken: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(daemon=True)
        self._write = write
        self._finish = finish
        self._program = program
        self._data = data
        self._taken = taken
        self._error: FleetError | None = None

    def run(self) -> None:
        """Write all of it; an error is kept for whoever waits."""
        try:
            self._write(self._program)
            for block in self._data:
                self._write(block)
                self._taken()
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


class Receiver(threading.Thread):
    """Reads one output of a program in a thread of its own.

    Parameters
    ----------
    host
        The host that it comes from.
    read
        Gives the next bytes of it; nothing at its end.
    end
        Ends the program, where it writes without end.
    close
        Called when nothing more is read.
    """

    def __init__(
        self,
        host: str,
        read: Callable[[], bytes],
        end: Callable[[], object],
        close: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(daemon=True)
        self._host = host
        self._read = read
        self._end = end
        self._close = close
        self._found = b""
        self._error: FleetError | None = None

    def run(self) -> None:
        try:
            self._found = gather(self._host, self._read)
        except FleetError as error:
            self._error = error
            self._end()
        except (OSError, EOFError):
            pass  # whoever waits for the program learns of that as well
        finally:
            self._close()

    def result(self) -> bytes:
        """All of it, once it has ended.

        Raises
        ------
        FleetError
            It had no end.
        """
        self.join()
        if self._error is not None:
            raise self._error
        return self._found
