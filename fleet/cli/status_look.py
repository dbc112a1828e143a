"""What `status` knows at one moment: read from the database and, where that is asked for, from the hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.cli.options import Chosen
from fleet.errors import RemoteError
from fleet.hosts.access import Remotes
from fleet.hosts.inventory import Host
from fleet.reach.execute import ask, fan_out
from fleet.reach.facts import States
from fleet.reach.probing import parse_states
from fleet.reach.remote import HostResult
from fleet.watch.status import HostLook, HostStatus, WorkerStatus, by_host, status_of
from puffin.errors import DatabaseUnavailable
from puffin.store import DrainNote, Store

_DEEP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class View:
    """What there is to show at one moment.

    `queues` has, by database, how many calculations are in which state; None where counting them takes too long.
    """

    hosts: Sequence[HostStatus]
    strangers: Sequence[WorkerStatus]
    queues: Mapping[str, Mapping[str, int] | None]
    told_to_stop: bool
    drained: Mapping[str, DrainNote]
    at: datetime
    failed: Sequence[HostResult[States]]

    @property
    def workers(self) -> list[WorkerStatus]:
        return [worker for host in self.hosts for worker in host.workers]


class Look:
    """Looks at the database, and at the hosts where there are connections to them."""

    def __init__(self, chosen: Chosen, store: Store, remotes: Remotes | None, parallel: int, *, brief: bool) -> None:
        self._chosen = chosen
        self._store = store
        self._remotes = remotes
        self._parallel = parallel
        self._brief = brief

    def now(self) -> View:
        fleet, store = self._chosen.fleet, self._store
        names = [host.name for host in self._chosen.hosts]
        everyone = {host.name for host in fleet.hosts}
        records = store.registry.workers(fleet.name, brief=self._brief)
        at = store.server_time()
        statuses = status_of(records, at, store.control.releases(fleet.name))
        chosen = set(names)
        results = self._ask_hosts()
        looks = None if results is None else {each.host: _host_look(each) for each in results}
        return View(
            hosts=by_host(names, [each for each in statuses if each.record.host in chosen], looks),
            strangers=[each for each in statuses if each.record.host not in everyone and each.works],
            queues={name: self._count(name) for name in store.names},
            told_to_stop=store.control.is_stopped(fleet.name),
            drained={host: note for host, note in store.control.drained(fleet.name).items() if host in chosen},
            at=at,
            failed=[each for each in results or () if not each.ok],
        )

    def _count(self, name: str) -> dict[str, int] | None:
        """With very many calculations a slow server takes too long; the workers are worth seeing without them."""
        try:
            return dict(sorted(self._store.calculations(name).count_by_status().items()))
        except DatabaseUnavailable:
            return None

    def _ask_hosts(self) -> list[HostResult[States]] | None:
        remotes = self._remotes
        if remotes is None:
            return None
        fleet = self._chosen.fleet.name

        def states(host: Host) -> States:
            request = {"fleet": fleet, "host": host.name, "base_dir": host.base_dir}
            return parse_states(host.name, ask(remotes[host.name], "states", request, _DEEP_TIMEOUT_S))

        return fan_out({host.name: host for host in self._chosen.hosts}, states, self._parallel)


def _host_look(result: HostResult[States]) -> HostLook:
    error = result.error
    return HostLook(result.value, error.what if isinstance(error, RemoteError) else str(error or ""))
