"""What the hooks on events are told: one notice, in which forms they get it, and those of events; pure.

A failed calculation or a quarantined worker is an event that somebody noted. That a host is lost or the queue empty
nobody notes: `fleet.notify.lookout` sees it, and it is told once each time it becomes so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from fleet.hosts.names import condensed
from fleet.words import first_line, plain, utc

if TYPE_CHECKING:
    from puffin.store import EventRecord

_ONE_BY_ONE = 5
"""Up to so many of a kind at once are told one by one, more of them together."""
_LONGEST_DETAIL = 2000
_LONGEST_REASON = 300


class Kind(Enum):
    """What hooks can be told of; the value is the key in the section `hooks` of hosts.yaml."""

    FAILED = "failed"
    QUARANTINED = "quarantined"
    HOST_LOST = "host_lost"
    QUEUE_EMPTY = "queue_empty"


OF_EVENTS = {"failed": Kind.FAILED, "quarantined": Kind.QUARANTINED}
"""Kinds that are told because an event of this name was noted; a crash loop ends in the same as failures do."""


@dataclass(frozen=True)
class Notice:
    """Something to tell.

    Parameters
    ----------
    kind
        What.
    id
        The same whenever this is told again.
    at
        When it happened, naive and in UTC.
    fleet
        In which fleet.
    text
        A line for people.
    host, worker, calculation, detail
        What is known; empty where several are told together.
    ids
        Of what is told together, at most the last hundred; otherwise the only one.
    count
        How many are told together.
    """

    kind: Kind
    id: str
    at: datetime
    fleet: str
    text: str
    host: str = ""
    worker: str = ""
    calculation: str = ""
    detail: str = ""
    ids: tuple[str, ...] = ()
    count: int = 1


def to_json(notice: Notice) -> dict[str, Any]:
    """A notice as hooks get it; its keys are an interface, see docs/operations.md.

    Parameters
    ----------
    notice
        The notice.
    """
    return {
        "text": notice.text,
        "event": notice.kind.value,
        "id": notice.id,
        "at": utc(notice.at),
        "fleet": notice.fleet,
        "host": notice.host,
        "worker": notice.worker,
        "calculation": notice.calculation,
        "detail": notice.detail,
        "count": notice.count,
        "ids": list(notice.ids or (notice.id,)),
    }


def from_json(data: Mapping[str, Any]) -> Notice:
    """What :func:`to_json` made.

    Parameters
    ----------
    data
        What it made.
    """
    return Notice(
        kind=Kind(data["event"]),
        at=datetime.fromisoformat(data["at"].removesuffix("Z")).replace(tzinfo=None),  # with Z in earlier releases
        ids=tuple(data["ids"]),
        count=int(data["count"]),
        **{key: str(data[key]) for key in ("text", "id", "fleet", "host", "worker", "calculation", "detail")},
    )


def variables(notice: Notice) -> dict[str, str]:
    """The environment variables that a command gets.

    Parameters
    ----------
    notice
        The notice.
    """
    told = {
        "PUFFIN_EVENT": notice.kind.value,
        "PUFFIN_EVENT_ID": notice.id,
        "PUFFIN_EVENT_TEXT": notice.text,
        "PUFFIN_EVENT_HOST": notice.host,
        "PUFFIN_EVENT_WORKER": notice.worker,
        "PUFFIN_EVENT_CALCULATION": notice.calculation,
    }
    return {name: value.replace("\0", "") for name, value in told.items()}


# Events ------------------------------------------------------------------------------------------------


def of_events(events: Iterable[EventRecord]) -> list[Notice]:
    """What to tell of events: each by itself, or many of a kind together.

    Parameters
    ----------
    events
        In the order in which they happened; those of which hooks cannot be told are left out.
    """
    return together([_of_event(event, OF_EVENTS[event.kind]) for event in events if event.kind in OF_EVENTS])


def _of_event(event: EventRecord, kind: Kind) -> Notice:
    who = event.worker or event.host
    # A calculation's own words may hold what a terminal would obey.
    reason = plain(first_line(event.detail, _LONGEST_REASON))
    what = f"calculation {event.calculation} failed on {who}" if kind is Kind.FAILED else f"worker {who} is quarantined"
    return Notice(
        kind=kind,
        id=event.id,
        at=event.at.replace(microsecond=0, tzinfo=None),
        fleet=event.fleet,
        text=f"{event.fleet}: {what}" + (f": {reason}" if reason else ""),
        host=event.host,
        worker=event.worker,
        calculation=event.calculation,
        detail=event.detail[:_LONGEST_DETAIL],
        ids=(event.id,),
    )


_MANY = {Kind.FAILED: "calculations failed", Kind.QUARANTINED: "workers are quarantined", Kind.HOST_LOST: "hosts lost"}


def together(notices: Sequence[Notice]) -> list[Notice]:
    """Each by itself, or one for all of a kind where they are many."""
    found: list[Notice] = []
    for kind in Kind:
        those = [notice for notice in notices if notice.kind is kind]
        found += [_sum_of(those)] if len(those) > _ONE_BY_ONE else those
    return sorted(found, key=lambda notice: (notice.at, notice.id))


_MOST_IDS = 100
"""Chat services refuse long messages; the events have them all."""


def _sum_of(notices: Sequence[Notice]) -> Notice:
    last = notices[-1]
    hosts = condensed(sorted({notice.host for notice in notices if notice.host}))
    count = sum(notice.count for notice in notices)
    text = f"{last.fleet}: {count} {_MANY[last.kind]} ({hosts}); the last: {last.text}"
    ids = tuple(each for notice in notices for each in notice.ids)
    return Notice(last.kind, last.id, last.at, last.fleet, text, ids=ids[-_MOST_IDS:], count=count)
