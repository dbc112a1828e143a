"""What happened to workers and calculations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pymongo
import pymongo.errors
from pymongo.database import Database as MongoDatabase

from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.store.driver import translated

EVENTS = "puffin_events"


@dataclass(frozen=True)
class Event:
    """Something that happened to a worker or a calculation."""

    kind: str
    worker: str
    host: str
    fleet: str
    calculation: str = ""
    detail: str = ""


class Events:
    """A capped collection of what happened."""

    def __init__(self, database: MongoDatabase[dict[str, Any]], where: str) -> None:
        self._database = database
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
        """Add events.

        Parameters
        ----------
        events
            Pairs of the time in seconds since the epoch, by the worker's clock, and the event.
        """
        documents = [
            {"at": datetime.fromtimestamp(at, tz=timezone.utc), **dataclasses.asdict(event)} for at, event in events
        ]
        with translated("writing events", self._where):
            self._database[EVENTS].insert_many(documents, ordered=False)

    def latest(self, count: int, fleet: str | None = None) -> list[dict[str, Any]]:
        """The newest events, oldest of them first.

        Parameters
        ----------
        count
            How many.
        fleet
            Only those of this fleet.
        """
        selection = {} if fleet is None else {"fleet": fleet}
        with translated("reading events", self._where):
            # Ids begin with the second of their making, and are indexed; not every server heeds "$natural".
            newest = list(self._database[EVENTS].find(selection).sort("_id", -1).limit(count))[::-1]
            return [{key: value for key, value in event.items() if key != "_id"} for event in newest]

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

    def claimed(self, calculations: Sequence[str]) -> dict[str, datetime]:
        """When calculations were last claimed, naive and in UTC; those of which nothing is known are left out.

        Parameters
        ----------
        calculations
            Their ids.
        """
        selection = {"kind": "claimed", "calculation": {"$in": list(calculations)}}
        with translated("reading events", self._where):
            found = self._database[EVENTS].find(selection, {"calculation": 1, "at": 1}).sort("at", 1)
            return {str(event["calculation"]): event["at"] for event in found}
