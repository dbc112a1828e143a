"""ps."""

from __future__ import annotations

import dataclasses

import click
from rich.text import Text

from fleet.cli import options
from fleet.cli.output import Column, note, print_json, print_table, report_failures
from fleet.errors import ExitCode
from fleet.hosts.access import open_remotes
from fleet.operation.running import Process, list_processes
from fleet.reach.execute import fan_out

_COLUMNS = (
    Column("HOST"),
    Column("PID", right=True),
    Column("KIND"),
    Column("WORKER"),
    Column("CALCULATION", spare=2),
    Column("CPU%", right=True),
    Column("GB", right=True),
    Column("AGE", right=True),
    Column("COMMAND", spare=1, cut=20),
)
_LONGEST_COMMAND = 60


@click.command()
@options.hosts_file
@options.workers
@options.parallel_or_all
@options.as_json
def ps(
    hosts_file: str | None, patterns: tuple[str, ...], workers: tuple[str, ...], parallel: int, json_lines: bool
) -> int:
    """Show the fleet's processes on the hosts: supervisord, workers, their helpers and jobs; orphans first.

    An orphan is a process that nobody looks after: a worker without a supervisord, or what a job left behind.

    \b
    puffin-fleet ps
    puffin-fleet ps --worker 'node7-*'
    """
    chosen = options.choose(hosts_file, patterns)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        results = fan_out(
            {host.name: host for host in chosen.hosts},
            lambda host: list_processes(chosen.fleet, host, remotes[host.name]),
            parallel,
        )
    found = [
        (result.host, process)
        for result in results
        for process in result.value or ()
        if not workers or options.matches(process.worker, workers)
    ]
    found.sort(key=lambda pair: not pair[1].orphan)
    if json_lines:
        for host, process in found:
            print_json({"host": host, **dataclasses.asdict(process)})
    elif found:
        print_table(_COLUMNS, [_row(host, process) for host, process in found])
    else:
        note("No process of this fleet runs there.")
    orphans = sum(process.orphan for _, process in found)
    if orphans and not json_lines:
        what = "1 orphan" if orphans == 1 else f"{orphans} orphans"
        note(f"{what}: 'puffin-fleet stop' lets workers finish, with --now gives their jobs back; then 'start'", "red")
    return ExitCode.FAILED if report_failures(results) else ExitCode.DONE


def _row(host: str, process: Process) -> list[Text | str]:
    kind = Text(f"{process.kind} orphan", style="bold red") if process.orphan else Text(process.kind)
    if process.state == "T":
        kind.append(" frozen", style="yellow")
    command = _without_directories(process.command)
    if len(command) > _LONGEST_COMMAND:
        command = f"{command[: _LONGEST_COMMAND - 1]}…"
    return [
        host,
        str(process.pid),
        kind,
        process.worker,
        process.calculation,
        f"{process.cpu:.0f}",
        f"{process.memory:.2f}",
        _age(process.age_s),
        command,
    ]


def _without_directories(command: str) -> str:
    """The words that tell processes apart; all of a fleet's are in the same long directories."""
    return " ".join(word.rpartition("/")[2] or word if word.startswith("/") else word for word in command.split(" "))


def _age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
