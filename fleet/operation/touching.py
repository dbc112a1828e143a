"""Orders to one worker, or to all of one host, and a look at what they write; for `top`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fleet.errors import FleetError, RemoteError
from fleet.hosts.access import Remotes, open_remotes
from fleet.hosts.inventory import Fleet, Host
from fleet.reach.execute import ask, follow
from fleet.reach.facts import parse_states
from fleet.reach.logs import messages_of

_TIMEOUT_S = 60.0


class Order(Enum):
    """What can be done with a worker."""

    STOP = "stop"
    START = "start"
    RESTART = "restart"


@dataclass(frozen=True)
class Target:
    """A worker of a host, or all of them where none is named."""

    host: Host
    worker: str = ""

    def __str__(self) -> str:
        return self.worker or f"all workers of {self.host.name}"

    @property
    def workers(self) -> list[str] | None:
        """For the host's side: None for all."""
        return [self.worker] if self.worker else None


_OPERATIONS = {
    Order.STOP: ("stop_file",),
    Order.START: ("clear_recycle", "clear_stop_file", "start"),
    Order.RESTART: ("recycle",),
}
_MEANING = {
    Order.STOP: "They finish their calculations first, and stay stopped until started.",
    Order.START: "What was stopped takes work again.",
    Order.RESTART: "They finish their calculations, then start again with the release and settings of their host.",
}


def meaning(order: Order) -> str:
    """What an order does, for whoever is asked to confirm it.

    Parameters
    ----------
    order
        The order.
    """
    return _MEANING[order]


def give(fleet: Fleet, target: Target, order: Order) -> str:
    """Give an order.

    Parameters
    ----------
    fleet
        The fleet.
    target
        To whom.
    order
        What to do.

    Returns
    -------
    str
        What came of it.

    Raises
    ------
    RemoteError
        The host cannot be reached, or cannot do it.
    """
    request = _place(fleet, target.host)
    with open_remotes(fleet, [target.host]) as remotes:
        remote = remotes[target.host.name]
        if order is Order.START and not target.worker:
            ask(remote, "control", {**request, "operations": [_operation("clear_stop_file", target)]}, _TIMEOUT_S)
            ask(remote, "supervise", request, _TIMEOUT_S)
        operations = [_operation(name, target) for name in _OPERATIONS[order]]
        reply = ask(remote, "control", {**request, "operations": operations}, _TIMEOUT_S)
    states = parse_states(target.host.name, reply)
    if order is Order.START and states.stop:
        hint = f"start all of {target.host.name}"
        raise RemoteError(
            target.host.name, "starting", f"the whole host is told to stop, so {target} stops again", hint
        )
    changed = sorted({entry["worker"] for entry in reply["done"] if entry["changed"]} - {"*"})
    told = ", ".join(changed) if changed and order is Order.RESTART else str(target)
    if order is Order.RESTART and not changed:
        return f"{target}: nothing runs there that could be restarted, or it is told so already"
    return f"{told}: told to {order.value}"


def lines_of(
    fleet: Fleet, target: Target, workers: list[str], remotes: Remotes, count: int
) -> Iterator[tuple[str, str]]:
    """The last lines of logs, and what is added to them, until the connection is closed.

    Parameters
    ----------
    fleet
        The fleet.
    target
        Whose logs.
    workers
        The workers of its host.
    remotes
        The connection to it.
    count
        How many lines of each to begin with.

    Yields
    ------
    tuple
        Worker and line.

    Raises
    ------
    RemoteError
        The host cannot be reached.
    """
    names = target.workers or workers
    patterns = names if len(names) == 1 else []
    request = {**_place(fleet, target.host), "workers": patterns, "lines": count, "follow": True}
    for entry in follow(remotes[target.host.name], "tail", request):
        for line in messages_of(target.host.name, entry):
            if line.worker in names:
                yield line.worker, line.text


def host_named(fleet: Fleet, name: str) -> Host:
    """The host of that name.

    Parameters
    ----------
    fleet
        The fleet.
    name
        Its name.

    Raises
    ------
    FleetError
        hosts.yaml has none.
    """
    for host in fleet.hosts:
        if host.name == name:
            return host
    raise FleetError(f"{name} is not in {fleet.source}: nobody knows how to reach it")


def _operation(name: str, target: Target) -> dict[str, Any]:
    return {"operation": name, "workers": target.workers}


def _place(fleet: Fleet, host: Host) -> dict[str, Any]:
    return {"fleet": fleet.name, "host": host.name, "base_dir": host.base_dir}
