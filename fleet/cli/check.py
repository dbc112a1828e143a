"""check."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import datetime, timezone

import click
from rich.text import Text

from fleet import shapes
from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Board, data_console, note, print_json
from fleet.errors import ExitCode, FleetError
from fleet.hosts.access import Remotes, exposed_password, open_remotes, open_store
from fleet.hosts.inventory import Host
from fleet.notify.telling import problems_of_hooks
from fleet.reach import probing
from fleet.reach.execute import ask, fan_out
from fleet.reach.remote import HostResult
from fleet.watch.doctor import (
    DatabaseSeen,
    FindingGroup,
    addresses,
    goes_to_members,
    grouped,
    of_database,
    of_hooks,
    of_hosts,
    of_password,
)
from fleet.watch.examination import ACTION, Examined, parse_examined
from fleet.watch.findings import Finding
from puffin.errors import DatabaseError
from puffin.severity import Severity

_STYLES = {Severity.FAIL: "bold red", Severity.WARN: "yellow", Severity.OK: "green"}
_TIMEOUT_S = 180.0
_MEMBERS_PATIENCE_S = 5.0
_WIDEST = 120
_NARROWEST = 40
_SHOWN_ANYWAY = frozenset({"lock"})
"""Checks that are shown also where nothing is wrong: who waits for a host wants to know for whom."""


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@click.option("--verbose", "-v", is_flag=True, help="Show also what is as it should be.")
def check(hosts_file: str | None, patterns: tuple[str, ...], parallel: int, json_lines: bool, verbose: bool) -> int:
    """Look for what is wrong with hosts, workers and database; changes nothing.

    Exit code 1 if anything fails; warnings do not fail. What was not found wrong is shown with -v.

    \b
    puffin-fleet check hosts.yaml
    puffin-fleet check --host node7 -v
    """
    chosen = options.choose(hosts_file, patterns)
    with (
        Board("Examining the hosts", len(chosen.hosts)) as board,
        ThreadPoolExecutor(1) as aside,
        open_remotes(chosen.fleet, chosen.hosts) as remotes,
    ):
        asking = aside.submit(_ask_database, chosen)
        results = _examine(chosen, remotes, parallel, board, asking)
        seen = asking.result()
    hosts = {host.name: host for host in chosen.hosts}
    findings = (
        *of_hooks(problems_of_hooks(chosen.fleet)),
        *of_password(str(exposed) if (exposed := exposed_password(chosen.fleet)) else None),
        *of_database(chosen.fleet, seen),
        *of_hosts(chosen.fleet, hosts, results, seen.stopped),
    )
    if json_lines:
        for finding in findings:
            print_json(_as_record(finding))
    else:
        _show(grouped(findings), verbose)
        _sum_up(findings, len(chosen.hosts), verbose)
    return ExitCode.FAILED if any(finding.severity is Severity.FAIL for finding in findings) else ExitCode.DONE


def _ask_database(chosen: Chosen) -> DatabaseSeen:
    try:
        store = open_store(chosen.fleet)
    except FleetError as error:
        return DatabaseSeen("", problem=str(error))
    try:
        store.check()
        asked = _now()
        clock = store.server_time()
        answered = _now()
        members = store.members()
        name = chosen.fleet.name
        return DatabaseSeen(
            where=f"{store.where}, {', '.join(store.names)}",
            version=store.server_version(),
            clock=clock,
            asked=asked,
            answered=answered,
            records=store.registry.workers(name, brief=True),
            stopped=store.control.is_stopped(name),
            members=members,
        )
    except DatabaseError as error:
        return DatabaseSeen(store.where, problem=str(error))
    finally:
        store.close()


def _now() -> datetime:
    """As the server tells its time: in UTC, without saying so."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _members(asking: Future[DatabaseSeen]) -> list[tuple[str, int]]:
    """Where the replica set sends its clients; nothing where the server does not answer soon: that is said anyway."""
    try:
        return [(member.host, member.port) for member in asking.result(_MEMBERS_PATIENCE_S).members]
    except FutureTimeout:
        return []


def _examine(
    chosen: Chosen, remotes: Remotes, parallel: int, board: Board, asking: Future[DatabaseSeen]
) -> list[HostResult[Examined]]:
    fleet = chosen.fleet

    def examine(host: Host) -> Examined:
        board.step(host.name, "examining")
        known = probing.probe_request(
            fleet.name, host.name, host.base_dir, host.scratch, fleet.release.python, gpus=host.wants_gpus
        )
        members = _members(asking) if goes_to_members(fleet, host) else []
        request = {**known, "addresses": addresses(fleet, host), "members": members}
        asked = time.time()
        reply = ask(remotes[host.name], ACTION, request, _TIMEOUT_S)
        return parse_examined(host.name, reply, asked, time.time())

    return fan_out(
        {host.name: host for host in chosen.hosts},
        examine,
        parallel,
        lambda event: board.finished(event.host, event.result.ok) if event.result else None,
    )


def _as_record(finding: Finding) -> shapes.Finding:
    return {
        "host": finding.host or None,
        "check": finding.check,
        "severity": finding.severity.value,
        "what": finding.what,
        "next": finding.advice or None,
    }


def _show(groups: Sequence[FindingGroup], verbose: bool) -> None:
    shown = [group for group in groups if verbose or _is_shown(group.finding)]
    console = data_console()
    width = min(_WIDEST, console.width) if console.is_terminal else None
    for group in shown:
        finding = group.finding
        line = Text(f"{finding.severity.value:4}  ", style=_STYLES[finding.severity])
        line.append(group.names, style="bold")
        line.append(f"  {finding.check}", style="cyan")
        if finding.severity is Severity.OK:
            console.print(line.append(f": {finding.what}", style=""))
            continue
        console.print(line)
        for text, style in ((finding.what, ""), (finding.advice, "dim")):
            for part in _wrapped(text, width):
                console.print(Text(f"      {part}", style=style))


def _is_shown(finding: Finding) -> bool:
    return finding.severity is not Severity.OK or finding.check in _SHOWN_ANYWAY


def _wrapped(text: str, width: int | None) -> list[str]:
    """Lines that fit; whole where nobody looks at a terminal. Paths and commands stay in one piece."""
    lines = text.splitlines()
    if width is None:
        return lines
    wrapper = textwrap.TextWrapper(max(_NARROWEST, width - 6), break_long_words=False, break_on_hyphens=False)
    return [part for line in lines for part in wrapper.wrap(line)]


def _sum_up(findings: Sequence[Finding], hosts: int, verbose: bool) -> None:
    failed = sum(finding.severity is Severity.FAIL for finding in findings)
    warned = sum(finding.severity is Severity.WARN for finding in findings)
    wrong = {finding.host for finding in findings if finding.severity is Severity.FAIL and finding.host}
    more = "" if verbose else " -v shows all of them."
    places = f"{hosts} host{'s' if hosts != 1 else ''}"
    warnings = f"{warned} warning{'s' if warned != 1 else ''}"
    counts = f"{len(findings)} checks on {places}: {failed} failed, {warnings}."
    on = f" {len(wrong)} hosts need attention." if len(wrong) > 1 else ""
    note(f"{counts}{on}{more}", "red" if failed else "yellow" if warned else "green")
