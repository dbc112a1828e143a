"""What `status` shows: tables of hosts and workers, what else there is to say, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from fleet.cli.options import Chosen
from fleet.cli.output import (
    Column,
    data_console,
    note,
    print_json,
    print_table,
    report_failures,
    table_lines,
)
from fleet.cli.status_look import View
from fleet.hosts.names import condensed
from fleet.watch.moments import local
from fleet.watch.status import HostStatus, WorkerStatus, of_nobody, to_json, totals
from fleet.words import duration
from puffin.errors import DatabaseError
from puffin.store import DrainNote

_FEW = 16
"""Up to so many workers are shown one by one without being asked for."""
_MOST_WRONG = 20

_WORKER_COLUMNS = (
    Column("WORKER"),
    Column("STATE"),
    Column("SINCE", right=True),
    Column("JOB", spare=4, cut=12),
    Column("CALCULATION", spare=6),
    Column("DONE", right=True),
    Column("FAILED", right=True),
    Column("RESTARTS", right=True, spare=2),
    Column("CORES", right=True, spare=7),
    Column("GB", right=True, spare=5),
    Column("SEEN", right=True, spare=1),
    Column("RELEASE", spare=6),
)
_HOST_COLUMNS = (
    Column("HOST"),
    Column("WORKERS"),
    Column("COMPUTES", spare=1, cut=12),
    Column("OLDEST", right=True, spare=4),
    Column("DONE", right=True),
    Column("FAILED", right=True),
    Column("RESTARTS", right=True, spare=5),
    Column("SEEN", right=True, spare=3),
    Column("RELEASE", spare=6),
)
_SUPERVISORD = Column("SUPERVISORD", spare=3)
_TROUBLE = Column("TROUBLE", cut=24)
_STATE_STYLES = {
    "lost": "bold red",
    "quarantined": "bold red",
    "unreported": "bold red",
    "frozen": "bold yellow",
    "starting": "yellow",
    "draining": "yellow",
    "running": "green",
    "stopped": "dim",
}


def show(chosen: Chosen, view: View, one_by_one: bool, json_lines: bool) -> int:
    """Show it once; return how many hosts could not be asked.

    Parameters
    ----------
    chosen
        What was asked for.
    view
        What there is to show.
    one_by_one
        Whether to show each worker.
    json_lines
        Whether as JSON, a line for each worker.
    """
    if json_lines:
        _print_lines(view)
    else:
        _print_tables(chosen, view, one_by_one)
    return report_failures(view.failed)


def _print_lines(view: View) -> None:
    for record in records(view):
        print_json(record)


def records(view: View) -> Iterator[dict[str, Any]]:
    """What ``status --json`` prints: a record for each worker, and for each host of which none is known.

    Parameters
    ----------
    view
        What there is to show.
    """
    for host in view.hosts:
        drained = str(view.drained[host.host]) if host.host in view.drained else ""
        for worker in host.workers or (of_nobody(host),):
            found = to_json(worker, vars(worker.record), drained=drained, fleet_stopped=view.told_to_stop)
            yield found if host.workers else {**found, "troubles": list(host.without_workers)}


def _print_tables(chosen: Chosen, view: View, one_by_one: bool) -> None:
    for at, (columns, rows) in enumerate(_tables(view, one_by_one)):
        if at:
            click.echo()
        print_table(columns, rows)
    for text, style in _notes(chosen, view):
        note(text, style)


_Table = tuple[Sequence[Column], list[list[Text | str]]]


def _tables(view: View, one_by_one: bool) -> Iterator[_Table]:
    workers = view.workers
    if one_by_one or len(workers) <= _FEW:
        troubled = [host for host in view.hosts if host.without_workers]
        if troubled:
            yield _host_table(troubled)
        if workers:
            yield _worker_table(_urgent_first(workers))
        return
    yield _host_table(view.hosts)
    wrong = _urgent_first([worker for worker in workers if worker.wrong])
    if wrong:
        yield _worker_table(wrong[:_MOST_WRONG])


def _urgent_first(workers: Sequence[WorkerStatus]) -> list[WorkerStatus]:
    return sorted(workers, key=lambda worker: not worker.wrong)


def _host_table(hosts: Sequence[HostStatus]) -> _Table:
    wrong = any(host.own_troubles for host in hosts)
    columns = [*_HOST_COLUMNS, *([_TROUBLE] if wrong else [])]
    return columns, [[*_host_row(host), *([_trouble(host.own_troubles)] if wrong else [])] for host in hosts]


def _host_row(host: HostStatus) -> list[Text | str]:
    jobs = [order if count == 1 else f"{order} x{count}" for order, count in host.computing.items()]
    releases = sorted({worker.record.release for worker in host.workers if worker.works})
    failed = host.sum_of("failed")
    return [
        Text(host.host, style="bold red" if host.wrong else ""),
        states_text(totals(host.workers)),
        ", ".join(jobs),
        duration(host.oldest_s),
        str(host.sum_of("done")),
        Text(str(failed), style="red" if failed else ""),
        str(host.sum_of("restarts")),
        _seen(host.silent_s),
        Text(", ".join(releases), style="yellow" if any(worker.outdated for worker in host.workers) else ""),
    ]


def states_text(counts: Mapping[str, int]) -> Text:
    """How many are in each state, each in its colour.

    Parameters
    ----------
    counts
        The counts by state.
    """
    parts = [Text(f"{count} {state}", style=_STATE_STYLES.get(state, "")) for state, count in counts.items()]
    return Text(", ").join(parts)


def _worker_table(workers: Sequence[WorkerStatus]) -> _Table:
    deep = any(worker.on_host is not None for worker in workers)
    wrong = any(worker.wrong for worker in workers)
    columns = [*_WORKER_COLUMNS, *([_SUPERVISORD] if deep else []), *([_TROUBLE] if wrong else [])]
    rows = [
        [
            *_worker_row(worker),
            *([_supervisord(worker)] if deep else []),
            *([_trouble(worker.troubles)] if wrong else []),
        ]
        for worker in workers
    ]
    return columns, rows


def _worker_row(worker: WorkerStatus) -> list[Text | str]:
    record = worker.record
    return [
        record.worker,
        Text(worker.state, style=_STATE_STYLES.get(worker.state, "")),
        duration(worker.age_s) if worker.works else "",
        record.order if worker.works else "",
        record.calculation if worker.works else "",
        str(record.done),
        Text(str(record.failed), style="red" if record.failed else ""),
        str(record.restarts),
        str(record.cores),
        worker.memory,
        _seen(None if worker.silent_s == float("inf") else worker.silent_s),
        Text(record.release, style="yellow" if worker.outdated else ""),
    ]


def _supervisord(worker: WorkerStatus) -> Text:
    on_host = worker.on_host
    if on_host is None:
        return Text("")
    words = [on_host.program or "unknown there"]
    words += ["told to stop"] if on_host.stopped else []
    words += ["recycling"] if on_host.recycling else []
    return Text(", ".join(words), style="" if on_host.program == "RUNNING" else "yellow")


def _trouble(troubles: Sequence[str]) -> Text:
    return Text("; ".join(troubles), style="red")


def _seen(silent_s: float | None) -> str:
    return "never" if silent_s is None else f"{duration(silent_s)} ago"


def _notes(chosen: Chosen, view: View) -> Iterator[tuple[str, str]]:
    workers = view.workers
    wrong = sum(worker.wrong for worker in workers)
    if workers:
        counts = ", ".join(f"{count} {state}" for state, count in totals(workers).items())
        hosts = f" on {len(view.hosts)} hosts" if len(view.hosts) > 1 else ""
        yield f"{len(workers)} worker{'s' if len(workers) > 1 else ''}{hosts}: {counts}", "bold"
    else:
        yield (
            "No worker has reported: 'puffin-fleet deploy' starts them; after a deploy, 'puffin-fleet check'.",
            "yellow",
        )
    if wrong > _MOST_WRONG and len(workers) > _FEW:
        yield f"something is wrong with {wrong} workers: --workers shows all", "yellow"
    if view.told_to_stop:
        yield "The fleet is told to stop: 'puffin-fleet start' lifts that.", "yellow"
    yield from ((text, "yellow") for text in _drained(view.drained))
    outdated = [worker for worker in workers if worker.outdated]
    if outdated:
        idle = sum(not worker.record.calculation for worker in outdated)
        later = "each changes when its calculation is done"
        others = f"; {idle} of them idle: 'puffin-fleet deploy' if that lasts" if idle else ""
        yield f"{len(outdated)} of {len(workers)} workers still run an earlier release: {later}{others}", "yellow"
    if view.strangers and chosen.whole:
        hosts = condensed(sorted({worker.record.host for worker in view.strangers}))
        yield f"{len(view.strangers)} workers of hosts that are not in hosts.yaml report, too: {hosts}", "yellow"
    for name, counts_by_state in view.queues.items():
        if counts_by_state is None:
            yield f"database {name}: its calculations could not be counted in time", "yellow"
            continue
        words = ", ".join(f"{count} {state}" for state, count in counts_by_state.items()) or "no calculations"
        yield f"database {name}: {words}", ""


def _drained(drained: Mapping[str, DrainNote]) -> Iterator[str]:
    """Hosts that were taken out together in one line."""
    together: dict[tuple[str, str], list[str]] = {}
    for host, found in drained.items():
        together.setdefault((found.by, found.why), []).append(host)
    for (by, why), hosts in sorted(together.items()):
        one = len(hosts) == 1
        back = f"'puffin-fleet resume {hosts[0] if one else 'HOST'}' brings {'it' if one else 'each'} back"
        yield f"{condensed(sorted(hosts))} drained by {by}{f': {why}' if why else ''}; {back}"


# Again and again ---------------------------------------------------------------------------------------


def watch(chosen: Chosen, look: Callable[[], View], every: float, one_by_one: bool, json_lines: bool) -> NoReturn:
    """Show it again and again until Ctrl-C; an outage of the database is shown, and ends when it does.

    Parameters
    ----------
    chosen
        What was asked for.
    look
        Finds out what there is to show.
    every
        Seconds between two looks.
    one_by_one, json_lines
        As for :func:`show`.
    """
    console = data_console()
    if json_lines or not console.is_terminal:
        while True:
            try:
                view = look()
            except DatabaseError as error:
                note(str(error), "red")
            else:
                show(chosen, view, one_by_one, json_lines)
            time.sleep(every)
    last: list[Text] = []
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            trouble: list[Text] = []
            try:
                last = _frame(chosen, look(), one_by_one, console.width)
            except DatabaseError as error:
                trouble = [Text(str(error), style="bold red", no_wrap=True, overflow="ellipsis")]
            lines = [*trouble, *last]
            if len(lines) > console.height:
                cut = len(lines) - console.height + 1
                lines = [*lines[: console.height - 1], Text(f"and {cut} lines more: choose with --host", style="dim")]
            live.update(Group(*lines), refresh=True)
            time.sleep(every)


def _frame(chosen: Chosen, view: View, one_by_one: bool, width: int) -> list[Text]:
    head = Text(f"{chosen.fleet.name}, {local(view.at):%H:%M:%S %Z}; Ctrl-C ends", style="dim")
    lines = [head, *(Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in _notes(chosen, view))]
    for columns, rows in _tables(view, one_by_one):
        lines += [Text(), *table_lines(columns, rows, width)[0]]
    return lines
