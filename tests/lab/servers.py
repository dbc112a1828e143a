"""Database servers with options of their own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pymongo.errors

from fleet.embedded import program
from tests.lab.worker import until


@dataclass(frozen=True)
class Anywhere:
    """A database at an address, whoever serves it."""

    uri: str
    name: str


def serve(directory: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
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


def add_user(directory: Path, port: int, name: str, password: str) -> None:
    """Have a server that keeps its data there know a user who may do everything; it does not run afterwards."""
    plain = serve(directory, port)
    try:
        with pymongo.MongoClient(f"mongodb://127.0.0.1:{port}", serverSelectionTimeoutMS=500) as client:
            wait_for(client)
            client.admin.command("createUser", name, pwd=password, roles=["root"])
    finally:
        plain.terminate()
        plain.wait()


def wait_for(client: pymongo.MongoClient[Any]) -> None:
    def answers() -> bool:
        try:
            client.admin.command("ping")
        except pymongo.errors.ConnectionFailure:
            return False
        return True

    until(answers, "the server to answer")
