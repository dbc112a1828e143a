"""The database: calculations, the registry of workers, their events, and orders to the fleet.

The only module that imports the driver. Every driver error leaves it as a
:class:`~puffin.errors.DatabaseUnavailable` (try again later) or a :class:`~puffin.errors.DatabaseError` (will not
get better by itself).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import bson
import pymongo
import pymongo.errors
from bson.objectid import ObjectId
from pymongo.collection import Collection
from pymongo.database import Database as MongoDatabase

from puffin import calculations, documents
from puffin.calculations import Claim, Claimant, Status, Verdict
from puffin.documents import Molecule, Request
from puffin.errors import ConfigurationError, DatabaseError, DatabaseUnavailable
from puffin.settings import DatabaseSettings, ResourceSettings

WORKERS = "puffin_workers"
EVENTS = "puffin_events"
CONTROL = "puffin_control"

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
        milliseconds = int(timeout_s * 1000)
        try:
            self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
                connection_uri(settings),
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                socketTimeoutMS=milliseconds,
                appname="puffin",
                tz_aware=False,
            )
        except (pymongo.errors.PyMongoError, ValueError) as error:
            raise ConfigurationError(f"database.uri: {_short(error)}") from error

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

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
        return Calculations(name, self._database(name)["calculations"], self.where)

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
                {"_id": {"$in": properties}, "name": "electronic_energy"}, {"data": 1}
            )
            energy_of = {document["_id"]: float(document["data"]) for document in energies}
        return {str(document["_id"]): _to_result(document, energy_of) for document in found}

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


class Calculations:
    """The calculations of one database."""

    def __init__(self, name: str, collection: _Documents, where: str) -> None:
        self.name = name
        self._collection = collection
        self._where = where

    def claim(
        self,
        claimant: Claimant,
        resources: ResourceSettings,
        orders: Sequence[str],
        programs: Sequence[str],
        excluded: Sequence[str] = (),
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
        excluded
            Calculations it must not take.

        Returns
        -------
        Claim | None
            The claim, or None if there is nothing to do.
        """
        selection = calculations.claim_filter(resources, orders, programs, [ObjectId(item) for item in excluded])
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

    def wrote_its_own_end(self, claim: Claim) -> bool:
        """Whether the calculation is still this attempt's, but already finished.

        Parameters
        ----------
        claim
            The attempt.
        """
        with _translated("looking at a calculation", self._where):
            selection = calculations.owned(claim, ObjectId(claim.id), *calculations.FINISHED)
            return self._collection.find_one(selection, {"_id": 1}) is not None

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

    def complete(self, claim: Claim, verdict: Verdict) -> bool:
        """Add time and usage to a calculation whose job wrote its own end.

        Parameters
        ----------
        claim
            The attempt.
        verdict
            How it ended.

        Returns
        -------
        bool
            Whether the calculation was finished and still this attempt's.
        """
        update = calculations.complete_update(verdict)
        return self._update(claim, update, "completing a result", *calculations.FINISHED)

    def requeue(self, claim: Claim, lost_on: str | None = None) -> bool:
        """Give a calculation back, if it is still ours.

        Parameters
        ----------
        claim
            The attempt.
        lost_on
            The host, if the calculation was lost there.
        """
        return self._update(claim, calculations.requeue_update(lost_on), "giving a calculation back")

    def retract_failure(self, claim: Claim, host: str) -> bool:
        """Give back a calculation that failed here, but perhaps through no fault of its own.

        Parameters
        ----------
        claim
            The attempt that failed.
        host
            Where it failed; it counts as lost there, so that the number of attempts stays bounded.
        """
        update = calculations.requeue_update(lost_on=host)
        update["$set"]["raw_output"] = ""
        return self._update(claim, update, "giving a failed calculation back", Status.FAILED)

    def requeue_left_behind(self, executor: str) -> list[str]:
        """Give back what an earlier incarnation of a worker left pending.

        Call it only while no job of this worker runs and its lock proves that no other process has its uuid.

        Parameters
        ----------
        executor
            The worker's uuid.

        Returns
        -------
        list[str]
            Ids of the calculations.
        """
        with _translated("looking for calculations left behind", self._where):
            found = self._collection.find(
                {"status": Status.PENDING.value, "executor": executor}, {"puffin": 1, "executor": 1}
            )
            return [str(document["_id"]) for document in found if self._requeue_as_seen(document)]

    def _requeue_as_seen(self, document: Mapping[str, Any]) -> bool:
        seen = document.get("puffin") or {}
        selection = {
            "_id": document["_id"],
            "status": Status.PENDING.value,
            "executor": document["executor"],
            "puffin.attempt": seen.get("attempt"),
        }
        update = calculations.requeue_update(lost_on=str(seen.get("host", "")))
        return self._collection.update_one(selection, update).modified_count == 1

    def count_by_status(self) -> dict[str, int]:
        """How many calculations there are in each state."""
        with _translated("counting calculations", self._where):
            rows = self._collection.aggregate([{"$group": {"_id": "$status", "n": {"$sum": 1}}}])
            return {str(row["_id"]): int(row["n"]) for row in rows}

    def offers_change_streams(self) -> bool:
        """Whether the server tells of changes by itself."""
        try:
            with _translated("opening a change stream", self._where), self._collection.watch(max_await_time_ms=1):
                return True
        except DatabaseUnavailable:
            raise
        except DatabaseError:
            return False

    def _update(self, claim: Claim, update: Mapping[str, Any], doing: str, *statuses: Status) -> bool:
        with _translated(doing, self._where):
            selection = calculations.owned(claim, ObjectId(claim.id), *statuses)
            return self._collection.update_one(selection, update).matched_count == 1


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
        Starts after the first, over all incarnations.
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
        update = {
            "$set": _registry_fields(record),
            "$currentDate": {"started": True, "seen": True},
            "$inc": {"starts": 1},
        }
        with _translated("announcing the worker", self._where):
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
        restarts=max(0, int(document.get("starts", 1)) - 1),
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
            newest = self._database[EVENTS].find(selection, {"_id": 0}).sort("$natural", -1).limit(count)
            return list(newest)[::-1]


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
