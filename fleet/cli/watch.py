"""status."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from fleet.cli import options
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
from fleet.errors import ExitCode, RemoteError
from fleet.hosts.access import Remotes, open_remotes, open_store
from fleet.hosts.inventory import Host
from fleet.hosts.names import condensed
from fleet.reach.execute import ask, fan_out
from fleet.reach.facts import States, parse_states
from fleet.reach.remote import HostResult
from fleet.watch.moments import local
from fleet.watch.status import HostLook, HostStatus, WorkerStatus, by_host, status_of, to_json, totals
from fleet.words import duration
from puffin.errors import DatabaseError
from puffin.store import DrainNote, Store

_FEW = 16
"""Up to so many workers are shown one by one without being asked for."""
_MOST_WRONG = 20
_DEEP_TIMEOUT_S = 30.0

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
STATE_STYLES = {
    "lost": "bold red",
    "quarantined": "bold red",
    "unreported": "bold red",
    "frozen": "bold yellow",
    "starting": "yellow",
    "draining": "yellow",
    "running": "green",
    "stopped": "dim",
}
"""How a state looks on a terminal, here and in `top`."""


@dataclass(frozen=True)
class _View:
    """What there is to show at one moment."""

    hosts: Sequence[HostStatus]
    strangers: Sequence[WorkerStatus]
    queues: Mapping[str, Mapping[str, int]]
    told_to_stop: bool
    drained: Mapping[str, DrainNote]
    at: datetime
    failed: Sequence[HostResult[States]]

    @property
    def workers(self) -> list[WorkerStatus]:
        return [worker for host in self.hosts for worker in host.workers]


class _Seconds(click.FloatRange):
    """Says what to write where the word after --watch is not meant for it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            float(value)
        except ValueError:
            self.fail(f"'{value}' is no number of seconds; a file stands before it: {value} --watch", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@options.hosts_file
@options.as_json
@click.option("--deep", is_flag=True, help="Ask the hosts, too: what supervisord says, and what really runs.")
@click.option("--workers", "single", is_flag=True, help="Show every single worker.")
@click.option(
    "--watch",
    "every",
    type=_Seconds(min=0.2),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it again and again, every 2 seconds if nothing else is said; HOSTS_FILE stands before it.",
)
@options.parallel
def status(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    json_lines: bool,
    deep: bool,
    single: bool,
    every: float | None,
    parallel: int,
) -> int:
    """Show what every worker is doing, what is wrong first; asks the database, not the hosts.

    A large fleet is shown host by host, and single workers where something is wrong.

    \b
    puffin-fleet status
    puffin-fleet status --host node7 --deep
    puffin-fleet status --watch 5
    """
    chosen = options.choose(hosts_file, patterns)
    one_by_one = single or bool(patterns)
    with ExitStack() as opened:
        store = open_store(chosen.fleet)
        opened.callback(store.close)
        remotes = opened.enter_context(open_remotes(chosen.fleet, chosen.hosts)) if deep else None
        look = _Look(chosen, store, remotes, parallel, brief=not json_lines)
        if every is not None:
            _watch(chosen, look, every, one_by_one, json_lines)
        view = look.now()
    if json_lines:
        _print_lines(view)
    else:
        _print(chosen, view, one_by_one)
    return ExitCode.FAILED if report_failures(view.failed) else ExitCode.DONE


class _Look:
    """Looks at the database, and at the hosts where there are connections to them."""

    def __init__(self, chosen: Chosen, store: Store, remotes: Remotes | None, parallel: int, *, brief: bool) -> None:
        self._chosen = chosen
        self._store = store
        self._remotes = remotes
        self._parallel = parallel
        self._brief = brief

    def now(self) -> _View:
        fleet, store = self._chosen.fleet, self._store
        names = [host.name for host in self._chosen.hosts]
        everyone = {host.name for host in fleet.hosts}
        records = store.registry.workers(fleet.name, brief=self._brief)
        at = store.server_time()
        statuses = status_of(records, at, store.control.releases(fleet.name))
        chosen = set(names)
        results = self._ask_hosts()
        looks = None if results is None else {each.host: _host_look(each) for each in results}
        return _View(
            hosts=by_host(names, [each for each in statuses if each.record.host in chosen], looks),
            strangers=[each for each in statuses if each.record.host not in everyone and each.works],
            queues={name: store.calculations(name).count_by_status() for name in store.names},
            told_to_stop=store.control.is_stopped(fleet.name),
            drained={host: note for host, note in store.control.drained(fleet.name).items() if host in chosen},
            at=at,
            failed=[each for each in results or () if not each.ok],
        )

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


# Once --------------------------------------------------------------------------------------------------


def _print_lines(view: _View) -> None:
    for host in view.hosts:
        for worker in host.workers:
            print_json(to_json(worker, vars(worker.record)))


def _print(chosen: Chosen, view: _View, one_by_one: bool) -> None:
    for at, (columns, rows) in enumerate(_tables(view, one_by_one)):
        if at:
            click.echo()
        print_table(columns, rows)
    for text, style in _notes(chosen, view):
        note(text, style)


_Table = tuple[Sequence[Column], list[list[Text | str]]]


def _tables(view: _View, one_by_one: bool) -> Iterator[_Table]:
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
    parts = [Text(f"{count} {state}", style=STATE_STYLES.get(state, "")) for state, count in counts.items()]
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
        Text(worker.state, style=STATE_STYLES.get(worker.state, "")),
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


def _notes(chosen: Chosen, view: _View) -> Iterator[tuple[str, str]]:
    workers = view.workers
    wrong = sum(worker.wrong for worker in workers)
    if workers:
        counts = ", ".join(f"{count} {state}" for state, count in totals(workers).items())
        hosts = f" on {len(view.hosts)} hosts" if len(view.hosts) > 1 else ""
        yield f"{len(workers)} worker{'s' if len(workers) > 1 else ''}{hosts}: {counts}", "bold"
    else:
        yield "No worker has reported yet: 'puffin-fleet deploy' starts them.", "yellow"
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
        words = ", ".join(f"{count} {state}" for state, count in sorted(counts_by_state.items())) or "no calculations"
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


def _watch(chosen: Chosen, look: _Look, every: float, one_by_one: bool, json_lines: bool) -> None:
    """Until Ctrl-C; an outage of the database is shown, and ends when it does."""
    console = data_console()
    if json_lines or not console.is_terminal:
        while True:
            try:
                view = look.now()
            except DatabaseError as error:
                note(str(error), "red")
            else:
                _print_lines(view) if json_lines else _print(chosen, view, one_by_one)
                report_failures(view.failed)
            time.sleep(every)
    last: list[Text] = []
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            trouble: list[Text] = []
            try:
                last = _frame(chosen, look.now(), one_by_one, console.width)
            except DatabaseError as error:
                trouble = [Text(str(error), style="bold red", no_wrap=True, overflow="ellipsis")]
            lines = [*trouble, *last]
            if len(lines) > console.height:
                cut = len(lines) - console.height + 1
                lines = [*lines[: console.height - 1], Text(f"and {cut} lines more: choose with --host", style="dim")]
            live.update(Group(*lines), refresh=True)
            time.sleep(every)


def _frame(chosen: Chosen, view: _View, one_by_one: bool, width: int) -> list[Text]:
    head = Text(f"{chosen.fleet.name}, {local(view.at):%H:%M:%S %Z}; Ctrl-C ends", style="dim")
    lines = [head, *(Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in _notes(chosen, view))]
    for columns, rows in _tables(view, one_by_one):
        lines += [Text(), *table_lines(columns, rows, width)[0]]
    return lines
