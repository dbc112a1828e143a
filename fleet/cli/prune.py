"""prune."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.text import Text

from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Board, data_console, note, print_json, report_failures
from fleet.deployment.lock import LockTarget, hold, new_deed, outcome_of
from fleet.deployment.survey import probe_all
from fleet.errors import ExitCode, FleetError
from fleet.hosts.access import Remotes, open_remotes, open_store
from fleet.reach.remote import HostResult
from fleet.release.releases import HostRoots, Pruning, carry_out, look, releases_in_use
from fleet.words import amount
from puffin.errors import DatabaseError


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@options.lock_timeout
@click.option("--keep", type=click.IntRange(1), help="Newest releases to keep; release.keep if not given.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@options.yes
def prune(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    lock_timeout: float,
    keep: int | None,
    dry_run: bool,
    yes: bool,
) -> int:
    """Remove releases, and what belongs to them, that nothing needs any more.

    Never removed: what a host would go back to, what a worker runs, and the newest releases.

    \b
    puffin-fleet prune --dry-run
    puffin-fleet prune --keep 1 --yes
    """
    chosen = options.choose(hosts_file, patterns)
    keep = keep or chosen.fleet.release.keep
    used = _used(chosen)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        with Board("Looking at the hosts", len(chosen.hosts)):
            probed = probe_all(chosen.fleet, chosen.hosts, remotes, parallel)
            places = {result.host: HostRoots.of(result.value) for result in probed if result.value is not None}
            looked = look(remotes, places, keep, used, parallel)
        lost: list[HostResult[object]] = [HostResult(one.host, error=one.error) for one in probed if not one.ok]
        lost += [HostResult(result.host, error=result.error) for result in looked if not result.ok]
        plans = [result.value for result in looked if result.value is not None]
        if not json_lines:
            _show_plans(plans, all_kept=dry_run)
        failed = report_failures(lost)
        to_do = [] if dry_run else [plan for plan in plans if plan.removals]
        if to_do:
            options.confirm(f"Remove {amount(sum(plan.frees for plan in to_do))}?", yes, "removed")
            failed += _prune(remotes, places, to_do, _How(keep, used, parallel, lock_timeout), json_lines)
        if json_lines:
            _print_json([plan for plan in plans if plan not in to_do])
    return ExitCode.FAILED if failed else ExitCode.DONE


def _used(chosen: Chosen) -> frozenset[str]:
    store = open_store(chosen.fleet)
    try:
        return releases_in_use(store.registry.workers(chosen.fleet.name, brief=True))
    except DatabaseError as error:
        hint = "Without the database it is not known which releases workers still run."
        raise FleetError(f"{error}\n  {hint}") from error
    finally:
        store.close()


@dataclass(frozen=True)
class _How:
    """How many releases stay, which must, and how it goes."""

    keep: int
    used: frozenset[str]
    parallel: int
    lock_timeout: float


def _prune(
    remotes: Remotes,
    places: dict[str, HostRoots],
    plans: Sequence[Pruning],
    how: _How,
    json_lines: bool,
) -> int:
    targets = {plan.host: LockTarget(places[plan.host].host_root) for plan in plans}
    with (
        hold(remotes, targets, new_deed("prune"), how.lock_timeout, how.parallel, note) as lock,
        Board("Pruning", len(plans)) as board,
    ):
        mine = [plan for plan in plans if plan.host in lock.hosts]
        for plan in mine:
            board.step(plan.host, "removing files")
        results = carry_out(remotes, places, mine, how.keep, how.used, lock.token, how.parallel)
        for result in results:
            board.finished(result.host, result.ok)
            lock.conclude(result.host, outcome_of(result.error))
        results += [HostResult(host, error=error) for host, error in lock.failed.items()]
    done = [result.value for result in results if result.value is not None]
    if json_lines:
        _print_json(done)
    note(f"{amount(sum(plan.frees for plan in done))} freed.", "green")
    return report_failures(results)


def _print_json(plans: Sequence[Pruning]) -> None:
    for plan in plans:
        removals = [dataclasses.asdict(removal) for removal in plan.removals]
        print_json({"host": plan.host, "removals": removals, "kept": dict(plan.kept), "bytes": plan.frees})


def _show_plans(plans: Sequence[Pruning], all_kept: bool) -> None:
    console = data_console()
    for plan in plans:
        if not plan.removals and not all_kept:
            continue
        console.print(Text(_shared_name(plan), style="bold"))
        for kind, name, size in _lines(plan):
            console.print(Text.assemble("  ", (f"{kind:10}", "red"), f" {size:>9}  ", name))
        for name, why in plan.kept.items():
            console.print(Text.assemble("  ", (f"{'keep':10}", "green"), f" {'':>9}  ", name, ("  " + why, "dim")))
    if any(plan.removals for plan in plans):
        note(f"{amount(sum(plan.frees for plan in plans))} can be freed.")
    elif plans:
        note("Nothing to remove: all that is installed is needed; logs and what calculations left stay.", "green")


def _shared_name(plan: Pruning) -> str:
    others = [name for name in plan.hosts if name != plan.host]
    return plan.host + (f" (shared with {', '.join(others)})" if others else "")


def _lines(plan: Pruning) -> list[tuple[str, str, str]]:
    """One line for each removal, but a single one for all wheels."""
    found = [(one.kind, one.name, amount(one.bytes)) for one in plan.removals if one.kind != "wheel"]
    wheels = [one.bytes for one in plan.removals if one.kind == "wheel"]
    return found + ([("wheels", f"{len(wheels)} files", amount(sum(wheels)))] if wheels else [])
