"""queue results."""

from __future__ import annotations

import click

from fleet.cli import options, queue_options
from fleet.cli.output import Column, note, print_json, print_table
from fleet.cli.queue_options import entry_of, opened, selected
from fleet.errors import ExitCode, FleetError, UsageError
from fleet.queue import chemistry
from fleet.queue import results as queue_results
from fleet.words import first_line
from puffin.calculations import Status
from puffin.entries import Entry, Selection, Sort
from puffin.outcomes import CalculationOutcome
from puffin.store import Queue

_USUAL = (Status.COMPLETE, Status.ANALYZED)
_LONGEST_NAME = 60
_FORMATS = ("table", "csv", "json", "xyz", "sdf")


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--format", "form", type=click.Choice(_FORMATS), default="table", show_default=True)
@queue_options.selection(*_USUAL)
@queue_options.target
@options.as_json
def results(
    ids: tuple[str, ...],
    form: str,
    statuses: tuple[str, ...],
    orders: tuple[str, ...],
    programs: tuple[str, ...],
    workers: tuple[str, ...],
    since: str | None,
    hosts_file: str | None,
    uri: str | None,
    databases: tuple[str, ...],
    json_lines: bool,
) -> int:
    """Print what calculations found: energies in hartree, other numbers, structures.

    csv has a column for each property that is a number, json all but the elements of matrices (a line for each
    calculation), xyz and sdf the structures that were made, or else those that were calculated, in angstrom.

    \b
    puffin-fleet queue results
    puffin-fleet queue results --job scine_geometry_optimization --format xyz > optimized.xyz
    puffin-fleet queue results 65f0c1 --format json
    """
    if json_lines and form not in {"table", "json"}:
        raise UsageError(f"--json and --format {form} do not go together")
    form = "json" if json_lines else form
    if form == "sdf" and not chemistry.can_read():
        raise FleetError("bonds are found by SCINE: pip install 'puffin-fleet[scine]'")
    wanted = selected(statuses, orders, programs, workers, since, _USUAL)
    with opened(hosts_file, uri, databases) as target:
        if ids:
            named = [entry_of(target, prefix) for prefix in ids]
            found = [(queue, [entry for entry in named if entry.database == queue.name]) for queue in target.queues]
        else:
            found = [(queue, _oldest_first(queue, wanted)) for queue in target.queues]
        if not any(entries for _, entries in found):
            note(_nothing(wanted, ", ".join(target.names)))
            return ExitCode.DONE
        _print(found, form)
    return ExitCode.DONE


def _nothing(wanted: Selection, where: str) -> str:
    if wanted == Selection(_USUAL):
        return f"No calculation in {where} has finished yet: 'puffin-fleet queue status' shows what there is."
    return f"No such calculation in {where}: 'puffin-fleet queue status' shows what there is."


def _oldest_first(queue: Queue, wanted: Selection) -> list[Entry]:
    """In the order in which they were submitted."""
    return queue.entries(wanted, Sort.CREATED, reverse=True)


def _print(found: list[tuple[Queue, list[Entry]]], form: str) -> None:
    stream = (outcome for queue, entries in found for outcome in queue.outcomes(entries))
    if form == "csv":
        click.echo(queue_results.csv_text(list(stream)), nl=False)
    elif form == "table":
        _print_table(list(stream))
    for outcome in stream:
        if form == "json":
            print_json(queue_results.outcome_record(outcome))
        elif form == "xyz":
            click.echo(queue_results.xyz_text(outcome), nl=False)
        else:
            click.echo(queue_results.sdf_text(outcome, chemistry.mol_block), nl=False)


def _print_table(outcomes: list[CalculationOutcome]) -> None:
    others = [name for name in queue_results.numbers_in(outcomes) if name != queue_results.ENERGY]
    columns = [
        Column("NAME"),
        Column("FORMULA", spare=2),
        Column("JOB", spare=1),
        Column("METHOD", spare=1),
        Column("ENERGY/HARTREE", right=True),
        *(Column(_heading(name), right=True, spare=5) for name in others),
        Column("SECONDS", right=True, spare=3),
        Column("WORKER", spare=6),
        Column("ID", spare=4),
    ]
    print_table(columns, [_row(outcome, others) for outcome in outcomes])


def _heading(name: str) -> str:
    unit = queue_results.unit_of(name)
    return f"{name.upper()}/{unit.upper()}" if unit else name.upper()


def _row(outcome: CalculationOutcome, others: list[str]) -> list[str]:
    entry = outcome.entry
    return [
        first_line(queue_results.title_of(outcome), _LONGEST_NAME),
        " + ".join(structure.formula for structure in outcome.inputs),
        entry.order,
        queue_results.method_of(entry),
        _number(outcome.energy),
        *(_number(outcome.number(name)) for name in others),
        f"{entry.runtime_s:.2f}" if entry.runtime_s is not None else "",
        entry.by,
        entry.id,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.8f}"
