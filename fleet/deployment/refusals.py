"""Why hosts could not be locked, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from fleet.errors import ExitCode, FleetError
from fleet.hosts.names import condensed
from fleet.reach.facts import Holder
from fleet.words import duration

LIMIT_S = 900.0
"""For how long a lock holds if whoever has it falls silent; it is renewed each quarter of that."""

_NAMED = 5


class LockedError(FleetError):
    """Somebody else holds the lock of at least one host.

    Parameters
    ----------
    holders
        Who, by host.
    """

    exit_code = ExitCode.LOCKED

    def __init__(self, holders: Mapping[str, Holder]) -> None:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for host, holder in sorted(holders.items()):
            groups.setdefault((holder.id, holder.who, holder.verb), []).append(host)
        lines = [f"{_some(hosts)}: {describe(holders[hosts[0]])}" for hosts in groups.values()]
        where = f" --host {min(holders)}" if len(holders) == 1 else ""
        lines.append("Nothing was changed. Wait for it with --lock-timeout SECONDS; if whoever holds it is gone,")
        lines.append(f"'puffin-fleet unlock{where}' removes it, and anybody can take it when its time limit is over.")
        super().__init__("\n".join(lines))
        self.holders = dict(holders)


class ChangedMeanwhile(FleetError):
    """A host was changed by somebody else since it was looked at: what was planned may be wrong.

    Parameters
    ----------
    by
        Who changed it and with which verb, by host.
    """

    exit_code = ExitCode.LOCKED

    def __init__(self, by: Mapping[str, tuple[str, str]]) -> None:
        groups: dict[tuple[str, str], list[str]] = {}
        for host, deed in sorted(by.items()):
            groups.setdefault(deed, []).append(host)
        lines = [
            f"{_some(hosts)}: {who} changed {_these(hosts)} looked at" + (f" ('{verb}')" if verb else "")
            for (who, verb), hosts in groups.items()
        ]
        super().__init__("\n".join([*lines, "Nothing was changed; run the command again."]))
        self.by = dict(by)


def _some(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:_NAMED]) + (f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else "")


def _these(hosts: Sequence[str]) -> str:
    return "these hosts since they were" if len(hosts) > 1 else "this host since it was"


def still_locked(hosts: Sequence[str]) -> str:
    """What to say of hosts that were not there to hear that what was done is over.

    Parameters
    ----------
    hosts
        Their names.
    """
    named = " ".join(f"--host {host}" for host in hosts)
    until = f"for up to {duration(LIMIT_S)}, or until 'puffin-fleet unlock {named}'"
    return f"{condensed(hosts)}: cannot be reached, so the lock stays {until}"


def silent_s(holder: Holder) -> float | None:
    """For how long nobody has renewed a lock, in seconds, where that is longer than a command that runs takes.

    Parameters
    ----------
    holder
        The holder.
    """
    silent = LIMIT_S - holder.left
    return silent if silent > LIMIT_S / 2 else None


def describe(holder: Holder) -> str:
    """Who holds a lock, for what, since and until when, in local time.

    Parameters
    ----------
    holder
        The holder.
    """
    since = datetime.fromtimestamp(holder.since).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    limit = "time limit over" if holder.expired else f"time limit in {duration(holder.left)}"
    return f"locked by {holder.who} for '{holder.verb}' since {since} ({duration(holder.age)} ago; {limit})"
