"""Lost hosts and the empty queue, which nobody notes: they follow from two looks at the database; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fleet.notify.notices import Kind, Notice, together
from fleet.watch.status import WorkerStatus
from fleet.words import duration

_CONFIRM_S = 100.0
"""How long a host that is silent is given to report, in case it was the database that was away: workers report every
75 s."""


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
    notices = together(notices)
    if watch.was_open and seen.any_open is False:
        notices.append(_of_empty(seen))
    return LastLook(silent, watch.was_open if seen.any_open is None else seen.any_open), notices


def _silent_hosts(seen: Seen) -> dict[str, datetime]:
    """Hosts all of whose workers that did not say goodbye are silent, and when the last of these reported."""
    of_host: dict[str, list[WorkerStatus]] = {}
    for each in seen.statuses:
        if each.record.host in seen.hosts and not each.record.has_ended and each.record.seen is not None:
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
