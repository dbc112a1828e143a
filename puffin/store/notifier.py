"""Where the notifier of a fleet sits, and what it remembers: one document, written by its holder alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pymongo
import pymongo.errors

from puffin.errors import DatabaseError
from puffin.store.driver import Documents, translated


@dataclass(frozen=True)
class Sitting:
    """Who tells the hooks of a fleet.

    Parameters
    ----------
    holder
        A word that no other has; empty if it has gone in peace.
    by
        Who that is, for people.
    renewed
        When it last said that it sits there, by the server's clock.
    lease_s
        How long that is valid, in seconds.
    """

    holder: str
    by: str
    renewed: datetime
    lease_s: float

    def lasts(self, now: datetime) -> bool:
        """Whether it sits there still, as far as is known.

        Parameters
        ----------
        now
            The server's clock.
        """
        return bool(self.holder) and (now - self.renewed).total_seconds() < self.lease_s


class NotifierSeat:
    """Where the notifier of one fleet sits.

    Parameters
    ----------
    collection
        Where orders to fleets are.
    fleet
        The fleet.
    where
        Where the database is, to be shown.
    """

    def __init__(self, collection: Documents, fleet: str, where: str) -> None:
        self._collection = collection
        # No name of a fleet or host holds a space.
        self._id = f"{fleet} notifier"
        self._where = where

    def look(self) -> Sitting | None:
        """Who sits there, or did last; None if nobody ever did."""
        with translated("looking for the notifier", self._where):
            document = self._collection.find_one({"_id": self._id}, {"memory": 0})
        if document is None:
            return None
        return Sitting(
            str(document["holder"]), str(document["by"]), document["renewed"], float(document.get("lease_s", 0))
        )

    def take(self, seen: Sitting | None, holder: str, by: str, lease_s: float) -> bool:
        """Sit down where nobody sits any more.

        Parameters
        ----------
        seen
            Who was seen there last; it fails if that has changed.
        holder, by, lease_s
            As in :class:`Sitting`.

        Returns
        -------
        bool
            Whether it succeeded; False if somebody else was faster.
        """
        # Without one seen: matches nothing that exists, so it is made, or refused because somebody just made it.
        before = {"holder": holder} if seen is None else {"holder": seen.holder, "renewed": seen.renewed}
        try:
            with translated("sitting down as notifier", self._where):
                found = self._collection.find_one_and_update(
                    {"_id": self._id, **before},
                    {"$set": {"holder": holder, "by": by, "lease_s": lease_s}, "$currentDate": {"renewed": True}},
                    upsert=seen is None,
                    return_document=pymongo.ReturnDocument.AFTER,
                )
        except DatabaseError as error:
            if isinstance(error.__cause__, pymongo.errors.DuplicateKeyError):
                return False
            raise
        return found is not None

    def recall(self) -> dict[str, Any]:
        """What the last one who sat there remembered; empty if nothing."""
        with translated("reading what the notifier remembers", self._where):
            document = self._collection.find_one({"_id": self._id}, {"memory": 1})
        memory = json.loads((document or {}).get("memory") or "{}")
        return memory if isinstance(memory, dict) else {}

    def remember(self, holder: str, memory: Mapping[str, Any], *, leave: bool = False) -> bool:
        """Write down what to remember, which also says that the holder sits there.

        Parameters
        ----------
        holder
            Who does so.
        memory
            What can be written as JSON.
        leave
            Whether it stands up.

        Returns
        -------
        bool
            Whether it is still the holder; nothing is written if not.
        """
        update = {"memory": json.dumps(memory), **({"holder": ""} if leave else {})}
        with translated("writing down what the notifier remembers", self._where):
            done = self._collection.update_one(
                {"_id": self._id, "holder": holder}, {"$set": update, "$currentDate": {"renewed": True}}
            )
        return done.matched_count == 1
