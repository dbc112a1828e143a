"""The calculations of a database as workers see them: claimed, renewed, finished, given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pymongo
import pymongo.errors
from bson.objectid import ObjectId

from puffin import calculations, losses
from puffin.calculations import Claim, Claimant, Status, Usage, Verdict
from puffin.entries import IS_CANCELLED
from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.losses import Loss, Pending
from puffin.settings import ResourceSettings
from puffin.store.driver import Documents, translated

WATCH_S = 120.0
"""Seconds for which the server may be waited for, where it is asked for news."""


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


class Calculations:
    """The calculations of one database."""

    def __init__(self, name: str, collection: Documents, watched: Documents, where: str) -> None:
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
        selection = calculations.claim_filter(resources, orders, programs)
        with translated("claiming a calculation", self._where):
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
        with translated("completing a result", self._where):
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
        with translated("looking at a calculation", self._where):
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

    def lose(self, claim: Claim, loss: Loss) -> Status | None:
        """Give a lost calculation back, or let it fail if it was lost too often; if it is still ours.

        Parameters
        ----------
        claim
            The attempt.
        loss
            How it was lost.

        Returns
        -------
        Status | None
            NEW or FAILED; None if it was no longer ours.
        """
        update = losses.loss_update(claim.lost_on, loss)
        return _status_in(update) if self._update(claim, update, "giving a lost calculation back") else None

    def retract_failure(self, claim: Claim, loss: Loss) -> bool:
        """Give back a calculation that failed here, but perhaps through no fault of its own.

        Parameters
        ----------
        claim
            The attempt that failed.
        loss
            Counts as one, so that the number of attempts stays bounded.
        """
        update = losses.retraction_update(claim, loss)
        return update is not None and self._update(claim, update, "giving a failed calculation back", Status.FAILED)

    def pending(self, executor: str | None = None) -> list[Pending]:
        """What is being run.

        Parameters
        ----------
        executor
            Only by this worker.
        """
        selection = {"status": Status.PENDING.value} | ({} if executor is None else {"executor": executor})
        with translated("looking for pending calculations", self._where):
            found = self._collection.find(selection, {"puffin": 1, "executor": 1, "_lastmodified": 1})
            return [losses.to_pending(document) for document in found]

    def reset(self, pending: Pending, loss: Loss | None) -> Status | None:
        """Take a calculation away from one who seems dead, unless anything has happened to it since it was seen.

        Parameters
        ----------
        pending
            What was seen.
        loss
            How it was lost; None if it never ran.

        Returns
        -------
        Status | None
            NEW or FAILED; None if something has happened to it.
        """
        with translated("resetting a calculation", self._where):
            selection = losses.as_seen(pending, ObjectId(pending.id))
            update = losses.loss_update(pending.lost_on, loss) if loss else calculations.requeue_update()
            done = self._collection.update_one(selection, update).modified_count == 1
        return _status_in(update) if done else None

    def count_by_status(self) -> dict[str, int]:
        """How many calculations there are in each state, those that somebody cancelled apart from the other failed."""
        with translated("counting calculations", self._where):
            rows = self._collection.aggregate(
                [{"$group": {"_id": {"status": "$status", "cancelled": IS_CANCELLED}, "n": {"$sum": 1}}}]
            )
            found = [(row["_id"], int(row["n"])) for row in rows]
        counts = Counter[str]()
        for kind, count in found:
            counts["cancelled" if kind.get("cancelled") else str(kind.get("status"))] += count
        return dict(counts)

    def any_open(self) -> bool:
        """Whether any calculation waits or is being worked on; cheap however many there are."""
        open_ones = {"status": {"$in": [Status.NEW.value, Status.PENDING.value]}}
        with translated("looking for open calculations", self._where):
            return self._collection.find_one(open_ones, {"_id": 1}) is not None

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
        milliseconds = int(WATCH_S * 1000)
        with (
            translated("watching for calculations", self._where),
            self._watched.watch(_NEW_CALCULATIONS, max_await_time_ms=milliseconds) as stream,
        ):
            yield False
            while True:
                yield stream.try_next() is not None
                if not stream.alive:
                    # As after the collection was dropped: it would be silent for ever.
                    raise DatabaseUnavailable(f"the database at {self._where} tells of no more calculations")

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
        with translated(doing, self._where):
            selection = calculations.owned(claim, ObjectId(claim.id), *statuses)
            return self._collection.update_one(selection, update).matched_count == 1


def _status_in(update: Mapping[str, Any]) -> Status:
    return Status(update["$set"]["status"])
