"""collect."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from fleet.cli import options, times
from fleet.cli.logs import calculation_id, hosts_of
from fleet.cli.options import Chosen
from fleet.cli.output import Board, Column, note, print_json, print_table, report_failures
from fleet.cli.times import seconds
from fleet.errors import ExitCode, FleetError
from fleet.hosts.access import Remotes, open_remotes
from fleet.hosts.inventory import Host
from fleet.reach import probing
from fleet.reach.execute import Interrupted, fan_out
from fleet.reach.remote import HostResult
from fleet.watch.collection import MANIFEST, Listing, file_record
from fleet.watch.collection_folder import Collection, Fetch
from fleet.watch.collector import HostCollection, fetch, look
from fleet.words import amount, utc

_ASK_ABOVE = 1 << 30
_PROBLEMS = 20


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@click.option(
    "-o",
    "--output",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it goes.",
)
@times.since("Only files that were written to")
@click.option("--failed", is_flag=True, help="Failed calculations without the logs of workers.")
@click.option("--calculation", metavar="ID", help="Only what is about this calculation, also if it did not fail.")
@options.yes
def collect(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    directory: Path,
    since: str | None,
    failed: bool,
    calculation: str | None,
    yes: bool,
) -> int:
    """Fetch logs, failed calculations and the state of hosts, to look at them here or to send them to somebody.

    Secrets in configuration are hidden. Done again, with the same DIR, it fetches what is missing or has grown.

    \b
    puffin-fleet collect -o trouble --since 1d
    puffin-fleet collect -o trouble --calculation 6b02d5829fc92b7451414cc0
    """
    wanted = {"since": seconds("--since", since), "failed": failed, "calculation": calculation_id(calculation)}
    chosen = options.choose(hosts_file, patterns)
    hosts = {host.name: host for host in (chosen.hosts if calculation is None else hosts_of(chosen, calculation))}
    collection = Collection(directory, chosen.fleet.name)
    with open_remotes(chosen.fleet, tuple(hosts.values())) as remotes:
        looked = fan_out(hosts, lambda host: look(remotes[host.name], _request(chosen, host, wanted)), parallel)
        found = {result.host: result.value for result in looked if result.value is not None}
        missing = {host: collection.prepare(host, listing) for host, listing in found.items()}
        _confirm(collection, missing, yes)
        work = _Work(remotes, collection, found, missing, parallel)
        try:
            fetched = work.run()
        except Interrupted as interrupted:
            work.write([*(one for one in looked if not one.ok), *interrupted.results], wanted)
            note(f"\nWhat has come is in {directory}: the same command goes on.", "yellow")
            raise
    done = {result.host: result for result in fetched}
    results = [done.get(one.host) or HostResult[HostCollection](one.host, error=one.error) for one in looked]
    work.write(results, wanted)
    _report(results, directory, json_lines)
    spoiled = sum(result.value.spoiled for result in results if result.value is not None)
    return ExitCode.FAILED if report_failures(results) or spoiled else ExitCode.DONE


def _request(chosen: Chosen, host: Host, wanted: Mapping[str, object]) -> dict[str, Any]:
    probe = probing.probe_request(
        chosen.fleet.name, host.name, host.base_dir, host.scratch, chosen.fleet.release.python
    )
    daemon = host.puffin.get("daemon") or {}
    places = {f"{name}s": [daemon[name]] if daemon.get(name) else [] for name in ("error_dir", "archive_dir")}
    return {**probe, **wanted, **places}


def _confirm(collection: Collection, missing: Mapping[str, Sequence[Fetch]], yes: bool) -> None:
    """Say how much it is, and refuse or ask where that is much."""
    sizes = {host: sum(each.missing for each in wanted) for host, wanted in missing.items()}
    total = sum(sizes.values())
    largest = sorted(sizes.items(), key=lambda entry: -entry[1])[:3]
    where = f"; most of it from {', '.join(f'{host} ({amount(size)})' for host, size in largest)}" if total else ""
    note(f"{amount(total)} to fetch from {len(sizes)} host{'' if len(sizes) == 1 else 's'}{where}", "dim")
    if total > collection.free():
        raise FleetError(
            f"{amount(total)} do not fit here, where {amount(max(0, collection.free()))} may be used: "
            "say --since, --failed or --host, or choose another disk"
        )
    if total > _ASK_ABOVE:
        options.confirm(f"Fetch {amount(total)}?", yes, "fetched")


@dataclass
class _Work:
    """The fetching, and the manifest that tells how far it has come."""

    remotes: Remotes
    collection: Collection
    found: Mapping[str, Listing]
    missing: Mapping[str, Sequence[Fetch]]
    parallel: int

    def run(self) -> list[HostResult[HostCollection]]:
        lock = threading.Lock()
        with Board("Collecting", len(self.found)) as board:

            def one(host: str) -> HostCollection:
                known = self.collection.known.get(host, {})
                place = self.collection.place(host)
                board.step(host, "fetching")
                done = fetch(
                    self.remotes[host],
                    self.found[host],
                    self.missing[host],
                    known,
                    place,
                    lambda size: board.step(host, f"fetching, {amount(size)}"),
                )
                with lock:
                    self.collection.known[host] = done.files
                    self.collection.write_manifest({})
                return done

            return fan_out(
                {host: host for host in self.found},
                one,
                self.parallel,
                lambda event: board.finished(event.host, event.result.ok) if event.result else None,
            )

    def write(self, results: list[HostResult[Any]], wanted: Mapping[str, object]) -> None:
        hosts: dict[str, dict[str, Any]] = {}
        for result in results:
            files = result.value.files if isinstance(result.value, HostCollection) else {}
            files = files or self.collection.known.get(result.host, {})
            problems = result.value.problems if isinstance(result.value, HostCollection) else []
            hosts[result.host] = {
                "error": str(result.error) if result.error else None,
                "problems": problems,
                "files": {local: file_record(file) for local, file in sorted(files.items())},
            }
        made = utc(datetime.now(timezone.utc))
        self.collection.write_manifest(hosts, made=made, asked=dict(wanted))


def _report(results: list[HostResult[HostCollection]], directory: Path, json_lines: bool) -> None:
    rows: list[list[Text | str]] = []
    for result in results:
        done = result.value or HostCollection()
        if json_lines:
            counted = {
                "files": done.count,
                "bytes": done.size,
                "fetched_bytes": done.fetched,
                "problems": done.problems,
            }
            ok = result.ok and not done.spoiled
            print_json({"host": result.host, "ok": ok, **counted, "error": str(result.error or "")})
        problems = f"{len(done.problems)} problem{'' if len(done.problems) == 1 else 's'}" if done.problems else ""
        rows.append(
            [
                result.host,
                _outcome(result),
                str(done.count),
                amount(done.size),
                amount(done.fetched),
                Text(problems, style="yellow"),
            ]
        )
    if json_lines:
        return
    right = [Column("FILES", right=True), Column("SIZE", right=True), Column("FETCHED NOW", right=True)]
    print_table((Column("HOST"), Column("RESULT"), *right, Column("")), rows)
    _say_problems([(one.host, problem) for one in results if one.value for problem in one.value.problems])
    note(f"It is in {directory}; {directory / MANIFEST} says what is there, and what could not be had.")


def _outcome(result: HostResult[HostCollection]) -> Text:
    if result.value is None:
        return Text("failed", style="red")
    return Text("incomplete", style="red") if result.value.spoiled else Text("collected", style="green")


def _say_problems(problems: Sequence[tuple[str, str]]) -> None:
    for host, problem in problems[:_PROBLEMS]:
        note(f"{host}: {problem}", "yellow")
    if len(problems) > _PROBLEMS:
        note(f"and {len(problems) - _PROBLEMS} problems more: {MANIFEST} has all", "yellow")
