"""A line between one worker and the database server, which a test can cut, and which counts what passes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter

import bson


class Link:
    """Listens on a port of its own and passes everything on to the server."""

    def __init__(self, port: int) -> None:
        self.commands: Counter[str] = Counter()
        self._target = port
        self._whole = threading.Event()
        self._whole.set()
        self._last: tuple[str, str] | None = None
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        # The server would otherwise tell the driver of its own address, past this line.
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def cut(self) -> None:
        """Let nothing pass any more, as a broken cable would: no connection is closed."""
        self._whole.clear()

    def cut_after(self, command: str, collection: str) -> None:
        """Cut it behind the next command of a kind: the server does what it says, and the answer does not pass."""
        self._last = (command, collection)

    @property
    def is_cut(self) -> bool:
        return not self._whole.is_set()

    def heal(self) -> None:
        """Let everything pass again, also what was sent in the meantime."""
        self._whole.set()

    def close(self) -> None:
        self.heal()
        for open_ in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)
            open_.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for source, target, look in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, target, look), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, look: bool) -> None:
        with contextlib.suppress(OSError):
            while header := _read(source, 4):
                message = header + _read(source, struct.unpack("<i", header)[0] - 4)
                self._whole.wait()
                if look:
                    self._count(message)
                target.sendall(message)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def _count(self, message: bytes) -> None:
        operation_code, is_message = struct.unpack("<i", message[12:16])[0], 2013
        if operation_code == is_message:
            length = struct.unpack("<i", message[21:25])[0]
            command, about = next(iter(bson.decode(message[21 : 21 + length]).items()))
            self.commands[command] += 1
            if (command, about) == self._last:
                self._last = None
                self.cut()


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := source.recv(size - len(data))):
        data += part
    return data
