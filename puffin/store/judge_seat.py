"""Where the judge of a database sits: the one worker that resets what the dead leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pymongo
import pymongo.errors

from puffin.errors import DatabaseError
from puffin.store.driver import Documents, translated

JUDGE = "puffin_judge"


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


class JudgeSeat:
    """Where the judge of one database sits."""

    _ID = "judge"

    def __init__(self, collection: Documents, where: str) -> None:
        self._collection = collection
        self._where = where

    def look(self) -> Tenure | None:
        """Who sits there; None if nobody ever did."""
        with translated("looking for the judge", self._where):
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
            with translated("electing the judge", self._where):
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
