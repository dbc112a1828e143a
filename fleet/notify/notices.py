"""What the hooks on events are told, when, and how often again; pure.

A failed calculation or a quarantined worker is an event that somebody noted. That a host is lost or the queue empty
nobody notes: it follows from two looks at the database, and is told once each time it becomes so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from fleet.hosts.names import condensed
from fleet.watch.status import WorkerStatus
from fleet.words import duration, first_line, plain

if TYPE_CHECKING:
    from puffin.store import EventRecord

_ONE_BY_ONE = 5
"""Up to so many of a kind at once are told one by one, more of them together."""
_CONFIRM_S = 100.0
"""How long a host that is silent is given to report, in case it was the database that was away: workers report every
75 s."""
_PAUSES_S = (2.0, 6.0, 20.0, 60.0, 180.0, 600.0, 600.0, 600.0, 600.0)
_MOST_WAITING = 200
_LONGEST_DETAIL = 2000
_LONGEST_REASON = 300
_ENDED = frozenset({"stopped", "quarantined"})


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
        "at": f"{notice.at.isoformat(timespec='seconds')}Z",
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
        at=datetime.fromisoformat(data["at"].removesuffix("Z")),
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
    return _together([_of_event(event, OF_EVENTS[event.kind]) for event in events if event.kind in OF_EVENTS])


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


def _together(notices: Sequence[Notice]) -> list[Notice]:
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


# What nobody notes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Silence:
    """A host of which nothing is heard.

    Parameters
    ----------
    seen
        When one of its workers last reported, by the server's clock.
    found
        When that was first noticed.
    told
        Whether the hooks were told.
    """

    seen: datetime
    found: datetime
    told: bool = False


@dataclass(frozen=True)
class LastLook:
    """What the last look found.

    Parameters
    ----------
    silent
        The hosts of which nothing is heard.
    was_open
        Whether there were open calculations; None if nobody looked yet.
    """

    silent: Mapping[str, Silence] = field(default_factory=dict)
    was_open: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """For :meth:`from_json`."""
        silent = {
            host: [each.seen.isoformat(), each.found.isoformat(), each.told] for host, each in self.silent.items()
        }
        return {"silent": silent, "was_open": self.was_open}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LastLook:
        """What :meth:`to_json` made.

        Parameters
        ----------
        data
            What it made.
        """
        silent = {
            host: Silence(datetime.fromisoformat(seen), datetime.fromisoformat(found), told)
            for host, (seen, found, told) in data.get("silent", {}).items()
        }
        return cls(silent, data.get("was_open"))


@dataclass(frozen=True)
class Seen:
    """What one look found.

    Parameters
    ----------
    fleet
        The fleet.
    now
        When, by the server's clock.
    hosts
        The hosts that should work: in hosts.yaml, not drained; none while the whole fleet is told to stop.
    statuses
        What the workers do.
    any_open
        Whether there are open calculations; None where that is not asked.
    """

    fleet: str
    now: datetime
    hosts: AbstractSet[str]
    statuses: Sequence[WorkerStatus]
    any_open: bool | None


def look(watch: LastLook, seen: Seen, lost_after_s: float) -> tuple[LastLook, list[Notice]]:
    """What to tell after a look.

    Parameters
    ----------
    watch
        What the look before found.
    seen
        What this one found.
    lost_after_s
        How long a host must be silent, in seconds.
    """
    silent: dict[str, Silence] = {}
    notices: list[Notice] = []
    for host, last in _silent_hosts(seen).items():
        before = watch.silent.get(host)
        silence = before if before is not None and before.seen == last else Silence(last, seen.now)
        long_s, known_s = ((seen.now - since).total_seconds() for since in (last, silence.found))
        if not silence.told and long_s >= lost_after_s and known_s >= min(_CONFIRM_S, lost_after_s):
            notices.append(_of_lost(seen, host, last))
            silence = replace(silence, told=True)
        silent[host] = silence
    notices = _together(notices)
    if watch.was_open and seen.any_open is False:
        notices.append(_of_empty(seen))
    return LastLook(silent, watch.was_open if seen.any_open is None else seen.any_open), notices


def _silent_hosts(seen: Seen) -> dict[str, datetime]:
    """Hosts all of whose workers that did not say goodbye are silent, and when the last of these reported."""
    of_host: dict[str, list[WorkerStatus]] = {}
    for each in seen.statuses:
        if each.record.host in seen.hosts and each.record.state not in _ENDED and each.record.seen is not None:
            of_host.setdefault(each.record.host, []).append(each)
    return {
        host: max(each.record.seen for each in workers if each.record.seen is not None)
        for host, workers in of_host.items()
        if all(each.state == "lost" for each in workers)
    }


def _of_lost(seen: Seen, host: str, last: datetime) -> Notice:
    silent = duration((seen.now - last).total_seconds())
    text = f"{seen.fleet}: host {host} is lost: none of its workers has reported for {silent}"
    name = f"host_lost-{host}-{last:%Y%m%dT%H%M%S}"
    return Notice(Kind.HOST_LOST, name, seen.now.replace(microsecond=0), seen.fleet, text, host=host, ids=(name,))


def _of_empty(seen: Seen) -> Notice:
    text = f"{seen.fleet}: the queue is empty: no calculation waits or is being worked on"
    name = f"queue_empty-{seen.fleet}-{seen.now:%Y%m%dT%H%M%S}"
    return Notice(Kind.QUEUE_EMPTY, name, seen.now.replace(microsecond=0), seen.fleet, text, ids=(name,))


# What is still to be told ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """A notice that one hook was not told yet.

    Parameters
    ----------
    notice
        The notice.
    target
        The hook.
    tries
        How often it was tried.
    due
        When to try again, naive and in UTC; None for at once.
    """

    notice: Notice
    target: str
    tries: int = 0
    due: datetime | None = None

    @property
    def last_try(self) -> bool:
        """Whether it is given up if it fails once more."""
        return self.tries >= len(_PAUSES_S)

    def is_same(self, other: Waiting) -> bool:
        """Whether it is the same notice for the same hook.

        Parameters
        ----------
        other
            Another one.
        """
        return (self.target, self.notice.id) == (other.target, other.notice.id)


@dataclass(frozen=True)
class Outbox:
    """All that is still to be told, for each hook in its order."""

    waiting: tuple[Waiting, ...] = ()

    def to_json(self) -> list[dict[str, Any]]:
        """For :meth:`from_json`."""
        return [
            {
                "notice": to_json(each.notice),
                "target": each.target,
                "tries": each.tries,
                "due": each.due.isoformat() if each.due else "",
            }
            for each in self.waiting
        ]

    @classmethod
    def from_json(cls, data: Iterable[Mapping[str, Any]]) -> Outbox:
        """What :meth:`to_json` made.

        Parameters
        ----------
        data
            What it made.
        """
        return cls(
            tuple(
                Waiting(
                    from_json(each["notice"]),
                    each["target"],
                    int(each["tries"]),
                    datetime.fromisoformat(each["due"]) if each["due"] else None,
                )
                for each in data
            )
        )

    def only(self, targets: Mapping[Kind, Sequence[str]]) -> Outbox:
        """The same without what is for hooks that are no longer in hosts.yaml.

        Parameters
        ----------
        targets
            The hooks by kind.
        """
        return Outbox(tuple(each for each in self.waiting if each.target in targets.get(each.notice.kind, ())))

    def with_notices(
        self, notices: Iterable[Notice], targets: Mapping[Kind, Sequence[str]]
    ) -> tuple[Outbox, tuple[Waiting, ...]]:
        """The same with more to tell, and what is dropped since too much waits for a hook: the oldest.

        Parameters
        ----------
        notices
            What is new.
        targets
            The hooks by kind.
        """
        known = {(each.target, each.notice.id) for each in self.waiting}
        new = [Waiting(notice, target) for notice in notices for target in targets.get(notice.kind, ())]
        whole = [*self.waiting, *(each for each in new if (each.target, each.notice.id) not in known)]
        dropped: list[Waiting] = []
        for target in {each.target for each in whole}:
            dropped += [each for each in whole if each.target == target][:-_MOST_WAITING]
        gone = {(each.target, each.notice.id) for each in dropped}
        return Outbox(tuple(each for each in whole if (each.target, each.notice.id) not in gone)), tuple(dropped)

    def ready(self, now: datetime, busy: AbstractSet[str] = frozenset()) -> tuple[Waiting, ...]:
        """What is to be told now: the first of each hook, if its time has come.

        Parameters
        ----------
        now
            The present, naive and in UTC.
        busy
            Hooks that are being told something.
        """
        first = {each.target: each for each in reversed(self.waiting)}
        return tuple(
            each
            for each in self.waiting
            if first[each.target] is each and each.target not in busy and (each.due is None or each.due <= now)
        )

    def told(self, waiting: Waiting) -> Outbox:
        """The same without what was told, or is given up.

        Parameters
        ----------
        waiting
            What that was.
        """
        return Outbox(tuple(each for each in self.waiting if not each.is_same(waiting)))

    def failed(self, waiting: Waiting, now: datetime) -> Outbox:
        """The same after a try that failed: it is tried again after a pause that grows, and in the end given up.

        Parameters
        ----------
        waiting
            What was tried.
        now
            The present, naive and in UTC.
        """
        if waiting.last_try:
            return self.told(waiting)
        later = replace(waiting, tries=waiting.tries + 1, due=now + timedelta(seconds=_PAUSES_S[waiting.tries]))
        return Outbox(tuple(later if each.is_same(waiting) else each for each in self.waiting))
