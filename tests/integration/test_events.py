"""Events on a real database server: each written once and given once, also when the server goes and comes back."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest

from puffin.errors import DatabaseUnavailable
from puffin.settings import DatabaseSettings
from puffin.store import Event, EventFollower, EventRecord, EventSelection, Store, new_event_id
from tests.lab.database import DatabaseServer
from tests.lab.worker import until

LISTEN = pytest.mark.parametrize("listen", [True, False], ids=["listening", "looking"])


def note(store: Store, *details: object, fleet: str = "lab", host: str = "node1", kind: str = "claimed") -> None:
    store.events.write([(time.time(), Event(kind, f"{host}-1", host, fleet, detail=str(each))) for each in details])


def follower(store: Store, backlog: int | None = 0, listen: bool = True, **selection: object) -> EventFollower:
    chosen = EventSelection(**{"fleet": "lab", **selection})
    return EventFollower(store.events, store.server_time, chosen, backlog, listen=listen)


def told(events: list[EventRecord]) -> list[str]:
    return [event.detail for event in events]


def test_the_newest_of_a_selection_are_read_oldest_first(store: Store) -> None:
    note(store, 1, 2, 3)
    note(store, "elsewhere", host="node2")
    note(store, "foreign", fleet="other")
    note(store, "bad", kind="failed")
    assert told(store.events.recent(EventSelection("lab"), 2)) == ["elsewhere", "bad"]
    assert told(store.events.recent(EventSelection("lab", hosts=("node2",)), 9)) == ["elsewhere"]
    assert told(store.events.recent(EventSelection("lab", workers=("node1-*",), kinds=("fail*",)), 9)) == ["bad"]
    assert told(store.events.recent(EventSelection("lab", workers=("node[2-9]-*", "x")), 9)) == ["elsewhere"]
    assert told(store.events.recent(EventSelection("lab", workers=("node[!1]-1",)), 9)) == ["elsewhere"]
    assert told(store.events.recent(EventSelection("lab", workers=("node[9-1]-1",)), 9)) == []
    later = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(hours=1)
    assert store.events.recent(EventSelection("lab", since=later), 9) == []


def test_failures_are_chosen_alike_by_the_database_and_here(store: Store) -> None:
    for kind, detail in (
        ("failed", ""),
        ("given_back", "why"),
        ("claimed", "x"),
        ("requeued", ""),
        ("requeued", "why"),
    ):
        note(store, detail, kind=kind)
    events = store.events.recent(EventSelection("lab"), None)
    chosen = EventSelection("lab", failures=True)
    found = [(event.kind, event.detail) for event in store.events.recent(chosen, None)]
    assert found == [("failed", ""), ("given_back", "why"), ("requeued", "why")]
    assert [(event.kind, event.detail) for event in events if chosen.matches(event)] == found


def test_an_event_whose_answer_was_lost_is_written_once(store: Store) -> None:
    first, second = (
        (time.time(), Event("claimed", "w", "h", "lab", detail=each, id=new_event_id())) for each in ("a", "b")
    )
    store.events.write([first])
    store.events.write([first, second])
    assert told(store.events.recent(EventSelection(), 9)) == ["a", "b"]


def gathered(reader: EventFollower, count: int) -> list[str]:
    """What a follower gives until it has given so much, and what it gives beyond that."""
    found: list[EventRecord] = []
    until(lambda: found.extend(_given(reader)) or len(found) >= count, f"{count} events")
    return told(found + _given(reader))


def _given(reader: EventFollower) -> list[EventRecord]:
    try:
        return reader.poll(0.3)
    except DatabaseUnavailable:
        return []


@LISTEN
def test_a_follower_begins_with_the_backlog_and_goes_on(store: Store, listen: bool) -> None:
    note(store, 1, 2, 3)
    reader = follower(store, backlog=2, listen=listen)
    assert gathered(reader, 2) == ["2", "3"]
    note(store, 4)
    note(store, "foreign", fleet="other")
    note(store, 5)
    assert gathered(reader, 2) == ["4", "5"]
    reader.close()


@LISTEN
@pytest.mark.parametrize(("backlog", "expected"), [(None, ["1", "2", "3", "4"]), (2, ["2", "3", "4"]), (0, ["4"])])
def test_the_backlog_is_all_or_so_many_or_nothing(
    store: Store, listen: bool, backlog: int | None, expected: list[str]
) -> None:
    note(store, 1, 2, 3)
    reader = follower(store, backlog, listen)
    before = reader.poll(0)
    note(store, 4)
    assert told(before) + gathered(reader, 1) == expected
    reader.close()


@LISTEN
def test_a_follower_heeds_its_selection(store: Store, listen: bool) -> None:
    reader = follower(store, listen=listen, hosts=("node2",), kinds=("fail*",))
    reader.poll(0)
    note(store, "other host", kind="failed")
    note(store, "other kind", host="node2")
    note(store, "it", host="node2", kind="failed")
    assert gathered(reader, 1) == ["it"]
    reader.close()


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_and_comes_back(
    own_database_server: DatabaseServer,
) -> None:
    settings = DatabaseSettings(uri=own_database_server.uri, name="restarted")
    store = Store(settings, timeout_s=1)  # who reads notices soon that the server is gone, and may try again

    def write(*details: object) -> None:
        with closing(Store(settings, timeout_s=30)) as patient:
            patient.events.prepare()
            note(patient, *details)

    write(*range(3))
    readers = [follower(store, backlog=2, listen=listen) for listen in (True, False)]
    assert [gathered(reader, 2) for reader in readers] == [["1", "2"]] * 2
    write(*range(3, 6))
    assert [gathered(reader, 3) for reader in readers] == [["3", "4", "5"]] * 2
    write("just before")
    own_database_server.kill()
    for reader in readers:
        with pytest.raises(DatabaseUnavailable):
            reader.poll(10)
    own_database_server.start()
    write("just after")
    expected = ["just before", "just after"]
    assert [gathered(reader, 2) for reader in readers] == [expected] * 2
    write("last")
    assert [gathered(reader, 1) for reader in readers] == [["last"]] * 2
    for reader in readers:
        reader.close()
    store.close()
