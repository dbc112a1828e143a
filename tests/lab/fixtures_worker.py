"""Fixtures with real workers; see `tests.lab.worker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database, initialise
from tests.lab.worker import Queue, Workers, queue_of


@pytest.fixture
def workers(tmp_path: Path, database: Database) -> Iterator[Workers]:
    """Makes workers on `database`; all of them are ended afterwards."""
    made = Workers(tmp_path, database)
    yield made
    made.end()


@pytest.fixture
def queue(database: Database) -> Iterator[Queue]:
    """The calculations in `database`."""
    yield from queue_of(database)


@pytest.fixture
def own_database(own_database_server: DatabaseServer, database_name: str) -> Database:
    """A database on a server that the test may kill, freeze and restart."""
    initialise(own_database_server, database_name)
    return Database(own_database_server, database_name)


@pytest.fixture
def own_workers(tmp_path: Path, own_database: Database) -> Iterator[Workers]:
    """Makes workers on `own_database`."""
    made = Workers(tmp_path, own_database)
    yield made
    made.end()


@pytest.fixture
def own_queue(own_database: Database) -> Iterator[Queue]:
    """The calculations in `own_database`."""
    yield from queue_of(own_database)
