"""Orders to whole fleets, and what they were deployed to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from puffin.store.driver import Documents, translated

CONTROL = "puffin_control"


@dataclass(frozen=True)
class DrainNote:
    """Who keeps a host out of the fleet, why, and since when by the server's clock."""

    by: str
    why: str
    since: datetime | None

    def __str__(self) -> str:
        return f"drained by {self.by}" + (f": {self.why}" if self.why else "")


class Control:
    """Orders to whole fleets, for hosts that cannot be reached otherwise."""

    def __init__(self, collection: Documents, where: str) -> None:
        self._collection = collection
        self._where = where

    def order_stop(self, fleet: str, by: str) -> None:
        """Tell all workers of a fleet to finish their jobs and stop.

        Parameters
        ----------
        fleet
            The fleet.
        by
            Who says so.
        """
        with translated("ordering the stop", self._where):
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
        with translated("lifting the stop", self._where):
            self._collection.update_one({"_id": fleet}, {"$set": {"stop": False}})

    def is_stopped(self, fleet: str) -> bool:
        """Whether a fleet has been told to stop.

        Parameters
        ----------
        fleet
            The fleet.
        """
        with translated("reading the orders to the fleet", self._where):
            order = self._collection.find_one({"_id": fleet}, {"stop": 1})
            return bool(order and order.get("stop"))

    def note_drained(self, fleet: str, host: str, by: str, why: str) -> None:
        """Leave word that a host is kept out of the fleet.

        Parameters
        ----------
        fleet, host
            The host.
        by
            Who does so.
        why
            The reason; may be empty.
        """
        with translated("noting the drain", self._where):
            self._collection.update_one(
                {"_id": f"{fleet}@{host}"},
                {
                    "$set": {"drained_in": fleet, "host": host, "drained": {"by": by, "why": why}},
                    "$currentDate": {"drained_since": True},
                },
                upsert=True,
            )

    def lift_drained(self, fleet: str, host: str) -> None:
        """Leave word that a host is part of the fleet again.

        Parameters
        ----------
        fleet, host
            The host.
        """
        with translated("lifting the drain", self._where):
            self._collection.update_one(
                {"_id": f"{fleet}@{host}"}, {"$unset": {"drained_in": "", "drained": "", "drained_since": ""}}
            )

    def drained(self, fleet: str) -> dict[str, DrainNote]:
        """The hosts that are kept out of a fleet, with who does so and why.

        Parameters
        ----------
        fleet
            The fleet.
        """
        with translated("reading the drains", self._where):
            return {
                str(entry["host"]): DrainNote(
                    str(entry["drained"]["by"]), str(entry["drained"]["why"]), entry.get("drained_since")
                )
                for entry in self._collection.find({"drained_in": fleet})
            }

    def note_releases(self, fleet: str, releases: Mapping[str, str]) -> None:
        """Leave word of what hosts were deployed to.

        Parameters
        ----------
        fleet
            The fleet.
        releases
            By host, the release that its workers shall run.
        """
        with translated("noting the releases", self._where):
            for host, release in releases.items():
                self._collection.update_one(
                    {"_id": f"{fleet}@{host}"},
                    {"$set": {"deployed_in": fleet, "host": host, "release": release}, "$currentDate": {"since": True}},
                    upsert=True,
                )

    def releases(self, fleet: str) -> dict[str, str]:
        """What the hosts of a fleet were deployed to: by host, the release that its workers shall run.

        Parameters
        ----------
        fleet
            The fleet.
        """
        with translated("reading the releases", self._where):
            return {entry["host"]: entry["release"] for entry in self._collection.find({"deployed_in": fleet})}

    def forget_hosts(self, fleet: str, hosts: Iterable[str]) -> None:
        """Forget what hosts were deployed to.

        Parameters
        ----------
        fleet
            The fleet.
        hosts
            Names of hosts that are no longer deployed.
        """
        with translated("forgetting hosts", self._where):
            self._collection.delete_many({"_id": {"$in": [f"{fleet}@{host}" for host in hosts]}})
