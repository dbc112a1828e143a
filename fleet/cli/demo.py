"""demo."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from fleet import demo as a_demo
from fleet.cli import options
from fleet.cli.deploy import carry_out
from fleet.cli.options import Chosen
from fleet.cli.output import Column, note, note_console, print_json, print_table, report_failures
from fleet.demo import DATABASE, Task
from fleet.embedded import EmbeddedDatabase
from fleet.errors import ExitCode, FleetError
from fleet.hosts.access import open_remotes, open_store
from fleet.operation.host_control import HostControl, StopOptions
from fleet.queue import chemistry
from puffin.calculations import FINISHED, Status
from puffin.store import CalculationResult, Store, wait_until_reachable

_COLUMNS = (
    Column("MOLECULE"),
    Column("STATUS"),
    Column("ENERGY/HARTREE", right=True),
    Column("SECONDS", right=True),
    Column("WORKER"),
)
_POLL_S = 0.3
_LONGEST_S = 600.0


@click.command()
@options.as_json
@click.option("--keep", is_flag=True, help="Leave everything running and say how to look at it and stop it.")
def demo(json_lines: bool, keep: bool) -> int:
    """Start a database and two workers here, optimize 20 molecules, show the energies, clean up.

    \b
    puffin-fleet demo
    puffin-fleet demo --keep
    """
    if not chemistry.is_installed():
        note("The extra 'scine' is not installed, so the jobs only wait: pip install 'puffin-fleet[scine]'", "yellow")
    with _Demo(keep) as run:
        failed = run.show(json_lines)
    return ExitCode.FAILED if failed else ExitCode.DONE


class _Demo:
    """The demo's database and workers, from their start to their end."""

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._directory = Path(tempfile.mkdtemp(prefix="puffin-demo-"))
        self._database = EmbeddedDatabase(self._directory / "database")
        self._hosts_file = self._directory / "hosts.yaml"
        self._done = False

    def __enter__(self) -> _Demo:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._keep and self._done:
            self._say_how_to_go_on()
            return
        # From here on a second Ctrl-C would leave things behind that the first one was meant to remove.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            note("cleaning up")
            self._clean_up()
        finally:
            signal.signal(signal.SIGINT, before)

    def show(self, json_lines: bool) -> int:
        """Run everything and show what came of it; return how many calculations failed."""
        note("starting a database server")
        self._database.start()
        self._hosts_file.write_text(a_demo.hosts_file(self._directory, self._database.uri), encoding="utf-8")
        chosen = options.choose(str(self._hosts_file), ())
        store = open_store(chosen.fleet, timeout_s=10.0)
        wait_until_reachable(store, timeout_s=30.0)
        if chemistry.is_installed():
            chemistry.prepare_database(self._database.uri, DATABASE)
        note("deploying workers on this machine")
        with open_remotes(chosen.fleet, chosen.hosts) as remotes:
            results = carry_out(chosen, remotes, store, parallel=1)
        if report_failures(results):
            raise FleetError("the demo's workers did not start")
        tasks = a_demo.tasks()
        _require_takers(store, {task.request.order for task in tasks})
        ids = store.submit(DATABASE, [(task.molecule, task.request) for task in tasks])
        found = _watch(store, ids)
        self._done = True
        _print_results(tasks, ids, found, json_lines)
        if not self._keep:
            _say_what_next()
        return sum(result.status is not Status.COMPLETE for result in found.values())

    def _clean_up(self) -> None:
        if self._hosts_file.exists():
            self._stop_workers(options.choose(str(self._hosts_file), ()))
        self._database.stop()
        a_demo.sweep(self._directory)
        a_demo.remove(self._directory)

    def _stop_workers(self, chosen: Chosen) -> None:
        with open_remotes(chosen.fleet, chosen.hosts) as remotes:
            for host in chosen.hosts:
                control = HostControl(chosen.fleet, host, remotes[host.name], lambda _: None)
                # It may never have been deployed; whatever does not end this way is swept up afterwards.
                with contextlib.suppress(FleetError):
                    how = StopOptions(now=True, timeout_s=20.0, supervisord=True)
                    control.see_off(control.tell(how), how)

    def _say_how_to_go_on(self) -> None:
        server = self._database.server
        lines = {
            f"export PUFFIN_FLEET={self._hosts_file}": "",
            "puffin-fleet status": "what every worker is doing",
            "puffin-fleet logs -n 5": "what they wrote",
            "puffin-fleet queue list": "the calculations",
            "puffin-fleet stop --supervisord --yes": "when you have seen enough: the workers,",
            f"kill {server.pid if server else ''}": "the database,",
            f"rm -r {self._directory}": "and what they left",
        }
        note("\nThe workers and the database go on. To look around:", "bold")
        for command, meaning in lines.items():
            note(f"  {command:40}  # {meaning}" if meaning else f"  {command}")


def _require_takers(store: Store, orders: set[str]) -> None:
    """Rather than wait for ever, say which jobs no worker takes."""
    accepted = {order for record in store.registry.workers() for order in record.jobs}
    if orders - accepted:
        raise FleetError(
            f"the demo's workers do not take {', '.join(sorted(orders - accepted))}: run 'puffin jobs' to see why"
        )


def _watch(store: Store, ids: Sequence[str]) -> dict[str, CalculationResult]:
    """Show how the calculations get on until all have ended."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    console = note_console()
    deadline = time.monotonic() + _LONGEST_S
    pause = threading.Event()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("calculations", total=len(ids))
        while True:
            found = store.results(DATABASE, ids)
            ended = sum(result.status in FINISHED for result in found.values())
            progress.update(bar, completed=ended)
            if ended == len(ids):
                return found
            if time.monotonic() > deadline:
                raise FleetError(f"only {ended} of {len(ids)} calculations ended within {_LONGEST_S:.0f} s")
            pause.wait(_POLL_S)


def _print_results(
    tasks: Sequence[Task], ids: Sequence[str], found: dict[str, CalculationResult], json_lines: bool
) -> None:
    pairs = sorted(zip(tasks, ids, strict=True), key=lambda pair: (a_demo.size_of(pair[0]), pair[0].name))
    if json_lines:
        for task, calculation in pairs:
            fields = vars(found[calculation]) | {"status": found[calculation].status.value}
            energy = fields.pop("energy")
            print_json({"molecule": task.name, "id": calculation, **fields, "energy_hartree": energy})
        return
    rows = [_row(task, found[calculation]) for task, calculation in pairs]
    print_table(_COLUMNS, rows)


def _say_what_next() -> None:
    note("\nWhat next:", "bold")
    if not shutil.which("puffin-fleet"):
        note(f"  source {shlex.quote(str(Path(sys.executable).with_name('activate')))}")
    note("  puffin-fleet demo --keep      # the same, left running to look around in")
    note("  puffin-fleet init             # describe your own hosts, then: plan, deploy, status")


def _row(task: Task, result: CalculationResult) -> list[Text | str]:
    style = "green" if result.status is Status.COMPLETE else "red"
    energy = f"{result.energy:.6f}" if result.energy is not None else ""
    seconds = f"{result.runtime_s:.2f}" if result.runtime_s is not None else ""
    return [task.name, Text(result.status.value, style=style), energy, seconds, result.worker]
