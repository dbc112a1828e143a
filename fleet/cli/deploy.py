"""deploy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import click
from rich.text import Text

from fleet.access import Remotes, open_remotes, open_store
from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Board, Column, note, print_json, print_table, report_failures
from fleet.cli.planning import diffs_of, known_of, refuse_without_consent, show_plans, survey_chosen
from fleet.deploy import Deployed, Deployment
from fleet.errors import ExitCode, UsageError
from fleet.execute import Interrupted, fan_out
from fleet.health import Health
from fleet.remote import HostResult
from fleet.render import worker_uuid
from fleet.survey import HostWork
from puffin.store import Store

_COLUMNS = (
    Column("HOST"),
    Column("RESULT"),
    Column("WORKERS"),
    Column("RELEASE", spare=1),
    Column("SECONDS", right=True, spare=2),
)


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
@click.option("--refresh", is_flag=True, help="Look for newer versions of what the workers require.")
@click.option("--diff", is_flag=True, help="Show how each file changes; secrets are hidden.")
@click.option("--repair", is_flag=True, help="Undo what was changed by hand on the hosts, too.")
def deploy(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    yes: bool,
    refresh: bool,
    diff: bool,
    repair: bool,
) -> int:
    """Bring the hosts to what hosts.yaml says, and wait until every worker is healthy.

    Running calculations are not touched: a worker that has to change does so when its job is done.

    \b
    puffin-fleet deploy hosts.yaml
    puffin-fleet deploy --host node7 --yes
    """
    chosen = options.choose(hosts_file, patterns)
    store = open_store(chosen.fleet)
    known = known_of(chosen, store, must=True)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        works = survey_chosen(chosen, remotes, known, parallel, refresh, repair)
        if not json_lines:
            show_plans(works, json_lines=False, diffs=diffs_of(works, remotes, parallel)[0] if diff else None)
        works = refuse_without_consent(works)
        to_change = [work.value for work in works if work.value is not None and not work.value.plan.empty]
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
    works = survey_chosen(chosen, remotes, known_of(chosen, store, must=True), parallel, refresh=False)
    return _carry_out(chosen, remotes, store, works, parallel)


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
