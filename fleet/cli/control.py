"""stop, start, drain, resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click
from rich.text import Text

from fleet import shapes
from fleet.cli import completion, options
from fleet.cli.options import Chosen, refuse_unknown
from fleet.cli.output import Board, Column, note, print_json, print_table, report_failures
from fleet.deployment.lock import new_deed
from fleet.errors import ExitCode, UsageError
from fleet.hosts.access import Remotes, open_remotes, open_store
from fleet.operation.host_control import HostControl, Started, StopOptions, Stopped
from fleet.operation.reported import Reported
from fleet.operation.stopping import stop_hosts
from fleet.reach.execute import fan_out
from fleet.reach.remote import HostResult
from puffin.errors import DatabaseError
from puffin.store import Control, Store

Found = TypeVar("Found")

_TIDYING_S = 1.5


@click.command()
@options.hosts_file
@options.workers
@options.parallel_telling
@options.as_json
@click.option("--now", is_flag=True, help="Give running calculations back instead of waiting for them.")
@click.option("--no-wait", is_flag=True, help="Return once the workers have been told.")
@options.timeout
@click.option("--supervisord", is_flag=True, help="End supervisord as well.")
@options.yes
def stop(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    workers: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    now: bool,
    no_wait: bool,
    timeout: float | None,
    supervisord: bool,
    yes: bool,
) -> int:
    """Let the workers finish their jobs and stop; they stay stopped until 'start'.

    Without --host and --worker the stop is also written to the database. Hosts that cannot be reached read it there
    within 75 s; their workers always finish what they run.

    \b
    puffin-fleet stop
    puffin-fleet stop --worker 'node7-*' --no-wait
    puffin-fleet stop --now --timeout 60 --yes   # in a script, before a power cut
    """
    chosen = options.choose(hosts_file, patterns)
    if supervisord and workers:
        raise UsageError("--supervisord ends all workers of a host: leave --worker out")
    if supervisord and no_wait:
        raise UsageError("--supervisord ends it when its workers have ended, which --no-wait does not wait for")
    what = "gives running calculations back" if now else "lets running calculations finish"
    options.confirm(f"Stop {options.affected(chosen, workers)} ({what})?", yes, "stopped")
    how = StopOptions(now=now, wait=not no_wait, timeout_s=timeout, supervisord=supervisord, workers=workers)
    code, _ = _stop(chosen, how, parallel, json_lines, whole=chosen.whole and not workers)
    return code


def _stop(chosen: Chosen, how: StopOptions, parallel: int, json_lines: bool, whole: bool) -> tuple[int, list[str]]:
    """Stop, report, and return the exit code and the hosts that know of it."""
    store = open_store(chosen.fleet)
    reported = Reported(store, chosen.fleet.name)
    by = new_deed("stop").who
    try:
        with open_remotes(chosen.fleet, chosen.hosts) as remotes, Board("Stopping", len(chosen.hosts)) as board:
            results, problem = stop_hosts(
                _controls(chosen, remotes, board, reported),
                how,
                reported,
                board,
                parallel,
                (lambda: store.control.order_stop(chosen.fleet.name, by)) if whole else None,
            )
    finally:
        store.close()
    if problem is not None:
        note(f"{problem}\n  Only the hosts are told.", "yellow")
    if json_lines:
        for result in results:
            print_json(_stop_record(result))
    else:
        print_table((Column("HOST"), Column("WORKERS")), [[one.host, _stop_words(one, how.wait)] for one in results])
    for result in results:
        if result.value and result.value.trouble:
            how_far = "could not be told by SSH" if result.value.by_database else "was told, but then out of reach"
            note(f"{result.host} {how_far}: {result.value.trouble}", "yellow")
    left = [worker for result in results if result.value for worker in result.value.running]
    failed = report_failures(results)
    refuse_unknown(how.workers, [result.value.matched if result.value else None for result in results])
    known = [result.host for result in results if result.value and result.value.matched]
    if known and problem is None:
        _expect_no_more(chosen, results, how.workers)
    return (ExitCode.FAILED if failed or (left and how.wait) else ExitCode.DONE), known


def _expect_no_more(chosen: Chosen, results: Sequence[HostResult[Stopped]], patterns: Sequence[str]) -> None:
    """Have nobody miss workers that had ended to start again, and were told to stay down before they had."""
    hosts = [result.host for result in results if result.value]
    # For a short time only: this must not hold up whoever waits for the power to be cut.
    store = open_store(chosen.fleet, timeout_s=_TIDYING_S)
    try:
        store.registry.stay_away(
            chosen.fleet.name, hosts, lambda worker: not patterns or options.matches(worker, patterns)
        )
    except DatabaseError:
        note("'status' may miss workers that were just starting again: the database could not be told.", "yellow")
    finally:
        store.close()


def _stop_record(result: HostResult[Stopped]) -> shapes.Stopped:
    value = result.value
    return {
        "host": result.host,
        "ok": result.ok,
        "changed": value.changed if value else None,
        "running": list(value.running) if value else None,
        "by_database": bool(value and value.by_database),
        "trouble": value.trouble if value else "",
        "error": str(result.error or ""),
    }


def _stop_words(result: HostResult[Stopped], waited: bool) -> Text | str:
    value = result.value
    if value is None:
        return Text("failed", style="red")
    by = "; it cannot be reached, but was told through the database" if value.by_database else ""
    if value.trouble and not value.by_database:
        by = "; it was told, and cannot be reached any more"
    if value.running:
        rest = "still running: " if waited else "will stop when done: "
        return Text(rest + ", ".join(value.running) + by, style="yellow" if waited else "")
    if not value.deployed:
        before = "drained; " if value.matched else ""
        return Text(f"{before}nothing is deployed there", style="dim")
    if not value.matched:
        return Text("no such worker", style="dim")
    return Text("stopped" + by, style="yellow" if by else "")


@click.command()
@options.hosts_file
@options.workers
@options.parallel
@options.as_json
def start(
    hosts_file: str | None, patterns: tuple[str, ...], workers: tuple[str, ...], parallel: int, json_lines: bool
) -> int:
    """Start what was stopped; a stop of the whole fleet is lifted.

    A host that is drained for maintenance stays so until 'resume'. Workers that were quarantined after crashes or
    failures start again.

    \b
    puffin-fleet start
    puffin-fleet start --host node7
    puffin-fleet start --worker node7-2
    """
    chosen = options.choose(hosts_file, patterns)
    if workers:  # before anything is changed, of which the order in the database is the first
        found = _on_each(chosen, parallel, "Looking", lambda control: control.has_any(workers))
        refuse_unknown(workers, [result.value for result in found])
    # A stop that still stands in the database would stop again whatever is started now.
    lifted = _order(
        chosen,
        lambda control: control.lift_stop(chosen.fleet.name),
        "If the fleet was stopped, its workers stop again when the database answers: run this again then.",
    )
    results = _on_each(chosen, parallel, "Starting", lambda control: control.start(workers))
    _report_started(results, json_lines)
    failed = report_failures(results)
    asked_for = [result.host for result in results if patterns and result.value and result.value.drained]
    return ExitCode.FAILED if failed or not lifted or asked_for else ExitCode.DONE


@click.command()
@click.argument("host", metavar="HOST", shell_complete=completion.hosts)
@click.argument("hosts_file", required=False, metavar="[HOSTS_FILE]")
@options.parallel_telling
@options.as_json
@click.option("--why", default="", metavar="TEXT", help="The reason, for those who look at the fleet meanwhile.")
@click.option("--now", is_flag=True, help="Give running calculations back instead of waiting for them.")
@click.option("--no-wait", is_flag=True, help="Return once the workers have been told.")
@options.timeout
@options.yes_to_now
def drain(
    host: str,
    hosts_file: str | None,
    parallel: int,
    json_lines: bool,
    why: str,
    now: bool,
    no_wait: bool,
    timeout: float | None,
    yes: bool,
) -> int:
    """Take HOST out of work for maintenance; it may be a pattern such as 'node*'.

    Its workers finish and stay down through reboots, deploys and 'start', until 'resume'. Only --now asks before.

    \b
    puffin-fleet drain node7 --why 'new disk'
    puffin-fleet drain 'rack2-*' --now --timeout 60
    """
    chosen = options.choose(hosts_file, (host,))
    if now:
        options.confirm(f"Drain {options.affected(chosen)} (gives running calculations back)?", yes, "drained")
    who = new_deed("drain").who
    how = StopOptions(now=now, wait=not no_wait, timeout_s=timeout, drain=(who, why))
    code, told = _stop(chosen, how, parallel, json_lines, whole=False)

    def leave_word(control: Control) -> None:
        # A host that does not know works on, and nothing may say that it does not.
        for name in told:
            control.note_drained(chosen.fleet.name, name, who, why)

    _order(chosen, leave_word, "The hosts know; 'status' does not show it.")
    return code


@click.command()
@click.argument("host", metavar="HOST", shell_complete=completion.hosts)
@click.argument("hosts_file", required=False, metavar="[HOSTS_FILE]")
@options.parallel
@options.as_json
def resume(host: str, hosts_file: str | None, parallel: int, json_lines: bool) -> int:
    """Let HOST work again after 'drain'; it may be a pattern such as 'node*'.

    \b
    puffin-fleet resume node7
    puffin-fleet resume 'rack2-*' hosts.yaml
    """
    chosen = options.choose(hosts_file, (host,))
    results = _on_each(chosen, parallel, "Starting", lambda control: control.start(resume=True))
    _report_started(results, json_lines)

    def leave_word(control: Control) -> None:
        for result in results:
            if result.ok:
                control.lift_drained(chosen.fleet.name, result.host)
        if control.is_stopped(chosen.fleet.name):
            note("The whole fleet is stopped, so the workers stop again: 'puffin-fleet start' lifts that.", "yellow")

    _order(chosen, leave_word, "The hosts know; 'status' may show them as drained.")
    return ExitCode.FAILED if report_failures(results) else ExitCode.DONE


def _order(chosen: Chosen, give: Callable[[Control], None], otherwise: str) -> bool:
    """Leave an order in the database; where that fails, say what it means and return False."""
    store: Store = open_store(chosen.fleet)
    try:
        give(store.control)
    except DatabaseError as error:
        note(f"{error}\n  {otherwise}", "yellow")
        return False
    finally:
        store.close()
    return True


def _controls(chosen: Chosen, remotes: Remotes, board: Board, reported: Reported) -> dict[str, HostControl]:
    def say(host: str) -> Callable[[str], None]:
        return lambda what: board.step(host, what)

    return {
        host.name: HostControl(chosen.fleet, host, remotes[host.name], say(host.name), reported)
        for host in chosen.hosts
    }


def _on_each(chosen: Chosen, parallel: int, title: str, act: Callable[[HostControl], Found]) -> list[HostResult[Found]]:
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


def _report_started(results: Sequence[HostResult[Started]], json_lines: bool) -> None:
    if json_lines:
        for result in results:
            value = result.value
            record: shapes.Started = {
                "host": result.host,
                "ok": result.ok,
                "running": list(value.running) if value else None,
                "starting": list(value.starting) if value else None,
                "ending": list(value.ending) if value else None,
                "drained": str(value.drained or "") if value else "",
                "error": str(result.error or ""),
            }
            print_json(record)
        return
    print_table((Column("HOST"), Column("WORKERS")), [[one.host, _started_words(one)] for one in results])


def _started_words(result: HostResult[Started]) -> Text:
    value = result.value
    if value is None:
        return Text("failed", style="red")
    if value.drained is not None:
        return Text(f"{value.drained}; 'puffin-fleet resume {result.host}' brings it back", style="yellow")
    if not value.running:
        return Text("no workers")
    just, ending = set(value.starting), set(value.ending)
    words = {
        "running": [name for name in value.running if name not in just | ending],
        "starting": [name for name in value.starting if name not in ending],
        "told to end before, so start again when they have": list(value.ending),
    }
    said = "; ".join(f"{what}: {', '.join(names)}" for what, names in words.items() if names)
    return Text(said, style="yellow" if ending else "")
