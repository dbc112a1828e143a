"""stop, start."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Callable, Sequence

import click
from rich.text import Text

from fleet.access import open_remotes, open_store
from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Board, Column, note, print_json, print_table, report_failures
from fleet.errors import ExitCode, UsageError
from fleet.execute import fan_out
from fleet.remote import HostResult
from fleet.stopping import HostControl, Stop, Stopped
from puffin.errors import DatabaseError
from puffin.store import Control


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@click.option("--now", is_flag=True, help="Give running calculations back instead of waiting for them.")
@click.option("--no-wait", is_flag=True, help="Return once the workers have been told.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait no longer than this.")
@click.option("--supervisord", is_flag=True, help="End supervisord as well.")
@click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
def stop(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    now: bool,
    no_wait: bool,
    timeout: float | None,
    supervisord: bool,
    yes: bool,
) -> int:
    """Let the workers finish their jobs and stop; they stay stopped until 'start'.

    Without --host the stop is also written to the database, for hosts that cannot be reached.

    \b
    puffin-fleet stop
    puffin-fleet stop --now --timeout 60
    """
    chosen = options.choose(hosts_file, patterns)
    # A script that stops before a power cut must not wait for an answer.
    if (
        not yes
        and sys.stdin.isatty()
        and not click.confirm(f"Stop the workers of {len(chosen.hosts)} hosts?", err=True)
    ):
        raise UsageError("nothing was stopped")
    how = Stop(now=now, wait=not no_wait, timeout_s=timeout, supervisord=supervisord)
    if chosen.whole:
        by = f"{getpass.getuser()}@{socket.gethostname()}"
        _order(chosen, lambda control: control.order_stop(chosen.fleet.name, by), "Only the hosts are told.")
    results = _stop_all(chosen, parallel, how)
    _report(results, json_lines, "stopped", "will stop when done: ")
    left = [worker for result in results if result.value for worker in result.value.running]
    failed = report_failures(results)
    return ExitCode.FAILED if failed or (left and not no_wait) else ExitCode.DONE


def _stop_all(chosen: Chosen, parallel: int, how: Stop) -> list[HostResult[Stopped]]:
    """Tell all hosts before waiting for any: the last must not go on taking work while the first one drains."""
    hosts = {host.name: host for host in chosen.hosts}
    with open_remotes(chosen.fleet, chosen.hosts) as remotes, Board("Stopping", len(hosts)) as board:

        def control(name: str) -> HostControl:
            return HostControl(chosen.fleet, hosts[name], remotes[name], lambda what: board.step(name, what))

        told = fan_out({name: name for name in hosts}, lambda name: control(name).tell(how), parallel)
        waiting = {result.host: result.value for result in told if result.value is not None}
        ended = fan_out(
            {name: (name, value) for name, value in waiting.items()},
            lambda pair: control(pair[0]).see_off(pair[1], how),
            max(1, len(waiting)),
            lambda event: board.finished(event.host, event.result.ok) if event.result else None,
        )
    done = {result.host: result for result in ended}
    return [done.get(result.host) or HostResult(result.host, error=result.error) for result in told]


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
def start(hosts_file: str | None, patterns: tuple[str, ...], parallel: int, json_lines: bool) -> int:
    """Start what was stopped; a stop of the whole fleet is lifted.

    \b
    puffin-fleet start
    puffin-fleet start --host node7
    """
    chosen = options.choose(hosts_file, patterns)
    # A stop that still stands in the database would stop again whatever is started now.
    lifted = _order(
        chosen,
        lambda control: control.lift_stop(chosen.fleet.name),
        "If the fleet was stopped, its workers stop again when the database answers: run this again then.",
    )
    results = _on_each(chosen, parallel, "Starting", HostControl.start)
    _report(results, json_lines, "no workers", "running: ")
    return ExitCode.FAILED if report_failures(results) or not lifted else ExitCode.DONE


def _order(chosen: Chosen, give: Callable[[Control], None], otherwise: str) -> bool:
    """Leave an order in the database; where that fails, say what it means and return False."""
    store = open_store(chosen.fleet)
    try:
        give(store.control)
    except DatabaseError as error:
        note(f"{error}\n  {otherwise}", "yellow")
        return False
    finally:
        store.close()
    return True


def _on_each(
    chosen: Chosen, parallel: int, title: str, act: Callable[[HostControl], Stopped]
) -> list[HostResult[Stopped]]:
    hosts = {host.name: host for host in chosen.hosts}
    with open_remotes(chosen.fleet, chosen.hosts) as remotes, Board(title, len(hosts)) as board:
        return fan_out(
            hosts,
            lambda host: act(
                HostControl(chosen.fleet, host, remotes[host.name], lambda what: board.step(host.name, what))
            ),
            parallel,
            lambda event: board.finished(event.host, event.result.ok) if event.result else None,
        )


def _report(results: Sequence[HostResult[Stopped]], json_lines: bool, nothing: str, some: str) -> None:
    if json_lines:
        for result in results:
            running = list(result.value.running) if result.value else None
            print_json({"host": result.host, "ok": result.ok, "running": running, "error": str(result.error or "")})
        return
    rows: list[list[Text | str]] = []
    for result in results:
        if result.value is None:
            rows.append([result.host, Text("failed", style="red")])
        else:
            rows.append([result.host, some + ", ".join(result.value.running) if result.value.running else nothing])
    print_table((Column("HOST"), Column("WORKERS")), rows)
