"""status, logs."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import click
from rich.text import Text

from fleet import facts as host_facts
from fleet.access import Remotes, open_remotes, open_store
from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Column, data_console, note, print_error, print_json, print_table, report_failures
from fleet.errors import ExitCode, FleetError
from fleet.execute import ask, fan_out, follow
from fleet.inventory import Host
from fleet.logs import HoldBack, LogLine, merge, parse_all
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
_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "bold red"}
_COLOURS = ("cyan", "magenta", "blue", "green", "bright_cyan", "bright_magenta", "bright_blue", "bright_green")
_HOLD_BACK_S = 0.5


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


@click.command()
@options.hosts_file
@options.as_json
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added.")
@click.option("--worker", "worker_pattern", metavar="PATTERN", default="*", help="Only workers that match.")
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="Last lines of each worker.")
def logs(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    json_lines: bool,
    follow: bool,
    worker_pattern: str,
    lines: int,
) -> int:
    """Show what the workers wrote, all hosts merged by time.

    \b
    puffin-fleet logs -n 5
    puffin-fleet logs -f --host node7
    """
    chosen = options.choose(hosts_file, patterns)
    printer = _Printer(json_lines)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        if follow:
            return _follow(chosen, remotes, worker_pattern, lines, printer)
        results = fan_out(
            {host.name: host for host in chosen.hosts},
            lambda host: _last_lines(chosen, host, remotes, worker_pattern, lines),
            len(chosen.hosts),
        )
    for line in merge([entries for result in results for entries in result.value or []]):
        printer.show(line)
    return ExitCode.FAILED if report_failures(results) else ExitCode.DONE


class _Printer:
    """Prints log lines, each worker in a colour of its own."""

    def __init__(self, json_lines: bool) -> None:
        self._json_lines = json_lines
        self._console = data_console()
        self._colours: dict[str, str] = {}

    def show(self, line: LogLine) -> None:
        if self._json_lines:
            print_json({**dataclasses.asdict(line), "time": line.time.isoformat() if line.time else None})
            return
        colour = self._colours.setdefault(line.worker, _COLOURS[len(self._colours) % len(_COLOURS)])
        text = Text(line.text, style=_LEVEL_STYLES.get(line.level, ""))
        text.highlight_words([line.worker], style=colour)
        self._console.print(text if line.level else Text.assemble((f"{line.worker} ", colour), text))


def _request(chosen: Chosen, host: Host, remotes: Remotes, pattern: str) -> dict[str, object]:
    """What to tail on a host; its workers are found there, since hosts.yaml may say something new by now."""
    release = chosen.fleet.release
    request = host_facts.probe_request(chosen.fleet.name, host.name, host.base_dir, host.scratch, release.python)
    found = host_facts.parse(host.name, ask(remotes[host.name], host_facts.ACTION, request))
    names = [file.path for file in found.files if file.path.startswith("etc/workers/") and file.path.endswith(".yaml")]
    workers = [name.removeprefix("etc/workers/").removesuffix(".yaml") for name in names]
    files = [{"worker": name, "path": f"log/{name}.log"} for name in workers if fnmatchcase(name, pattern)]
    return {"host_root": found.host_root, "files": files}


def _last_lines(chosen: Chosen, host: Host, remotes: Remotes, pattern: str, lines: int) -> list[list[LogLine]]:
    request = {**_request(chosen, host, remotes, pattern), "lines": lines, "follow": False}
    texts: dict[str, list[str]] = {}
    for entry in ask(remotes[host.name], "tail", request)["entries"]:
        texts.setdefault(str(entry["worker"]), []).append(str(entry["line"]))
    return [list(parse_all(worker, found)) for worker, found in texts.items()]


def _follow(chosen: Chosen, remotes: Remotes, pattern: str, lines: int, printer: _Printer) -> int:
    arrived: queue.SimpleQueue[tuple[str, str] | FleetError | None] = queue.SimpleQueue()

    def read(host: Host) -> None:
        try:
            request = {**_request(chosen, host, remotes, pattern), "lines": lines, "follow": True}
            for entry in follow(remotes[host.name], "tail", request):
                if "line" in entry:
                    arrived.put((str(entry["worker"]), str(entry["line"])))
        except FleetError as error:
            print_error(host.name, error)
            arrived.put(error)
        finally:
            arrived.put(None)

    for host in chosen.hosts:
        # Daemons: a host that hangs must not keep the command from ending.
        threading.Thread(target=read, args=(host,), daemon=True).start()
    failed = False
    held = HoldBack(_HOLD_BACK_S)
    for item in _until_all_ended(arrived, len(chosen.hosts)):
        failed = failed or isinstance(item, FleetError)
        if isinstance(item, tuple):
            held.add(*item, time.monotonic())
        for line in held.ready(time.monotonic()):
            printer.show(line)
    for line in held.rest():
        printer.show(line)
    return ExitCode.FAILED if failed else ExitCode.DONE


def _until_all_ended(
    arrived: queue.SimpleQueue[tuple[str, str] | FleetError | None], hosts: int
) -> Iterator[tuple[str, str] | FleetError | None]:
    """What arrives, and None now and then so that what was held back can be shown."""
    open_hosts = hosts
    while open_hosts:
        try:
            item = arrived.get(timeout=_HOLD_BACK_S / 2)
        except queue.Empty:
            yield None
            continue
        open_hosts -= item is None
        yield item
