"""The notifier: follows what happens in a fleet, and tells the hooks of it.

What is to be told is written down before it is told, and crossed out afterwards: a notifier that is killed tells
nothing less, and what it was just telling is told again with the same id. Each hook is told by a thread of its own,
one notice after the other, so one that hangs holds up no other.
"""

from __future__ import annotations

import getpass
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fleet.errors import ExitCode, FleetError
from fleet.hosts.inventory import Fleet
from fleet.notify.lookout import LastLook, Seen, look
from fleet.notify.notices import OF_EVENTS, Kind, Notice, of_events
from fleet.notify.outbox import Outbox, Waiting
from fleet.notify.telling import Caller, Hooked, NotTold
from fleet.watch.status import status_of
from puffin.store import EventFollower, EventRecord, EventSelection, Position, Sitting, Store

LEASE_S = 30.0
_RENEW_S = 8.0
_LOOK_S = 15.0
_MOST_IDS = 20_000
_SOON_S = 0.2


class AnotherNotifier(FleetError):
    """Somebody else tells the hooks of the fleet."""

    exit_code = ExitCode.LOCKED


@dataclass(frozen=True)
class Told:
    """What came of telling a hook.

    Parameters
    ----------
    notice
        Of what.
    label
        The hook.
    tries
        How often it was tried so far.
    error
        Why it did not work; empty if it did.
    again_at
        When it is tried again, naive and in UTC; None if it was told or is given up.
    """

    notice: Notice
    label: str
    tries: int
    error: str = ""
    again_at: datetime | None = None


class Notifier:
    """Tells the hooks of one fleet; one at a time does, whoever has the seat in the database.

    Parameters
    ----------
    fleet
        The fleet.
    store
        Its database.
    hooked
        Its hooks.
    listen
        Whether to listen for events; else they are asked for at each step.
    """

    def __init__(self, fleet: Fleet, store: Store, hooked: Hooked, *, listen: bool = True) -> None:
        self._fleet = fleet
        self._store = store
        self._hooked = hooked
        self._listen = listen
        self._seat = store.notifier(fleet.name)
        self._holder = secrets.token_hex(8)
        self._follower: EventFollower | None = None
        self._watch = LastLook()
        self._outbox = Outbox()
        self._busy: set[str] = set()
        self._answers: queue.SimpleQueue[tuple[Waiting, str]] = queue.SimpleQueue()
        self._told: list[Told] = []
        self._dirty = True
        self._saved = self._looked = float("-inf")

    # The seat

    def sit_down(self, on_wait: Callable[[str], None] | None) -> None:
        """Take the seat, and go on where the last one was.

        Parameters
        ----------
        on_wait
            Called with what is waited for, where another seems to sit there, which may have been killed: it is waited
            until its lease has run out. None: not to wait.

        Raises
        ------
        AnotherNotifier
            Another one sits there.
        DatabaseError
            The database cannot be reached, or refuses.
        """
        seen = self._seat.look()
        if seen is not None and seen.lasts(self._store.server_time()):
            if on_wait is None:
                raise AnotherNotifier(_taken(self._fleet, seen))
            on_wait(f"waiting up to {seen.lease_s:g} s to see whether {seen.by} still lives, which tells the hooks")
            self._wait_for_silence(seen)
        if not self._seat.take(seen, self._holder, _by(), LEASE_S):
            raise AnotherNotifier(_taken(self._fleet, self._seat.look()))
        self._go_on_from(self._seat.recall())

    def _wait_for_silence(self, seen: Sitting) -> None:
        while seen.lasts(self._store.server_time()):
            time.sleep(1.0)
            now = self._seat.look()
            if now is None or now != seen:
                raise AnotherNotifier(_taken(self._fleet, now))

    def _go_on_from(self, memory: dict[str, Any]) -> None:
        targets = self._hooked.targets
        self._watch = LastLook.from_json(memory.get("watch", {}))
        self._outbox = Outbox.from_json(memory.get("outbox", ())).only(targets)
        kinds = tuple(name for name, kind in OF_EVENTS.items() if kind in targets)
        if kinds:
            position = _to_position(memory.get("position"))
            selection = EventSelection(self._fleet.name, kinds=kinds)
            store = self._store
            self._follower = EventFollower(
                store.events, store.server_time, selection, 0, listen=self._listen, position=position
            )

    def leave(self) -> None:
        """End what is being told, write down how far it is, and stand up.

        Raises
        ------
        DatabaseError
            The database cannot be reached; the seat is then free when its lease has run out.
        """
        for caller in self._hooked.callers.values():
            caller.close()
        self._hear_answers()
        if self._follower is not None:
            self._follower.close()
        self._seat.remember(self._holder, self._memory(), leave=True)

    # The work

    @property
    def busy(self) -> bool:
        """Whether a hook is being told something, or is to be told now."""
        return bool(self._busy or self._outbox.ready(_now()))

    @property
    def waiting(self) -> int:
        """How much is still to be told."""
        return len(self._outbox.waiting)

    def told(self) -> list[Told]:
        """What came of it since this was last asked."""
        self._hear_answers()
        told, self._told = self._told, []
        return told

    def step(self, longest_s: float = 1.0) -> None:
        """See what is new, write it down, and have it told.

        Parameters
        ----------
        longest_s
            How long to wait for news, in seconds.

        Raises
        ------
        AnotherNotifier
            Another one has taken the seat meanwhile.
        DatabaseUnavailable
            The connection broke; nothing is lost, and the next step goes on.
        DatabaseError
            The database refuses.
        """
        self._hear_answers()
        self._add(of_events(self._news(_SOON_S if self.busy else longest_s)))
        if time.monotonic() - self._looked >= _LOOK_S:
            self._add(self._look())
        self._hear_answers()
        if self._dirty or time.monotonic() - self._saved >= _RENEW_S:
            self._save()
        for waiting in self._outbox.ready(_now(), self._busy):
            self._busy.add(waiting.target)
            caller = self._hooked.callers[waiting.target]
            threading.Thread(target=_tell, args=(caller, waiting, self._answers), daemon=True).start()

    def _news(self, longest_s: float) -> Sequence[EventRecord]:
        if self._follower is not None:
            return self._follower.poll(longest_s)
        time.sleep(longest_s)
        return ()

    def _look(self) -> list[Notice]:
        fleet, store, targets = self._fleet, self._store, self._hooked.targets
        hosts: frozenset[str] = frozenset()
        statuses = []
        now = store.server_time()
        if Kind.HOST_LOST in targets and not store.control.is_stopped(fleet.name):
            hosts = frozenset(host.name for host in fleet.hosts) - store.control.drained(fleet.name).keys()
            statuses = status_of(store.registry.workers(fleet.name, brief=True), now)
        any_open = None
        if Kind.QUEUE_EMPTY in targets:
            any_open = any(store.calculations(name).any_open() for name in store.names)
        before = self._watch
        self._watch, notices = look(
            before, Seen(fleet.name, now, hosts, statuses, any_open), fleet.hooks.host_lost_after
        )
        self._dirty |= self._watch != before
        self._looked = time.monotonic()
        return notices

    def _add(self, notices: list[Notice]) -> None:
        if not notices:
            return
        self._outbox, dropped = self._outbox.with_notices(notices, self._hooked.targets)
        self._dirty = True
        self._told += [Told(each.notice, self._label(each), each.tries, "dropped: too much waits") for each in dropped]

    def _hear_answers(self) -> None:
        while not self._answers.empty():
            waiting, error = self._answers.get()
            self._busy.discard(waiting.target)
            self._dirty = True
            self._outbox = self._outbox.failed(waiting, _now()) if error else self._outbox.told(waiting)
            again = next((each.due for each in self._outbox.waiting if each.is_same(waiting)), None)
            self._told.append(Told(waiting.notice, self._label(waiting), waiting.tries + 1, error, again))

    def _label(self, waiting: Waiting) -> str:
        return self._hooked.callers[waiting.target].label

    def _save(self) -> None:
        if not self._seat.remember(self._holder, self._memory()):
            raise AnotherNotifier(_taken(self._fleet, self._seat.look()))
        self._saved, self._dirty = time.monotonic(), False

    def _memory(self) -> dict[str, Any]:
        position = self._follower.position if self._follower is not None else None
        return {
            "watch": self._watch.to_json(),
            "outbox": self._outbox.to_json(),
            "position": None if position is None else _of_position(position),
        }


def _tell(caller: Caller, waiting: Waiting, answers: queue.SimpleQueue[tuple[Waiting, str]]) -> None:
    try:
        caller.tell(waiting.notice)
    except NotTold as error:
        answers.put((waiting, str(error)))
    except Exception as error:  # noqa: BLE001 - a thread ends here; without an answer this hook would never be told again
        answers.put((waiting, f"a defect of puffin-fleet, please report it: {type(error).__name__}"))
    else:
        answers.put((waiting, ""))


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _by() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"


def _taken(fleet: Fleet, seen: Sitting | None) -> str:
    who = seen.by if seen is not None else "somebody else"
    return (
        f"the hooks of fleet {fleet.name} are told by {who}: one notifier is enough\n"
        f"  end that one first; if it was killed, its place is free after {LEASE_S:g} s"
    )


def _of_position(position: Position) -> dict[str, Any]:
    # Of too many the newest; beyond these something is told again, with the same id.
    return {"complete_to": position.complete_to.isoformat(), "given": sorted(position.given)[-_MOST_IDS:]}


def _to_position(data: dict[str, Any] | None) -> Position | None:
    return None if not data else Position(datetime.fromisoformat(data["complete_to"]), frozenset(data["given"]))
