"""exec."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

import click
from rich.text import Text

from fleet import shapes
from fleet.cli import completion, options
from fleet.cli.options import Chosen
from fleet.cli.output import data_console, note, print_json, report_failures
from fleet.errors import ExitCode, UsageError
from fleet.hosts.access import open_remotes
from fleet.hosts.inventory import Host
from fleet.operation.running import Command, CommandEnd, run_command
from fleet.reach.execute import HostEvent, fan_out
from fleet.reach.remote import HostResult


@click.command("exec", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": True})
@click.option(
    "--hosts-file", "--file", "-F", "hosts_file", metavar="FILE", help="Default: $PUFFIN_FLEET, else hosts.yaml here."
)
@options.host_patterns
@options.parallel_or_all
@options.as_json
@click.option("--prefix", is_flag=True, help="Print lines as they come, each after its host's name.")
@click.option("--shell", is_flag=True, help="CMD is one text for the hosts' /bin/sh.")
@click.option(
    "--as-worker",
    metavar="WORKER",
    shell_complete=completion.workers,
    help="With a worker's environment, settings and release, on its host.",
)
@click.option("--timeout", type=options.SECONDS, metavar="SECONDS", help="End it after this time.")
@click.argument("words", nargs=-1, required=True, metavar="-- CMD...")
def exec_(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    prefix: bool,
    shell: bool,
    as_worker: str | None,
    timeout: float | None,
    words: tuple[str, ...],
) -> int:
    """Run a command on the hosts, side by side; what each says is shown together, with its exit code.

    The words arrive as they are: no shell looks at them, unless --shell says so. Standard input is closed. In
    --as-worker a '*' stands for the host's name, such as '*-1'.

    \b
    puffin-fleet exec -- df -h /scratch
    puffin-fleet exec --host 'node*' --shell -- 'uptime; free -g | head -2'
    puffin-fleet exec --as-worker node7-1 -- puffin check
    """
    if shell and len(words) != 1:
        raise UsageError("--shell takes one text: put it in quotes")
    chosen = options.choose(hosts_file, patterns)
    chosen = _of_worker(chosen, as_worker)
    voices = _Voices(json_lines, prefix)

    with open_remotes(chosen.fleet, chosen.hosts) as remotes:

        def run(host: Host) -> CommandEnd:
            worker = as_worker.replace("*", host.name) if as_worker else None
            command = Command(words, shell, worker, timeout)
            return run_command(chosen.fleet, host, remotes[host.name], command, voices.of(host.name))

        results = fan_out({host.name: host for host in chosen.hosts}, run, parallel, voices.ended)
    bad = [result.host for result in results if result.value is None or not result.value.ok]
    if len(results) > 1 and not json_lines:
        good = len(results) - len(bad)
        note(f"{good} of {len(results)} hosts: exit code 0" + (f"; not so on {', '.join(bad)}" if bad else ""))
    return ExitCode.FAILED if bad else ExitCode.DONE


def _of_worker(chosen: Chosen, worker: str | None) -> Chosen:
    """The host of a worker; all of them where a '*' stands for its name."""
    if worker is None or "*" in worker:
        return chosen
    name = worker.rpartition("-")[0]
    hosts = tuple(host for host in chosen.hosts if host.name == name)
    if not hosts:
        raise UsageError(
            f"no host has a worker {worker}: workers are called HOST-NUMBER, or '*-1' for the first of each"
        )
    return Chosen(chosen.fleet, hosts)


class _Voices:
    """What the hosts say: each host's in one piece, or line by line as it comes."""

    def __init__(self, json_lines: bool, prefix: bool) -> None:
        self._json_lines = json_lines
        self._prefix = prefix and not json_lines
        self._lock = threading.Lock()
        self._said: dict[str, list[tuple[str, str]]] = {}
        self._unread = False
        self._console = data_console()

    def of(self, host: str) -> Callable[[str, str], None]:
        rest = {"out": "", "err": ""}

        def hear(stream: str, text: str) -> None:
            if not self._prefix:
                self._said.setdefault(host, []).append((stream, text))
                return
            *lines, rest[stream] = (rest[stream] + text).split("\n")
            self._print_lines(host, stream, lines)
            self._said[host] = [(name, last) for name, last in rest.items() if last]

        return hear

    def _print_lines(self, host: str, stream: str, lines: Sequence[str]) -> None:
        with self._lock:
            try:
                for line in lines:
                    self._console.print(Text.assemble((f"{host}: ", "cyan"), (line, "red" if stream == "err" else "")))
            except BrokenPipeError:
                self._unread = True
                raise  # ends what runs on this host

    def ended(self, event: HostEvent[CommandEnd]) -> None:
        if self._unread:
            raise BrokenPipeError
        if event.result is None:
            return
        said = self._said.pop(event.host, [])
        if self._json_lines:
            print_json(_record(event.result, said))
        elif self._prefix:
            for stream, rest in said:
                self._print_lines(event.host, stream, [rest])
            self._verdict(event.result)
        else:
            self._group(event.result, said)

    def _verdict(self, result: HostResult[CommandEnd]) -> None:
        if result.value is None:
            report_failures([result])
        elif not result.value.ok:
            note(f"{result.host}: {result.value}", "red")

    def _group(self, result: HostResult[CommandEnd], said: Sequence[tuple[str, str]]) -> None:
        if result.value is not None:
            style = "bold green" if result.value.ok else "bold red"
            self._console.print(Text(f"== {result.host}: {result.value}", style=style))
        for stream, text in said:
            (sys.stderr if stream == "err" else sys.stdout).write(text)
        if said and not said[-1][1].endswith("\n"):
            (sys.stderr if said[-1][0] == "err" else sys.stdout).write("\n")
        sys.stdout.flush()
        sys.stderr.flush()
        if result.value is None:
            report_failures([result])


def _record(result: HostResult[CommandEnd], said: Sequence[tuple[str, str]]) -> shapes.Executed:
    value = result.value
    return {
        "host": result.host,
        "ok": value is not None and value.ok,
        "status": value.status if value else None,
        "timed_out": bool(value and value.timed_out),
        "took_s": round(value.seconds, 3) if value else None,
        "stdout": "".join(text for stream, text in said if stream == "out"),
        "stderr": "".join(text for stream, text in said if stream == "err"),
        "error": str(result.error or ""),
    }
