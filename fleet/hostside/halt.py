"""Action `halt`: workers stop when their calculations are done, and stay down; finds its own place, so one round trip.

Request: base_dir, fleet, host, patterns [of workers; null: the whole host], now (bool: calculations are given back),
drain {who, why} (or null: a stop is all there is to it).
Reply: deployed (bool), host_root, told [workers, or "*" for the whole host], changed (bool: it was not told so before),
and all of `states`.

A drain is written down also where nothing is deployed yet: the first deploy must not start workers under maintenance.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fleet.hostside.common import Json
from fleet.hostside.control import Operation, obey
from fleet.hostside.files import directory, write
from fleet.hostside.places import ORDERS, drain_file, drained, host_root
from fleet.hostside.states import look, running_pids

_SECONDS = 20.0


def main(request: Json) -> Json:
    """Write the stop files, then tell who must not finish.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        A stop file cannot be written, a name is none, or supervisord does not answer.
    """
    root = host_root(request)
    there = (root / "etc").is_dir()
    patterns = request.get("patterns")
    chosen = None if patterns is None else matching(workers_of(root), patterns)
    drain = request.get("drain")
    obeyed = (there or bool(drain)) and chosen != []
    changed = bool(drain) and drained(root) is None
    if drain:
        _note(root, drain)
    if obeyed:
        changed |= any(entry["changed"] for entry in _order(root, "stop_file", chosen))
    if obeyed and there and request.get("now"):
        _order(root, "signal", chosen)
    told = ["*"] if chosen is None else chosen
    reply = {"deployed": there, "host_root": str(root), "told": told if obeyed else [], "changed": changed}
    return {**reply, **look(root)}


def _order(root: Path, operation: str, workers: list[str] | None) -> list[Json]:
    names = None if workers is None else tuple(workers)
    return obey(root, Operation(operation, names, "QUIT", _SECONDS))


def _note(root: Path, drain: Json) -> None:
    directory(root / ORDERS, 0o700)
    note = {"who": str(drain["who"]), "why": str(drain["why"]), "since": time.time()}
    write(drain_file(root), json.dumps(note).encode(), 0o600)


def workers_of(root: Path) -> list[str]:
    """The workers of this host: those with settings, and those that still run without.

    Parameters
    ----------
    root
        The host's own directory.
    """
    names = {path.stem for path in (root / "etc/workers").glob("*.yaml")} | set(running_pids(root))
    return sorted(names)


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Those names that match any of the patterns.

    Parameters
    ----------
    names
        The names.
    patterns
        As a shell has them.
    """
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
