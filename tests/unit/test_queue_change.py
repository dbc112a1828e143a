"""What changes many calculations does so in pieces, and says how far it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from fleet.cli.queue_change import _PIECE, _Asked, _change
from fleet.cli.queue_options import QueueTarget
from puffin.changes import Change
from puffin.entries import Entry, to_entry
from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.settings import DatabaseSettings

MANY = 5 * _PIECE // 2


class Pieces:
    """Stands in for the queue, its store and the store's events: takes pieces until it fails.

    Parameters
    ----------
    takes
        How many pieces it takes.
    failure
        How the next one ends.
    taken_meanwhile
        The calculation that somebody else has changed.
    """

    name = "db"

    def __init__(self, takes: int, failure: BaseException, taken_meanwhile: str = "") -> None:
        self.pieces: list[int] = []
        self.noted: list[str] = []
        self.prepared = 0
        self.history_failure: DatabaseError | None = None
        self._takes = takes
        self._failure = failure
        self._taken_meanwhile = taken_meanwhile

    @property
    def events(self) -> Pieces:
        return self

    def queue(self, _name: str) -> Pieces:
        return self

    def prepare(self) -> None:
        self.prepared += 1

    def write(self, events: Sequence[tuple[float, Any]]) -> None:
        if self.history_failure is not None:
            raise self.history_failure
        self.noted += [event.calculation for _, event in events]

    def change(self, _change: Change, entries: Sequence[Entry], _reason: str) -> list[Entry]:
        if len(self.pieces) == self._takes:
            raise self._failure
        self.pieces.append(len(entries))
        return [entry for entry in entries if entry.id != self._taken_meanwhile]


def entries(count: int) -> list[Entry]:
    return [to_entry("db", {"_id": f"{number:024x}", "status": "new"}) for number in range(count)]


def change(pieces: Pieces, count: int) -> list[Entry]:
    target = QueueTarget(cast("Any", pieces), DatabaseSettings(), ("db",), "lab")
    return _change(target, _Asked(Change.CANCEL, (), (), (), (), (), None, True, False), entries(count))


def test_a_piece_is_no_more_than_a_busy_server_does_in_time() -> None:
    pieces = Pieces(99, AssertionError())
    assert len(change(pieces, MANY)) == MANY
    assert pieces.pieces == [_PIECE, _PIECE, _PIECE // 2]
    assert 100 <= _PIECE <= 200
    assert (len(pieces.noted), pieces.prepared) == (MANY, 1)


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), DatabaseError("refused"), KeyboardInterrupt()])
def test_what_ends_midway_says_how_far_it_came(failure: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = Pieces(2, failure, taken_meanwhile=f"{7:024x}")
    with pytest.raises(type(failure)):
        change(pieces, MANY)
    said = " ".join(capsys.readouterr().err.split())
    done = 2 * _PIECE - 1
    assert (
        f"{done} of {MANY} cancelled, and perhaps some of the next {_PIECE // 2}: the same command does the rest"
    ) in said
    # What was changed is in its history, though the command failed.
    assert len(pieces.noted) == done


def test_a_history_that_cannot_be_written_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    pieces = Pieces(99, AssertionError())
    pieces.history_failure = DatabaseError("no right to write")
    assert len(change(pieces, MANY)) == MANY
    assert capsys.readouterr().err.count("not noted in the history") == 1
