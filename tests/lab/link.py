"""A line between one worker and the database server, which a test can cut, and which counts what passes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from typing import Any

import bson


class Link:
    """Listens on a port of its own and passes everything on to the server."""

    def __init__(self, port: int) -> None:
        self.commands: Counter[str] = Counter()
        self._target = port
        self._whole = threading.Event()
        self._whole.set()
        self._last: str | None = None
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

    def cut_at_find(self, collection: str) -> None:
        """Cut it behind the next findAndModify that finds something: the server has done it, the answer does not pass.

        One that finds nothing passes, and its answer too.
        """
        self._last = collection

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
                finds: dict[int, str] = {}
                for source, target, to_server in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, target, to_server, finds), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, to_server: bool, finds: dict[int, str]) -> None:
        """Pass messages on in one direction; `finds` has the collections of this connection's requests to find."""
        with contextlib.suppress(OSError):
            while header := _read(source, 4):
                message = header + _read(source, struct.unpack("<i", header)[0] - 4)
                if not to_server:
                    self._look_at_answer(message, finds)
                self._whole.wait()
                if to_server:
                    self._count(message, finds)
                target.sendall(message)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def _count(self, message: bytes, finds: dict[int, str]) -> None:
        if content := _content(message):
            command, about = next(iter(content.items()))
            self.commands[command] += 1
            if command == "findAndModify":
                finds[struct.unpack("<i", message[4:8])[0]] = about

    def _look_at_answer(self, message: bytes, finds: dict[int, str]) -> None:
        collection = finds.pop(struct.unpack("<i", message[8:12])[0], None)
        if collection is not None and collection == self._last and _content(message).get("value") is not None:
            self._last = None
            self.cut()


def _content(message: bytes) -> dict[str, Any]:
    """What a message says; nothing where it is of another kind than those of today."""
    operation_code, is_message = struct.unpack("<i", message[12:16])[0], 2013
    if operation_code != is_message:
        return {}
    length = struct.unpack("<i", message[21:25])[0]
    return bson.decode(message[21 : 21 + length])


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := source.recv(size - len(data))):
        data += part
    return data
