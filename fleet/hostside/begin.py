"""Action `begin`: workers that were stopped work again; finds its own place, so one round trip.

Request: base_dir, fleet, host, patterns [of workers; null: all], resume (bool: also a host that is drained), only_look
(bool: nothing is done).
Reply: deployed (bool), host_root, told [workers that are to run; with only_look, that would be asked for], refused
(bool: the host is drained, and nothing was done), resumed (bool: it was drained, and no longer is), and all of
`states`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from fleet.hostside.common import Failure, Json
from fleet.hostside.control import Operation, obey
from fleet.hostside.halt import matching, workers_of
from fleet.hostside.places import drain_file, drained, host_root, stop_file, stopped
from fleet.hostside.rpc import observe
from fleet.hostside.states import look
from fleet.hostside.supervise import main as supervise

_SECONDS = 20.0
_LAST_MOMENTS_S = 2.0
"""What a worker needs to close its connections and end."""
_LOOK_AGAIN_S = 0.2


def main(request: Json) -> Json:
    """Take the orders to stop away, and have supervisord run the workers.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        supervisord cannot be started, or does not answer.
    """
    root = host_root(request)
    there = (root / "etc").is_dir() and (root / "current").is_symlink()
    was_drained = drained(root) is not None
    refused = was_drained and not request.get("resume")
    chosen: list[str] = []
    if request.get("only_look"):
        chosen = _chosen(root, request.get("patterns"))
    elif there and not refused:
        chosen = _start(root, request.get("patterns"))
    elif was_drained and not refused:
        # Drained before the first deploy, which may start it now.
        _lift_drain(root)
    resumed = was_drained and drained(root) is None
    reply = {"deployed": there, "host_root": str(root), "refused": refused, "resumed": resumed, "told": chosen}
    return {**reply, **look(root)}


def _lift_drain(root: Path) -> None:
    obey(root, Operation("clear_stop_file", None, "", _SECONDS))
    drain_file(root).unlink(missing_ok=True)


def _chosen(root: Path, patterns: Sequence[str] | None) -> list[str]:
    everyone = workers_of(root)
    return everyone if patterns is None else matching(everyone, patterns)


def _start(root: Path, patterns: Sequence[str] | None) -> list[str]:
    chosen = _chosen(root, patterns)
    if not chosen:
        return []
    told = set(chosen) if stop_file(root).exists() else set(chosen).intersection(stopped(root))
    told &= {one["name"] for one in observe(root)["programs"] if one["state"] == "RUNNING"} if told else set()
    if patterns is None:
        obey(root, Operation("clear_stop_file", None, "", _SECONDS))
    else:
        _start_only(root, chosen, workers_of(root))
    drain_file(root).unlink(missing_ok=True)
    supervise({"host_root": str(root)})
    done = obey(root, Operation("start", None if patterns is None else tuple(chosen), "", _SECONDS))
    _start_who_ends(root, told.intersection(entry["worker"] for entry in done if not entry["changed"]))
    return chosen


def _start_who_ends(root: Path, workers: AbstractSet[str]) -> None:
    """Start those that still ran, and end all the same: they looked at their order before it was taken away."""
    deadline = time.monotonic() + _LAST_MOMENTS_S
    while workers and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN_S)
        if stop_file(root).exists():
            return  # somebody has stopped them again
        workers = {name for name in workers - set(stopped(root)) if (root / "etc/workers" / f"{name}.yaml").exists()}
        ended = {one["name"] for one in observe(root)["programs"] if one["state"] == "EXITED"} & workers
        if ended:
            with contextlib.suppress(Failure):  # what was asked for is done; `status` shows who is down
                obey(root, Operation("start", tuple(sorted(ended)), "", _SECONDS))
        workers -= ended


def _start_only(root: Path, chosen: Sequence[str], everyone: Sequence[str]) -> None:
    """Where the whole host was stopped, the others stay so: each gets its own file before the common one goes."""
    if stop_file(root).exists():
        rest = tuple(name for name in everyone if name not in chosen)
        if rest:
            obey(root, Operation("stop_file", rest, "", _SECONDS))
    for name in chosen:
        stop_file(root, name).unlink(missing_ok=True)
    stop_file(root).unlink(missing_ok=True)
