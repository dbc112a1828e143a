"""Events as they come, none lost and none twice, also across outages of the database.

A server that tells of changes is listened to. What happened before that, or while the connection was broken, is found
by comparing ids: those of the last minutes are read again and what was given already is left out. Where a server tells
of nothing, that is all there is; and since there are servers that promise to tell and do not, it is done now and then
all the same. Ids begin with the second in which the event was noted, by the clock of its host: an
event is overlooked only if it was written more than five minutes later than that by the server's clock, and while
nobody listened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from bson.objectid import ObjectId

from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.store.events import EventRecord, Events, EventSelection, EventStream

OVERLAP = timedelta(minutes=5)
_PAUSE_S = 0.1
_POLL_S = 1.0
_AWAIT_S = 0.5
_LOOK_ALL_THE_SAME_S = 15.0
_AT_MOST = 1000


@dataclass(frozen=True)
class Position:
    """How far a follower has come, for another one that goes on there.

    Parameters
    ----------
    complete_to
        Everything noted before this was given, but for what was noted late; naive, in UTC, by the server's clock.
    given
        Ids of the events since shortly before that, which were given already.
    """

    complete_to: datetime
    given: frozenset[str]


class EventFollower:
    """Gives each event of a selection once.

    Parameters
    ----------
    events
        The events.
    server_time
        Tells the server's clock, naive and in UTC.
    selection
        Which of them.
    backlog
        How many of the past to begin with; None for all.
    listen
        Whether to listen where the server tells of changes.
    position
        Where an earlier follower of the same selection was; it goes on there, without a backlog.
    """

    def __init__(
        self,
        events: Events,
        server_time: Callable[[], datetime],
        selection: EventSelection,
        backlog: int | None,
        *,
        listen: bool = True,
        position: Position | None = None,
    ) -> None:
        self._events = events
        self._server_time = server_time
        self._selection = selection
        self._backlog = backlog
        self._listen = listen
        self._stream: EventStream | None = None
        self._given: set[str] = set(position.given) if position else set()
        self._complete_to: datetime | None = position.complete_to if position else None
        self._looked = float("-inf")

    @property
    def position(self) -> Position | None:
        """How far it has come; None before it has looked for the first time."""
        return None if self._complete_to is None else Position(self._complete_to, frozenset(self._given))

    def poll(self, longest_s: float = 1.0) -> list[EventRecord]:
        """The events that nobody was given yet, as soon as there are any.

        Parameters
        ----------
        longest_s
            How long to wait for one, in seconds.

        Raises
        ------
        DatabaseUnavailable
            The connection broke; the next call connects again and misses nothing.
        DatabaseError
            The database refuses it.
        """
        deadline = time.monotonic() + longest_s
        try:
            if self._stream is None and self._listen:
                self._begin_to_listen(longest_s)
                found = self._catch_up()
            else:
                found = self._heard() if self._stream is not None else self._seen()
            while not found and (left := deadline - time.monotonic()) > 0:
                time.sleep(min(_PAUSE_S, left))
                found = self._heard() if self._stream is not None else self._seen()
        except DatabaseError:
            self.close()
            raise
        return found

    def close(self) -> None:
        """Stop listening."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _begin_to_listen(self, longest_s: float) -> None:
        # Before looking for what there is: so nothing falls between.
        try:
            self._stream = self._events.watch(self._selection, min(longest_s, _AWAIT_S))
        except DatabaseUnavailable:
            raise
        except DatabaseError:
            self._listen = False

    def _heard(self) -> list[EventRecord]:
        if time.monotonic() - self._looked > _LOOK_ALL_THE_SAME_S:
            return self._catch_up()
        found: list[EventRecord] = []
        enough = time.monotonic() + _AWAIT_S
        while (event := self._next(found)) is not None:
            if event.id not in self._given and self._selection.matches(event):
                self._given.add(event.id)
                found.append(event)
            # Where something happens all the time there is never nothing to hear.
            if len(found) >= _AT_MOST or (found and time.monotonic() > enough):
                break
        return found

    def _next(self, found: Sequence[EventRecord]) -> EventRecord | None:
        """The next event of the stream. If it breaks, what was found before counts as given, so it is given first."""
        if self._stream is None:
            return None
        try:
            return self._stream.next()
        except DatabaseError:
            if not found:
                raise
            self.close()
            return None

    def _seen(self) -> list[EventRecord]:
        return self._catch_up() if time.monotonic() - self._looked >= _POLL_S else []

    def _catch_up(self) -> list[EventRecord]:
        now = self._server_time()
        if self._complete_to is None:
            # What is older than the backlog was not asked for; what comes while it is read was not seen here.
            self._given |= set(self._events.ids_since(self._selection, now - OVERLAP))
            found = self._events.recent(self._selection, self._backlog)
        else:
            found = self._new_since(self._complete_to - OVERLAP)
        self._given.update(event.id for event in found)
        self._complete_to, self._looked = now, time.monotonic()
        self._forget()
        return found

    def _new_since(self, since: datetime) -> list[EventRecord]:
        ids = [item for item in self._events.ids_since(self._selection, since) if item not in self._given]
        parts = (self._events.those(ids[at : at + _AT_MOST]) for at in range(0, len(ids), _AT_MOST))
        return list(chain.from_iterable(parts))

    def _forget(self) -> None:
        """What is older than anything that is read again cannot come again."""
        assert self._complete_to is not None  # noqa: S101 - set by the caller
        oldest = self._complete_to - 2 * OVERLAP
        self._given = {item for item in self._given if _noted(item) >= oldest}


def _noted(event: str) -> datetime:
    return ObjectId(event).generation_time.replace(tzinfo=None)
