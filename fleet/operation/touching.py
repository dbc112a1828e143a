"""Orders to one worker, or to all of one host, and a look at what they write; for `top`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fleet.deployment.lock import new_deed
from fleet.errors import FleetError, RemoteError
from fleet.hosts.access import Remotes, open_remotes
from fleet.hosts.inventory import Fleet, Host
from fleet.operation.host_control import HostControl, StopOptions
from fleet.reach.execute import ask, follow
from fleet.reach.logs import messages_of
from fleet.reach.remote import Remote
from puffin.errors import DatabaseError
from puffin.store import Control

_TIMEOUT_S = 60.0


class Verb(Enum):
    """What can be done with a worker."""

    STOP = "stop"
    START = "start"
    RESTART = "restart"
    DRAIN = "drain"
    RESUME = "resume"

    @property
    def of_a_host(self) -> bool:
        """Whether it is always given to all workers of a host."""
        return self in {Verb.DRAIN, Verb.RESUME}


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


_MEANING = {
    Verb.STOP: "They finish their calculations first, and stay stopped until started.",
    Verb.START: "What was stopped takes work again.",
    Verb.RESTART: "They finish their calculations, then start again with the release and settings of their host.",
    Verb.DRAIN: "They finish their calculations, and stay down through reboots, deploys and starts, until resumed.",
    Verb.RESUME: "The host works again.",
}


def meaning(order: Verb) -> str:
    """What an order does, for whoever is asked to confirm it.

    Parameters
    ----------
    order
        The order.
    """
    return _MEANING[order]


def give(fleet: Fleet, target: Target, order: Verb, control: Control) -> str:
    """Give an order, as the verb of that name does.

    Parameters
    ----------
    fleet
        The fleet.
    target
        To whom.
    order
        What to do.
    control
        Orders in the fleet's database.

    Returns
    -------
    str
        What came of it.

    Raises
    ------
    RemoteError
        The host cannot be reached, or cannot do it.
    """
    with open_remotes(fleet, [target.host]) as remotes:
        remote = remotes[target.host.name]
        if order is Verb.RESTART:
            return _restart(fleet, target, remote)
        host = HostControl(fleet, target.host, remote, lambda _: None)
        if order in {Verb.START, Verb.RESUME}:
            _start(host, target, order)
        else:
            _stop(host, target, order)
    return f"{target}: told to {order.value}" + _word(fleet, target.host.name, order, control)


def _stop(host: HostControl, target: Target, order: Verb) -> None:
    drain = (new_deed("drain").who, "") if order is Verb.DRAIN else None
    told = host.tell(StopOptions(wait=False, workers=tuple(target.workers or ()), drain=drain))
    if not told.deployed and drain is None:
        hint = "run 'puffin-fleet deploy' first"
        raise RemoteError(target.host.name, "stopping", "nothing is deployed there", hint)


def _start(host: HostControl, target: Target, order: Verb) -> None:
    started = host.start(target.workers or (), resume=order is Verb.RESUME)
    if started.drained is not None:
        raise RemoteError(target.host.name, "starting", str(started.drained), "resume it")


def _restart(fleet: Fleet, target: Target, remote: Remote) -> str:
    operations = [{"operation": "recycle", "workers": target.workers}]
    reply = ask(remote, "control", {**_place(fleet, target.host), "operations": operations}, _TIMEOUT_S)
    changed = sorted(entry["worker"] for entry in reply["done"] if entry["changed"])
    if not changed:
        return f"{target}: nothing runs there that could be restarted, or it is told so already"
    return f"{', '.join(changed)}: told to restart"


def _word(fleet: Fleet, host: str, order: Verb, control: Control) -> str:
    """Leave word of a drain in the database; what stands there against what was started."""
    try:
        _leave_word(fleet, host, order, control)
        if order in {Verb.START, Verb.RESUME} and control.is_stopped(fleet.name):
            return "; the whole fleet is stopped, so it stops again: 'puffin-fleet start' lifts that"
    except DatabaseError as error:
        return f"; {error}"
    return ""


def _leave_word(fleet: Fleet, host: str, order: Verb, control: Control) -> None:
    if order is Verb.DRAIN:
        control.note_drained(fleet.name, host, new_deed("drain").who, "")
    elif order is Verb.RESUME:
        control.lift_drained(fleet.name, host)


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


def _place(fleet: Fleet, host: Host) -> dict[str, Any]:
    return {"fleet": fleet.name, "host": host.name, "base_dir": host.base_dir}
