"""What is wrong with a fleet: its hosts, its database, and what is between them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from fleet.errors import FleetError, Problem, RemoteError
from fleet.hosts.database import database_settings
from fleet.hosts.inventory import Fleet, Host, deep_merge
from fleet.reach.remote import HostResult, NoPythonError
from fleet.watch.diagnosis import diagnose
from fleet.watch.examination import Examined
from fleet.watch.findings import Finding
from fleet.watch.machine_checks import CLOCK_TOLERANCE_S
from fleet.watch.status import status_of
from puffin.severity import Severity

if TYPE_CHECKING:
    from puffin.records import WorkerRecord
    from puffin.store import Member

_MOST_NAMES = 3
_ORDER = (Severity.FAIL, Severity.WARN, Severity.OK)
_MONGO_PORT = 27017


@dataclass(frozen=True)
class DatabaseSeen:
    """The database as it was found from this machine.

    Parameters
    ----------
    where
        Its place, without credentials.
    problem
        Why it could not be asked; empty if it could. All that follows is then empty.
    version
        What the server says that it is.
    clock, asked, answered
        The server's clock, naive and in UTC, and this machine's before and after it was asked.
    records
        What workers of the fleet reported.
    stopped
        Whether the fleet was told to stop.
    members
        Where its replica set sends clients; empty where it is none.
    """

    where: str
    problem: str = ""
    version: str = ""
    clock: datetime | None = None
    asked: datetime | None = None
    answered: datetime | None = None
    records: Sequence[WorkerRecord] = ()
    stopped: bool = False
    members: Sequence[Member] = ()


@dataclass(frozen=True)
class FindingGroup:
    """The same finding on some hosts; none for the whole fleet."""

    hosts: tuple[str, ...]
    finding: Finding

    @property
    def names(self) -> str:
        """The hosts in few words."""
        shown = ", ".join(self.hosts[:_MOST_NAMES])
        more = len(self.hosts) - _MOST_NAMES
        return f"{shown} and {more} more" if more > 0 else shown or "fleet"


def of_hosts(
    fleet: Fleet, hosts: Mapping[str, Host], results: Sequence[HostResult[Examined]], stopped: bool = False
) -> tuple[Finding, ...]:
    """Judge all hosts, those that could not be examined included.

    Parameters
    ----------
    fleet
        The fleet.
    hosts
        Its hosts, by name.
    results
        What came of examining them.
    stopped
        Whether the whole fleet was told to stop through the database; the hosts may have no stop file then.
    """
    found: list[Finding] = []
    for result in results:
        if result.value is not None:
            facts = result.value.facts
            seen = replace(result.value, facts=replace(facts, stop=facts.stop or stopped))
            found += diagnose(fleet, hosts[result.host], seen)
        elif result.error is not None:
            found.append(_of_error(result.host, result.error))
    return tuple(found)


def _of_error(host: str, error: FleetError) -> Finding:
    """The connection's own words: they tell a silent host from an unknown key and from a refused login."""
    if not isinstance(error, RemoteError):
        return Finding(host, "ssh", Severity.FAIL, str(error))
    check = "python" if isinstance(error, NoPythonError) else "ssh" if error.step == "connect" else error.step
    return Finding(host, check, Severity.FAIL, error.what, error.hint)


def of_hooks(problems: Sequence[Problem]) -> tuple[Finding, ...]:
    """What is wrong with the operator's own programs.

    Parameters
    ----------
    problems
        All that is wrong with them.
    """
    advice = "correct it in hosts.yaml: a deploy, or 'puffin-fleet notify', would not begin"
    return tuple(Finding("", "hooks", Severity.FAIL, str(problem), advice) for problem in problems)


def of_password(exposed: str | None) -> tuple[Finding, ...]:
    """Whether the database's password is kept where others can read it.

    Parameters
    ----------
    exposed
        Its file if they can; None if not.
    """
    if exposed is None:
        return ()
    what = f"database.password_file {exposed} can be read by others"
    return (Finding("", "password", Severity.WARN, what, f"run: chmod 600 '{exposed}'"),)


def of_database(fleet: Fleet, seen: DatabaseSeen) -> tuple[Finding, ...]:
    """Judge the database, and what it knows of the fleet.

    Parameters
    ----------
    fleet
        The fleet.
    seen
        The database as it was found from this machine.
    """
    return tuple(_of_database(fleet, seen))


def _of_database(fleet: Fleet, seen: DatabaseSeen) -> Iterator[Finding]:
    if seen.problem:
        advice = f"check the section 'database' of {fleet.source}, and that the server runs"
        yield Finding("", "database", Severity.FAIL, seen.problem, advice)
        return
    version = f", server version {seen.version}" if seen.version else ""
    yield Finding("", "database", Severity.OK, f"{seen.where}{version}")
    yield from _server_clock(seen)
    if seen.stopped:
        what = "the fleet was told to stop: its workers stay down"
        yield Finding("", "fleet", Severity.WARN, what, "run: puffin-fleet start")
    yield from _reported(fleet, seen)


def _server_clock(seen: DatabaseSeen) -> Iterator[Finding]:
    if seen.clock is None or seen.asked is None or seen.answered is None:
        return
    doubt = (seen.answered - seen.asked).total_seconds() / 2
    offset = (seen.clock - seen.asked).total_seconds() - doubt
    if abs(offset) - doubt > CLOCK_TOLERANCE_S:
        side = "ahead of" if offset > 0 else "behind"
        what = f"the database server's clock is {abs(offset):.1f} s {side} this machine's"
        advice = "set one of the two: leases go by the server's, so calculations are safe; times in reports are not"
        yield Finding("", "clock", Severity.WARN, what, advice)
    else:
        what = f"the database server's agrees with this machine's to within {abs(offset) + doubt:.1f} s"
        yield Finding("", "clock", Severity.OK, what)


def _reported(fleet: Fleet, seen: DatabaseSeen) -> Iterator[Finding]:
    if seen.clock is None:
        return
    hosts = {host.name for host in fleet.hosts}
    statuses = status_of(seen.records, seen.clock)
    strangers = sorted({status.record.host for status in statuses if status.works and status.record.host not in hosts})
    if strangers:
        what = f"workers run on {', '.join(strangers)}, which {fleet.source} does not have"
        advice = f"put the host back, run 'puffin-fleet stop --host {strangers[0]} --supervisord', and remove it again"
        yield Finding("", "workers", Severity.WARN, what, advice)
    for status in statuses:
        if status.state == "lost" and status.record.host in hosts:
            what = f"{status.record.worker} has not reported for {status.silent_s:.0f} s"
            yield Finding(
                status.record.host,
                "reports",
                Severity.WARN,
                what,
                f"run: puffin-fleet deploy --host {status.record.host}",
            )


def grouped(findings: Sequence[Finding]) -> list[FindingGroup]:
    """Put the same findings of several hosts together, what is wrong first.

    Parameters
    ----------
    findings
        Of all hosts.
    """
    found: dict[Finding, list[str]] = {}
    for finding in findings:
        general = _general(finding)
        found.setdefault(general, []).append(finding.host)
    groups = [_group(hosts, finding, findings) for finding, hosts in found.items()]
    return sorted(groups, key=lambda group: _ORDER.index(group.finding.severity))


def _general(finding: Finding) -> Finding:
    """The same for whichever host: an advice names its host and its worker; for several it is said of all of them."""
    if not finding.host:
        return finding
    name = re.escape(finding.host)
    advice = re.sub(rf" --host {name}(?=\Z|[ ,;'])", "", finding.advice)
    own = re.compile(rf"(?<![\w.-]){name}(?=-[0-9]+(?![\w.-]))")
    return replace(finding, host="", what=own.sub("<host>", finding.what), advice=own.sub("<host>", advice))


def _group(hosts: Sequence[str], general: Finding, findings: Sequence[Finding]) -> FindingGroup:
    names = tuple(dict.fromkeys(host for host in hosts if host))
    if len(names) != 1:
        return FindingGroup(names, general)
    return FindingGroup(names, next(each for each in findings if each.host == names[0] and _general(each) == general))


def addresses(fleet: Fleet, host: Host) -> tuple[tuple[str, int], ...]:
    """Where a host has to reach the database; empty where only a connection can tell.

    Parameters
    ----------
    fleet, host
        What hosts.yaml says.
    """
    settings = database_settings(fleet.database, "")
    own = host.puffin.get("database") or {}
    if "ip" in own:
        settings.pop("uri", None)
    settings = deep_merge(settings, own)
    uri = str(settings.get("uri") or "")
    if settings.get("ssh_tunnel") or uri.startswith("mongodb+srv:"):
        return ()
    if not uri:
        return ((str(settings["ip"]), int(settings.get("port") or _MONGO_PORT)),)
    names = uri.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]
    return tuple(_address(name) for name in names.split(","))


def goes_to_members(fleet: Fleet, host: Host) -> bool:
    """Whether a host's workers go where the database's replica set sends them, and not to one server only.

    Parameters
    ----------
    fleet, host
        What hosts.yaml says.
    """
    own = host.puffin.get("database") or {}
    settings = deep_merge(database_settings(fleet.database, ""), own)
    elsewhere = settings.get("ssh_tunnel") or {"ip", "port", "uri"} & set(own)
    return not elsewhere and "directconnection=true" not in str(settings.get("uri") or "").lower()


def _address(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]*))(?::([0-9]+))?", name)
    if match is None:
        return name, _MONGO_PORT
    return match.group(1) or match.group(2), int(match.group(3) or _MONGO_PORT)
