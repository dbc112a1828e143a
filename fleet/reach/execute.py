"""Doing things on hosts: one action on one host, one function on many hosts at a time.

Every host's result is collected; one that fails, in whatever way, never disturbs the others.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from fleet.errors import FleetError, RemoteError
from fleet.hostside import source
from fleet.reach.answers import parse_reply, parse_stream
from fleet.reach.packing import build_program
from fleet.reach.remote import ConnectionLost, HostResult, Remote
from puffin.errors import PuffinError

log = logging.getLogger(__name__)

Say = Callable[[str], None]
"""Told in a few words what is being done."""


class Audience(Protocol):
    """Who is told how work on many hosts goes."""

    def step(self, host: str, what: str) -> None:
        """A host is at something."""

    def finished(self, host: str, ok: bool) -> None:
        """A host is done."""


THIS_MACHINE = "this machine"
"""Under this name an audience hears of what is done where the operator sits."""


def say_for(audience: Audience, host: str = THIS_MACHINE) -> Say:
    """Tell an audience what one host is at.

    Parameters
    ----------
    audience
        Who is told.
    host
        The host's name.
    """
    return lambda what: audience.step(host, what)


Item = TypeVar("Item")
Value = TypeVar("Value")

INTERRUPTED = "interrupted"
"""The step at which hosts failed that had not come to an end when Ctrl-C came."""
DEFAULT_TIMEOUT = 120.0


class Happening(Enum):
    """What `fan_out` tells about a host while it works."""

    STARTED = "started"
    FINISHED = "finished"


@dataclass(frozen=True)
class HostEvent(Generic[Value]):
    """Something happened to one host; `result` comes with FINISHED."""

    host: str
    what: Happening
    result: HostResult[Value] | None = None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while hosts were being worked on.

    Parameters
    ----------
    results
        One for every host, in the order given: what had finished, and for the rest an error that says
        whether it had been started.

    `still_locked` are the hosts that could not be told that the work is over.
    """

    def __init__(self, results: Sequence[HostResult[Any]]) -> None:
        super().__init__("interrupted")
        self.results = tuple(results)
        self.still_locked: tuple[str, ...] = ()


def ask(remote: Remote, action: str, request: Mapping[str, Any], timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
    """Do one action of `fleet.hostside` on a host, in one round trip.

    Parameters
    ----------
    remote
        The host.
    action
        Name of the module of `fleet.hostside`; its docstring says what it is asked and what it replies.
    request
        What it is asked.
    timeout
        Seconds to wait for the reply.

    Raises
    ------
    RemoteError
        The host cannot be reached, or cannot do it.
    """
    marker = new_marker()
    with naming_step(action):
        result = remote.call(build_program(action, request, marker, source), timeout)
    return parse_reply(remote.name, action, result, marker, remote.python)


@contextmanager
def naming_step(action: str) -> Iterator[None]:
    """Say in which step a connection was lost: the connection itself does not know.

    Parameters
    ----------
    action
        The step, as a name.
    """
    try:
        yield
    except ConnectionLost as lost:
        raise ConnectionLost(lost.host, action.replace("_", " "), lost.what, lost.hint) from lost


def follow(remote: Remote, action: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Do an action that goes on and on, such as `tail` with follow; give its entries as they come.

    Parameters
    ----------
    remote
        The host.
    action
        Name of the module of `fleet.hostside`.
    request
        What it is asked.

    Raises
    ------
    RemoteError
        The host cannot be reached, or cannot do it; also later, while entries are read.
    """
    marker = new_marker()
    chunks = remote.stream(build_program(action, request, marker, source))
    return parse_stream(remote.name, action, chunks, marker)


def listen(
    remote: Remote, action: str, request: Mapping[str, Any], seconds: float
) -> tuple[list[dict[str, Any]], bool]:
    """The entries of an action that goes on until it has said all, and whether it has.

    A stream has no time limit of its own: on a host that hangs it never ends.

    Parameters
    ----------
    remote
        The host.
    action, request
        As for `ask`.
    seconds
        How long to listen.
    """
    heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    ended = threading.Event()

    def read() -> None:
        try:
            for entry in follow(remote, action, request):
                heard.put(entry)
            ended.set()
        except (FleetError, OSError) as error:
            log.debug("%s on %s: %s", action, remote.name, error)
        finally:
            heard.put(None)

    # A daemon: one that hangs must not keep the program from ending.
    threading.Thread(target=read, name=f"listening to {remote.name}", daemon=True).start()
    deadline, entries = time.monotonic() + seconds, []
    with contextlib.suppress(queue.Empty):
        while (entry := heard.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            entries.append(entry)
    return entries, ended.is_set()


def new_marker() -> str:
    """A word that no start-up file prints by chance."""
    return "puffin-" + secrets.token_hex(12)


def fan_out(
    hosts: Mapping[str, Item],
    function: Callable[[Item], Value],
    parallel: int,
    on_event: Callable[[HostEvent[Value]], None] | None = None,
) -> list[HostResult[Value]]:
    """Call a function for each host, at most `parallel` at a time.

    Parameters
    ----------
    hosts
        What the function gets, by the name of the host.
    function
        Called in a thread for each host; what it raises becomes that host's result.
    parallel
        How many hosts at a time, at least 1.
    on_event
        Called in this thread when a host is started or finished.

    Returns
    -------
    list of HostResult
        One for every host, in the order of `hosts`.

    Raises
    ------
    Interrupted
        On Ctrl-C: at once; no further host is started. Hosts under way end when their remotes are closed.
    """
    work: queue.SimpleQueue[tuple[str, Item]] = queue.SimpleQueue()
    for entry in hosts.items():
        work.put(entry)
    events: queue.SimpleQueue[HostEvent[Value]] = queue.SimpleQueue()
    stop = threading.Event()
    # Daemons: a thread that waits for a dead host must not keep the program from ending.
    threads = [
        threading.Thread(target=_work, args=(work, function, events, stop), daemon=True)
        for _ in range(max(1, min(parallel, len(hosts))))
    ]
    return _collect(list(hosts), threads, events, stop, on_event)


def _work(
    work: queue.SimpleQueue[tuple[str, Item]],
    function: Callable[[Item], Value],
    events: queue.SimpleQueue[HostEvent[Value]],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            host, item = work.get_nowait()
        except queue.Empty:
            return
        events.put(HostEvent(host, Happening.STARTED))
        events.put(HostEvent(host, Happening.FINISHED, _one(host, item, function)))


def _one(host: str, item: Item, function: Callable[[Item], Value]) -> HostResult[Value]:
    started = time.monotonic()
    try:
        value = function(item)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a host ends here, and the others go on
        return HostResult(host, error=as_fleet_error(host, error), seconds=time.monotonic() - started)
    return HostResult(host, value, seconds=time.monotonic() - started)


def as_fleet_error(host: str, error: BaseException) -> FleetError:
    """Whatever ended the work on a host, as an error for people.

    Parameters
    ----------
    host
        The host.
    error
        What was raised.
    """
    log.debug("%s failed", host, exc_info=error)
    if isinstance(error, FleetError):
        return error
    if isinstance(error, PuffinError):
        return FleetError(str(error))
    hint = "this is a defect of puffin-fleet: please report it"
    unexpected = RemoteError(host, "internal error", f"{type(error).__name__}: {error}", hint)
    unexpected.__cause__ = error
    return unexpected


def _collect(
    names: Sequence[str],
    threads: Sequence[threading.Thread],
    events: queue.SimpleQueue[HostEvent[Value]],
    stop: threading.Event,
    on_event: Callable[[HostEvent[Value]], None] | None,
) -> list[HostResult[Value]]:
    started: set[str] = set()
    results: dict[str, HostResult[Value]] = {}
    try:
        # Here, since Ctrl-C may come while they are started.
        for thread in threads:
            thread.start()
        while len(results) < len(names):
            event = events.get()
            started.add(event.host)
            if event.result is not None:
                results[event.host] = event.result
            if on_event is not None:
                on_event(event)
    except KeyboardInterrupt as error:
        stop.set()
        while not events.empty():
            event = events.get()
            started.add(event.host)
            if event.result is not None:
                results[event.host] = event.result
        rest = {name: _unfinished(name, name in started) for name in names if name not in results}
        raise Interrupted([results.get(name) or rest[name] for name in names]) from error
    finally:
        stop.set()
    return [results[name] for name in names]


def _unfinished(host: str, started: bool) -> HostResult[Any]:
    if started:
        error = RemoteError(host, INTERRUPTED, "it was being worked on", "the next run completes what is missing")
    else:
        error = RemoteError(host, INTERRUPTED, "not started")
    return HostResult(host, error=error)
