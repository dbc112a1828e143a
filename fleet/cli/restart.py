"""restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import click
from rich.text import Text

from fleet import shapes
from fleet.cli import options
from fleet.cli.output import Board, Column, note, print_json, print_table, report_failures
from fleet.deployment.host_deploy import Deployed
from fleet.deployment.lock import again_when_changed, new_deed
from fleet.deployment.manner import Manner
from fleet.deployment.survey import probe_all
from fleet.errors import ExitCode, FleetError, RemoteError
from fleet.hosts.access import open_remotes, open_store
from fleet.operation.restarting import RestartOptions, restart_hosts, workers_of
from fleet.reach.execute import say_for
from fleet.reach.facts import Facts
from fleet.reach.remote import HostResult
from puffin.errors import DatabaseError
from puffin.store import Store


@click.command()
@options.hosts_file
@options.workers
@options.parallel_looking
@options.as_json
@options.lock_timeout
@click.option(
    "--rolling",
    is_flag=True,
    help="update.max_parallel hosts at a time, each healthy again before the next; the default.",
)
@click.option("--when-idle", is_flag=True, help="Return at once; each when it is done.")
@click.option("--now", is_flag=True, help="All at once, calculations are given back.")
@options.yes_to_now
def restart(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    workers: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    lock_timeout: float,
    rolling: bool,
    when_idle: bool,
    now: bool,
    yes: bool,
) -> int:
    """Start workers anew, with what is deployed; running calculations are finished first, unless --now.

    Workers that were stopped stay so; those that crashed or were quarantined are started. Only --now asks before.

    \b
    puffin-fleet restart
    puffin-fleet restart --when-idle --host 'node*'
    puffin-fleet restart --now --worker node7-2
    """
    how = RestartOptions(
        new_deed("restart"), options.manner_of(rolling=rolling, when_idle=when_idle, now=now), workers, lock_timeout
    )
    chosen = options.choose(hosts_file, patterns)
    if now:
        which = options.affected(chosen, workers)
        options.confirm(f"Restart {which} (gives running calculations back)?", yes, "restarted")
    store = open_store(chosen.fleet)
    try:
        if how.manner is not Manner.WHEN_IDLE:
            _require_database(store, chosen.fleet.source)
        with open_remotes(chosen.fleet, chosen.hosts) as remotes, Board("Restarting", len(chosen.hosts)) as board:
            seen: dict[str, Facts] = {}

            def attempt(lock_timeout_s: float) -> list[HostResult[Deployed]]:
                probed = probe_all(chosen.fleet, chosen.hosts, remotes, parallel)
                seen.update({one.host: one.value for one in probed if one.value is not None})
                ready = _ready(probed, workers)
                waiting = replace(how, lock_timeout_s=lock_timeout_s)
                done = restart_hosts(chosen.fleet, ready, remotes, store, waiting, board) if ready else []
                results = {one.host: one for one in done}
                return [results.get(one.host) or _refused(one) for one in probed]

            results = again_when_changed(attempt, lock_timeout, say_for(board))
    finally:
        store.close()
    drained = {host: str(facts.drained) for host, facts in seen.items() if facts.drained is not None}
    _report(results, {host: _why_left_alone(facts, workers) for host, facts in seen.items()}, drained, json_lines)
    for host, words in drained.items():
        note(f"{host} is {words}; 'puffin-fleet resume {host}' brings it back.", "yellow")
    return ExitCode.FAILED if report_failures(results) else ExitCode.DONE


def _require_database(store: Store, source: str) -> None:
    """Refuse while nothing has been touched: later it is waited for, as long as `update.progress_deadline` says."""
    try:
        store.check()
    except DatabaseError as error:
        what = f"A restart watches its workers through the database; check the section 'database' of {source}"
        raise FleetError(f"{error}\n  {what} and the server") from error


def _ready(probed: Sequence[HostResult[Facts]], workers: Sequence[str]) -> list[Facts]:
    """The hosts that can be restarted."""
    ready = [one.value for one in probed if one.value is not None and _refused(one).ok]
    found = {facts.host: any(options.matches(name, workers) for name in workers_of(facts)) for facts in ready}
    options.refuse_unknown(workers, [found.get(one.host) for one in probed])
    return ready


def _refused(probed: HostResult[Facts]) -> HostResult[Deployed]:
    """A host that cannot be restarted, with the reason; one without an error can."""
    error = probed.error
    if probed.value is not None and probed.value.current is None:
        error = RemoteError(probed.host, "looking", "nothing is deployed there", "run 'puffin-fleet deploy' first")
    return HostResult[Deployed](probed.host, error=error, seconds=probed.seconds)


def _why_left_alone(facts: Facts, patterns: Sequence[str]) -> str:
    """Why nothing of a host was restarted, if nothing was."""
    if facts.drained is not None:
        return str(facts.drained)
    asked_for = [name for name in workers_of(facts) if not patterns or options.matches(name, patterns)]
    return "stopped" if asked_for else "no such worker" if patterns else "no workers"


def _report(
    results: Sequence[HostResult[Deployed]],
    why_left_alone: Mapping[str, str],
    drained: Mapping[str, str],
    json_lines: bool,
) -> None:
    if json_lines:
        for result in results:
            value = result.value
            record: shapes.Restarted = {
                "host": result.host,
                "ok": result.ok,
                "workers": [{"worker": one.worker, "health": one.health.value} for one in value.workers]
                if value
                else [],
                "pending": list(value.pending) if value else [],
                "drained": drained.get(result.host, ""),
                "error": str(result.error or ""),
            }
            print_json(record)
        return
    print_table((Column("HOST"), Column("WORKERS")), [[one.host, _words(one, why_left_alone)] for one in results])


def _words(result: HostResult[Deployed], why_left_alone: Mapping[str, str]) -> Text:
    value = result.value
    if value is None:
        return Text("failed", style="red")
    if value.pending:
        return Text("will restart when done: " + ", ".join(value.pending))
    if not value.changed:
        return Text(f"left alone: {why_left_alone[result.host]}", style="dim")
    if not value.workers:
        return Text("started: what was down", style="green")
    return Text("restarted: " + ", ".join(one.worker for one in value.workers), style="green")
