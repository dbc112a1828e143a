"""Finds the jobs that are installed, through the entry points ``puffin.jobs``."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points

from puffin.jobs.base import JobKind

GROUP = "puffin.jobs"


def discover(wanted: Collection[str] = ()) -> tuple[JobKind, ...]:
    """Every job of every provider, sorted by name.

    Providers can be large, so one that cannot have anything wanted any more is not loaded.

    Where two providers have the same order, the first in the order of their entry points' names wins; so the
    native ``sleep`` stands before that of SCINE Puffin. A provider that cannot be loaded is reported as a kind
    with a problem, not as an error: the other jobs are still good.

    Parameters
    ----------
    wanted
        The only jobs that matter; empty for all.

    Returns
    -------
    tuple[JobKind, ...]
        The kinds.
    """
    kinds: dict[str, JobKind] = {}
    for provider in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if wanted and kinds.keys() >= set(wanted):
            break
        for kind in _kinds_of(provider):
            kinds.setdefault(kind.order, kind)
    return tuple(kinds[order] for order in sorted(kinds))


def _kinds_of(provider: EntryPoint) -> list[JobKind]:
    try:
        return list(provider.load()())
    # A provider is somebody else's code, and may fail in any way while it is imported.
    except Exception as error:  # noqa: BLE001
        return [JobKind(provider.name, provider.name, (), provider.value, problem=f"cannot be loaded: {error}")]
