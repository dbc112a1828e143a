"""queue submit."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fleet.cli import options, queue_options
from fleet.cli.output import note, note_console, print_json
from fleet.cli.queue_options import QueueTarget, is_hosts_file, opened
from fleet.errors import ExitCode, FleetError, UsageError
from fleet.queue import chemistry
from fleet.queue import model as queue_model
from fleet.queue import submit as queue_submit
from fleet.queue.files import Found, find_files
from fleet.queue.model import JobTemplate
from fleet.queue.submit import Survey
from fleet.words import plain
from puffin.backlog import unserved
from puffin.calculations import Status
from puffin.documents import Molecule
from puffin.records import WorkerRecord
from puffin.store import Queue, connection_uri
from puffin.submissions import Submitted

_ROWS = 20


class _Gigabytes(click.FloatRange):
    """A size; neither nan nor infinity is one, though the range holds them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        size = super().convert(value, param, ctx)
        if not math.isfinite(size):
            self.fail(f"{value} is no size in GB", param, ctx)
        return size


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option("--job", "order", required=True, metavar="ORDER", help="Such as scine_geometry_optimization.")
@click.option("--program", metavar="NAME", help="Such as sparrow or orca; default: any.")
@click.option("--method", metavar="NAME", help="Such as PM6 or PBE-D3BJ.")
@click.option("--method-family", metavar="NAME", help="Default: from the method, such as PM6, DFT, HF.")
@click.option("--basis-set", metavar="NAME", help="Such as def2-SVP.")
@click.option("--model", "model_file", metavar="FILE", help="YAML with more fields of the model, such as solvent.")
@click.option("--charge", type=int, metavar="N", help="Of every molecule; default: what its file says, else 0.")
@click.option("--multiplicity", type=click.IntRange(1), metavar="N", help="Likewise; else 1.")
@click.option("--setting", "settings", metavar="NAME=VALUE", multiple=True, help="The job's; several are fine.")
@click.option("--priority", type=click.IntRange(1, 10), default=5, show_default=True, help="1 comes first.")
@click.option("--cores", type=click.IntRange(1), default=1, show_default=True, help="What each needs.")
@click.option("--memory", type=_Gigabytes(0, min_open=True), default=1.0, show_default=True, help="In GB.")
@click.option("--disk", type=_Gigabytes(0, min_open=True), default=1.0, show_default=True, help="In GB.")
@click.option("--again", is_flag=True, help="Submit also what is there already.")
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be read; ends with 1 if there was any.")
@click.option("--force", is_flag=True, help="Also a job, program or method that nobody knows here.")
@queue_options.target
@options.as_json
def submit(
    files: tuple[str, ...],
    order: str,
    model_file: str | None,
    charge: int | None,
    multiplicity: int | None,
    settings: tuple[str, ...],
    priority: int,
    cores: int,
    memory: float,
    disk: float,
    again: bool,
    skip_bad: bool,
    force: bool,
    hosts_file: str | None,
    uri: str | None,
    databases: tuple[str, ...],
    json_lines: bool,
    **model: str | None,
) -> int:
    """Submit a calculation for each molecule in FILES: .xyz, .mol, .sdf, .pdb, directories, patterns.

    A file may hold many molecules. All are read before anything is written; what is there already, with the same
    structure, model, job and settings, is skipped. Charge and multiplicity may stand in the second line of an XYZ
    file: charge=-1 multiplicity=2 (or mult=2).

    \b
    puffin-fleet queue submit water.xyz --job scine_single_point --program sparrow --method PM6
    puffin-fleet queue submit set/ --job scine_geometry_optimization --program orca \\
        --method PBE-D3BJ --basis-set def2-SVP --cores 4 --memory 8 --setting opt_convergence_max_iterations=200
    """
    if not chemistry.can_read():
        raise FleetError("molecules are read by SCINE: pip install 'puffin-fleet[scine]'")
    meant_otherwise = [file for file in files if is_hosts_file(file)]
    if meant_otherwise:
        file = meant_otherwise[0]
        raise UsageError(f"{file}: no file of molecules; which hosts.yaml is said with --hosts-file {file}")
    if len(databases) > 1:
        raise UsageError(f"--database: calculations go into one of {' and '.join(databases)}, not into both")
    wanted = JobTemplate(
        order, *_model_and_settings(model_file, model, settings), charge, multiplicity, cores, memory, disk, priority
    )
    with opened(hosts_file, uri, databases) as target:
        workers = target.store.registry.workers()
        found = find_files(files)
        problems = [] if force else _unknown(wanted, workers)
        survey = _survey(found, wanted)
        bad = [*found.problems, *survey.problems]
        if problems or (bad and not skip_bad):
            raise UsageError(_refusal(problems, bad))
        _warn(wanted, found)
        reason = unserved(queue_submit.request_of(wanted), workers, target.store.server_time())
        queue = _prepared(target)  # without --database the first of hosts.yaml
        added = _write(queue, found, survey.molecules, wanted, again, json_lines)
    for problem in bad:
        note(f"left out: {problem}", "yellow")
    if added and reason:
        note(f"Nobody would take {'it' if added == 1 else 'them'} now: {reason}", "yellow")
    if added:
        note("Next: 'puffin-fleet queue status' shows how it goes.")
    return ExitCode.FAILED if bad else ExitCode.DONE


def _model_and_settings(file: str | None, given: Mapping[str, str | None], settings: Sequence[str]) -> tuple[Any, Any]:
    """Both, or all that is wrong with them."""
    problems: list[str] = []
    found: list[Any] = []
    for read in (
        lambda: queue_model.make_model(_model_file(file), given),
        lambda: queue_model.parse_settings(settings),
    ):
        try:
            found.append(read())
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))
    return found[0], found[1]


def _model_file(file: str | None) -> Any:
    if file is None:
        return None
    try:
        return queue_model.read_model(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--model: cannot read {file}: {error}") from error


def _unknown(wanted: JobTemplate, workers: Sequence[WorkerRecord]) -> list[str]:
    """What no worker and no installation here knows: it would wait for ever."""
    accepted = {job for worker in workers for job in worker.jobs}
    installed = chemistry.installed_jobs()
    problems = (
        queue_submit.order_problem(wanted.order, accepted, installed) if accepted or installed else "",
        queue_submit.program_problem(wanted.model.program, {name for worker in workers for name in worker.programs}),
        queue_submit.method_problem(wanted.model),
        *queue_submit.unknown_settings(wanted.order, wanted.settings),
    )
    found = [problem for problem in problems if problem]
    return [*found, "  --force submits it all the same"] if found else []


def _survey(found: Found, wanted: JobTemplate) -> Survey:
    with _bar("reading", len(found.files)) as advance:
        return queue_submit.survey(found.files, wanted, lambda: advance(1))


def _refusal(problems: Sequence[str], bad: Sequence[str]) -> str:
    hint = "; --skip-bad leaves these out" if bad and not problems else ""
    return "\n".join([*problems, *bad, f"Nothing was submitted{hint}."])


def _warn(wanted: JobTemplate, found: Found) -> None:
    if found.repeated:
        note(f"{len(found.repeated)} files are named twice, such as {found.repeated[0]}: taken once", "yellow")


def _prepared(target: QueueTarget) -> Queue:
    queue = target.queues[0]
    if not queue.is_initialised():
        chemistry.prepare_database(connection_uri(target.settings), queue.name)
        note(f"made the database {queue.name}")
    queue.prepare()
    return queue


def _write(queue: Queue, found: Found, molecules: int, wanted: JobTemplate, again: bool, json_lines: bool) -> int:
    """Submit and show what became of it; return how many were added."""
    written = _Written(queue.name, json_lines)
    try:
        with _bar("submitting", molecules) as advance:
            for piece in queue_submit.submit(queue, found.files, wanted, again):
                for molecule, done in piece:
                    written.take(molecule, done, queue_submit.asks_for_other(done, wanted))
                advance(len(piece))
    except KeyboardInterrupt:
        rest = "would submit all of it again" if again else "submits the rest"
        note(f"stopped after {written.total} of {molecules}: the same command {rest}", "yellow")
        raise
    written.sum_up()
    return written.added


class _Written:
    """What became of the molecules: shown at once, or on a terminal the first of them at the end.

    Parameters
    ----------
    database
        Into which they go.
    json_lines
        Whether as JSON.
    """

    def __init__(self, database: str, json_lines: bool) -> None:
        self.added = 0
        self._database = database
        self._json_lines = json_lines
        self._on_terminal = sys.stdout.isatty() and not json_lines
        self._there: Counter[Status] = Counter()
        self._others: list[Submitted] = []
        self._first: list[str] = []

    @property
    def total(self) -> int:
        return self.added + self._there.total()

    def take(self, molecule: Molecule, done: Submitted, asks_for_other: bool) -> None:
        self.added += done.added
        self._there[done.status] += not done.added
        if asks_for_other:
            self._others.append(done)
        if self._on_terminal and len(self._first) < _ROWS:
            self._first.append(_line(molecule, done))
        elif not self._on_terminal:
            _print(self._database, molecule, done, self._json_lines)

    def sum_up(self) -> None:
        for line in self._first:
            click.echo(line)
        if self._on_terminal and self.total > len(self._first):
            note(f"... and {self.total - len(self._first)} more; --json shows all", "dim")
        _sum_up(self._database, self.added, self._there, self._others)


def _print(database: str, molecule: Molecule, done: Submitted, json_lines: bool) -> None:
    if json_lines:
        record = {"id": done.id, "database": database, "name": molecule.name, "added": done.added}
        print_json({**record, "status": done.status.value})
    else:
        click.echo(_line(molecule, done))


def _line(molecule: Molecule, done: Submitted) -> str:
    state = "submitted" if done.added else f"there: {done.status.value}"
    return f"{done.id}  {state:<15}  {plain(molecule.name)}"


def _sum_up(database: str, added: int, there: Counter[Status], others: Sequence[Submitted]) -> None:
    words = f"{added} calculation{'' if added == 1 else 's'} submitted to {database}"
    states = ", ".join(f"{count} {status.value}" for status, count in there.items() if count)
    if states:
        words += f"; {there.total()} were there already ({states}): --again submits them too"
    note(words, "bold")
    if there[Status.FAILED]:
        note("Those that failed are run again with 'puffin-fleet queue requeue', cancelled ones with its --cancelled.")
    if others:
        note(queue_submit.advice_on_others(others), "yellow")


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal."""
    console = note_console()
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
