"""Workers on a database server that asks for a password and speaks TLS."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pymongo
import pytest

from fleet.embedded import EmbeddedDatabaseError, program
from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.settings import DatabaseSettings
from puffin.store import Store, connection_uri, location
from tests.lab.requirements import missing
from tests.lab.servers import Anywhere, add_user, serve_on_free_port, wait_for
from tests.lab.worker import ALL_JOBS, Place, Worker, configuration, plugin_path, until, write_configuration

PASSWORD = "p@ss/w:rd%"


@dataclass(frozen=True)
class Secured:
    """A server with SCRAM and TLS on, and one user."""

    port: int
    authority: Path
    password_file: Path

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?tls=true&tlsCAFile={self.authority}"

    @property
    def settings(self) -> DatabaseSettings:
        return DatabaseSettings(uri=self.uri, name="secured", username="chem", password_file=str(self.password_file))


def _certificates(directory: Path) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=lab",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"
    )
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", "names", "-out", "server.pem"),
    )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    try:
        program()
    except EmbeddedDatabaseError as error:
        missing(str(error))
    directory = tmp_path_factory.mktemp("secured")
    _certificates(directory)
    add_user(directory, "chem", PASSWORD)
    (directory / "password").write_text(PASSWORD + "\n")
    tls = ("--tls-cert-file", str(directory / "server.pem"), "--tls-key-file", str(directory / "server.key"))
    with serve_on_free_port(directory, "--auth", *tls) as port:
        found = Secured(port, directory / "ca.pem", directory / "password")
        with pymongo.MongoClient(connection_uri(found.settings), serverSelectionTimeoutMS=500) as client:
            wait_for(client)
        yield found


def test_the_password_is_quoted_into_the_connection_and_shown_nowhere(secured: Secured) -> None:
    uri = connection_uri(secured.settings, "other")
    assert uri.startswith(f"mongodb://chem:p%40ss%2Fw%3Ard%25@127.0.0.1:{secured.port}/other?tls=true&")
    assert uri.endswith("&authSource=admin&w=majority")
    assert location(secured.settings) == f"127.0.0.1:{secured.port}"


def test_a_worker_with_the_right_password(secured: Secured, tmp_path: Path) -> None:
    """Also its SCINE job, which connects by itself, through the C++ driver."""
    pytest.importorskip("scine_database", reason="needs the extra 'scine'")
    import scine_database as db

    from tests.integration.test_scine_jobs import Chemistry

    manager = db.Manager()
    manager.set_uri(connection_uri(secured.settings))
    manager.set_database_name("secured")
    manager.connect()
    manager.init()
    chemistry = Chemistry(manager)
    place = Place(tmp_path / f"secured-{secured.port}")
    password_file = tmp_path / "password"
    password_file.write_text(secured.password_file.read_text())
    database = {"uri": secured.uri, "username": "chem", "password_file": str(password_file), "name": "secured"}
    write_configuration(
        place, configuration(place, Anywhere(secured.uri, "secured"), {"daemon": ALL_JOBS, "database": database})
    )
    worker = Worker(place, {"PYTHONPATH": plugin_path(tmp_path / "plugin")}).start()
    try:
        until(lambda: "started: " in worker.log, "the worker to start")
        password_file.unlink()  # as where a shared home is away for a moment
        id_ = chemistry.submit("water", "scine_single_point")
        calculation = chemistry.calculation(id_)
        until(lambda: calculation.get_status() == db.Status.COMPLETE, "the calculation to be complete")
        assert chemistry.energy(id_) < 0
        assert worker.stop() == 0
        assert PASSWORD not in worker.log + worker.console
        assert "p%40ss" not in worker.log + worker.console
    finally:
        worker.end()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"username": "nobody"}, DatabaseError, "refused the login: check database.username"),
        ({"username": "", "password_file": ""}, DatabaseError, "set database.username and database.password_file"),
        ({"uri": "mongodb://127.0.0.1:{port}/"}, DatabaseUnavailable, "cannot reach the database"),
        ({"uri": "mongodb://127.0.0.1:{port}/?tls=true"}, DatabaseUnavailable, "certificate verify failed"),
    ],
)
def test_what_the_server_refuses_is_said_in_words(
    secured: Secured, change: dict[str, str], error: type[DatabaseError], words: str
) -> None:
    change = {key: value.format(port=secured.port) for key, value in change.items()}
    store = Store(dataclasses.replace(secured.settings, **change), timeout_s=1.0)

    def said() -> str:
        with pytest.raises(error) as caught:
            store.check()
        assert PASSWORD not in str(caught.value)
        return str(caught.value)

    try:
        until(lambda: words in said(), words)  # first perhaps only that there is no answer within that second
    finally:
        store.close()
