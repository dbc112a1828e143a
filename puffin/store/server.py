"""One database server, and what is kept on it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson.objectid import ObjectId
from pymongo.database import Database as MongoDatabase

from puffin import documents
from puffin.documents import Molecule, Request
from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.settings import DatabaseSettings
from puffin.store.calculations import WATCH_S, Calculations
from puffin.store.control import CONTROL, Control
from puffin.store.driver import Member, Pulse, client, location, members_of, translated
from puffin.store.events import EVENTS, Events
from puffin.store.judge_seat import JUDGE, JudgeSeat
from puffin.store.notifier import NotifierSeat
from puffin.store.queue import Queue
from puffin.store.registry import OFFERS, WORKERS, Registry
from puffin.store.results import CalculationResult, to_result


class Store:
    """One client of one database server.

    Parameters
    ----------
    settings
        The database section.
    timeout_s
        How long one operation may take, in seconds, before the server counts as unreachable.
    has_pulse
        Whether `connected_since` is wanted. With it closing takes up to half a second more: the driver waits for what
        listens to it.

    Raises
    ------
    ConfigurationError
        The settings are no connection. Whether the server answers shows only with the first operation.
    """

    def __init__(self, settings: DatabaseSettings, timeout_s: float = 10.0, *, has_pulse: bool = False) -> None:
        self.where = location(settings)
        self.names = settings.names
        self._pulse = Pulse()
        self._client = client(settings, timeout_s, timeout_s, [self._pulse] if has_pulse else [])
        # A change stream waits for longer than any other operation may take; connects with the first use.
        self._watching_client = client(settings, timeout_s, timeout_s + WATCH_S, [])

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
        with translated("connecting", self.where):
            self._client.admin.command("ping")
            self._database(self.names[0])["calculations"].find_one({}, {"_id": 1})

    @property
    def connected_since(self) -> float | None:
        """Since when the server has answered without a break; None if it does not. Boot time in seconds."""
        return self._pulse.since

    def server_time(self) -> datetime:
        """The server's clock, naive and in UTC; needs no privilege."""
        with translated("reading the server's clock", self.where):
            now = self._client.admin.command("hello")["localTime"]
        if not isinstance(now, datetime):
            raise DatabaseError(f"the database at {self.where} does not tell its time")
        return now

    def members(self) -> tuple[Member, ...]:
        """Where the server's replica set sends its clients, the primary first; empty where the server is alone."""
        with translated("asking for the members of the replica set", self.where):
            return members_of(self._client.admin.command("hello"))

    def server_version(self) -> str:
        """What the server says that it is; empty where it does not say."""
        with translated("asking for the server's version", self.where):
            return str(self._client.admin.command("buildInfo").get("version", ""))

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
        with translated("submitting calculations", self.where):
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
        with translated("reading results", self.where):
            database = self._database(name)
            found = list(database["calculations"].find({"_id": {"$in": [ObjectId(item) for item in ids]}}, wanted))
            properties = [item for document in found for item in document["results"]["properties"]]
            energies = database["properties"].find(
                {"_id": {"$in": properties}, "property_name": "electronic_energy"}, {"data": 1}
            )
            energy_of = {document["_id"]: float(document["data"]) for document in energies}
        return {str(document["_id"]): to_result(document, energy_of) for document in found}

    def queue(self, name: str) -> Queue:
        """The calculations of one database as people see them.

        Parameters
        ----------
        name
            The database's name.
        """
        return Queue(name, self._database(name), self.where, self.server_time)

    def judge_seat(self, name: str) -> JudgeSeat:
        """Where the judge of one database sits.

        Parameters
        ----------
        name
            The database's name.
        """
        return JudgeSeat(self._database(name)[JUDGE], self.where)

    @property
    def registry(self) -> Registry:
        """The workers; kept in the first database."""
        first = self.names[0]
        database = self._database(first)
        return Registry(database[WORKERS], database[OFFERS], self._watching_client[first][WORKERS], self.where)

    @property
    def events(self) -> Events:
        """What happened; kept in the first database."""
        first = self.names[0]
        return Events(self._database(first), self._watching_client[first][EVENTS], self.where)

    @property
    def control(self) -> Control:
        """Orders to whole fleets; kept in the first database."""
        return Control(self._database(self.names[0])[CONTROL], self.where)

    def notifier(self, fleet: str) -> NotifierSeat:
        """Where the notifier of a fleet keeps how far it is; in the first database.

        Parameters
        ----------
        fleet
            The fleet.
        """
        return NotifierSeat(self._database(self.names[0])[CONTROL], fleet, self.where)

    def _database(self, name: str) -> MongoDatabase[dict[str, Any]]:
        return self._client[name]


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
