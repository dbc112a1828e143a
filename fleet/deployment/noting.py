"""What a deploy leaves in the database: which release each host is to run, and what became of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

from fleet.deployment.deed import Deed
from fleet.deployment.difftext import mask_secrets
from fleet.deployment.host_deploy import Deployed
from fleet.deployment.roller import NotBegun, PutBack
from fleet.deployment.survey import HostWork
from fleet.errors import FleetError
from fleet.hosts.inventory import Fleet
from fleet.reach.remote import HostResult
from puffin.errors import DatabaseError
from puffin.store import Event, Store


def note_unchanged(fleet: Fleet, store: Store, works: Sequence[HostWork]) -> None:
    """Leave word of hosts that are as they should be: an earlier deploy may have had no database to do so.

    Parameters
    ----------
    fleet
        The fleet.
    store
        Its database; where it is away, the next deploy does it.
    works
        What was found on the hosts.
    """
    with contextlib.suppress(DatabaseError):
        noted = store.control.releases(fleet.name)
        unchanged = {work.host.name: work.release for work in works if work.plan.empty}
        missing = {host: release for host, release in unchanged.items() if noted.get(host) != release}
        store.control.note_releases(fleet.name, missing)


def leave_word(
    fleet: Fleet,
    store: Store,
    deed: Deed,
    releases: Mapping[str, str],
    results: Sequence[HostResult[Deployed]],
    missing: Mapping[str, FleetError],
) -> tuple[FleetError, ...]:
    """Leave word of hosts that a deploy is over with.

    Parameters
    ----------
    fleet
        The fleet.
    store
        Its database.
    deed
        The command that deploys.
    releases
        By host, the one that it was to get.
    results
        What became of the hosts.
    missing
        Hosts that could not even be looked at, and why.

    Returns
    -------
    tuple of FleetError
        That it could not be noted; empty if it was.
    """
    done = {result.host: releases[result.host] for result in results if result.error is None}
    errors = {**missing, **{result.host: result.error for result in results if result.error is not None}}
    events = [
        *(Event("deployed", "", host, fleet.name, detail=f"release {it} by {deed.who}") for host, it in done.items()),
        # Those that were never begun are as they were.
        *(_bad_news(fleet, deed, host, error) for host, error in errors.items() if not isinstance(error, NotBegun)),
    ]
    try:
        store.control.note_releases(fleet.name, done)
        if events:
            store.events.write([(time.time(), event) for event in events])
    except DatabaseError as error:
        return (FleetError(f"the deploy could not be noted in the database: {error}"),)
    return ()


def _bad_news(fleet: Fleet, deed: Deed, host: str, error: FleetError) -> Event:
    kind = "put_back" if isinstance(error, PutBack) else "not_deployed"
    why = mask_secrets(str(error)).removeprefix(f"{host}: ")
    return Event(kind, "", host, fleet.name, detail=f"{deed.verb} by {deed.who}: {why}")
