"""How an idle worker learns of work: from the server where that tells, else by asking."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest

from fleet.embedded import EmbeddedDatabaseError, program
from puffin.documents import Model, Request
from puffin.settings import DatabaseSettings
from puffin.store import Store
from tests.lab.fixtures_database import Database
from tests.lab.link import Link
from tests.lab.requirements import missing
from tests.lab.servers import Anywhere, serve_on_free_port, wait_for
from tests.lab.worker import (
    Place,
    Queue,
    Worker,
    Workers,
    configuration,
    plugin_path,
    puffin,
    until,
    write_configuration,
)


@pytest.fixture
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anywhere]:
    """A server without change streams."""
    try:
        program()
    except EmbeddedDatabaseError as error:
        missing(str(error))
    with serve_on_free_port(tmp_path_factory.mktemp("standalone"), "--standalone") as port:
        uri = f"mongodb://127.0.0.1:{port}"
        with pymongo.MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=500) as client:
            wait_for(client)
        yield Anywhere(uri, "polled")


def test_a_server_without_change_streams_is_asked(standalone: Anywhere, tmp_path: Path) -> None:
    place = Place(tmp_path / f"polling-{tmp_path.name}")
    write_configuration(place, configuration(place, standalone, {"daemon": {"cycle_time_in_s": 0.2}}))
    store = Store(DatabaseSettings(uri=standalone.uri, name=standalone.name))
    worker = Worker(place, {"PYTHONPATH": plugin_path(tmp_path / "plugin")}).start()
    try:
        until(lambda: "polling polled" in worker.log, "the worker to find that there are no change streams")
        [id_] = store.submit(standalone.name, [(None, Request("sleep", Model(), settings={"time": 0}, memory=0.5))])
        calculations = store.calculations(standalone.name)
        assert not calculations.offers_change_streams()
        until(lambda: f"{id_} complete" in worker.log, "the calculation to be done")
        assert worker.stop() == 0
    finally:
        store.close()
        worker.end()


def test_check_says_how_it_waits(standalone: Anywhere, database: Database, tmp_path: Path) -> None:
    for anywhere, words in ((standalone, "is asked at least each 0.2 s"), (database, "tells of new calculations")):
        place = Place(tmp_path / anywhere.name)
        write_configuration(place, configuration(place, anywhere, {}))
        result = subprocess.run(
            [puffin(), "-c", str(place.config), "check"], capture_output=True, text=True, timeout=100
        )
        assert words in " ".join(result.stdout.split())


def test_a_worker_that_never_had_work_does_not_ask_either(workers: Workers, queue: Queue, database: Database) -> None:
    """It makes the server tell of something: of its own entry in the registry."""
    link = Link(database.port)

    def stands_still() -> bool:
        before = link.commands["findAndModify"]
        time.sleep(1.0)
        return link.commands["findAndModify"] == before

    try:
        worker = workers.start(database={"uri": link.uri}, daemon={"cycle_time_in_s": 0.05})
        until(lambda: link.commands["findAndModify"], "its first looks")
        until(stands_still, "the worker to cease to ask")
        queue.wait(queue.sleep())
        assert worker.stop() == 0
    finally:
        link.close()


def test_an_idle_worker_is_told_and_does_not_ask(workers: Workers, queue: Queue, database: Database) -> None:
    """Its first looks aside, only what tells that it lives passes until there is work."""
    link = Link(database.port)
    try:
        worker = workers.start(database={"uri": link.uri})
        until(lambda: link.commands["getMore"] > 0, "the worker to wait for news")
        claims = until(lambda: link.commands["findAndModify"], "its first looks")
        id_ = queue.sleep()
        queue.wait(id_)
        # The judge's seat is taken with one such command, and each calculation with another.
        until(lambda: link.commands["findAndModify"] > claims, "the claim")
        assert worker.stop() == 0
    finally:
        link.close()
