"""status."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click
from rich.text import Text

from fleet.access import open_store
from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Column, note, print_json, print_table
from fleet.errors import ExitCode
from fleet.status import WorkerStatus, status_of, totals
from puffin.store import Store

_COLUMNS = (
    Column("WORKER"),
    Column("STATE"),
    Column("CALCULATION"),
    Column("DONE", right=True),
    Column("FAILED", right=True),
    Column("RESTARTS", right=True, spare=2),
    Column("CORES", right=True, spare=3),
    Column("GB", right=True, spare=3),
    Column("SEEN", right=True, spare=1),
    Column("RELEASE", spare=4),
)
_STATE_STYLES = {
    "lost": "bold red",
    "quarantined": "bold red",
    "frozen": "bold yellow",
    "starting": "yellow",
    "draining": "yellow",
    "running": "green",
    "stopped": "dim",
}


@click.command()
@options.hosts_file
@options.as_json
def status(hosts_file: str | None, patterns: tuple[str, ...], json_lines: bool) -> int:
    """Show what every worker is doing, what is wrong first; asks the database, not the hosts.

    \b
    puffin-fleet status
    puffin-fleet status --json
    """
    chosen = options.choose(hosts_file, patterns)
    store = open_store(chosen.fleet)
    hosts = {host.name for host in chosen.hosts}
    records = [record for record in store.registry.workers(chosen.fleet.name) if record.host in hosts]
    statuses = status_of(records, store.server_time(), store.control.releases(chosen.fleet.name))
    if json_lines:
        for worker in statuses:
            seen = {"state": worker.state, "silent_s": worker.silent_s, "wanted_release": worker.wanted_release}
            print_json({**dataclasses.asdict(worker.record), **seen})
        return ExitCode.DONE
    if statuses:
        rows = [_status_row(worker) for worker in statuses]
        print_table(_COLUMNS, rows)
    _print_totals(chosen, store, statuses)
    return ExitCode.DONE


def _status_row(worker: WorkerStatus) -> list[Text | str]:
    record = worker.record
    doing = f"{record.order} {record.calculation}" if record.calculation else ""
    return [
        record.worker,
        Text(worker.state, style=_STATE_STYLES.get(worker.state, "")),
        doing,
        str(record.done),
        Text(str(record.failed), style="red" if record.failed else ""),
        str(record.restarts),
        str(record.cores),
        f"{record.memory:g}",
        f"{worker.silent_s:.0f} s ago",
        Text(record.release, style="yellow" if worker.outdated else ""),
    ]


def _print_totals(chosen: Chosen, store: Store, statuses: Sequence[WorkerStatus]) -> None:
    if statuses:
        note(
            f"{len(statuses)} worker{'s' if len(statuses) > 1 else ''}: "
            + ", ".join(f"{count} {state}" for state, count in totals(statuses).items())
        )
    else:
        note("No worker has reported yet: 'puffin-fleet deploy' starts them.", "yellow")
    outdated = sum(worker.outdated for worker in statuses)
    if outdated:
        note(
            f"{outdated} of {len(statuses)} workers still run an earlier release; "
            "each changes when its calculation is done",
            "yellow",
        )
    for name in store.names:
        counts = store.calculations(name).count_by_status()
        words = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no calculations"
        note(f"database {name}: {words}")
