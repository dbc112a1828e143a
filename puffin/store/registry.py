"""The workers that have reported to a database.

What a worker accepts, its programs and jobs, is most of what there is to say of it, never changes while it runs, and is
the same for most workers of a fleet: it is kept once for all of them, and each worker's document only refers to it. A
report stays small, and so does reading thousands.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pymongo.errors import DuplicateKeyError

from puffin.records import ENDED, WorkerRecord
from puffin.store.driver import Documents, translated

WORKERS = "puffin_workers"
OFFERS = "puffin_offers"
_ECHO_S = 5.0
_ECHO_TRIES = 5
_ECHO_PAUSE_S = 0.05
_OFFER_AGAIN_S = 3600.0


class Registry:
    """The workers that have ever reported to a database.

    Whoever reports again and again keeps one of these: it knows when it last made sure that the offer is there.
    """

    def __init__(self, collection: Documents, offers: Documents, watched: Documents, where: str) -> None:
        self._collection = collection
        self._offers = offers
        self._watched = watched
        self._where = where
        self._offered_at: float | None = None

    def announce(self, record: WorkerRecord) -> None:
        """Report a start.

        Parameters
        ----------
        record
            The worker; its times and count of restarts are the server's to fill in.
        """
        update = {
            "$set": _registry_fields(record),
            "$unset": dict.fromkeys(_OFFERED, ""),  # the first workers kept them there
            "$currentDate": {"started": True, "seen": True},
        }
        with translated("announcing the worker", self._where):
            self._offer(record)
            # One that did not say goodbye has crashed; a deploy or a stop is no crash.
            unfinished = {"_id": record.uuid, "state": {"$nin": list(ENDED)}}
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
            # Somebody may have removed it, or the database been restored without it.
            if self._offered_at is None or time.monotonic() - self._offered_at > _OFFER_AGAIN_S:
                self._offer(record)
            done = self._collection.update_one(
                {"_id": record.uuid}, {"$set": _registry_fields(record), "$currentDate": {"seen": True}}, upsert=True
            )
            if done.upserted_id is not None:
                self._offered_at = None  # then the offer may be gone, too
                self._offer(record)

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
        """The workers, in one query, and what they accept in another.

        Parameters
        ----------
        fleet
            Only those of this fleet.
        brief
            Whether to leave out what they accept.
        """
        with translated("reading the registry", self._where):
            found = list(self._collection.find({} if fleet is None else {"fleet": fleet}))
            # After the workers: an offer is there before the first who refers to it.
            offers = {} if brief else {offer["_id"]: _accepted(offer) for offer in self._offers.find()}
            return [_to_record(document, offers) for document in found]

    def _offer(self, record: WorkerRecord) -> None:
        offer = {"_id": _offer_id(record), "programs": list(record.programs), "jobs": list(record.jobs)}
        with contextlib.suppress(DuplicateKeyError):  # another worker accepts the same
            self._offers.insert_one(offer)
        self._offered_at = time.monotonic()

    def stay_away(self, fleet: str, hosts: Iterable[str], is_meant: Callable[[str], bool]) -> None:
        """Expect workers back no more: they were stopped before they had started again, and could not say so.

        Parameters
        ----------
        fleet
            Their fleet.
        hosts
            Their hosts.
        is_meant
            Says of a worker's name whether it was stopped.
        """
        returning = {"fleet": fleet, "host": {"$in": list(hosts)}, "returns": {"$ne": None}}
        with translated("noting that workers were stopped", self._where):
            found = list(self._collection.find(returning, {"worker": 1}))
            meant = [each["_id"] for each in found if is_meant(each["worker"])]
            if meant:
                gone = {"_id": {"$in": meant}, "state": {"$in": list(ENDED)}}
                self._collection.update_many(gone, {"$set": {"returns": None}})

    def forget(self, uuids: Iterable[str]) -> int:
        """Remove workers that are gone for good.

        Parameters
        ----------
        uuids
            Their names.
        """
        with translated("removing workers from the registry", self._where):
            return self._collection.delete_many({"_id": {"$in": list(uuids)}}).deleted_count


_KNOWN_FIELDS = frozenset(field.name for field in dataclasses.fields(WorkerRecord))
_DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(WorkerRecord) if field.default is not dataclasses.MISSING
}
_OFFERED = ("programs", "jobs")
_ELSEWHERE = frozenset({"uuid", "restarts", "started", "seen", *_OFFERED})
"""Fields of a record that are the server's to fill in, or are kept once for many workers."""

_Accepted = dict[str, tuple[str, ...]]
_NOT_KNOWN: _Accepted = {"programs": (), "jobs": ()}


def _registry_fields(record: WorkerRecord) -> dict[str, Any]:
    fields = {key: value for key, value in vars(record).items() if key not in _ELSEWHERE}
    return {**fields, "offer": _offer_id(record)}


def _offer_id(record: WorkerRecord) -> str:
    text = "\n".join([*record.programs, "", *record.jobs])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _accepted(offer: Mapping[str, Any]) -> _Accepted:
    return {"programs": tuple(offer["programs"]), "jobs": tuple(offer["jobs"])}


def _to_record(document: Mapping[str, Any], offers: Mapping[str, _Accepted]) -> WorkerRecord:
    # Not by calling the class: assigning the fields of a frozen one singly takes most of the time of reading thousands.
    record = object.__new__(WorkerRecord)
    values = vars(record)
    values.update(_DEFAULTS)
    values.update(pair for pair in document.items() if pair[0] in _KNOWN_FIELDS)
    values.update(offers.get(document.get("offer", ""), _NOT_KNOWN))
    if "jobs" in document:
        values.update(_accepted(document))
    values["uuid"] = str(document["_id"])
    values["restarts"] = int(document.get("crashes", 0))
    return record
