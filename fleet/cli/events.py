"""events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click
from rich.text import Text

from fleet.cli import options, times
from fleet.cli.logs import calculation_id
from fleet.cli.options import Chosen
from fleet.cli.output import data_console, note, print_json
from fleet.cli.renamed import renamed
from fleet.errors import ExitCode, UsageError
from fleet.hosts.access import open_store
from fleet.watch.eventlines import event_cells
from fleet.watch.moments import full
from puffin.errors import DatabaseUnavailable
from puffin.store import EventFollower, EventRecord, EventSelection, Store

_STYLES = {"bad": "bold red", "good": "green", "dim": "dim", "": ""}
_LATEST = 20
_RETRY_S = 1.0


@click.command(context_settings=renamed(failures="failed"))
@options.hosts_file
@options.as_json
@click.option("-f", "--follow", is_flag=True, help="Go on showing what happens.")
@options.workers
@click.option("--calculation", metavar="ID", help="Only about this calculation.")
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only this kind, such as failed, or 'f*'.")
@click.option("--failed", is_flag=True, help="Only what somebody may want to know of: failures, losses, frozen jobs.")
@times.since("Only what happened")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(0),
    help=f"The last so many, 0 for none; {_LATEST}, or all with --since, if nothing else is said.",
)
def events(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    json_lines: bool,
    follow: bool,
    workers: tuple[str, ...],
    calculation: str | None,
    kinds: tuple[str, ...],
    failed: bool,
    since: str | None,
    limit: int | None,
) -> int:
    """Show what happened to workers and calculations, the newest last; asks the database, not the hosts.

    \b
    puffin-fleet events -f
    puffin-fleet events --failed --since 2h
    puffin-fleet events --host node7 --kind failed --json
    """
    if failed and kinds:
        raise UsageError("--failed and --kind do not go together: each says which kinds")
    calculation = calculation_id(calculation)
    chosen = options.choose(hosts_file, patterns)
    selection = EventSelection(
        fleet=chosen.fleet.name,
        hosts=() if chosen.whole else tuple(host.name for host in chosen.hosts),
        workers=workers,
        kinds=kinds,
        calculation=calculation or "",
        since=times.utc("--since", since),
        failures=failed,
    )
    count = limit if limit is not None else (None if since else _LATEST)
    store = open_store(chosen.fleet)
    try:
        found = _followed(store, selection, count) if follow else _once(chosen, store, selection, count)
        _print(found, json_lines)
    finally:
        store.close()
    return ExitCode.DONE


def _once(
    chosen: Chosen, store: Store, selection: EventSelection, count: int | None
) -> Iterator[Sequence[EventRecord]]:
    found = store.events.recent(selection, count)
    yield found
    if not found and count != 0:
        whole = selection == EventSelection(fleet=chosen.fleet.name)
        note(f"No events of {chosen.fleet.name} yet." if whole else f"No such events of {chosen.fleet.name}.")


def _followed(store: Store, selection: EventSelection, count: int | None) -> Iterator[Sequence[EventRecord]]:
    """Until Ctrl-C; an outage of the database is told, and nothing is missing afterwards."""
    follower = EventFollower(store.events, store.server_time, selection, count)
    away = False
    try:
        while True:
            try:
                found = follower.poll()
            except DatabaseUnavailable as error:
                if not away:
                    note(f"{error}; going on when it is back", "yellow")
                away = True
                time.sleep(_RETRY_S)
                continue
            if away:
                note("the database is back", "yellow")
                away = False
            yield found
    finally:
        follower.close()


def _print(batches: Iterator[Sequence[EventRecord]], json_lines: bool) -> None:
    console, widest = data_console(), 0
    for found in batches:
        widest = max([widest, *(len(event.worker or event.host) for event in found)])
        for event in found:
            if json_lines:
                print_json(vars(event))
                continue
            cells = event_cells(event, widest)
            when = Text(full(event.at), style="dim")
            parts = [Text(cell.text, style=_STYLES[cell.tone]) for cell in cells[1:]]
            line = Text("  ").join([when, *parts])
            line.rstrip()
            console.print(line)
