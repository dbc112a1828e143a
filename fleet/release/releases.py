"""What is installed on hosts and no longer needed, and removing it.

Hosts that share a home directory share what is installed: it is looked at on all of them, since each sees only its
own processes, and removed on one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fleet.reach.execute import ask, fan_out
from fleet.reach.facts import Facts
from fleet.reach.remote import HostResult, Remote
from fleet.reach.reply import Reader
from puffin.records import WorkerRecord

ACTION = "prune"
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Removal:
    """Something that nothing needs any more.

    Parameters
    ----------
    kind
        release, wheel, tool, supervisor or cache.
    name
        What it is called.
    path
        Where it is on the host.
    bytes
        Bytes that removing it gives back, once those before it are gone: files are shared with what stays.
    """

    kind: str
    name: str
    path: str
    bytes: int


@dataclass(frozen=True)
class Pruning:
    """What can be removed in one place, or was.

    Parameters
    ----------
    host
        The host it is removed on.
    hosts
        The hosts that share the place, as their directories there are called.
    removals
        What can be removed, or was.
    kept
        Releases that stay, with the reason.
    frees
        Bytes that this gives back.
    in_use
        Releases that processes on the host use.
    """

    host: str
    hosts: tuple[str, ...]
    removals: tuple[Removal, ...]
    kept: Mapping[str, str]
    frees: int
    in_use: frozenset[str]


@dataclass(frozen=True)
class HostRoots:
    """Where things are on a host, as its probe reported.

    Parameters
    ----------
    fleet_root
        What may be shared between hosts.
    host_root
        The host's own directory.
    """

    fleet_root: str
    host_root: str

    @classmethod
    def of(cls, facts: Facts) -> HostRoots:
        """The place of a host that was probed."""
        return cls(facts.fleet_root, facts.host_root)


def releases_in_use(records: Sequence[WorkerRecord]) -> frozenset[str]:
    """The releases that workers have reported to run, except those that said goodbye.

    Parameters
    ----------
    records
        Of all workers of the fleet.
    """
    return frozenset(record.release for record in records if record.release and record.state != "stopped")


def look(
    remotes: Mapping[str, Remote], places: Mapping[str, HostRoots], keep: int, used: frozenset[str], parallel: int
) -> list[HostResult[Pruning]]:
    """Find out what can be removed; changes nothing.

    Parameters
    ----------
    remotes
        Connections to the hosts.
    places
        The hosts.
    keep
        How many of the newest releases stay.
    used
        Releases that must stay, see `releases_in_use`.
    parallel
        Hosts at a time.

    Returns
    -------
    list[HostResult[Pruning]]
        One for each place, under the first of the hosts that share it; and one for each host that failed.
    """

    def one(host: str, must_stay: frozenset[str]) -> Pruning:
        return _ask(remotes[host], places[host], keep, must_stay, carry_out=False)

    looked = fan_out({host: host for host in places}, lambda host: one(host, used), parallel)
    found = {result.host: result.value for result in looked if result.value is not None}
    failed = [result for result in looked if result.value is None]
    shared = {host: replace(pruning, in_use=_in_use_of_all(pruning, found)) for host, pruning in found.items()}
    first = {host: value for host, value in shared.items() if host == min(set(value.hosts) & set(found), default=host)}
    again = fan_out(
        {host: host for host, value in first.items() if value.in_use - value.kept.keys()},
        lambda host: one(host, used | first[host].in_use),
        parallel,
    )
    better = {result.host: result for result in again}
    return [better.get(host) or HostResult(host, value) for host, value in first.items()] + failed


def _in_use_of_all(pruning: Pruning, found: Mapping[str, Pruning]) -> frozenset[str]:
    """What processes use on any host that shares the place."""
    sharing = [found[host] for host in pruning.hosts if host in found and found[host].hosts == pruning.hosts]
    return pruning.in_use.union(*(other.in_use for other in sharing))


def carry_out(
    remotes: Mapping[str, Remote],
    places: Mapping[str, HostRoots],
    plans: Sequence[Pruning],
    keep: int,
    used: frozenset[str],
    token: str | None,
    parallel: int,
) -> list[HostResult[Pruning]]:
    """Remove what was found, and nothing else.

    Parameters
    ----------
    remotes
        Connections to the hosts.
    places
        The hosts.
    plans
        What `look` found.
    keep, used
        As for `look`.
    token
        Of the lock of the hosts.
    parallel
        Hosts at a time.
    """

    def one(plan: Pruning) -> Pruning:
        only = [removal.path for removal in plan.removals]
        return _ask(remotes[plan.host], places[plan.host], keep, used | plan.in_use, True, only, token)

    return fan_out({plan.host: plan for plan in plans if plan.removals}, one, parallel)


def prune_host(remote: Remote, place: HostRoots, keep: int, used: frozenset[str], token: str | None) -> Pruning:
    """Remove what one host no longer needs, in one round trip.

    Parameters
    ----------
    remote
        The host.
    place
        Where things are there.
    keep
        How many of the newest releases stay.
    used
        Releases that must stay: those of workers on hosts that share the place cannot be seen from this one.
    token
        Of the lock of the host.

    Raises
    ------
    RemoteError
        The host cannot be reached, or somebody else has locked a host that shares the place.
    """
    return _ask(remote, place, keep, used, carry_out=True, token=token)


def _ask(
    remote: Remote,
    place: HostRoots,
    keep: int,
    used: frozenset[str],
    carry_out: bool,
    only: Sequence[str] | None = None,
    token: str | None = None,
) -> Pruning:
    request = {
        "fleet_root": place.fleet_root,
        "host_root": place.host_root,
        "keep": keep,
        "used": sorted(used),
        "carry_out": carry_out,
        "only": only,
        "lock": token,
    }
    reader = Reader(remote.name, "", ask(remote, ACTION, request, TIMEOUT_S))
    return Pruning(
        host=remote.name,
        hosts=reader.texts("hosts"),
        removals=tuple(
            Removal(item.text("kind"), item.text("name"), item.text("path"), item.whole("bytes"))
            for item in reader.items("removals")
        ),
        kept={item.text("name"): item.text("why") for item in reader.items("kept")},
        frees=reader.whole("frees"),
        in_use=frozenset(reader.texts("in_use")),
    )
