"""Why hosts could not be locked, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from fleet.errors import ExitCode, FleetError
from fleet.facts import Holder


class LockedError(FleetError):
    """Somebody else holds the lock of at least one host.

    Parameters
    ----------
    holders
        Who, by host.
    """

    exit_code = ExitCode.LOCKED

    def __init__(self, holders: Mapping[str, Holder]) -> None:
        lines = [f"{host}: {describe(holder)}" for host, holder in sorted(holders.items())]
        first = min(holders)
        lines.append(
            "Nothing was changed. Wait for it with --lock-timeout SECONDS; if whoever holds it is gone, "
            f"'puffin-fleet unlock --host {first}' removes it, and its time limit does so by itself."
        )
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
        lines = [
            f"{host}: {who} changed this host since it was looked at" + (f" ('{verb}')" if verb else "")
            for host, (who, verb) in sorted(by.items())
        ]
        super().__init__("\n".join([*lines, "Nothing was changed; run the command again."]))
        self.by = dict(by)


def describe(holder: Holder) -> str:
    """Who holds a lock, for what, since and until when, in local time.

    Parameters
    ----------
    holder
        The holder.
    """
    since = datetime.fromtimestamp(holder.since).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    limit = "time limit over" if holder.expired else f"time limit in {_duration(holder.left)}"
    return f"locked by {holder.who} for '{holder.verb}' since {since} ({_duration(holder.age)} ago; {limit})"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
