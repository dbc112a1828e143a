"""Fixtures with a real database server; see `tests.lab.database`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fleet.embedded import EmbeddedDatabaseError, program
from puffin.settings import DatabaseSettings
from puffin.store import Store
from tests.lab.database import DatabaseServer
from tests.lab.requirements import missing


@dataclass(frozen=True)
class Database:
    """One database on a server, of one test alone."""

    server: DatabaseServer
    name: str

    @property
    def uri(self) -> str:
        return self.server.uri

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def port(self) -> int:
        return self.server.port


def _installed_server() -> None:
    try:
        program()
    except EmbeddedDatabaseError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A server for all tests of a process that leave it running."""
    _installed_server()
    server = DatabaseServer(tmp_path_factory.mktemp("database"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A server for one test, which may kill, freeze or restart it."""
    _installed_server()
    server = DatabaseServer(tmp_path_factory.mktemp("own-database"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database_name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    words = re.sub(r"\W+", "_", request.node.name)[:30]
    return f"{words}_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def database(database_server: DatabaseServer, database_name: str) -> Iterator[Database]:
    """An empty SCINE database of this test alone, dropped afterwards."""
    initialise(database_server, database_name)
    yield Database(database_server, database_name)
    with database_server.client() as client:
        client.drop_database(database_name)


@pytest.fixture
def scine_manager(database: Database) -> Iterator[Any]:
    """The SCINE library's own connection to `database`."""
    manager = connect(database.server, database.name)
    yield manager
    manager.disconnect()


def initialise(server: DatabaseServer, name: str) -> None:
    """Make the collections and indices that the SCINE library expects."""
    manager = connect(server, name, initialise_first=True)
    manager.disconnect()


def connect(server: DatabaseServer, name: str, *, initialise_first: bool = False) -> Any:
    """Connect the SCINE library's Manager; the caller disconnects it."""
    if not _has_scine():
        missing("scine-database is not installed: pip install 'puffin-fleet[scine]'")
    import scine_database

    manager = scine_database.Manager()
    manager.set_credentials(scine_database.Credentials(server.host, server.port, name))
    manager.connect()
    if initialise_first:
        manager.init()
    return manager


def _has_scine() -> bool:
    from importlib.util import find_spec

    return find_spec("scine_database") is not None


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """The worker's and the fleet's view of `database`."""
    opened = Store(DatabaseSettings(uri=database.uri, name=database.name), timeout_s=20)
    opened.events.prepare()
    yield opened
    opened.close()
