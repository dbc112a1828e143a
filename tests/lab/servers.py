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


def wait_for(client: pymongo.MongoClient[Any]) -> None:
    def answers() -> bool:
        try:
            client.admin.command("ping")
        except pymongo.errors.ConnectionFailure:
            return False
        return True

    until(answers, "the server to answer")
