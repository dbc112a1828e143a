"""Orders to whole fleets."""

from __future__ import annotations

from puffin.store.driver import Documents, translated

CONTROL = "puffin_control"


class Control:
    """Orders to whole fleets, for hosts that cannot be reached otherwise."""

    def __init__(self, collection: Documents, where: str) -> None:
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
