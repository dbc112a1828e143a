"""The workers that have reported to a database."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from puffin.records import WorkerRecord
from puffin.store.driver import Documents, translated

WORKERS = "puffin_workers"
_ECHO_S = 5.0
_ECHO_TRIES = 5
_ECHO_PAUSE_S = 0.05


class Registry:
    """The workers that have ever reported to a database."""

    def __init__(self, collection: Documents, watched: Documents, where: str) -> None:
        self._collection = collection
        self._watched = watched
        self._where = where

    def announce(self, record: WorkerRecord) -> None:
        """Report a start.

        Parameters
        ----------
        record
            The worker; its times and count of restarts are the server's to fill in.
        """
        update = {"$set": _registry_fields(record), "$currentDate": {"started": True, "seen": True}}
        with translated("announcing the worker", self._where):
            # One that did not say goodbye has crashed; a deploy or a stop is no crash.
            unfinished = {"_id": record.uuid, "state": {"$nin": list(_SAID_GOODBYE)}}
            self._collection.update_one(unfinished, {"$inc": {"crashes": 1}})
            self._collection.update_one({"_id": record.uuid}, update, upsert=True)

    def report(self, record: WorkerRecord) -> None:
        """Report the present state.

        Parameters
        ----------
        record
            The worker.
        """
        with translated("reporting the worker's state", self._where):
            self._collection.update_one(
                {"_id": record.uuid}, {"$set": _registry_fields(record), "$currentDate": {"seen": True}}, upsert=True
            )

    def echoes(self, uuid: str) -> bool:
        """Touch a worker's entry; return whether the server tells of that in a change stream.

        The stream asks in the same way as the one of calculations: there are servers that tell of a change, but not
        where the question has this form.

        Parameters
        ----------
        uuid
            The worker, which has announced itself.
        """
        word = secrets.token_hex(8)
        touched: list[dict[str, Any]] = [
            {"operationType": {"$in": ["insert", "replace"]}, "fullDocument.echo": word},
            {"operationType": "update", "updateDescription.updatedFields.echo": word},
        ]
        with (
            translated("watching the registry", self._where),
            self._watched.watch(
                [{"$match": {"$or": touched}}], max_await_time_ms=int(_ECHO_S / _ECHO_TRIES * 1000)
            ) as stream,
        ):
            self._collection.update_one({"_id": uuid}, {"$set": {"echo": word}, "$currentDate": {"seen": True}})
            # A server may answer at once that there is nothing yet.
            deadline = time.monotonic() + _ECHO_S
            while stream.alive and time.monotonic() < deadline:
                if stream.try_next() is not None:
                    return True
                time.sleep(_ECHO_PAUSE_S)
            return False

    def workers(self, fleet: str | None = None, *, brief: bool = False) -> list[WorkerRecord]:
        """The workers, in one query.

        Parameters
        ----------
        fleet
            Only those of this fleet.
        brief
            Whether to leave out which programs and jobs they accept: most of what there is to read.
        """
        without = {"programs": 0, "jobs": 0} if brief else None
        with translated("reading the registry", self._where):
            selection = {} if fleet is None else {"fleet": fleet}
            return [_to_record(document) for document in self._collection.find(selection, without)]

    def forget(self, uuids: Iterable[str]) -> int:
        """Remove workers that are gone for good.

        Parameters
        ----------
        uuids
            Their names.
        """
        with translated("removing workers from the registry", self._where):
            return self._collection.delete_many({"_id": {"$in": list(uuids)}}).deleted_count


_SAID_GOODBYE = ("stopped", "quarantined")


_KNOWN_FIELDS = frozenset(field.name for field in dataclasses.fields(WorkerRecord))
_SERVER_FIELDS = frozenset({"uuid", "restarts", "started", "seen"})


def _registry_fields(record: WorkerRecord) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(record).items()
        if key not in _SERVER_FIELDS
    }


def _to_record(document: Mapping[str, Any]) -> WorkerRecord:
    values = {key: value for key, value in document.items() if key in _KNOWN_FIELDS}
    values.update(
        uuid=str(document["_id"]),
        programs=tuple(document.get("programs", ())),
        jobs=tuple(document.get("jobs", ())),
        restarts=int(document.get("crashes", 0)),
    )
    return WorkerRecord(**values)
