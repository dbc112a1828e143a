"""What happened to workers and calculations."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pymongo
import pymongo.errors
from bson.errors import InvalidId
from bson.objectid import ObjectId
from pymongo.database import Database as MongoDatabase

from puffin import patterns
from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.records import FAILURES, REQUEUED, is_failure
from puffin.store.driver import Documents, only_duplicates, translated

EVENTS = "puffin_events"
# As `puffin.records.is_failure` says.
_FAILED = {"$or": [{"kind": {"$in": sorted(FAILURES)}}, {"kind": REQUEUED, "detail": {"$nin": ["", None]}}]}


@dataclass(frozen=True)
class Event:
    """Something that happened to a worker or a calculation.

    Parameters
    ----------
    kind
        What.
    worker, host, fleet
        To whom, or who did it; may be empty.
    calculation
        To which calculation; may be empty.
    detail
        What else there is to say.
    id
        From :func:`new_event_id`, for one that may be written twice because the first answer was lost.
    """

    kind: str
    worker: str
    host: str
    fleet: str
    calculation: str = ""
    detail: str = ""
    id: str = ""


@dataclass(frozen=True)
class EventRecord:
    """An event as it is kept.

    Parameters
    ----------
    id
        Its own.
    at
        When it happened, naive and in UTC, by the clock of the one who noted it.
    kind, worker, host, fleet, calculation, detail
        As in :class:`Event`.
    """

    id: str
    at: datetime
    kind: str
    worker: str
    host: str
    fleet: str
    calculation: str
    detail: str


@dataclass(frozen=True)
class EventSelection:
    """Which events.

    Parameters
    ----------
    fleet
        Only of this fleet.
    hosts
        Only of these hosts.
    workers, kinds
        Only such; ``*``, ``?`` and ``[a-c]`` stand for others.
    calculation
        Only about this calculation.
    since
        Only what happened since then, naive and in UTC.
    failures
        Only what somebody may want to know of.
    """

    fleet: str | None = None
    hosts: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    calculation: str = ""
    since: datetime | None = None
    failures: bool = False

    def filter(self) -> dict[str, Any]:
        """The filter for the database."""
        found = [
            *([{"fleet": self.fleet}] if self.fleet is not None else []),
            *patterns.any_of(("host",), self.hosts),
            *patterns.any_of(("worker",), self.workers),
            *patterns.any_of(("kind",), self.kinds),
            *([{"calculation": self.calculation}] if self.calculation else []),
            *([{"at": {"$gte": self.since}}] if self.since is not None else []),
            *([_FAILED] if self.failures else []),
        ]
        return {"$and": found} if found else {}

    def matches(self, event: EventRecord) -> bool:
        """Whether an event is one of these.

        Parameters
        ----------
        event
            The event.
        """
        return (
            self.fleet in {None, event.fleet}
            and patterns.is_any_of(event.host, self.hosts)
            and patterns.is_any_of(event.worker, self.workers)
            and patterns.is_any_of(event.kind, self.kinds)
            and self.calculation in {"", event.calculation}
            and (self.since is None or event.at >= self.since)
            and (not self.failures or is_failure(event.kind, event.detail))
        )


def new_event_id() -> str:
    """An id for an event."""
    return str(ObjectId())


class Events:
    """A capped collection of what happened."""

    def __init__(self, database: MongoDatabase[dict[str, Any]], watched: Documents, where: str) -> None:
        self._database = database
        self._watched = watched
        self._where = where

    def prepare(self, size_bytes: int = 64 * 1024 * 1024) -> None:
        """Make the collection, capped, unless it is there.

        Parameters
        ----------
        size_bytes
            How much of the past is kept.
        """
        try:
            with translated("preparing the events", self._where):
                self._database.create_collection(EVENTS, capped=True, size=size_bytes)
        except DatabaseUnavailable:
            raise
        except DatabaseError as error:
            if not isinstance(error.__cause__, pymongo.errors.CollectionInvalid | pymongo.errors.OperationFailure):
                raise

    def write(self, events: Sequence[tuple[float, Event]]) -> None:
        """Add events; one with an id that is there already, because only the answer was lost, is not added again.

        Parameters
        ----------
        events
            Pairs of the time in seconds since the epoch, by the worker's clock, and the event.
        """
        try:
            with translated("writing events", self._where):
                self._database[EVENTS].insert_many([_document(at, event) for at, event in events], ordered=False)
        except DatabaseError as error:
            if not only_duplicates(error.__cause__):
                raise

    def latest(self, count: int, fleet: str | None = None) -> list[dict[str, Any]]:
        """The newest events, oldest of them first.

        Parameters
        ----------
        count
            How many.
        fleet
            Only those of this fleet.
        """
        records = self.recent(EventSelection(fleet), count)
        return [{key: value for key, value in dataclasses.asdict(event).items() if key != "id"} for event in records]

    def recent(self, selection: EventSelection, count: int | None) -> list[EventRecord]:
        """The newest events of a selection, oldest of them first.

        Parameters
        ----------
        selection
            Which.
        count
            How many; None for all.
        """
        if count == 0:
            return []
        with translated("reading events", self._where):
            # Ids begin with the second of their making, and are indexed; not every server heeds "$natural".
            newest = self._database[EVENTS].find(selection.filter()).sort("_id", -1).limit(count or 0)
            return [to_event(document) for document in newest][::-1]

    def about(self, calculation: str, count: int = 100) -> list[dict[str, Any]]:
        """The newest events of one calculation, oldest of them first.

        Parameters
        ----------
        calculation
            Its id.
        count
            How many.
        """
        with translated("reading events", self._where):
            found = self._database[EVENTS].find({"calculation": calculation}, {"_id": 0})
            return list(found.sort([("at", -1), ("_id", -1)]).limit(count))[::-1]

    def ids_since(self, selection: EventSelection, since: datetime) -> list[str]:
        """The ids of events that were noted since then by their makers' clocks.

        Parameters
        ----------
        selection
            Which events.
        since
            Naive and in UTC; seconds count.
        """
        noted = {"_id": {"$gte": ObjectId.from_datetime(since)}}
        with translated("reading events", self._where):
            found = self._database[EVENTS].find({"$and": [noted, selection.filter()]}, {"_id": 1}).sort("_id", 1)
            return [str(document["_id"]) for document in found]

    def those(self, ids: Collection[str]) -> list[EventRecord]:
        """Some events, as far as they are still kept, in the order of their ids.

        Parameters
        ----------
        ids
            Which.
        """
        with translated("reading events", self._where):
            found = self._database[EVENTS].find({"_id": {"$in": [ObjectId(item) for item in ids]}}).sort("_id", 1)
            return [to_event(document) for document in found]

    def watch(self, selection: EventSelection, longest_s: float) -> EventStream:
        """Be told of new events by the server.

        Parameters
        ----------
        selection
            Which events.
        longest_s
            How long the server may wait with an answer, in seconds.

        Raises
        ------
        DatabaseUnavailable
            It cannot be reached.
        DatabaseError
            It does not offer that.
        """
        return EventStream(self._watched, selection, longest_s, self._where)


class EventStream:
    """News of events, from the moment it is made; see :meth:`Events.watch`."""

    def __init__(self, watched: Documents, selection: EventSelection, longest_s: float, where: str) -> None:
        wanted = {} if selection.fleet is None else {"fullDocument.fleet": selection.fleet}
        match = [{"$match": {"operationType": "insert", **wanted}}]
        self._where = where
        with translated("watching the events", where):
            self._stream = watched.watch(match, max_await_time_ms=int(longest_s * 1000))

    def next(self) -> EventRecord | None:
        """The next event, perhaps of another selection of the same fleet; None if none came in time.

        Some servers find at once that there is none.

        Raises
        ------
        DatabaseUnavailable, DatabaseError
            The connection broke.
        """
        with translated("watching the events", self._where):
            change = self._stream.try_next()
            if not self._stream.alive:
                raise DatabaseUnavailable(f"the database at {self._where} tells of no more events")
        return to_event(change["fullDocument"]) if change else None

    def close(self) -> None:
        """Want no more news."""
        # The connection may be gone already.
        try:
            self._stream.close()
        except pymongo.errors.PyMongoError:
            return


def to_event(document: Mapping[str, Any]) -> EventRecord:
    """An event from its document; what is missing in it is empty.

    Parameters
    ----------
    document
        The document.
    """
    texts = {key: str(document.get(key, "")) for key in ("kind", "worker", "host", "fleet", "calculation", "detail")}
    at = document.get("at")
    return EventRecord(id=str(document["_id"]), at=at if isinstance(at, datetime) else datetime.min, **texts)


def _document(at: float, event: Event) -> dict[str, Any]:
    fields = dataclasses.asdict(event)
    try:
        identity = ObjectId(fields.pop("id") or None)
    except InvalidId as error:
        raise DatabaseError(f"{event.id} is no id of an event") from error
    return {"_id": identity, "at": datetime.fromtimestamp(at, tz=timezone.utc), **fields}
