"""The calculations of a database as people see them: put in, listed, changed, read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import pymongo
import pymongo.errors
from bson.objectid import ObjectId
from pymongo.database import Database as MongoDatabase

from puffin import calculations, changes, documents, outcomes, progress
from puffin.backlog import Tally
from puffin.calculations import Status
from puffin.changes import Change
from puffin.entries import ENTRY_FIELDS, Entry, Selection, Sort, selection_filter, sort_fields, to_entry
from puffin.outcomes import CalculationOutcome, Details, PropertyInfo, StructureInfo
from puffin.progress import EndedCalculation
from puffin.store.driver import only_duplicates, translated
from puffin.submissions import Submission, Submitted

_CHUNK = 500
_FIRST = "first"
"""Has the key of whatever was submitted without `again`; unique, so that of two who submit at once one is refused."""


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
        with translated("looking at the database", self._where):
            return "calculations" in self._database.list_collection_names()

    def prepare(self) -> None:
        """Make the indices by which identical structures and calculations are found, unless they are there."""
        with translated("preparing the queue", self._where):
            for collection in ("structures", "calculations"):
                self._database[collection].create_index("puffin.key", name="puffin_key", sparse=True)
                self._database[collection].create_index(
                    f"puffin.{_FIRST}", name="puffin_first", sparse=True, unique=True
                )

    def submit(self, work: Sequence[Submission], again: bool = False) -> list[Submitted]:
        """Add calculations, each with its structure, unless the identical one is there; five round trips in all.

        Others may submit the same at the same time: the indices of `prepare` let one of them through.

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
                document = _first(documents.structure_document(item.molecule, now))
                new_structures.append({"_id": structures[structure_key], **document})
            complete = dataclasses.replace(item.request, structures=[structures[structure_key]])
            document = documents.calculation_document(complete, now, key)
            new_calculations.append({"_id": ObjectId(), **(document if again else _first(document))})
            done.append(Submitted(str(new_calculations[-1]["_id"]), Status.NEW, added=True))
            if not again:
                needs = (item.request.cores, item.request.memory, item.request.disk)
                there[key] = dataclasses.replace(done[-1], added=False, needs=needs)
        # The structures first: a worker may take a calculation the moment it is there.
        self._use_others(self._insert("structures", new_structures), new_calculations)
        refused = self._insert("calculations", new_calculations)
        if not refused:
            return done
        there = self._known_calculations([document["puffin"]["key"] for document in refused])
        ids = {str(document["_id"]) for document in refused}
        return [there[key] if item.id in ids else item for item, key in zip(done, keys, strict=True)]

    def _insert(self, collection: str, new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Insert all but those that somebody else has submitted in this moment; return these."""
        if not new:
            return []
        with translated("submitting calculations", self._where):
            try:
                self._database[collection].insert_many(new, ordered=False)
            except pymongo.errors.BulkWriteError as error:
                if not only_duplicates(error):
                    raise
                return [new[problem["index"]] for problem in error.details["writeErrors"]]
        return []

    def _use_others(self, refused: Sequence[dict[str, Any]], requested: Sequence[dict[str, Any]]) -> None:
        """Let calculations have the structures that somebody else has just submitted, instead of their own."""
        if not refused:
            return
        there = self._known_structures([document["puffin"]["key"] for document in refused])
        others = {document["_id"]: there[document["puffin"]["key"]] for document in refused}
        for document in requested:
            document["structures"] = [others.get(id_, id_) for id_ in document["structures"]]

    def _known_structures(self, keys: Sequence[str]) -> dict[str, ObjectId]:
        with translated("looking for known structures", self._where):
            found = self._database["structures"].find({"puffin.key": {"$in": list(set(keys))}}, {"puffin.key": 1})
            return {document["puffin"]["key"]: document["_id"] for document in found}

    def _known_calculations(self, keys: Sequence[str]) -> dict[str, Submitted]:
        wanted = {"puffin.key": {"$in": list(set(keys))}}
        with translated("looking for known calculations", self._where):
            found = self._calculations.find(wanted, {"puffin.key": 1, "status": 1, "job": 1}).sort("_id", 1)
            # Of several the newest, whose state is the one that matters.
            return {document["puffin"]["key"]: _there(document) for document in found}

    def tallies(self) -> list[Tally]:
        """How many calculations there are, by state, order, program and size."""
        kind = {"status": "$status", "order": "$job.order", "program": "$model.program"}
        size = {need: f"$job.{need}" for need in calculations.NEEDS}
        with translated("counting calculations", self._where):
            rows = list(self._calculations.aggregate([{"$group": {"_id": kind | size, "n": {"$sum": 1}}}]))
        return [_tally(row["_id"], int(row["n"])) for row in rows]

    def ended_since(self, since: datetime) -> tuple[int, list[EndedCalculation]]:
        """How many calculations ended since then, and the newest of these ends.

        Parameters
        ----------
        since
            By the server's clock.
        """
        ended = {"status": {"$in": [status.value for status in calculations.FINISHED]}}
        # One that never ran, such as one that was cancelled, says nothing about the pace.
        selection = {**ended, "_lastmodified": {"$gte": since}, "runtime": {"$type": "double"}}
        with translated("counting finished calculations", self._where):
            found = self._calculations.find(selection, {"_lastmodified": 1, "runtime": 1, "_id": 0})
            newest = list(found.sort("_lastmodified", -1).limit(progress.NEWEST_ENDS))
            full = len(newest) == progress.NEWEST_ENDS
            count = self._calculations.count_documents(selection) if full else len(newest)
        return count, [EndedCalculation(document["_lastmodified"], document["runtime"]) for document in newest]

    def count(self, selection: Selection) -> int:
        """How many calculations a selection has.

        Parameters
        ----------
        selection
            The selection.
        """
        with translated("counting calculations", self._where):
            return self._calculations.count_documents(selection_filter(selection))

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
        with translated("listing calculations", self._where):
            found = self._calculations.find(selection_filter(selection), dict(ENTRY_FIELDS))
            rows = found.sort(list(sort_fields(by, reverse))).limit(limit)
            return [to_entry(self.name, document) for document in rows]

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
        with translated("looking for a calculation", self._where):
            found = self._calculations.find({"_id": {"$gte": first, "$lte": last}}, dict(ENTRY_FIELDS))
            return [to_entry(self.name, document) for document in found.limit(limit)]

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
        update = changes.change_update(change, reason)
        writes = [pymongo.UpdateOne(changes.as_listed(entry, ObjectId(entry.id)), update) for entry in entries]
        becomes = changes.RULES[change].becomes.value
        with translated(f"writing '{change.value}'", self._where):
            if self._calculations.bulk_write(writes, ordered=False).modified_count == len(entries):
                return list(entries)
            ids = [ObjectId(entry.id) for entry in entries]
            found = self._calculations.find({"_id": {"$in": ids}, "status": becomes, "executor": ""}, {"_id": 1})
            changed = {str(document["_id"]) for document in found}
        return [entry for entry in entries if entry.id in changed]

    def outcomes(self, entries: Sequence[Entry]) -> Iterator[CalculationOutcome]:
        """What came of calculations, in the same order.

        Parameters
        ----------
        entries
            The calculations.
        """
        for start in range(0, len(entries), _CHUNK):
            yield from self._outcomes(entries[start : start + _CHUNK])

    def _outcomes(self, entries: Sequence[Entry]) -> list[CalculationOutcome]:
        with translated("reading results", self._where):
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
            CalculationOutcome(
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
        with translated("reading a calculation", self._where):
            document = self._calculations.find_one({"_id": ObjectId(entry.id)})
        if document is None:
            return None
        return outcomes.to_details(document, self._outcomes([to_entry(self.name, document)])[0])


def _tally(kind: Mapping[str, Any], count: int) -> Tally:
    return Tally(
        Status(kind["status"]),
        str(kind.get("order", "")),
        str(kind.get("program", "")),
        count,
        cores=int(kind.get("cores") or 0),
        memory=float(kind.get("memory") or 0.0),
        disk=float(kind.get("disk") or 0.0),
    )


def _there(document: Mapping[str, Any]) -> Submitted:
    job = document["job"]
    needs = (int(job["cores"]), float(job["memory"]), float(job["disk"]))
    return Submitted(str(document["_id"]), Status(document["status"]), added=False, needs=needs)


def _first(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "puffin": {**document["puffin"], _FIRST: document["puffin"]["key"]}}


_Item = TypeVar("_Item")


def _all_of(items: Mapping[str, _Item], ids: Iterable[Any]) -> tuple[_Item, ...]:
    return tuple(items[str(item)] for item in ids if str(item) in items)
