"""What happened to workers and calculations, an event a line; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fleet.watch.cells import Cell
from fleet.watch.moments import local
from fleet.words import first_line, plain
from puffin.records import is_failure

if TYPE_CHECKING:
    from puffin.store import EventRecord

_KIND_WIDTH = 12


_GOOD = frozenset({"finished", "thawed", "started", "deployed"})


def event_lines(events: Iterable[EventRecord], *, failures: bool, host: str = "") -> list[list[Cell]]:
    """What happened, a line each, the newest first.

    Parameters
    ----------
    events
        The newest last.
    failures
        Only what somebody may want to know of.
    host
        Only of this host; empty for all.
    """
    chosen = [
        event
        for event in events
        if (not failures or is_failure(event.kind, event.detail)) and (not host or event.host == host)
    ]
    widest = max((len(event.worker or event.host) for event in chosen), default=0)
    return [event_cells(event, widest) for event in reversed(chosen)]


def event_cells(event: EventRecord, widest: int = 0) -> list[Cell]:
    """One event in words.

    Parameters
    ----------
    event
        The event.
    widest
        How wide the names of workers are.
    """
    tone = "bad" if is_failure(event.kind, event.detail) else ("good" if event.kind in _GOOD else "")
    words = " ".join(word for word in (event.calculation, first_line(event.detail, 200)) if word)
    # People and programs wrote some of it.
    who = plain(event.worker or event.host).ljust(widest)
    return [
        Cell(f"{local(event.at):%H:%M:%S}", "dim"),
        Cell(who),
        Cell(plain(event.kind).ljust(_KIND_WIDTH), tone),
        Cell(plain(words)),
    ]
