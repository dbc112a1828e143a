"""Reads the logs of many hosts at the same time, each over its own connection, and goes on after an interruption."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.errors import FleetError, RemoteError
from fleet.hosts.access import Remotes
from fleet.hosts.inventory import Host
from fleet.reach.execute import as_fleet_error, follow
from fleet.reach.logs import LogLine, Merge, messages_of
from fleet.reach.remote import ConnectionLost, UnreachableError

PATIENCE = 4.0

_HOLD = 0.5
_AGAIN = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before each new attempt to connect."""

_BATCHES = 16
_LINES = 5000
"""Of one host, taken but not yet shown: with more of them it is read no further."""


@dataclass(frozen=True)
class TailNotice:
    """Something about a host that is not in its logs; `error` where that is why."""

    host: str
    what: str
    error: FleetError | None = None


@dataclass(frozen=True)
class _Lines:
    host: str
    lines: Sequence[LogLine]


@dataclass(frozen=True)
class _Connected:
    host: str


@dataclass(frozen=True)
class _CaughtUp:
    host: str


@dataclass(frozen=True)
class _Ended:
    """A host is not read any more; with `again`, not until a new connection is made."""

    host: str
    error: FleetError | None = None
    again: bool = False


class _Progress:
    """How far one host's logs were read, as it is asked to go on."""

    def __init__(self) -> None:
        self.positions: dict[str, Any] | None = None
        """None until the host has said where it begins; with no logs there are none, and what comes is all new."""

    def hear(self, entry: Mapping[str, Any]) -> None:
        if "positions" in entry:
            self.positions = {**(self.positions or {}), **entry["positions"]}


class Tailing:
    """The logs of some hosts as one.

    Parameters
    ----------
    remotes
        Connections to the hosts.
    hosts
        The hosts.
    request
        What a host is asked; see `fleet.hostside.tail`.
    follow
        Whether to go on with what is added.
    patience
        Seconds for which lines of other hosts wait for a host that has not said its own yet.
    """

    def __init__(
        self,
        remotes: Remotes,
        hosts: Sequence[Host],
        request: Callable[[Host], Mapping[str, Any]],
        follow: bool,
        patience: float = PATIENCE,
    ) -> None:
        self._remotes = remotes
        self._hosts = hosts
        self._request = request
        self._follow = follow
        self._patience = patience
        self._arrived: queue.SimpleQueue[_Lines | _Connected | _CaughtUp | _Ended | TailNotice] = queue.SimpleQueue()
        self._room = {host.name: threading.Semaphore(_BATCHES) for host in hosts}
        self._taken = dict.fromkeys(self._room, 0)
        self._seen: set[str] = set()
        self._away: set[str] = set()
        self.failed: dict[str, FleetError] = {}
        """Hosts that could not be read, or not to the end, and why."""

    def lines(self) -> Iterator[LogLine | TailNotice]:
        """Lines in the order of their times, and what happens to connections; with `follow` while there is a host."""
        merge = Merge(self._room, time.monotonic(), self._patience, _HOLD)
        for host in self._hosts:
            # Daemons: a host that hangs must not keep the command from ending.
            threading.Thread(target=self._read, args=(host,), daemon=True).start()
        late: set[str] = set()
        while len(self._away) < len(self._hosts):
            yield from self._take(merge)
            for name in merge.late(time.monotonic()):
                if name not in late and len(self._hosts) > 1:
                    late.add(name)
                    answered = name in self._seen
                    what = "is still reading its logs" if answered else "has not answered yet"
                    yield TailNotice(name, f"{what}; the others are shown meanwhile")
            yield from merge.ready(time.monotonic())
            self._make_room(merge)
        yield from merge.rest()

    def _take(self, merge: Merge) -> Iterator[TailNotice]:
        """Take what has arrived; wait for it for a moment."""
        try:
            item = self._arrived.get(timeout=_HOLD / 4)
        except queue.Empty:
            return
        if isinstance(item, TailNotice):
            yield item
        elif isinstance(item, _Lines):
            merge.add(item.lines, time.monotonic())
            self._taken[item.host] += 1
        elif isinstance(item, _Connected):
            self._seen.add(item.host)
            self._away.discard(item.host)
            if self.failed.pop(item.host, None) is not None:
                yield TailNotice(item.host, "is connected again; its logs go on where they were")
        else:
            merge.caught_up(item.host)
            if isinstance(item, _Ended):
                yield from self._ended(item)

    def _ended(self, ended: _Ended) -> Iterator[TailNotice]:
        # Who never answered may yet do so, but nobody waits for that alone.
        if not ended.again or ended.host not in self._seen:
            self._away.add(ended.host)
        if ended.error is None:
            return
        if ended.host not in self.failed:
            yield self._told(ended.host, ended.error, ended.again)
        self.failed[ended.host] = ended.error

    def _told(self, host: str, error: FleetError, again: bool) -> TailNotice:
        if not again:
            return TailNotice(host, "", error)
        if host not in self._seen:
            return TailNotice(host, "is tried again from time to time", error)
        what = error.what if isinstance(error, RemoteError) else str(error)
        return TailNotice(host, f"is away: {what}; connecting again")

    def _make_room(self, merge: Merge) -> None:
        for name, taken in self._taken.items():
            if taken and merge.waiting(name) < _LINES:
                self._room[name].release(taken)
                self._taken[name] = 0

    def _read(self, host: Host) -> None:
        """Read one host, in a thread of its own."""
        progress = _Progress()
        attempt = 0
        while True:
            try:
                for _ in self._connection(host, progress):
                    attempt = 0
            except (ConnectionLost, UnreachableError) as error:
                self._arrived.put(_Ended(host.name, error, again=self._follow))
                if not self._follow:
                    return
            except Exception as error:  # noqa: BLE001 - a host ends here, and the others go on
                self._arrived.put(_Ended(host.name, as_fleet_error(host.name, error)))
                return
            else:
                self._arrived.put(_Ended(host.name))
                return
            time.sleep(_AGAIN[min(attempt, len(_AGAIN) - 1)])
            attempt += 1
            self._remotes.renew(host)

    def _connection(self, host: Host, progress: _Progress) -> Iterator[None]:
        """Read until the connection ends; `progress` always holds what has arrived whole."""
        connected = False
        for entry in follow(self._remotes[host.name], "tail", {**self._request(host), "resume": progress.positions}):
            if not connected:
                self._arrived.put(_Connected(host.name))
                connected = True
            self._hand_on(host.name, entry)
            progress.hear(entry)
            if entry.get("ok"):
                return
            yield
        raise ConnectionLost(host.name, "reading logs", "the program on the host ended", "try again")

    def _hand_on(self, host: str, entry: Mapping[str, Any]) -> None:
        if "messages" in entry:
            self._room[host].acquire()
            self._arrived.put(_Lines(host, messages_of(host, entry)))
        if "caught_up" in entry:
            self._arrived.put(_CaughtUp(host))
        if "cut" in entry:
            what = f"{entry['cut']} was thrown away before all of it was read: lines may be missing"
            self._arrived.put(TailNotice(host, what))
