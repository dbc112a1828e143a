"""history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import click
from rich.text import Text

from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Column, data_console, note, print_json, print_table, report_failures
from fleet.cli.renamed import renamed
from fleet.deployment.audit import AuditEntry, PastDeed, merge, read_entries
from fleet.errors import ExitCode
from fleet.hosts.access import Remotes, open_remotes
from fleet.hosts.inventory import Host
from fleet.reach.execute import ask, fan_out
from fleet.reach.probing import read_holder
from fleet.reach.reply import Reader

_HISTORY = (
    Column("WHEN"),
    Column("WHO"),
    Column("VERB"),
    Column("OUTCOME"),
    Column("HOSTS"),
    Column("RELEASE", spare=1),
    Column("ID", spare=2),
)
_STYLES = {
    "done": "green",
    "failed": "red",
    "interrupted": "yellow",
    "running": "bold yellow",
    "unchanged": "dim",
}
_MOST_LINES = 500


@click.command(context_settings=renamed(number="limit"))
@options.hosts_file
@options.parallel
@options.as_json
@click.option("-n", "--limit", type=click.IntRange(1, _MOST_LINES), default=20, show_default=True, help="The newest.")
@click.option("-v", "--verbose", is_flag=True, help="Show each host.")
def history(
    hosts_file: str | None, patterns: tuple[str, ...], parallel: int, json_lines: bool, limit: int, verbose: bool
) -> int:
    """Show who did what to the hosts, the newest first; asks the hosts.

    \b
    puffin-fleet history -n 5
    puffin-fleet history --host node7
    """
    chosen = options.choose(hosts_file, patterns)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        results = fan_out(
            {host.name: host for host in chosen.hosts}, lambda host: _entries(chosen, host, remotes), parallel
        )
    asked = None if chosen.whole else {host.name for host in chosen.hosts}
    deeds = merge([entry for result in results for entry in result.value or ()], asked)[:limit]
    _show_history(deeds, json_lines, verbose or bool(patterns))
    return ExitCode.FAILED if report_failures(results) else ExitCode.DONE


def _entries(chosen: Chosen, host: Host, remotes: Remotes) -> list[AuditEntry]:
    request = {"base_dir": host.base_dir, "fleet": chosen.fleet.name, "host": host.name, "limit": _MOST_LINES}
    reader = Reader(host.name, "", ask(remotes[host.name], "audit", request))
    holder = reader.optional("holder", lambda key: read_holder(reader.inner(key)))
    return read_entries(host.name, reader.texts("lines"), holder)


def _show_history(deeds: Sequence[PastDeed], json_lines: bool, each_host: bool) -> None:
    if json_lines:
        for deed in deeds:
            print_json(_deed_record(deed))
        return
    if not deeds:
        note("Nothing was ever done to these hosts.")
        return
    if not each_host:
        print_table(_HISTORY, [_history_row(deed) for deed in deeds])
        if any(entry.error and entry.outcome != "done" for deed in deeds for entry in deed.hosts):
            note("Why something failed, host by host: puffin-fleet history -v.", "dim")
        return
    console = data_console()
    for deed in deeds:
        when, who, verb, outcome, _, _, id_ = _history_row(deed)
        console.print(Text.assemble(when, "  ", who, "  ", (str(verb), "bold"), "  ", outcome, "  ", (str(id_), "dim")))
        width = max(len(entry.host) for entry in deed.hosts)
        for entry in deed.hosts:
            console.print(_host_line(entry, width))


def _deed_record(deed: PastDeed) -> dict[str, Any]:
    hosts = [
        {**_without_missing(entry), "began": _moment(entry.began), "ended": _moment(entry.ended)}
        for entry in deed.hosts
    ]
    began = _moment(deed.when)
    return {"id": deed.id, "verb": deed.verb, "who": deed.who, "began": began, "hosts": hosts, "outcome": deed.outcome}


def _without_missing(entry: AuditEntry) -> dict[str, Any]:
    """Those are entries of their own by now."""
    return {name: value for name, value in vars(entry).items() if name != "missing"}


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)


def _history_row(deed: PastDeed) -> list[Text | str]:
    hosts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(deed.counts.items()))
    release = ", ".join(deed.releases)
    return [
        _time(deed),
        deed.who,
        deed.verb,
        Text(deed.outcome, style=_STYLES.get(deed.outcome, "")),
        hosts,
        release,
        deed.id,
    ]


def _host_line(entry: AuditEntry, width: int) -> Text:
    line = Text("  ")
    line.append(entry.host.ljust(width))
    line.append(f"  {entry.outcome}", style=_STYLES.get(entry.outcome, ""))
    if entry.began is not None and entry.ended is not None:
        line.append(f"  {entry.ended - entry.began:.0f} s", style="dim")
    if entry.release:
        line.append(f"  {entry.release}", style="dim")
    if entry.error:
        line.append(f"  {entry.error}")
    return line


def _time(deed: PastDeed) -> str:
    """When it began, in local time; by the clock of whoever did it, which its id holds."""
    if deed.when is None:
        return "unknown"
    return datetime.fromtimestamp(deed.when).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
