"""queue status, queue list, queue show."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from rich.text import Text

from fleet import shapes
from fleet.cli import options, queue_options
from fleet.cli.output import Column, data_console, note, print_json, print_table
from fleet.cli.queue_options import entry_of, named_file, opened, selected
from fleet.errors import ExitCode, UsageError
from fleet.queue import results as queue_results
from fleet.queue.text import model_text
from fleet.watch.moments import full
from fleet.words import age, duration, first_line, plain, uncoloured, utc
from puffin import backlog, progress
from puffin.backlog import Tally, Untaken
from puffin.calculations import Status, reason_of
from puffin.entries import Entry, Selection, Sort
from puffin.outcomes import Details, PropertyInfo, StructureInfo
from puffin.patterns import is_pattern
from puffin.progress import Pace
from puffin.store import Queue

STATUS_STYLES = {
    Status.COMPLETE: "green",
    Status.ANALYZED: "green",
    Status.FAILED: "bold red",
    Status.HOLD: "yellow",
    Status.PENDING: "cyan",
}
_WINDOW_S = 3600.0
_LONGEST_VALUE = 100
_UNTAKEN = 10
_TAB = "\t"


@click.command()
@queue_options.hosts_file
@queue_options.target
@options.as_json
def status(
    file: str | None, hosts_file: str | None, uri: str | None, databases: tuple[str, ...], json_lines: bool
) -> int:
    """Show how many calculations there are, how fast they are done, and how long it will take.

    \b
    puffin-fleet queue status
    puffin-fleet queue status hosts.yaml --database explore_a --json
    """
    with opened(named_file(file, hosts_file, uri), uri, databases) as target:
        now = target.store.server_time()
        for queue in target.queues:
            tallies = queue.tallies()
            cancelled = queue.count(Selection(cancelled=True)) if Status.FAILED in backlog.totals_by(tallies) else 0
            untaken = backlog.untaken(tallies, target.store.registry.workers(), now)
            finished, ended = queue.ended_since(now - timedelta(seconds=_WINDOW_S))
            pace = progress.pace(finished, ended, backlog.left_of(tallies, untaken), now, _WINDOW_S)
            if json_lines:
                print_json(_status_record(queue.name, tallies, cancelled, untaken, pace))
            else:
                _print_status(queue.name, tallies, cancelled, untaken, pace, several=len(target.names) > 1)
    return ExitCode.DONE


def _status_record(
    name: str, tallies: Sequence[Tally], cancelled: int, untaken: Sequence[Untaken], pace: Pace
) -> shapes.QueueStatus:
    return {
        "database": name,
        "counts": {status.value: count for status, count in backlog.totals_by(tallies).items()},
        "cancelled": cancelled,
        "kinds": [
            {"status": tally.status.value, "job": tally.order, "program": tally.program, "count": tally.count}
            for tally in backlog.whatever_size(tallies)
        ],
        "untaken": [_untaken_record(each) for each in untaken],
        "finished_last_hour": pace.finished,
        "per_hour": pace.per_hour,
        "left_s": pace.left_s,
    }


def _untaken_record(untaken: Untaken) -> shapes.Untaken:
    tally = untaken.tally
    return {
        "job": tally.order,
        "program": tally.program,
        "count": tally.count,
        "reason": untaken.reason,
        "cores": tally.cores,
        "memory": tally.memory,
        "disk": tally.disk,
    }


def _print_status(
    name: str, tallies: Sequence[Tally], cancelled: int, untaken: Sequence[Untaken], pace: Pace, several: bool
) -> None:
    totals = backlog.totals_by(tallies)
    kinds = sorted({(tally.order, tally.program) for tally in tallies})
    counts = {(each.order, each.program, each.status): each.count for each in backlog.whatever_size(tallies)}
    if kinds:
        database = [Column("DATABASE")] if several else []
        states = [Column(status.value.upper(), right=True) for status in totals]
        rows: list[list[Text | str]] = [
            [*([name] if several else []), order, program, *(_count(counts, order, program, state) for state in totals)]
            for order, program in kinds
        ]
        print_table([*database, Column("JOB"), Column("PROGRAM"), *states], rows)
    words = ", ".join(f"{count} {status.value}" for status, count in totals.items()) or "no calculations"
    note(f"{name}: {words}" + (f" ({cancelled} of those failed were cancelled)" if cancelled else ""), "bold")
    for each in untaken[:_UNTAKEN]:
        note(f"{each.tally.count} x {each.tally.order}: {each.reason}", "yellow")
    if len(untaken) > _UNTAKEN:
        rest = sum(each.tally.count for each in untaken[_UNTAKEN:])
        note(f"... and {rest} more that no worker would take (--json has all)", "yellow")
    if pace.per_hour is not None:
        left = f"; about {duration(pace.left_s)} left" if pace.left_s else ""
        note(f"{pace.finished} ended in the last hour, {pace.per_hour:.0f} per hour{left}")
    elif backlog.left_of(tallies, untaken):
        note(f"{pace.finished or 'none'} ended in the last hour: too few to tell how long it will take")


def _count(counts: dict[tuple[str, str, Status], int], order: str, program: str, state: Status) -> Text:
    count = counts.get((order, program, state), 0)
    return Text(str(count) if count else "", style=STATUS_STYLES.get(state, ""))


@click.command("list")
@queue_options.hosts_file
@queue_options.selection()
@click.option("--sort", type=click.Choice([key.value for key in Sort]), default="changed", show_default=True)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("-n", "--limit", type=click.IntRange(0), default=50, show_default=True, help="At most so many; 0: all.")
@queue_options.target
@options.as_json
def list_calculations(
    file: str | None,
    statuses: tuple[str, ...],
    orders: tuple[str, ...],
    programs: tuple[str, ...],
    workers: tuple[str, ...],
    since: str | None,
    sort: str,
    reverse: bool,
    limit: int,
    hosts_file: str | None,
    uri: str | None,
    databases: tuple[str, ...],
    json_lines: bool,
) -> int:
    """List calculations, the newest first.

    \b
    puffin-fleet queue list --status failed --since 2h
    puffin-fleet queue list --job 'scine_*' --worker 'node7-*' --sort runtime
    """
    wanted = selected(statuses, orders, programs, workers, since)
    if sort == Sort.RUNTIME.value:
        wanted = dataclasses.replace(wanted, timed=True)
    with opened(named_file(file, hosts_file, uri), uri, databases) as target:
        now = target.store.server_time()
        for queue in target.queues:
            entries = queue.entries(wanted, Sort(sort), reverse, limit)
            if json_lines:
                for entry in entries:
                    print_json(queue_results.entry_record(entry))
                continue
            if entries:
                print_entries(queue, entries, now, wanted, several=len(target.names) > 1)
            total = queue.count(wanted) if limit and len(entries) == limit else len(entries)
            more = (
                f"{len(entries)} of {total}: --limit 0 shows all"
                if total > len(entries)
                else f"{total} calculation{'s' if total != 1 else ''}"
            )
            note(f"{queue.name}: {more}", "dim")
    return ExitCode.DONE


def print_entries(
    queue: Queue, entries: Sequence[Entry], now: datetime, wanted: Selection, several: bool = False
) -> None:
    """Print calculations as a table.

    Parameters
    ----------
    queue
        Where they are.
    entries
        The calculations.
    now
        The time by the server's clock.
    wanted
        What was asked for: where all have the same status or job, that goes first for want of width.
    several
        Whether to say in which database they are.
    """
    one_job = len(wanted.orders) == 1 and not is_pattern(wanted.orders[0])
    has_comments = any(entry.comment for entry in entries)
    # The id stays whole, to be copied; what it is and what became of it are there at 80 columns, if need be cut.
    columns = [
        Column("ID"),
        Column("STATUS", spare=10 if len(wanted.statuses) == 1 else 0),
        *([Column("DATABASE", spare=3)] if several else []),
        Column("JOB", spare=9 if one_job else 1, cut=16),
        Column("WHAT", cut=12),
        Column("METHOD", spare=4),
        Column("PROGRAM", spare=6),
        Column("CHANGED", right=True, spare=2),
        Column("SECONDS", right=True, spare=7),
        Column("WORKER", spare=5),
        Column("COMMENT", spare=0 if has_comments else 8, cut=30 if one_job else 22),
    ]
    rows: list[list[Text | str]] = [
        [
            outcome.entry.id,
            Text(outcome.entry.status.value, style=STATUS_STYLES.get(outcome.entry.status, "")),
            *([queue.name] if several else []),
            outcome.entry.order,
            first_line(queue_results.title_of(outcome), 30),
            queue_results.method_of(outcome.entry),
            outcome.entry.program,
            age(outcome.entry.modified, now),
            f"{outcome.entry.runtime_s:.2f}" if outcome.entry.runtime_s is not None else "",
            outcome.entry.by,
            first_line(reason_of(outcome.entry.comment), 60),
        ]
        for outcome in queue.outcomes(entries)
    ]
    print_table(columns, rows)


@click.command()
@click.argument("calculation", metavar="ID")
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="Last lines of its output.")
@queue_options.target
@options.as_json
def show(
    calculation: str,
    lines: int,
    hosts_file: str | None,
    uri: str | None,
    databases: tuple[str, ...],
    json_lines: bool,
) -> int:
    """Show everything about one calculation; the beginning of its id is enough where only one begins so.

    \b
    puffin-fleet queue show 65f0c1
    puffin-fleet queue show 65f0c1 -n 200
    """
    with opened(hosts_file, uri, databases) as target:
        entry = entry_of(target, calculation)
        details = target.store.queue(entry.database).details(entry)
        if details is None:
            raise UsageError(f"{calculation}: it has just been removed")
        events = target.store.events.about(entry.id)
    if json_lines:
        print_json(_show_record(details, events))
    else:
        _print_details(details, events, lines)
    return ExitCode.DONE


def _show_record(details: Details, events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    whole = dataclasses.asdict(details)
    kept = ("cores", "memory", "disk", "model", "settings", "usage", "lost_on", "raw_output")
    record = {**queue_results.outcome_record(details.outcome), **{key: whole[key] for key in kept}}
    return {**record, "events": [{**event, "at": utc(event["at"])} for event in events]}


def _print_details(details: Details, events: Sequence[dict[str, Any]], lines: int) -> None:
    console = data_console()
    outcome, entry = details.outcome, details.outcome.entry
    console.print(Text.assemble((entry.id, "bold"), "  ", (entry.status.value, STATUS_STYLES.get(entry.status, ""))))
    ran = f"{entry.by}{f' on {entry.host}' if entry.host else ''}" if entry.by else ""
    ran += f", attempt {entry.attempt}" if entry.attempt else ""
    names = {"wall_s": "seconds", "cpu_s": "seconds of processor time", "peak_memory_gb": "GB of memory at most"}
    usage = ", ".join(f"{value:.3g} {names.get(name, name)}" for name, value in details.usage.items())
    pairs = [
        ("database", entry.database),
        ("job", f"{entry.order}, priority {entry.priority}"),
        ("asked for", f"cores {details.cores}, memory {details.memory:g} GB, disk {details.disk:g} GB"),
        ("model", model_text(details.model)),
        ("settings", ", ".join(f"{key}={value!r}" for key, value in details.settings.items())),
        ("created", _when(entry.created)),
        ("changed", _when(entry.modified)),
        ("run by", ran.strip(", ")),
        ("lost on", ", ".join(details.lost_on)),
        ("took", f"{entry.runtime_s:.2f} s" if entry.runtime_s is not None else ""),
        ("used", usage),
        ("comment", entry.comment.strip()),
    ]
    for name, value in pairs:
        if value:
            shown = plain(uncoloured(value), "\n\t").replace("\n", f"\n{'':10}")
            console.print(Text.assemble((f"{name:<10}", "dim"), shown))
    _section("Structures", [(item.id, item.name, item.formula, *_state(item)) for item in outcome.inputs])
    _section("Made", [(item.id, item.label, item.formula, *_state(item)) for item in outcome.structures])
    _section("Results", [(item.name, _value_text(item)) for item in outcome.properties])
    history = [(_when(event["at"]), event["kind"], event["worker"], event["detail"]) for event in events]
    _section("History", history)
    _print_output(details.raw_output, lines)


def _state(item: StructureInfo) -> tuple[str, str]:
    return f"charge {item.charge}", f"multiplicity {item.multiplicity}"


def _value_text(item: PropertyInfo) -> str:
    if isinstance(item.value, float):
        return f"{item.value:.8f} {queue_results.unit_of(item.name)}".strip()
    if isinstance(item.value, tuple):
        text = " ".join(f"{value:.6g}" for value in item.value)
        return text if len(text) <= _LONGEST_VALUE else f"{len(item.value)} numbers (--json has them)"
    if item.shape:
        return " x ".join(map(str, item.shape))
    return str(item.value)


def _section(title: str, rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    console = data_console()
    console.print()
    console.print(Text(title, style="bold"))
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(Text(f"  {line}".rstrip()))


def _print_output(raw_output: str, lines: int) -> None:
    output = uncoloured(raw_output).rstrip().splitlines()
    if not output or not lines:
        return
    shown = output[-lines:]
    console = data_console()
    console.print()
    console.print(
        Text("Output" + (f", the last {lines} of {len(output)} lines" if len(output) > lines else ""), "bold")
    )
    for line in shown:
        console.print(Text(f"  {plain(line, _TAB)}"))


def _when(when: datetime | None) -> str:
    return "" if when is None else full(when)
