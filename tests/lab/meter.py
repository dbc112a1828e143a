"""A line to one host that counts what goes through it."""

from __future__ import annotations

import contextlib
import socket
import threading


class Meter:
    """Listens on a port of its own and passes everything on.

    Parameters
    ----------
    port
        The loopback port of the host's sshd.
    """

    def __init__(self, port: int) -> None:
        self.sent = 0
        """Bytes that went to the host."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for source, target, counts in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, target, counts), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                if counts:
                    self.sent += len(block)
                target.sendall(block)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
