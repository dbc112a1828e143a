"""Fixtures: hosts of a laboratory, and a database server that they can reach."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from fleet.embedded import EmbeddedDatabaseError, program
from tests.lab.bare import bare_root
from tests.lab.laboratory import Laboratory, LaboratoryError, obstacle
from tests.lab.requirements import missing

CACHE = Path.home() / ".cache" / "puffin-fleet-tests"


@pytest.fixture(scope="session")
def can_make_hosts() -> None:
    """Skip where hosts cannot be made; with ``CI=true`` only somebody who is not root may lack them."""
    reason = obstacle()
    if reason is not None and os.geteuid() != 0:
        pytest.skip(reason)
    if reason is not None:
        missing(reason)


@pytest.fixture(scope="module")
def laboratory(can_make_hosts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A laboratory without hosts; whatever a module's tests make in it ends with the module."""
    made = Laboratory(tmp_path_factory.mktemp("laboratory"))
    try:
        made.up([])
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def bare_lower(can_make_hosts: None) -> Path:
    """The root of a bare host."""
    try:
        return bare_root(CACHE)
    except LaboratoryError as error:
        missing(str(error))


class ReachableServer:
    """A database server at an address of this machine's that others can reach.

    Parameters
    ----------
    directory
        Holds data and log.
    host
        The address.
    """

    port = 27017

    def __init__(self, directory: Path, host: str) -> None:
        self.host = host
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://{self.host}:{self.port}"

    def start(self) -> None:
        """Start, or start again with the same data, and wait for an answer to a ping."""
        settings = self._directory / "secantusd.toml"
        settings.touch()  # an empty file of our own keeps the server from looking for the user's
        words = [str(program()), "--config", str(settings), "--host", self.host, "--port", str(self.port)]
        words += ["--storage-path", str(self._directory / "data"), "--sync-on-commit", "--log-level", "WARNING"]
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with self.client(serverSelectionTimeoutMS=30_000) as client:
            client.admin.command("ping")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def client(self, **options: Any) -> pymongo.MongoClient[dict[str, object]]:
        """A client of its own, to be closed by the caller."""
        return pymongo.MongoClient(self.uri, **options)


@pytest.fixture(scope="module")
def laboratory_database(laboratory: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReachableServer]:
    """A database server at the controller's address."""
    try:
        program()
    except EmbeddedDatabaseError as error:
        missing(str(error))
    server = ReachableServer(tmp_path_factory.mktemp("laboratory-database"), laboratory.address)
    try:
        server.start()
        yield server
    finally:
        server.stop()
