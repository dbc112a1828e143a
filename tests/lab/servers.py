"""Database servers with options of their own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pymongo
import pymongo.errors

from fleet.embedded import free_port, program
from tests.lab.worker import until


@dataclass(frozen=True)
class Anywhere:
    """A database at an address, whoever serves it."""

    uri: str
    name: str


def _serve(directory: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    (directory / "secantusd.toml").touch()
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [
                *(str(program()), "--config", str(directory / "secantusd.toml"), "--host", "127.0.0.1"),
                *("--port", str(port), "--storage-path", str(directory / "data"), "--log-level", "WARNING"),
                *options,
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@contextlib.contextmanager
def serve_on_free_port(directory: Path, *options: str) -> Iterator[int]:
    """A server that listens, by its port; another's may have taken the one that was free before it could."""
    for _ in range(5):
        port = free_port()
        server = _serve(directory, port, *options)
        try:
            if _comes_to_listen(server, port):
                yield port
                return
        finally:
            server.terminate()
            server.wait()
    raise AssertionError(f"no server could be started: {(directory / 'log').read_text()[-2000:]}")


def _comes_to_listen(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it listens itself, or has ended: who answers on the port may be somebody else."""

    def listens() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(server.pid).net_connections("tcp")
            return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)
        return False

    until(lambda: server.poll() is not None or listens(), "the server to listen")
    return server.poll() is None


def add_user(directory: Path, name: str, password: str) -> None:
    """Have a server that keeps its data there know a user who may do everything; it does not run afterwards."""
    with (
        serve_on_free_port(directory) as port,
        pymongo.MongoClient(f"mongodb://127.0.0.1:{port}", serverSelectionTimeoutMS=500) as client,
    ):
        wait_for(client)
        client.admin.command("createUser", name, pwd=password, roles=["root"])


def wait_for(client: pymongo.MongoClient[Any]) -> None:
    def answers() -> bool:
        try:
            client.admin.command("ping")
        except pymongo.errors.ConnectionFailure:
            return False
        return True

    until(answers, "the server to answer")
