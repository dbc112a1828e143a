"""What was done to a fleet, from what each host wrote down. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fleet.deployment.deed import Result
from fleet.reach.facts import Holder

RUNNING = "running"
"""The outcome on a host whose lock is still held."""


@dataclass(frozen=True)
class AuditEntry:
    """One deed on one host, as the host wrote it down.

    Parameters
    ----------
    host
        The host.
    id, verb, who
        Of the deed.
    began, ended
        Seconds since 1970 by the host's clock; None where not known, or not yet.
    outcome
        done, failed, unchanged, interrupted or running.
    error
        Why it failed; may be empty.
    release
        The release the host had then; may be empty.
    missing
        Other hosts that should have been changed and could not be told, and why.
    """

    host: str
    id: str
    verb: str
    who: str
    began: float | None
    ended: float | None
    outcome: str
    error: str
    release: str
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PastDeed:
    """One run of a command on some hosts.

    Parameters
    ----------
    id, verb, who
        Its name, the command, and user@machine.
    began
        Seconds since 1970, the earliest of all hosts; None where not known.
    hosts
        What came of each, by name.
    """

    id: str
    verb: str
    who: str
    began: float | None
    hosts: tuple[AuditEntry, ...]

    @property
    def when(self) -> float | None:
        """When it began, seconds since 1970, by the clock of whoever did it; else by that of a host."""
        try:
            return datetime.strptime(self.id.partition("-")[0], "%Y%m%dT%H%M%S%z").timestamp()
        except ValueError:
            return self.began

    @property
    def outcome(self) -> str:
        """The worst of all hosts; unchanged only where nothing changed anywhere."""
        found = {entry.outcome for entry in self.hosts}
        order = (RUNNING, Result.FAILED.value, Result.INTERRUPTED.value, Result.DONE.value, Result.UNCHANGED.value)
        return next((outcome for outcome in order if outcome in found), "unknown")

    @property
    def counts(self) -> Mapping[str, int]:
        """How many hosts had each outcome."""
        return Counter(entry.outcome for entry in self.hosts)

    @property
    def releases(self) -> tuple[str, ...]:
        """The releases the hosts had then."""
        return tuple(sorted({entry.release for entry in self.hosts if entry.release}))


def read_entries(host: str, lines: Iterable[str], holder: Holder | None) -> list[AuditEntry]:
    """Read the lines of a host; what cannot be read is left out, since a power cut can damage a line.

    Parameters
    ----------
    host
        The host.
    lines
        Of its audit, the oldest first.
    holder
        Who holds its lock now.
    """
    found = [entry for line in lines if (entry := _read(host, line)) is not None]
    if holder is None:
        return found
    outcome = Result.INTERRUPTED.value if holder.expired else RUNNING
    error = "it was never ended: its time limit is over" if holder.expired else ""
    return [*found, AuditEntry(host, holder.id, holder.verb, holder.who, holder.since, None, outcome, error, "")]


def _read(host: str, line: str) -> AuditEntry | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return None
    texts = {key: str(value.get(key) or "") for key in ("verb", "who", "outcome", "error", "release")}
    missing = value.get("missing")
    others = {str(name): str(why) for name, why in missing.items()} if isinstance(missing, dict) else {}
    began, ended = _number(value, "began"), _number(value, "ended")
    return AuditEntry(host, value["id"], began=began, ended=ended, missing=others, **texts)


def _number(value: Mapping[str, object], key: str) -> float | None:
    found = value.get(key)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def merge(entries: Iterable[AuditEntry], asked: Container[str] | None = None) -> list[PastDeed]:
    """Put together what hosts wrote down about the same deed, the newest first.

    Parameters
    ----------
    entries
        Of all hosts; where one wrote more than once about a deed, the last one counts. Hosts that could not be told
        of a deed are known from those that were.
    asked
        The hosts that are of interest; None for all.
    """
    found: dict[str, dict[str, AuditEntry]] = {}
    left_out: dict[str, dict[str, AuditEntry]] = {}
    for entry in entries:
        found.setdefault(entry.id, {})[entry.host] = entry
        for host, why in ((host, why) for host, why in entry.missing.items() if asked is None or host in asked):
            told = AuditEntry(host, entry.id, entry.verb, entry.who, None, None, Result.FAILED.value, why, "")
            left_out.setdefault(entry.id, {})[host] = told
    # What a host wrote down itself comes before what others know of it.
    found = {id_: {**left_out.get(id_, {}), **hosts} for id_, hosts in found.items()}
    # Not by the hosts' clocks, which differ: the id begins with the time by the clock of whoever did it.
    return [_deed(found[id_]) for id_ in sorted(found, reverse=True)]


def _deed(hosts: Mapping[str, AuditEntry]) -> PastDeed:
    entries: Sequence[AuditEntry] = sorted(hosts.values(), key=lambda entry: entry.host)
    first = entries[0]
    began = [entry.began for entry in entries if entry.began is not None]
    return PastDeed(first.id, first.verb, first.who, min(began, default=None), tuple(entries))
