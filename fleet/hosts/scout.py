"""A first look at hosts that are not part of a fleet yet; changes nothing on them."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.hosts.access import open_remotes
from fleet.hosts.inventory import Fleet, Host
from fleet.reach import probing
from fleet.reach.execute import ask, fan_out
from fleet.reach.facts import Facts
from fleet.reach.remote import HostResult

_PATIENCE_S = 30.0
"""For a host that is reached; connecting has limits of its own."""


def look(fleet: Fleet, hosts: Sequence[Host]) -> list[HostResult[Facts]]:
    """Find out what hosts have to offer, all at the same time.

    Parameters
    ----------
    fleet
        The fleet they shall belong to, which says how to reach them.
    hosts
        The hosts, a few.

    Returns
    -------
    list[HostResult[Facts]]
        One for every host, in their order.
    """
    with open_remotes(fleet, hosts) as remotes:

        def probe(host: Host) -> Facts:
            request = probing.probe_request(
                fleet.name, host.name, host.base_dir, host.scratch, fleet.release.python, gpus=True, look_around=True
            )
            return probing.parse(host.name, ask(remotes[host.name], probing.ACTION, request, _PATIENCE_S))

        return fan_out({host.name: host for host in hosts}, probe, parallel=len(hosts))
