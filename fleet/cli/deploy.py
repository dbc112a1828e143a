"""deploy."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click
from rich.text import Text

from fleet import shapes
from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Board, Column, note, print_json, print_table, report_failures
from fleet.cli.planning import Known, known_of, refuse_without_consent, show_plans, survey_chosen, with_diffs
from fleet.deployment.fleet_deploy import DeployEnd, DeployOptions, deploy_hosts
from fleet.deployment.health import Health
from fleet.deployment.hooks import check_hooks
from fleet.deployment.host_deploy import Deployed
from fleet.deployment.kits import PREVIOUS
from fleet.deployment.lock import TOKEN_VARIABLE, again_when_changed, new_deed, wait_until_free
from fleet.deployment.manner import Manner
from fleet.deployment.noting import note_unchanged
from fleet.deployment.roller import NotBegun, NotPutBack, PutBack
from fleet.deployment.survey import HostWork
from fleet.errors import ExitCode, FleetError, UsageError
from fleet.hosts.access import Remotes, open_remotes, open_store
from fleet.hosts.names import condensed
from fleet.reach.execute import Interrupted
from fleet.reach.remote import HostResult
from puffin.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])

_COLUMNS = (
    Column("HOST"),
    Column("RESULT"),
    Column("WORKERS"),
    Column("RELEASE", spare=1),
    Column("SECONDS", right=True, spare=2),
)

_UNSEEN = (
    "Nobody waits for these workers: 'puffin-fleet status' shows how they get on and misses those that are not back a "
    "minute after their end; the next deploy sees whether they are healthy, and puts back what is not."
)


@dataclass(frozen=True)
class _Look:
    """What is looked for on the hosts, and how it is shown."""

    refresh: bool = False
    diff: bool = False
    repair: bool = False
    back_to: str | None = None


def _ways(command: Command) -> Command:
    """Add --when-idle, --now and --lock-timeout."""
    command = options.lock_timeout(command)
    command = click.option(
        "--now", is_flag=True, help="Give the calculations of workers that change back to the queue."
    )(command)
    return click.option(
        "--when-idle", is_flag=True, help="Return at once; each worker changes when its calculation is done."
    )(command)


@click.command()
@options.hosts_file
@options.parallel_preparing
@options.as_json
@_ways
@options.yes
@click.option("--refresh", is_flag=True, help="Look for newer versions of what the workers require.")
@click.option("--diff", is_flag=True, help="Show how each file changes; secrets are hidden.")
@click.option("--repair", is_flag=True, help="Undo what was changed by hand on the hosts, too.")
def deploy(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    when_idle: bool,
    now: bool,
    lock_timeout: float,
    yes: bool,
    refresh: bool,
    diff: bool,
    repair: bool,
) -> int:
    """Bring the hosts to what hosts.yaml says, and wait until every worker is healthy.

    Running calculations are not touched: a worker that has to change does so when its job is done. The section
    'update' says how many hosts change at a time, and when all are put back.

    \b
    puffin-fleet deploy hosts.yaml
    puffin-fleet deploy --host node7 --yes
    """
    if json_lines and diff:
        raise UsageError("--json and --diff exclude each other: 'puffin-fleet plan --json --diff' has both")
    how = DeployOptions(new_deed("deploy"), options.manner_of(when_idle=when_idle, now=now), parallel, lock_timeout)
    look = _Look(refresh=refresh, diff=diff, repair=repair)
    return _run(options.choose(hosts_file, patterns), how, look, json_lines, yes)


@click.command()
@options.hosts_file
@options.parallel_preparing
@options.as_json
@_ways
@click.option("--release", "release", default=PREVIOUS, metavar="ID", help="The release; else the one before.")
@options.yes
def rollback(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    when_idle: bool,
    now: bool,
    lock_timeout: float,
    release: str,
    yes: bool,
) -> int:
    """Go back to a release that all hosts still have; settings are those of hosts.yaml.

    The next deploy goes forward again, so correct release.package in hosts.yaml first.

    \b
    puffin-fleet rollback
    puffin-fleet rollback --release 3f9a1c20b7de --now
    """
    how = DeployOptions(new_deed("rollback"), options.manner_of(when_idle=when_idle, now=now), parallel, lock_timeout)
    return _run(options.choose(hosts_file, patterns), how, _Look(back_to=release), json_lines, yes)


def _run(chosen: Chosen, how: DeployOptions, look: _Look, json_lines: bool, yes: bool) -> int:
    check_hooks(chosen.fleet)

    def attempt(lock_timeout_s: float) -> int:
        return _look_and_deploy(chosen, replace(how, lock_timeout_s=lock_timeout_s), look, json_lines, yes)

    return again_when_changed(attempt, how.lock_timeout_s, lambda what: note(what, "yellow"))


def _look_and_deploy(chosen: Chosen, how: DeployOptions, look: _Look, json_lines: bool, yes: bool) -> int:
    store = open_store(chosen.fleet)
    known = known_of(chosen, store, must=True)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        works = _look_at(chosen, remotes, known, how, look)
        if _wait_for_others(works, remotes, how):
            known = known_of(chosen, store, must=True)
            works = _look_at(chosen, remotes, known, how, look)
        if look.diff:
            works, diffs = with_diffs(works, remotes, how.parallel)
            show_plans(works, False, diffs)
        elif not json_lines:
            show_plans(works, False)
        works = refuse_without_consent(works)
        to_change = _to_change(works)
        chores = _chores(works, how)
        lost = report_failures(works)
        if lost and look.back_to is not None:
            raise FleetError("nothing was changed: not every host can go back; choose hosts with --host")
        if to_change:
            options.confirm(f"Change {options.count_of(len(to_change))}?", yes, "changed")
        elif chores and chosen.fleet.update.auto_revert:
            what = f"Watch the workers of {options.count_of(len(chores))}, and put back what does not run?"
            options.confirm(what, yes, "changed")
        ended = _carry_out(chosen, remotes, store, works, how)
    _report(ended.results, works, how, json_lines)
    if chores:  # also what failed before anything was done, which was said far above
        report_failures(ended.results)
    for trouble in ended.troubles:
        note(str(trouble), "red")
    return ExitCode.FAILED if ended.troubles or any(not result.ok for result in ended.results) else ExitCode.DONE


def _look_at(
    chosen: Chosen, remotes: Remotes, known: Known, how: DeployOptions, look: _Look
) -> list[HostResult[HostWork]]:
    return survey_chosen(
        chosen, remotes, known, how.parallel, refresh=look.refresh, repair=look.repair, back_to=look.back_to
    )


def _wait_for_others(works: Sequence[HostResult[HostWork]], remotes: Remotes, how: DeployOptions) -> bool:
    """Let others who change these hosts come to an end, now that no plan is made yet; say whether there were any."""
    if os.environ.get(TOKEN_VARIABLE):
        return False  # a hook runs under the lock that it would wait for
    places = {work.host: work.value.facts for work in works if work.value is not None}
    # Also where there is nothing to do: whoever holds a host may just be changing, or putting back, what was found.
    held = {host: facts.lock.holder for host, facts in places.items() if facts.lock.holder is not None}
    if all(holder.expired for holder in held.values()):
        return False
    roots = {host: facts.host_root for host, facts in places.items()}
    wait_until_free(remotes, roots, how.lock_timeout_s, how.parallel, note)
    return True


def _to_change(works: Sequence[HostResult[HostWork]]) -> list[HostWork]:
    return [work.value for work in works if work.value is not None and not work.value.plan.empty]


def _chores(works: Sequence[HostResult[HostWork]], how: DeployOptions) -> list[HostWork]:
    """The hosts on which there is something to do: to change them, or to see whether their workers are healthy."""
    waits = how.manner is not Manner.WHEN_IDLE
    found = [work.value for work in works if work.value is not None]
    return [work for work in found if not work.plan.empty or (waits and work.plan.unproven)]


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
    return list(_carry_out(chosen, remotes, store, works, DeployOptions(new_deed("deploy"), parallel=parallel)).results)


def _carry_out(
    chosen: Chosen, remotes: Remotes, store: Store, works: Sequence[HostResult[HostWork]], how: DeployOptions
) -> DeployEnd:
    note_unchanged(chosen.fleet, store, [work.value for work in works if work.value is not None])
    results = {work.host: _before(work) for work in works}
    chores = _chores(works, how)
    if not chores:
        return DeployEnd(tuple(results.values()))
    missing = {work.host: work.error for work in works if work.error is not None}
    try:
        with Board("Deploying", len(chores)) as board:
            ended = deploy_hosts(chosen.fleet, chores, remotes, store, replace(how, missing=missing), board)
    except KeyboardInterrupt as interrupted:
        _say_how_far(chores, interrupted.results if isinstance(interrupted, Interrupted) else (), how.deed.verb)
        raise
    results.update((result.host, result) for result in ended.results)
    return DeployEnd(tuple(results.values()), ended.troubles)


def _before(work: HostResult[HostWork]) -> HostResult[Deployed]:
    """What is to be said of a host on which nothing is done."""
    if work.error is not None:
        return HostResult(work.host, error=work.error)
    return HostResult(work.host, Deployed(False))


def _say_how_far(works: Sequence[HostWork], results: Sequence[HostResult[Any]], verb: str) -> None:
    """What was locked or prepared is not done yet: only what `deploy` itself has said of a host."""
    done = [result.host for result in results if isinstance(result.value, Deployed)]
    rest = {work.host.name: work.facts.current for work in works if work.host.name not in done}
    note(f"\ndone {condensed(done) or 'none'}; not finished {condensed(list(rest)) or 'none'}.", "yellow")
    if halfway := [result.host for result in results if isinstance(result.error, NotPutBack)]:
        what = "was just being put back: its" if len(halfway) == 1 else "were just being put back: their"
        note(f"{condensed(halfway)} {what} workers may not run until the next deploy.", "yellow")
    if rest:
        old = "Who was not told to change yet goes on as before" if any(rest.values()) else "Not all run yet"
        note(f"{old}; {_how_to_go_on(works, verb)} goes on where this one stopped.", "yellow")


def _how_to_go_on(works: Sequence[HostWork], verb: str) -> str:
    """The release before is another one by now on hosts that have gone back."""
    releases = sorted({work.release for work in works})
    if verb != "rollback" or len(releases) > 1:
        return "the same command"
    return f"'puffin-fleet rollback --release {releases[0]}'"


def _report(
    results: Sequence[HostResult[Deployed]], works: Sequence[HostResult[HostWork]], how: DeployOptions, json_lines: bool
) -> None:
    releases = {work.host: work.value.release for work in works if work.value is not None}
    if json_lines:
        for result in results:
            print_json(_as_record(result, releases, how.deed.verb))
    elif any(result.value is None or result.value.changed or result.value.workers for result in results):
        print_table(_COLUMNS, [_row(result, releases, how.deed.verb) for result in results])
        if how.manner is Manner.WHEN_IDLE and any(result.value and result.value.changed for result in results):
            note(_UNSEEN, "yellow")
    else:
        _say_nothing_to_do(works)


def _say_nothing_to_do(works: Sequence[HostResult[HostWork]]) -> None:
    note("Nothing to do: every host is as hosts.yaml describes it. Nothing was restarted.", "green")
    if ill := _not_well(works):
        note(ill, "yellow")
    plans = [work.value.plan for work in works if work.value]
    unseen = [plan.host for plan in plans if plan.unproven]  # else they would have been waited for
    if unseen:
        note(f"The workers of {condensed(unseen)} were not waited for: a deploy without --when-idle does.", "yellow")
    for plan in plans:
        if plan.drained:
            note(f"{plan.host} is {plan.drained}; 'puffin-fleet resume {plan.host}' brings it back.", "yellow")
    stopped = [name for plan in plans if not plan.drained for name in plan.kept_stopped]
    if stopped:
        note(f"{', '.join(stopped)} stay stopped: 'puffin-fleet start' starts them.", "yellow")


def _not_well(works: Sequence[HostResult[HostWork]]) -> str:
    """What is not as it should be although there is nothing to do."""
    found = [work.value for work in works if work.value is not None]
    ill = [work.host.name for work in found if not work.observed.works and not work.plan.kept_stopped]
    return f"Not all workers of {condensed(ill)} have reported in good health: see 'puffin-fleet check'." if ill else ""


def _row(result: HostResult[Deployed], releases: dict[str, str], verb: str) -> list[Text | str]:
    release = releases.get(result.host, "")
    outcome = _outcome(result, verb)
    if result.value is None:
        runs = result.error.release if isinstance(result.error, PutBack) else ""
        return [result.host, outcome, "", runs, f"{result.seconds:.1f}"]
    if not result.value.changed and not result.value.workers:
        return [result.host, outcome, "", release, ""]
    if result.value.pending or result.value.later:
        later = len(result.value.later)
        waits = "waits" if later == 1 else "wait"
        counts = ((len(result.value.pending), "will change when idle"), (later, f"{waits} for the next deploy"))
        workers = ", ".join(f"{count} {what}" for count, what in counts if count)
        return [result.host, outcome, workers, release, f"{result.value.seconds:.1f}"]
    healthy = sum(worker.health is Health.HEALTHY for worker in result.value.workers)
    stopped = sum(worker.health is Health.STOPPED for worker in result.value.workers)
    workers = f"{healthy} healthy" + (f", {stopped} stopped" if stopped else "")
    return [result.host, outcome, workers, release, f"{result.value.seconds:.1f}"]


def _outcome(result: HostResult[Deployed], verb: str) -> Text:
    value, error = result.value, result.error
    if value is not None:
        if not value.changed:
            return Text("unchanged")
        done = "rolled back" if verb == "rollback" else "deployed"
        return Text("marked" if value.pending or value.later else done, style="green")
    if isinstance(error, PutBack):
        return Text("put back", style="yellow")
    if isinstance(error, NotBegun):
        return Text("not begun", style="yellow")
    return Text("failed", style="red")


def _as_record(result: HostResult[Deployed], releases: dict[str, str], verb: str) -> shapes.Deployed:
    value = result.value
    return {
        "host": result.host,
        "ok": result.ok,
        "outcome": _outcome(result, verb).plain,
        "release": releases.get(result.host),
        "changed": value.changed if value else None,
        "workers": [{"worker": each.worker, "health": each.health.value} for each in value.workers] if value else [],
        "pending": list(value.pending) if value else [],
        "later": list(value.later) if value else [],
        "took_s": round(value.seconds if value else result.seconds, 3),
        "error": str(result.error or ""),
    }
