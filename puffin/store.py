"""The database: calculations, the registry of workers, their events, and orders to the fleet.

The only module that imports the driver. Every driver error leaves it as a
:class:`~puffin.errors.DatabaseUnavailable` (try again later) or a :class:`~puffin.errors.DatabaseError` (will not
get better by itself).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote_plus, urlsplit

import bson
import pymongo
import pymongo.errors
from bson.objectid import ObjectId
from pymongo import monitoring
from pymongo.collection import Collection
from pymongo.database import Database as MongoDatabase

from puffin import calculations, documents, losses, outcomes, queueing
from puffin.calculations import Claim, Claimant, Status, Usage, Verdict
from puffin.documents import Molecule, Request
from puffin.errors import ConfigurationError, DatabaseError, DatabaseUnavailable
from puffin.losses import Loss, Pending
from puffin.outcomes import Details, Outcome, PropertyInfo, StructureInfo
from puffin.queueing import Change, Entry, Selection, Sort, Submission, Submitted, Tally
from puffin.settings import DatabaseSettings, ResourceSettings

WORKERS = "puffin_workers"
EVENTS = "puffin_events"
_WATCH_S = 120.0
_NEW_CALCULATIONS = [
    {
        "$match": {
            "$or": [
                {"operationType": {"$in": ["insert", "replace"]}, "fullDocument.status": Status.NEW.value},
                {"operationType": "update", "updateDescription.updatedFields.status": Status.NEW.value},
            ]
        }
    }
]
CONTROL = "puffin_control"
JUDGE = "puffin_judge"

_Documents = Collection[dict[str, Any]]

_UNAVAILABLE = (
    pymongo.errors.AutoReconnect,
    pymongo.errors.ConnectionFailure,
    pymongo.errors.ExecutionTimeout,
    pymongo.errors.WaitQueueTimeoutError,
    pymongo.errors.WTimeoutError,
)


@contextmanager
def _translated(doing: str, where: str) -> Iterator[None]:
    try:
        yield
    except _UNAVAILABLE as error:
        raise DatabaseUnavailable(f"cannot reach the database at {where} while {doing}: {_short(error)}") from error
    except pymongo.errors.OperationFailure as error:
        if error.code == 18:
            raise DatabaseError(
                f"the database at {where} refused the login: check database.username and database.password_file"
            ) from error
        raise DatabaseError(f"the database at {where} refused {doing}: {_short(error)}") from error
    except (pymongo.errors.PyMongoError, bson.errors.BSONError) as error:
        raise DatabaseError(f"{doing} failed at {where}: {_short(error)}") from error


def _short(error: Exception) -> str:
    # The driver appends its whole view of the topology, which helps nobody who reads a log.
    return str(error).split(", Timeout:")[0].split(", full error:")[0].split(" (configured timeouts:")[0]


def connection_uri(settings: DatabaseSettings, database: str = "") -> str:
    """The connection string, credentials included: a secret.

    Parameters
    ----------
    settings
        The database section.
    database
        Name of the database to put in.

    Returns
    -------
    str
        A ``mongodb://`` string for the driver and for ``scine_database``.

    Raises
    ------
    ConfigurationError
        ``password_file`` cannot be read, or ``uri`` is no connection string.
    """
    base = settings.uri or f"mongodb://{settings.ip}:{settings.port}"
    parts = urlsplit(base)
    if parts.scheme not in {"mongodb", "mongodb+srv"} or not parts.netloc:
        raise ConfigurationError("database.uri: must look like mongodb://host:port")
    location = parts.netloc
    if settings.username:
        password = _read_password(settings.password_file)
        location = f"{quote_plus(settings.username)}:{quote_plus(password)}@{location.rpartition('@')[2]}"
    query = f"?{parts.query}" if parts.query else ""
    if settings.username and "authSource" not in query:
        query += ("&" if query else "?") + "authSource=admin"
    name = database or parts.path.strip("/")
    return f"{parts.scheme}://{location}/{name}{query}"


def _read_password(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"database.password_file: cannot read {path}: {error}") from error


def location(settings: DatabaseSettings) -> str:
    """Where the database is, without credentials, to be shown to people.

    Parameters
    ----------
    settings
        The database section.
    """
    if settings.uri:
        return urlsplit(settings.uri).netloc.rpartition("@")[2]
    return f"{settings.ip}:{settings.port}"


class _Pulse(monitoring.ServerHeartbeatListener):
    """Since when the driver has found the server well each time it looked."""

    def __init__(self) -> None:
        self.since: float | None = None

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        """Nothing to note."""

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        """Note the first success after a failure."""
        if self.since is None:
            self.since = time.clock_gettime(time.CLOCK_BOOTTIME)

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        """Note that the connection is broken."""
        self.since = None


class Store:
    """One client of one database server.

    Parameters
    ----------
    settings
        The database section.
    timeout_s
        How long one operation may take, in seconds, before the server counts as unreachable.

    Raises
    ------
    ConfigurationError
        The settings are no connection. Whether the server answers shows only with the first operation.
    """

    def __init__(self, settings: DatabaseSettings, timeout_s: float = 10.0) -> None:
        self.where = location(settings)
        self.names = settings.names
        self._pulse = _Pulse()
        self._client = _client(settings, timeout_s, timeout_s, [self._pulse])
        # A change stream waits for longer than any other operation may take; connects with the first use.
        self._watching_client = _client(settings, timeout_s, timeout_s + _WATCH_S, [])

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
        self._watching_client.close()

    def check(self) -> None:
        """Ask the server for a sign of life.

        Raises
        ------
        DatabaseUnavailable, DatabaseError
            It does not answer, or refuses the login.
        """
        with _translated("connecting", self.where):
            self._client.admin.command("ping")
            self._database(self.names[0])["calculations"].find_one({}, {"_id": 1})

    @property
    def connected_since(self) -> float | None:
        """Since when the server has answered without a break; None if it does not. Boot time in seconds."""
        return self._pulse.since

    def server_time(self) -> datetime:
        """The server's clock, naive and in UTC; needs no privilege."""
        with _translated("reading the server's clock", self.where):
            now = self._client.admin.command("hello")["localTime"]
        if not isinstance(now, datetime):
            raise DatabaseError(f"the database at {self.where} does not tell its time")
        return now

    def calculations(self, name: str) -> Calculations:
        """The calculations of one database.

        Parameters
        ----------
        name
            The database's name.
        """
        return Calculations(
            name, self._database(name)["calculations"], self._watching_client[name]["calculations"], self.where
        )

    def submit(self, name: str, work: Sequence[tuple[Molecule | None, Request]]) -> list[str]:
        """Add calculations, each with a new structure if it has one; two writes for all of them.

        Parameters
        ----------
        name
            The database's name.
        work
            Pairs of a structure, or None, and the calculation to do with it.

        Returns
        -------
        list[str]
            Ids of the calculations, in the same order.
        """
        now = self.server_time()
        structures, requested = [], []
        for molecule, request in work:
            ids = list(request.structures)
            if molecule is not None:
                structures.append({"_id": ObjectId(), **documents.structure_document(molecule, now)})
                ids.append(structures[-1]["_id"])
            complete = dataclasses.replace(request, structures=ids)
            requested.append({"_id": ObjectId(), **documents.calculation_document(complete, now)})
        with _translated("submitting calculations", self.where):
            # The structures first: a worker may take a calculation the moment it is there.
            if structures:
                self._database(name)["structures"].insert_many(structures, ordered=False)
            if requested:
                self._database(name)["calculations"].insert_many(requested, ordered=False)
        return [str(document["_id"]) for document in requested]

    def results(self, name: str, ids: Sequence[str]) -> dict[str, CalculationResult]:
        """What has become of calculations.

        Parameters
        ----------
        name
            The database's name.
        ids
            The calculations.

        Returns
        -------
        dict[str, CalculationResult]
            By id.
        """
        wanted = {"status": 1, "runtime": 1, "puffin": 1, "comment": 1, "results": 1}
        with _translated("reading results", self.where):
            database = self._database(name)
            found = list(database["calculations"].find({"_id": {"$in": [ObjectId(item) for item in ids]}}, wanted))
            properties = [item for document in found for item in document["results"]["properties"]]
            energies = database["properties"].find(
                {"_id": {"$in": properties}, "property_name": "electronic_energy"}, {"data": 1}
            )
            energy_of = {document["_id"]: float(document["data"]) for document in energies}
        return {str(document["_id"]): _to_result(document, energy_of) for document in found}

    def queue(self, name: str) -> Queue:
        """The calculations of one database as people see them.

        Parameters
        ----------
        name
            The database's name.
        """
        return Queue(name, self._database(name), self.where, self.server_time)

    def bench(self, name: str) -> Bench:
        """Where the judge of one database sits.

        Parameters
        ----------
        name
            The database's name.
        """
        return Bench(self._database(name)[JUDGE], self.where)

    @property
    def registry(self) -> Registry:
        """The workers; kept in the first database."""
        return Registry(self._database(self.names[0])[WORKERS], self.where)

    @property
    def events(self) -> Events:
        """What happened; kept in the first database."""
        return Events(self._database(self.names[0]), self.where)

    @property
    def control(self) -> Control:
        """Orders to whole fleets; kept in the first database."""
        return Control(self._database(self.names[0])[CONTROL], self.where)

    def _database(self, name: str) -> MongoDatabase[dict[str, Any]]:
        return self._client[name]


@dataclass(frozen=True)
class CalculationResult:
    """What has become of one calculation.

    Parameters
    ----------
    status
        Its status.
    runtime_s
        Seconds it took; None while it has not ended.
    worker
        Who ran it last.
    comment
        Why it failed.
    energy
        Its electronic energy in hartree, if it has one.
    """

    status: Status
    runtime_s: float | None
    worker: str
    comment: str
    energy: float | None


def _to_result(document: Mapping[str, Any], energy_of: Mapping[Any, float]) -> CalculationResult:
    energies = [energy_of[item] for item in document["results"]["properties"] if item in energy_of]
    return CalculationResult(
        status=Status(document["status"]),
        runtime_s=document["runtime"] if isinstance(document["runtime"], float) else None,
        worker=str((document.get("puffin") or {}).get("worker", "")),
        comment=str(document.get("comment", "")),
        energy=energies[-1] if energies else None,
    )


def _client(
    settings: DatabaseSettings, timeout_s: float, answer_s: float, listeners: Sequence[Any]
) -> pymongo.MongoClient[dict[str, Any]]:
    milliseconds = int(timeout_s * 1000)
    try:
        return pymongo.MongoClient(
            connection_uri(settings),
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=int(answer_s * 1000),
            # The driver's own limits; its default is 10 s.
            heartbeatFrequencyMS=min(10_000, max(500, milliseconds)),
            event_listeners=listeners,
            connect=False,
            appname="puffin",
            tz_aware=False,
        )
    except (pymongo.errors.PyMongoError, ValueError) as error:
        raise ConfigurationError(f"database.uri: {_short(error)}") from error


class Calculations:
    """The calculations of one database."""

    def __init__(self, name: str, collection: _Documents, watched: _Documents, where: str) -> None:
        self.name = name
        self._collection = collection
        self._watched = watched
        self._where = where

    def claim(
        self,
        claimant: Claimant,
        resources: ResourceSettings,
        orders: Sequence[str],
        programs: Sequence[str],
    ) -> Claim | None:
        """Take the most urgent calculation that the worker can run, in one write.

        Parameters
        ----------
        claimant
            Who claims.
        resources
            What it has.
        orders, programs
            Jobs and programs that it accepts.

        Returns
        -------
        Claim | None
            The claim, or None if there is nothing to do.
        """
        selection = calculations.claim_filter(resources, orders, programs, claimant.executor)
        with _translated("claiming a calculation", self._where):
            document = self._collection.find_one_and_update(
                selection,
                calculations.claim_update(claimant),
                sort=list(calculations.CLAIM_SORT),
                projection={"job": 1, "settings": 1, "puffin": 1, "executor": 1},
                return_document=pymongo.ReturnDocument.AFTER,
            )
        return calculations.to_claim(self.name, document) if document else None

    def renew(self, claim: Claim) -> bool:
        """Extend a lease.

        Parameters
        ----------
        claim
            The attempt.

        Returns
        -------
        bool
            Whether the calculation is still pending and ours.
        """
        return self._update(claim, calculations.renew_update(), "renewing a lease")

    def finish(self, claim: Claim, verdict: Verdict) -> bool:
        """Write the end of a job that does not write to the database itself.

        Parameters
        ----------
        claim
            The attempt.
        verdict
            How it ended.

        Returns
        -------
        bool
            Whether it was written; if not, the calculation is somebody else's by now.
        """
        return self._update(claim, calculations.finish_update(verdict), "writing a result")

    def complete(self, claim: Claim, usage: Usage, raw_output: str | None) -> Status | None:
        """Add time and usage to a calculation whose job wrote its own end.

        Parameters
        ----------
        claim
            The attempt.
        usage
            What it used.
        raw_output
            What it printed; None if it stored that itself.

        Returns
        -------
        Status | None
            The calculation's status; None if it was not finished, or is no longer this attempt's.
        """
        update = calculations.complete_update(usage, raw_output)
        with _translated("completing a result", self._where):
            document = self._collection.find_one_and_update(
                calculations.owned(claim, ObjectId(claim.id), *calculations.FINISHED), update, {"status": 1}
            )
        status = Status(document["status"]) if document else None
        if status is Status.COMPLETE and claim.lost_on:
            self._update(claim, {"$unset": calculations.FRESH}, "completing a result", Status.COMPLETE)
        return status

    def status_of(self, claim: Claim) -> Status | None:
        """How an attempt's calculation ended, if it did and is still this attempt's.

        Parameters
        ----------
        claim
            The attempt.
        """
        with _translated("looking at a calculation", self._where):
            selection = calculations.owned(claim, ObjectId(claim.id), *calculations.FINISHED)
            document = self._collection.find_one(selection, {"status": 1})
        return Status(document["status"]) if document else None

    def requeue(self, claim: Claim) -> bool:
        """Give a calculation back that nobody is to blame for, if it is still ours.

        Parameters
        ----------
        claim
            The attempt.
        """
        return self._update(claim, calculations.requeue_update(), "giving a calculation back")

    def lose(self, claim: Claim, loss: Loss) -> bool:
        """Give a lost calculation back, or let it fail if it was lost too often; if it is still ours.

        Parameters
        ----------
        claim
            The attempt.
        loss
            How it was lost.
        """
        return self._update(claim, losses.loss_update(claim.lost_on, loss), "giving a lost calculation back")

    def retract_failure(self, claim: Claim, loss: Loss, keep_away: bool) -> bool:
        """Give back a calculation that failed here, but perhaps through no fault of its own.

        Parameters
        ----------
        claim
            The attempt that failed.
        loss
            Counts as one, so that the number of attempts stays bounded.
        keep_away
            Whether this worker must not take it again.
        """
        update = losses.retraction_update(claim, loss, keep_away)
        return update is not None and self._update(claim, update, "giving a failed calculation back", Status.FAILED)

    def pending(self, executor: str | None = None) -> list[Pending]:
        """What is being run.

        Parameters
        ----------
        executor
            Only by this worker.
        """
        selection = {"status": Status.PENDING.value} | ({} if executor is None else {"executor": executor})
        with _translated("looking for pending calculations", self._where):
            found = self._collection.find(selection, {"puffin": 1, "executor": 1, "_lastmodified": 1})
            return [losses.to_pending(document) for document in found]

    def reset(self, pending: Pending, loss: Loss | None) -> bool:
        """Take a calculation away from one who seems dead, unless anything has happened to it since it was seen.

        Parameters
        ----------
        pending
            What was seen.
        loss
            How it was lost; None if it never ran.
        """
        with _translated("resetting a calculation", self._where):
            selection = losses.as_seen(pending, ObjectId(pending.id))
            update = losses.loss_update(pending.lost_on, loss) if loss else calculations.requeue_update()
            return self._collection.update_one(selection, update).modified_count == 1

    def count_by_status(self) -> dict[str, int]:
        """How many calculations there are in each state."""
        with _translated("counting calculations", self._where):
            rows = self._collection.aggregate([{"$group": {"_id": "$status", "n": {"$sum": 1}}}])
            return {str(row["_id"]): int(row["n"]) for row in rows}

    def news(self) -> Iterator[bool]:
        """Watch for calculations that become new.

        Yields
        ------
        bool
            False once the watch has begun and whenever nothing has happened for two minutes, True for each
            calculation.

        Raises
        ------
        DatabaseUnavailable, DatabaseError
            The connection broke; or the server has no change streams.
        """
        milliseconds = int(_WATCH_S * 1000)
        with (
            _translated("watching for calculations", self._where),
            self._watched.watch(_NEW_CALCULATIONS, max_await_time_ms=milliseconds) as stream,
        ):
            yield False
            while True:
                yield stream.try_next() is not None

    def offers_change_streams(self) -> bool:
        """Whether the server tells of changes by itself."""
        try:
            next(self.news())
        except DatabaseUnavailable:
            raise
        except DatabaseError:
            return False
        return True

    def _update(self, claim: Claim, update: Mapping[str, Any], doing: str, *statuses: Status) -> bool:
        with _translated(doing, self._where):
            selection = calculations.owned(claim, ObjectId(claim.id), *statuses)
            return self._collection.update_one(selection, update).matched_count == 1


_CHUNK = 500


class Queue:
    """The calculations of one database as people see them: put in, listed, changed, read.

    Parameters
    ----------
    name
        The database's name.
    database
        The database.
    where
        Where it is, to be shown.
    clock
        Tells the server's time.
    """

    def __init__(
        self, name: str, database: MongoDatabase[dict[str, Any]], where: str, clock: Callable[[], datetime]
    ) -> None:
        self.name = name
        self._database = database
        self._calculations = database["calculations"]
        self._where = where
        self._clock = clock

    def is_initialised(self) -> bool:
        """Whether it is a SCINE database already."""
        with _translated("looking at the database", self._where):
            return "calculations" in self._database.list_collection_names()

    def prepare(self) -> None:
        """Make the indices by which identical structures and calculations are found, unless they are there."""
        with _translated("preparing the queue", self._where):
            for collection in ("structures", "calculations"):
                self._database[collection].create_index("puffin.key", name="puffin_key", sparse=True)

    def submit(self, work: Sequence[Submission], again: bool = False) -> list[Submitted]:
        """Add calculations, each with its structure, unless the identical one is there; five round trips in all.

        Parameters
        ----------
        work
            What to submit.
        again
            Whether to add calculations that are there already; their structures are used again in any case.

        Returns
        -------
        list[Submitted]
            In the same order.
        """
        now = self._clock()
        structure_keys = [documents.structure_key(item.molecule) for item in work]
        keys = [documents.calculation_key(item.request, [key]) for item, key in zip(work, structure_keys, strict=True)]
        there = {} if again else self._known_calculations(keys)
        structures = self._known_structures(structure_keys)
        new_structures, new_calculations, done = [], [], []
        for item, structure_key, key in zip(work, structure_keys, keys, strict=True):
            if key in there:
                done.append(there[key])
                continue
            if structure_key not in structures:
                structures[structure_key] = ObjectId()
                document = documents.structure_document(item.molecule, now)
                new_structures.append({"_id": structures[structure_key], **document})
            complete = dataclasses.replace(item.request, structures=[structures[structure_key]])
            new_calculations.append({"_id": ObjectId(), **documents.calculation_document(complete, now, key)})
            done.append(Submitted(str(new_calculations[-1]["_id"]), Status.NEW, added=True))
            if not again:
                there[key] = dataclasses.replace(done[-1], added=False)
        with _translated("submitting calculations", self._where):
            # The structures first: a worker may take a calculation the moment it is there.
            if new_structures:
                self._database["structures"].insert_many(new_structures, ordered=False)
            if new_calculations:
                self._calculations.insert_many(new_calculations, ordered=False)
        return done

    def _known_structures(self, keys: Sequence[str]) -> dict[str, ObjectId]:
        with _translated("looking for known structures", self._where):
            found = self._database["structures"].find({"puffin.key": {"$in": list(set(keys))}}, {"puffin.key": 1})
            return {document["puffin"]["key"]: document["_id"] for document in found}

    def _known_calculations(self, keys: Sequence[str]) -> dict[str, Submitted]:
        wanted = {"puffin.key": {"$in": list(set(keys))}}
        with _translated("looking for known calculations", self._where):
            found = self._calculations.find(wanted, {"puffin.key": 1, "status": 1}).sort("_id", 1)
            # Of several the newest, whose state is the one that matters.
            return {
                document["puffin"]["key"]: Submitted(str(document["_id"]), Status(document["status"]), added=False)
                for document in found
            }

    def tallies(self) -> list[Tally]:
        """How many calculations there are, by state, order and program."""
        kind = {"status": "$status", "order": "$job.order", "program": "$model.program"}
        with _translated("counting calculations", self._where):
            rows = list(self._calculations.aggregate([{"$group": {"_id": kind, "n": {"$sum": 1}}}]))
        return [
            Tally(
                Status(row["_id"]["status"]),
                str(row["_id"].get("order", "")),
                str(row["_id"].get("program", "")),
                int(row["n"]),
            )
            for row in rows
        ]

    def finished_since(self, since: datetime) -> tuple[int, datetime | None]:
        """How many calculations ended since then, and when the first of them did.

        Parameters
        ----------
        since
            By the server's clock.
        """
        ended = {"status": {"$in": [status.value for status in calculations.FINISHED]}}
        # One that never ran, such as one that was cancelled, says nothing about the pace.
        selection = {**ended, "_lastmodified": {"$gte": since}, "runtime": {"$type": "double"}}
        grouping = {"_id": None, "n": {"$sum": 1}, "first": {"$min": "$_lastmodified"}}
        with _translated("counting finished calculations", self._where):
            rows = list(self._calculations.aggregate([{"$match": selection}, {"$group": grouping}]))
        return (int(rows[0]["n"]), rows[0]["first"]) if rows else (0, None)

    def count(self, selection: Selection) -> int:
        """How many calculations a selection has.

        Parameters
        ----------
        selection
            The selection.
        """
        with _translated("counting calculations", self._where):
            return self._calculations.count_documents(queueing.selection_filter(selection))

    def entries(
        self, selection: Selection, by: Sort = Sort.CHANGED, reverse: bool = False, limit: int = 0
    ) -> list[Entry]:
        """The calculations of a selection.

        Parameters
        ----------
        selection
            The selection.
        by, reverse
            How to sort them.
        limit
            At most so many; 0 for all.
        """
        with _translated("listing calculations", self._where):
            found = self._calculations.find(queueing.selection_filter(selection), dict(queueing.ENTRY_FIELDS))
            rows = found.sort(list(queueing.sort_fields(by, reverse))).limit(limit)
            return [queueing.to_entry(self.name, document) for document in rows]

    def find(self, prefix: str, limit: int = 3) -> list[Entry]:
        """The calculations whose ids begin so.

        Parameters
        ----------
        prefix
            Up to 24 hexadecimal digits.
        limit
            At most so many.
        """
        first, last = ObjectId(prefix.ljust(24, "0")), ObjectId(prefix.ljust(24, "f"))
        with _translated("looking for a calculation", self._where):
            found = self._calculations.find({"_id": {"$gte": first, "$lte": last}}, dict(queueing.ENTRY_FIELDS))
            return [queueing.to_entry(self.name, document) for document in found.limit(limit)]

    def change(self, change: Change, entries: Sequence[Entry], reason: str = "") -> list[Entry]:
        """Change calculations that are still as they were listed.

        Parameters
        ----------
        change
            The change; it must be possible for all of them.
        entries
            The calculations as they were listed.
        reason
            The comment of cancelled ones.

        Returns
        -------
        list[Entry]
            Those that were changed.
        """
        if not entries:
            return []
        update = queueing.change_update(change, reason)
        writes = [pymongo.UpdateOne(queueing.as_listed(entry, ObjectId(entry.id)), update) for entry in entries]
        becomes = queueing.RULES[change].becomes.value
        with _translated(f"writing '{change.value}'", self._where):
            if self._calculations.bulk_write(writes, ordered=False).modified_count == len(entries):
                return list(entries)
            ids = [ObjectId(entry.id) for entry in entries]
            found = self._calculations.find({"_id": {"$in": ids}, "status": becomes, "executor": ""}, {"_id": 1})
            changed = {str(document["_id"]) for document in found}
        return [entry for entry in entries if entry.id in changed]

    def outcomes(self, entries: Sequence[Entry]) -> Iterator[Outcome]:
        """What came of calculations, in the same order.

        Parameters
        ----------
        entries
            The calculations.
        """
        for start in range(0, len(entries), _CHUNK):
            yield from self._outcomes(entries[start : start + _CHUNK])

    def _outcomes(self, entries: Sequence[Entry]) -> list[Outcome]:
        with _translated("reading results", self._where):
            wanted = {"_id": {"$in": [ObjectId(entry.id) for entry in entries]}}
            results = {
                str(document["_id"]): document.get("results") or {}
                for document in self._calculations.find(wanted, {"results": 1})
            }
            properties = self._properties([item for found in results.values() for item in found.get("properties", ())])
            made = [item for found in results.values() for item in found.get("structures", ())]
            used = [ObjectId(item) for entry in entries for item in entry.structures]
            structures = self._structures({*made, *used})
        return [
            Outcome(
                entry=entry,
                inputs=_all_of(structures, entry.structures),
                properties=_all_of(properties, results.get(entry.id, {}).get("properties", ())),
                structures=_all_of(structures, results.get(entry.id, {}).get("structures", ())),
            )
            for entry in entries
        ]

    def _properties(self, ids: Sequence[Any]) -> dict[str, PropertyInfo]:
        properties = self._database["properties"]
        # A Hessian may have megabytes: of matrices only the shape is read.
        plain = properties.find({"_id": {"$in": list(ids)}, "rows": {"$exists": False}})
        fields = {"property_name": 1, "structure": 1, "rows": 1, "cols": 1}
        matrices = properties.find({"_id": {"$in": list(ids)}, "rows": {"$exists": True}}, fields)
        return {
            str(document["_id"]): outcomes.to_property(document) for found in (plain, matrices) for document in found
        }

    def _structures(self, ids: Iterable[Any]) -> dict[str, StructureInfo]:
        fields = {"comment": 1, "label": 1, "atoms": 1, "charge": 1, "multiplicity": 1}
        found = self._database["structures"].find({"_id": {"$in": list(ids)}}, fields)
        return {str(document["_id"]): outcomes.to_structure(document) for document in found}

    def details(self, entry: Entry) -> Details | None:
        """Everything about a calculation; None if it is gone.

        Parameters
        ----------
        entry
            The calculation.
        """
        with _translated("reading a calculation", self._where):
            document = self._calculations.find_one({"_id": ObjectId(entry.id)})
        if document is None:
            return None
        return outcomes.to_details(document, self._outcomes([queueing.to_entry(self.name, document)])[0])


_Item = TypeVar("_Item")


def _all_of(items: Mapping[str, _Item], ids: Iterable[Any]) -> tuple[_Item, ...]:
    return tuple(items[str(item)] for item in ids if str(item) in items)


@dataclass(frozen=True)
class Tenure:
    """The judge of a database: the one worker that resets the calculations of the dead.

    Parameters
    ----------
    executor
        The worker's uuid.
    renewed
        When it last said that it sits, by the server's clock.
    lease_s
        How long that is valid, in seconds.
    """

    executor: str
    renewed: datetime
    lease_s: float


class Bench:
    """Where the judge of one database sits."""

    _ID = "judge"

    def __init__(self, collection: _Documents, where: str) -> None:
        self._collection = collection
        self._where = where

    def look(self) -> Tenure | None:
        """Who sits there; None if nobody ever did."""
        with _translated("looking for the judge", self._where):
            document = self._collection.find_one({"_id": self._ID})
        return _to_tenure(document) if document else None

    def stay(self, executor: str, lease_s: float) -> datetime | None:
        """Go on sitting there.

        Parameters
        ----------
        executor
            The worker.
        lease_s
            For how long, in seconds.

        Returns
        -------
        datetime | None
            The server's clock; None if somebody else sits there.
        """
        return self._sit({"_id": self._ID, "executor": executor}, executor, lease_s, upsert=False)

    def take(self, seen: Tenure | None, executor: str, lease_s: float) -> datetime | None:
        """Sit down where nobody sits any more.

        Parameters
        ----------
        seen
            Who was seen there last; it fails if that has changed.
        executor
            The worker.
        lease_s
            For how long, in seconds.

        Returns
        -------
        datetime | None
            The server's clock; None if somebody else was faster.
        """
        selection: dict[str, Any] = {"_id": self._ID}
        if seen is None:
            # Matches nothing that exists: so it is made, or refused because somebody else just made it.
            return self._sit(selection | {"executor": executor}, executor, lease_s, upsert=True)
        return self._sit(
            selection | {"executor": seen.executor, "renewed": seen.renewed}, executor, lease_s, upsert=False
        )

    def _sit(self, selection: dict[str, Any], executor: str, lease_s: float, upsert: bool) -> datetime | None:
        update = {"$set": {"executor": executor, "lease_s": float(lease_s)}, "$currentDate": {"renewed": True}}
        try:
            with _translated("electing the judge", self._where):
                document = self._collection.find_one_and_update(
                    selection, update, upsert=upsert, return_document=pymongo.ReturnDocument.AFTER
                )
        except DatabaseError as error:
            if isinstance(error.__cause__, pymongo.errors.DuplicateKeyError):
                return None
            raise
        return _to_tenure(document).renewed if document else None


def _to_tenure(document: Mapping[str, Any]) -> Tenure:
    return Tenure(str(document["executor"]), document["renewed"], float(document["lease_s"]))


@dataclass(frozen=True)
class WorkerRecord:
    """One worker as the registry knows it.

    Parameters
    ----------
    uuid
        Its unique name.
    fleet, host, worker
        Where it belongs; empty for one started by hand.
    release, configuration
        The release it runs and the hash of the configuration it read.
    pid
        Its process id on its host.
    cores, memory, disk
        What its jobs may use; memory and disk in GB.
    programs, jobs
        What it accepts.
    state
        starting, idle, running, frozen, draining, stopped or quarantined.
    calculation, order
        What it runs now; empty if nothing.
    done, failed
        Jobs since it started.
    restarts
        Starts after an incarnation that ended without saying so: crashes.
    started, seen
        When it started and last reported, by the server's clock.
    """

    uuid: str
    fleet: str
    host: str
    worker: str
    release: str
    configuration: str
    pid: int
    cores: int
    memory: float
    disk: float
    programs: tuple[str, ...]
    jobs: tuple[str, ...]
    state: str
    calculation: str = ""
    order: str = ""
    done: int = 0
    failed: int = 0
    restarts: int = 0
    started: datetime | None = None
    seen: datetime | None = None


class Registry:
    """The workers that have ever reported to a database."""

    def __init__(self, collection: _Documents, where: str) -> None:
        self._collection = collection
        self._where = where

    def announce(self, record: WorkerRecord) -> None:
        """Report a start.

        Parameters
        ----------
        record
            The worker; its times and count of restarts are the server's to fill in.
        """
        update = {"$set": _registry_fields(record), "$currentDate": {"started": True, "seen": True}}
        with _translated("announcing the worker", self._where):
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
        with _translated("reporting the worker's state", self._where):
            self._collection.update_one(
                {"_id": record.uuid}, {"$set": _registry_fields(record), "$currentDate": {"seen": True}}, upsert=True
            )

    def workers(self, fleet: str | None = None) -> list[WorkerRecord]:
        """The workers, in one query.

        Parameters
        ----------
        fleet
            Only those of this fleet.
        """
        with _translated("reading the registry", self._where):
            selection = {} if fleet is None else {"fleet": fleet}
            return [_to_record(document) for document in self._collection.find(selection)]

    def forget(self, uuids: Iterable[str]) -> int:
        """Remove workers that are gone for good.

        Parameters
        ----------
        uuids
            Their names.
        """
        with _translated("removing workers from the registry", self._where):
            return self._collection.delete_many({"_id": {"$in": list(uuids)}}).deleted_count


_SAID_GOODBYE = ("stopped", "quarantined")
_SERVER_FIELDS = frozenset({"uuid", "restarts", "started", "seen"})


def _registry_fields(record: WorkerRecord) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(record).items()
        if key not in _SERVER_FIELDS
    }


def _to_record(document: Mapping[str, Any]) -> WorkerRecord:
    known = {field.name for field in dataclasses.fields(WorkerRecord)}
    values = {key: value for key, value in document.items() if key in known}
    values.update(
        uuid=str(document["_id"]),
        programs=tuple(document.get("programs", ())),
        jobs=tuple(document.get("jobs", ())),
        restarts=int(document.get("crashes", 0)),
    )
    return WorkerRecord(**values)


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
            with _translated("preparing the events", self._where):
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
        with _translated("writing events", self._where):
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
        with _translated("reading events", self._where):
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
        with _translated("reading events", self._where):
            found = self._database[EVENTS].find({"calculation": calculation}, {"_id": 0})
            return list(found.sort([("at", -1), ("_id", -1)]).limit(count))[::-1]


class Control:
    """Orders to whole fleets, for hosts that cannot be reached otherwise."""

    def __init__(self, collection: _Documents, where: str) -> None:
        self._collection = collection
        self._where = where

    def order_stop(self, fleet: str, by: str) -> None:
        """Tell all workers of a fleet to drain.

        Parameters
        ----------
        fleet
            The fleet.
        by
            Who says so.
        """
        with _translated("ordering the stop", self._where):
            self._collection.update_one(
                {"_id": fleet}, {"$set": {"stop": True, "by": by}, "$currentDate": {"since": True}}, upsert=True
            )

    def lift_stop(self, fleet: str) -> None:
        """Let the workers of a fleet work again.

        Parameters
        ----------
        fleet
            The fleet.
        """
        with _translated("lifting the stop", self._where):
            self._collection.update_one({"_id": fleet}, {"$set": {"stop": False}})

    def is_stopped(self, fleet: str) -> bool:
        """Whether a fleet has been told to stop.

        Parameters
        ----------
        fleet
            The fleet.
        """
        with _translated("reading the orders to the fleet", self._where):
            order = self._collection.find_one({"_id": fleet}, {"stop": 1})
            return bool(order and order.get("stop"))


def wait_until_reachable(store: Store, timeout_s: float) -> None:
    """Wait for a server that is still starting.

    Parameters
    ----------
    store
        The store.
    timeout_s
        How long to wait, in seconds.

    Raises
    ------
    DatabaseUnavailable
        It did not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            store.check()
        except DatabaseUnavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)
        else:
            return
