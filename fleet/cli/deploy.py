"""plan, deploy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.text import Text

from fleet.access import Remotes, open_remotes, open_store, read_password
from fleet.bundle import default_cache
from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Board, Column, data_console, note, print_json, print_table, report_failures
from fleet.deploy import Deployed, Deployment
from fleet.errors import ExitCode, FleetError, UsageError
from fleet.execute import Interrupted, fan_out
from fleet.health import Health
from fleet.plantext import PlanLine, summary
from fleet.remote import HostResult
from fleet.render import worker_uuid
from fleet.status import status_of
from fleet.survey import Goal, HostWork, survey
from puffin.errors import DatabaseError
from puffin.store import Store, WorkerRecord

_COLUMNS = (
    Column("HOST"),
    Column("RESULT"),
    Column("WORKERS"),
    Column("RELEASE", spare=1),
    Column("SECONDS", right=True, spare=2),
)
_STYLES = {"add": "green", "start": "green", "remove": "red", "recycle": "yellow", "restart": "yellow"}


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@click.option("--refresh", is_flag=True, help="Look for newer versions of what the workers require.")
def plan(hosts_file: str | None, patterns: tuple[str, ...], parallel: int, json_lines: bool, refresh: bool) -> int:
    """Show what a deploy would change; changes nothing.

    \b
    puffin-fleet plan hosts.yaml
    puffin-fleet plan --host 'node0*' --json
    """
    chosen = options.choose(hosts_file, patterns)
    store = open_store(chosen.fleet)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        works = _survey(chosen, remotes, _known(chosen, store, must=False), parallel, refresh)
    _show_plans(works, json_lines)
    return ExitCode.FAILED if report_failures(works) else ExitCode.DONE


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
@click.option("--refresh", is_flag=True, help="Look for newer versions of what the workers require.")
def deploy(
    hosts_file: str | None, patterns: tuple[str, ...], parallel: int, json_lines: bool, yes: bool, refresh: bool
) -> int:
    """Bring the hosts to what hosts.yaml says, and wait until every worker is healthy.

    Running calculations are not touched: a worker that has to change does so when its job is done.

    \b
    puffin-fleet deploy hosts.yaml
    puffin-fleet deploy --host node7 --yes
    """
    chosen = options.choose(hosts_file, patterns)
    store = open_store(chosen.fleet)
    known = _known(chosen, store, must=True)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        works = _survey(chosen, remotes, known, parallel, refresh)
        to_change = [work.value for work in works if work.value is not None and not work.value.plan.empty]
        if not json_lines:
            _show_plans(works, json_lines=False)
        report_failures(works)
        if to_change:
            _confirm(len(to_change), yes)
        results = _carry_out(chosen, remotes, store, works, parallel)
    _report(results, works, json_lines)
    # What failed before anything was done has been said above.
    report_failures([result for result in results if result.host in {work.host.name for work in to_change}])
    return ExitCode.FAILED if any(not result.ok for result in results) else ExitCode.DONE


def carry_out(chosen: Chosen, remotes: Remotes, store: Store, parallel: int) -> list[HostResult[Deployed]]:
    """Deploy without showing a plan or asking.

    Parameters
    ----------
    chosen
        What to deploy.
    remotes
        Connections to the hosts.
    store
        The fleet's database.
    parallel
        Hosts at a time.
    """
    works = _survey(chosen, remotes, _known(chosen, store, must=True), parallel, refresh=False)
    return _carry_out(chosen, remotes, store, works, parallel)


@dataclass(frozen=True)
class _Known:
    """What the database knows of the fleet; no records where it could not be asked."""

    records: Sequence[WorkerRecord] | None = None
    alive: frozenset[str] = frozenset()
    stopped: bool = False


def _known(chosen: Chosen, store: Store, must: bool) -> _Known:
    try:
        records = store.registry.workers(chosen.fleet.name)
        alive = [status.record.worker for status in status_of(records, store.server_time()) if status.works]
        stopped = store.control.is_stopped(chosen.fleet.name)
    except DatabaseError as error:
        if must:
            raise FleetError(
                f"{error}\n  A deploy watches its workers through the database; check the section 'database' of "
                f"{chosen.fleet.source} and the server"
            ) from error
        note(f"{error}\n  The plan is made from the hosts alone.", "yellow")
        return _Known()
    _warn_of_strangers(chosen, records, frozenset(alive))
    if stopped:
        note("The fleet was told to stop: its workers stay down until 'puffin-fleet start'.", "yellow")
    return _Known(records, frozenset(alive), stopped)


def _warn_of_strangers(chosen: Chosen, records: Sequence[WorkerRecord], alive: frozenset[str]) -> None:
    known = {host.name for host in chosen.fleet.hosts}
    hosts = sorted({record.host for record in records if record.worker in alive and record.host not in known})
    if hosts:
        note(
            f"Workers run on {', '.join(hosts)}, which {chosen.fleet.source} does not have. To end them put "
            f"the host back, run 'puffin-fleet stop --host {hosts[0]} --supervisord', and remove it again.",
            "yellow",
        )


def _survey(
    chosen: Chosen, remotes: Remotes, known: _Known, parallel: int, refresh: bool
) -> list[HostResult[HostWork]]:
    goal = Goal(
        fleet=chosen.fleet,
        password=read_password(chosen.fleet),
        records=known.records,
        cache=default_cache(),
        alive=known.alive,
        stopped=known.stopped,
        refresh=refresh,
    )
    with Board("Looking at the hosts", len(chosen.hosts)) as board:
        return survey(goal, chosen.hosts, remotes, parallel, lambda what: board.step("this machine", what))


def _confirm(count: int, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here: say --yes to go ahead")
    if not click.confirm(f"Change {count} host{'s' if count > 1 else ''}?", err=True):
        raise UsageError("nothing was changed")


def _carry_out(
    chosen: Chosen, remotes: Remotes, store: Store, works: Sequence[HostResult[HostWork]], parallel: int
) -> list[HostResult[Deployed]]:
    ready = {work.host: work.value for work in works if work.value is not None}
    name = chosen.fleet.name
    slots = threading.BoundedSemaphore(parallel)
    with Board("Deploying", len(ready)) as board:

        def one(work: HostWork) -> Deployed:
            host = work.host.name
            deployment = Deployment(
                fleet=chosen.fleet,
                work=work,
                remote=remotes[host],
                read_records=lambda: store.registry.workers(name),
                say=lambda what: board.step(host, what),
                slot=slots,
            )
            deployed = deployment.carry_out()
            store.registry.forget(worker_uuid(chosen.fleet, name) for name in work.plan.workers_removed)
            return deployed

        # All at once, since most of the time is spent waiting; what takes effort takes turns by the slots.
        try:
            results = fan_out(
                ready,
                one,
                max(1, len(ready)),
                lambda event: board.finished(event.host, event.result.ok) if event.result else None,
            )
        except Interrupted as interrupted:
            _say_how_far(interrupted.results)
            raise
    failed_before = {work.host: HostResult[Deployed](work.host, error=work.error) for work in works if not work.ok}
    done = {result.host: result for result in results}
    return [done.get(work.host) or failed_before[work.host] for work in works]


def _say_how_far(results: Sequence[HostResult[Deployed]]) -> None:
    done = [result.host for result in results if result.ok]
    rest = [result.host for result in results if not result.ok]
    note(f"\ndone {', '.join(done) or 'none'}; not finished {', '.join(rest) or 'none'}.", "yellow")
    note("Until then the old release works; the same command goes on where this one stopped.", "yellow")


def _show_plans(works: Sequence[HostResult[HostWork]], json_lines: bool) -> None:
    console = data_console()
    for work in works:
        if work.value is None:
            continue
        if json_lines:
            print_json(work.value.plan.to_json())
            continue
        lines = summary(work.value.plan)
        if lines:
            console.print(Text(work.host, style="bold"))
            for line in lines:
                console.print(_plan_line(line))
    found = [work.value for work in works if work.value is not None]
    same = sum(work.plan.empty for work in found)
    if not json_lines and found:
        lost = f", {len(works) - len(found)} cannot be deployed" if len(found) < len(works) else ""
        note(f"{len(found) - same} of {len(works)} hosts to change, {same} as they should be{lost}.")


def _plan_line(line: PlanLine) -> Text:
    text = Text("  ")
    text.append(f"{line.action:8}", style=_STYLES.get(line.action, ""))
    text.append(f" {line.subject}")
    if line.detail:
        text.append(f"  {line.detail}", style="dim")
    return text


def _report(results: Sequence[HostResult[Deployed]], works: Sequence[HostResult[HostWork]], json_lines: bool) -> None:
    releases = {work.host: work.value.release for work in works if work.value is not None}
    if json_lines:
        for result in results:
            print_json(_as_record(result, releases))
    elif any(result.value is None or result.value.changed for result in results):
        rows = [_row(result, releases) for result in results]
        print_table(_COLUMNS, rows)
    else:
        note("Nothing to do: every host is as hosts.yaml describes it. Nothing was restarted.", "green")
        stopped = [name for work in works if work.value for name in work.value.plan.kept_stopped]
        if stopped:
            note(f"{', '.join(stopped)} stay stopped: 'puffin-fleet start' starts them.", "yellow")


def _row(result: HostResult[Deployed], releases: dict[str, str]) -> list[Text | str]:
    release = releases.get(result.host, "")
    if result.value is None:
        return [result.host, Text("failed", style="red"), "", release, f"{result.seconds:.1f}"]
    if not result.value.changed:
        return [result.host, "unchanged", "", release, ""]
    healthy = sum(worker.health is Health.HEALTHY for worker in result.value.workers)
    stopped = sum(worker.health is Health.STOPPED for worker in result.value.workers)
    workers = f"{healthy} healthy" + (f", {stopped} stopped" if stopped else "")
    return [result.host, Text("deployed", style="green"), workers, release, f"{result.value.seconds:.1f}"]


def _as_record(result: HostResult[Deployed], releases: dict[str, str]) -> dict[str, object]:
    record: dict[str, object] = {"host": result.host, "ok": result.ok, "release": releases.get(result.host)}
    if result.value is not None:
        workers = [{"worker": worker.worker, "health": worker.health.value} for worker in result.value.workers]
        return {**record, "changed": result.value.changed, "workers": workers, "seconds": result.value.seconds}
    return {**record, "error": str(result.error)}
