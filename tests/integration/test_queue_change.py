"""Many calculations changed by one command, with a server that goes away in the middle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pymongo
import pytest

from fleet.cli import _run, queue_options
from fleet.cli.queue_change import _PIECE
from fleet.errors import ExitCode
from puffin.changes import Change
from puffin.documents import Model, Request
from puffin.entries import Entry
from puffin.store import Queue as Calculations
from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database, initialise
from tests.lab.worker import Queue

MANY = 2 * _PIECE + 30


@pytest.fixture
def own_queue(own_database_server: DatabaseServer, database_name: str) -> Iterator[Queue]:
    """The queue of a server that the test may kill."""
    initialise(own_database_server, database_name)
    found = Queue(Database(own_database_server, database_name))
    yield found
    found.close()


def test_the_same_command_does_the_rest_after_the_server_was_away(
    own_queue: Queue,
    own_database_server: DatabaseServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = own_queue.name
    ids = own_queue.store.submit(name, [(None, Request("sleep", Model(), settings={"n": n})) for n in range(MANY)])
    monkeypatch.setattr(queue_options, "_TIMEOUT_S", 30.0)
    really = Calculations.change
    pieces = 0

    def change(self: Calculations, kind: Change, entries: Sequence[Entry], reason: str = "") -> list[Entry]:
        nonlocal pieces
        pieces += 1
        if pieces == 1:
            # A worker takes one after it was listed, and it is listed as new: it must be left alone.
            own_queue.set(entries[3].id, status="pending", executor="somebody")
        if pieces == 2:
            own_database_server.kill()
            with pymongo.timeout(2.0):  # that it is gone need not be waited for
                return really(self, kind, entries, reason)
        return really(self, kind, entries, reason)

    monkeypatch.setattr(Calculations, "change", change)
    words = ["queue", "hold", "--yes", "--json", "--uri", f"{own_database_server.uri}/{name}"]
    assert _run(words) == ExitCode.FAILED
    said = " ".join(capsys.readouterr().err.split())
    assert "cannot reach the database" in said
    assert f"{_PIECE - 1} of {MANY} held, and perhaps some of the next {_PIECE}: the same command does the rest" in said

    own_database_server.start()
    assert statuses(own_queue, ids) == {"hold": _PIECE - 1, "new": MANY - _PIECE, "pending": 1}
    assert _run(words) == ExitCode.DONE
    printed = capsys.readouterr()
    assert f"{MANY - _PIECE} held" in printed.err
    assert printed.out.count('"changed": true') == MANY - _PIECE
    assert statuses(own_queue, ids) == {"hold": MANY - 1, "pending": 1}
    held = [event["calculation"] for event in own_queue.store.events.latest(2 * MANY) if event["kind"] == "held"]
    assert len(held) == len(set(held)) == MANY - 1


def statuses(queue: Queue, ids: Sequence[str]) -> dict[str, int]:
    found: Counter[Any] = Counter(queue[id_]["status"] for id_ in ids)
    return dict(found)
