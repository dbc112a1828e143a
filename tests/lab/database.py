"""A real database server that a test can stop, kill, freeze and bring back on the same port."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import Any

import pymongo

from fleet.embedded import EmbeddedDatabase


class DatabaseServer:
    """A server over the wire, with its data in one directory.

    Parameters
    ----------
    directory
        Holds data and log.
    """

    def __init__(self, directory: Path) -> None:
        self._embedded = EmbeddedDatabase(directory)

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The same after every restart."""
        return self._embedded.port

    @property
    def uri(self) -> str:
        return self._embedded.uri

    @property
    def running(self) -> bool:
        return self._embedded.server is not None

    def start(self) -> None:
        """Start, or start again with the same port and data, and wait for an answer to a ping."""
        self._embedded.start()
        with self.client(serverSelectionTimeoutMS=30_000) as client:
            client.admin.command("ping")

    def stop(self) -> None:
        self.thaw()  # a stopped process would not see the signal to end
        self._embedded.stop()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._embedded.kill()

    def freeze(self) -> None:
        """Leave connections open and answer nothing, from the moment this returns."""
        self._signal(signal.SIGSTOP)
        while any(state not in "TtZX" for state in self._thread_states()):
            time.sleep(0.001)  # a signal is sent in an instant; each thread stops when it next gets a processor

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def client(self, **options: Any) -> pymongo.MongoClient[dict[str, object]]:
        """A client of its own, to be closed by the caller."""
        return pymongo.MongoClient(self.uri, **options)

    def _thread_states(self) -> list[str]:
        process = self._embedded.server.process() if self._embedded.server else None
        if process is None:
            return []
        states = []
        for stat in Path(f"/proc/{process.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                states.append(stat.read_text().rpartition(")")[2].split()[0])
        return states

    def _signal(self, number: signal.Signals) -> None:
        process = self._embedded.server.process() if self._embedded.server else None
        if process is not None:
            process.send_signal(number)
