"""Action `control`: tell workers to finish, come back, recycle or end, and supervisord to go.

Request: host_root, operations [{operation, workers (null: all of the host), signal}], timeout (s),
lock (token, or null).
Reply: done [{operation, worker, changed}], and all of `states` afterwards.

Operations: `stop_file`, `clear_stop_file`, `recycle`, `clear_recycle`, `start`, `end` (SIGTERM: finish; only once to a
process, since a second one makes it give its calculation back), `signal`, `shutdown` (supervisord itself; refused while
workers run).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Failure, Json, plain_name, wait_until
from fleet.hostside.files import directory, write
from fleet.hostside.guard import require_lock
from fleet.hostside.places import ORDERS, host_root, socket_path, stop_file, stopped, suffixes
from fleet.hostside.rpc import (
    ACTIVE,
    ALREADY_STARTED,
    BAD_NAME,
    NOT_RUNNING,
    Supervisor,
    Unreachable,
    daemon_pid,
    observe,
    unanswered,
)
from fleet.hostside.states import ending, look, note_ending, running_pids

STEP = "controlling workers"
_ENDING = frozenset({"TERM", "QUIT"})
"""What a worker ends of, and nothing can have it go on."""


class Operation(NamedTuple):
    """One operation on some workers, or on the whole host.

    Parameters
    ----------
    operation
        One of `OPERATIONS`.
    workers
        Names; None for all.
    signal
        Such as TERM, for the operation that sends one.
    seconds
        How long to wait, where there is something to wait for.
    """

    operation: str
    workers: tuple[str, ...] | None
    signal: str
    seconds: float

    @classmethod
    def of(cls, entry: Json, seconds: float) -> Operation:
        """Read one operation of a request.

        Parameters
        ----------
        entry
            As in a request.
        seconds
            How long to wait.

        Raises
        ------
        Failure
            The name of a worker is none.
        """
        workers = entry.get("workers")
        names = None if workers is None else tuple(plain_name(name) for name in workers)
        return cls(entry["operation"], names, entry.get("signal", "TERM"), seconds)


def main(request: Json) -> Json:
    """Do the operations in their order.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The lock that it names is not ours any more, nothing is deployed here, or supervisord does not do it.
    """
    root = host_root(request)
    require_lock(request)
    if not (root / "etc").is_dir():
        raise Failure(f"nothing is deployed in {root}", STEP, "deploy to this host first")
    seconds = float(request.get("timeout", 20))
    orders = [Operation.of(entry, seconds) for entry in request["operations"]]
    for order in orders:
        if order.operation not in OPERATIONS:
            raise Failure(f"no operation {order.operation!r}", STEP)
    done = [entry for order in orders for entry in obey(root, order)]
    return {"done": done, **look(root)}


def obey(root: Path, order: Operation) -> list[Json]:
    """Do one operation.

    Parameters
    ----------
    root
        The host's own directory.
    order
        The operation.

    Returns
    -------
    list[Json]
        One entry for each worker: operation, worker, changed.

    Raises
    ------
    Failure
        supervisord does not answer, or refuses.
    """
    try:
        changed = OPERATIONS[order.operation](root, order)
    except Unreachable as error:
        raise unanswered(root, error, STEP) from error
    return [{"operation": order.operation, "worker": worker, "changed": done} for worker, done in changed.items()]


def _targets(root: Path, order: Operation) -> list[tuple[str, Path]]:
    """The stop files of workers, or the one for the whole host."""
    if order.workers is None:
        return [("*", stop_file(root))]
    return [(worker, stop_file(root, worker)) for worker in order.workers]


def _touch(path: Path) -> bool:
    if path.exists():
        return False
    write(path, b"", 0o600)
    return True


def _erase(path: Path) -> bool:
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def _stop_file(root: Path, order: Operation) -> dict[str, bool]:
    directory(root / ORDERS, 0o700)
    return {worker: _touch(path) for worker, path in _targets(root, order)}


def _clear_stop_file(root: Path, order: Operation) -> dict[str, bool]:
    """For the whole host, also the files of its single workers."""
    targets = _targets(root, order)
    if order.workers is None:
        targets += [(worker, stop_file(root, worker)) for worker in stopped(root)]
    return {worker: _erase(path) for worker, path in targets}


def _recycle(root: Path, order: Operation) -> dict[str, bool]:
    """Only workers that run: to another, the file would be an order to end at once when it is started.

    One that supervisord is about to try again (BACKOFF) has no process, and starts with what is there by then.
    """
    states = ACTIVE - {"BACKOFF"}
    running = {program["name"] for program in _observed(root)["programs"] if program["state"] in states}
    chosen = running if order.workers is None else running & set(order.workers)
    return {worker: _touch(root / "run" / f"recycle.{worker}") for worker in sorted(chosen)}


def _clear_recycle(root: Path, order: Operation) -> dict[str, bool]:
    names = suffixes(root / "run", "recycle.") if order.workers is None else order.workers
    return {worker: _erase(root / "run" / f"recycle.{worker}") for worker in names}


def _each(root: Path, order: Operation, method: str, *arguments: object, accept: Sequence[int]) -> dict[str, bool]:
    """One call of supervisord per worker, none of which is waited for."""
    supervisor = Supervisor(socket_path(root))
    known = [program["name"] for program in supervisor.programs()]
    names = _ours(root, known) if order.workers is None else order.workers
    unknown = sorted(set(names) - set(known))
    if unknown:
        hint = "deploy to this host to bring it up to date"
        raise Failure(f"supervisord knows no {', '.join(unknown)}", STEP, hint)
    done: dict[str, bool] = {}
    problems: list[str] = []
    for name in names:
        try:
            done[name] = supervisor.attempt(method, name, *arguments, accept=tuple(accept))
        except Failure as failure:
            problems.append(failure.what)
    if problems:
        raise Failure("; ".join(problems), STEP, f"look at {root / 'log'}")
    return done


def _ours(root: Path, programs: Sequence[str]) -> list[str]:
    """Those programs that are workers; somebody may have put others beside them."""
    # One that is being removed has no settings any more, but it is still called like a worker.
    called = re.compile(rf"{re.escape(root.name)}-[0-9]+")
    return [name for name in programs if called.fullmatch(name) or (root / "etc/workers" / f"{name}.yaml").exists()]


def _start(root: Path, order: Operation) -> dict[str, bool]:
    return _each(root, order, "startProcess", False, accept=(ALREADY_STARTED,))


def _end(root: Path, order: Operation) -> dict[str, bool]:
    """Whoever was cut off while it waited says it again; the calculation that runs must not pay for that."""
    supervisor = Supervisor(socket_path(root))
    programs = supervisor.programs()
    told = set(ending(root, programs))
    names = _ours(root, [program["name"] for program in programs]) if order.workers is None else order.workers
    fresh = [program for program in programs if program["name"] in names and program["name"] not in told]
    done = dict.fromkeys(names, False)
    for program in fresh:
        name = program["name"]
        try:
            done[name] = supervisor.attempt("signalProcess", name, "TERM", accept=(NOT_RUNNING, BAD_NAME))
        except Unreachable:
            note_ending(root, program)  # supervisord has the order, and obeys when it has time for it
            raise
        if done[name]:
            note_ending(root, program)
    return done


def _signal(root: Path, order: Operation) -> dict[str, bool]:
    if not Supervisor(socket_path(root)).answers():
        return _signal_orphans(root, order)
    programs = {program["name"]: program for program in Supervisor(socket_path(root)).programs()}
    done = _each(root, order, "signalProcess", order.signal, accept=(NOT_RUNNING, BAD_NAME))
    for name in done:
        if done[name] and order.signal in _ENDING:
            with contextlib.suppress(Failure):  # a full disk: they have been told all the same
                note_ending(root, programs[name])
    return done


def _signal_orphans(root: Path, order: Operation) -> dict[str, bool]:
    """Workers outlive a supervisord that was killed; their locks say which processes they are."""
    number = getattr(signal, f"SIG{order.signal}")
    pids = running_pids(root)
    chosen = {worker: pid for worker, pid in pids.items() if order.workers is None or worker in order.workers}
    for pid in chosen.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return dict.fromkeys(chosen, True)


def _shutdown(root: Path, order: Operation) -> dict[str, bool]:
    """It kills what runs when it goes, so nothing may run."""
    seen = _observed(root)
    pid = daemon_pid(root)
    if not seen["running"]:
        return {"*": False}
    busy = [program["name"] for program in seen["programs"] if program["state"] in ACTIVE]
    if busy:
        raise Failure(f"workers still run: {', '.join(busy)}", STEP, "stop them first, or wait for them")
    Supervisor(socket_path(root)).attempt("shutdown")
    if not wait_until(lambda: daemon_pid(root) is None, order.seconds):
        raise Failure(f"supervisord (pid {pid}) does not end", STEP, f"look at {root / 'log/supervisord.log'}")
    return {"*": True}


def _observed(root: Path) -> Json:
    """What `observe` says; that supervisord is silent for a moment does not mean that nothing runs."""
    seen = observe(root)
    if seen["running"] and not seen["reachable"]:
        raise Unreachable(seen["problem"])
    return seen


OPERATIONS: dict[str, Callable[[Path, Operation], dict[str, bool]]] = {
    "stop_file": _stop_file,
    "clear_stop_file": _clear_stop_file,
    "recycle": _recycle,
    "clear_recycle": _clear_recycle,
    "start": _start,
    "end": _end,
    "signal": _signal,
    "shutdown": _shutdown,
}
