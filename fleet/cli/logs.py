"""logs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.text import Text

from fleet.cli import options, times
from fleet.cli.options import Chosen
from fleet.cli.output import data_console, note, note_console, print_error, print_json
from fleet.cli.times import seconds
from fleet.errors import ExitCode, FleetError, UsageError
from fleet.hosts.access import open_remotes, open_store
from fleet.hosts.inventory import Host
from fleet.hostside.loglines import LEVELS
from fleet.reach.logs import LogLine
from fleet.watch.tailing import Tailing, TailNotice
from fleet.words import plain
from puffin.errors import PuffinError

_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}
_COLOURS = ("cyan", "magenta", "blue", "green", "bright_cyan", "bright_magenta", "bright_blue", "bright_green")
_NARROW = 120
_LINES = 20
_KEPT = "\n\t"


@click.command()
@options.hosts_file
@options.as_json
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, also after a lost connection.")
@options.workers
@times.since("Only what was written")
@click.option("--until", metavar="TIME", help="Only what was written before.")
@click.option("--grep", metavar="REGEX", help="Only messages that match; (?i) at its beginning ignores case.")
@click.option(
    "--level",
    type=click.Choice([level.lower() for level in LEVELS], case_sensitive=False),
    help="This level or worse; lines without a level are shown in any case.",
)
@click.option("--calculation", metavar="ID", help="Only what is about this calculation, from all workers that had it.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    help=f"Last lines of each worker, in whole messages, 0 for none: {_LINES}, or all with a time or an id.",
)
def logs(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    json_lines: bool,
    follow: bool,
    workers: tuple[str, ...],
    since: str | None,
    until: str | None,
    grep: str | None,
    level: str | None,
    calculation: str | None,
    lines: int | None,
) -> int:
    """Show what the workers wrote, all hosts merged by time.

    \b
    puffin-fleet logs --since 1h --level warning
    puffin-fleet logs -f --host node7
    puffin-fleet logs --calculation 6b02d5829fc92b7451414cc0
    """
    if follow and until is not None:
        raise UsageError("--follow goes on without end: it cannot have an --until")
    if lines is None and not (since or until or calculation):
        lines = _LINES
    wanted = {
        "workers": list(workers),
        "since": seconds("--since", since),
        "until": seconds("--until", until),
        "grep": _pattern(grep),
        "level": level.upper() if level else None,
        "calculation": calculation_id(calculation),
        "lines": lines,
        "follow": follow,
    }
    chosen = options.choose(hosts_file, patterns)
    hosts = chosen.hosts if calculation is None else hosts_of(chosen, calculation)
    with open_remotes(chosen.fleet, hosts) as remotes:
        tailing = Tailing(remotes, hosts, _request(chosen, wanted), follow)
        shown = _show(tailing, json_lines)
    if shown == 0 and not tailing.failed:
        note("Nothing was written that matches.", "yellow")
    return ExitCode.FAILED if tailing.failed else ExitCode.DONE


def _show(tailing: Tailing, json_lines: bool) -> int:
    """Print what the hosts have, as it comes; return how many messages that were."""
    printer = _Printer(json_lines)
    for found in tailing.lines():
        if isinstance(found, TailNotice):
            _say(found)
        else:
            printer.show(found)
    return printer.shown


def _request(chosen: Chosen, wanted: dict[str, Any]) -> Callable[[Host], dict[str, Any]]:
    return lambda host: {**wanted, "fleet": chosen.fleet.name, "host": host.name, "base_dir": host.base_dir}


def _pattern(text: str | None) -> str | None:
    try:
        return re.compile(text).pattern if text else None
    except re.error as error:
        place = "" if error.pos is None else f"\n  {text}\n  {' ' * error.pos}^"
        raise UsageError(f"--grep: {error.msg}{place}") from error


def calculation_id(text: str | None) -> str | None:
    """Check what --calculation says.

    Raises
    ------
    UsageError
        It is no id.
    """
    if text is not None and not re.fullmatch(r"[0-9a-f]{24}", text):
        raise UsageError(f"--calculation: {text!r} is no id: ids are 24 hexadecimal digits, as 'queue list' shows them")
    return text


def hosts_of(chosen: Chosen, calculation: str) -> Sequence[Host]:
    """The hosts on which it ran, if the database can tell; else all."""
    try:
        store = open_store(chosen.fleet, timeout_s=2.0)
        try:
            events = store.events.about(calculation)
        finally:
            store.close()
    except (FleetError, PuffinError) as error:
        note(f"All hosts are asked, since the database does not say where it ran: {error}", "yellow")
        return chosen.hosts
    # Others speak of it too: who reset it, and the operator who requeued it, on a machine of their own.
    names = {event["host"] for event in events if event.get("kind") == "claimed" and event.get("host")}
    hosts = [host for host in chosen.hosts if host.name in names]
    if not names:
        note("All hosts are asked: no event in the database says where it ran.", "yellow")
    gone = sorted(names - {host.name for host in chosen.hosts})
    if gone:
        note(_ran_elsewhere(gone, also=bool(hosts)), "yellow")
    return hosts or chosen.hosts


def _ran_elsewhere(gone: Sequence[str], also: bool) -> str:
    are = "is" if len(gone) == 1 else "are"
    others = f"{', '.join(gone)}, which {are} not asked: not in hosts.yaml, or not chosen."
    return f"It also ran on {others}" if also else f"It ran on {others}"


def _say(notice: TailNotice) -> None:
    if notice.error is not None:
        print_error(notice.host, notice.error)
    if notice.what:
        note_console().print(Text.assemble((notice.host, "bold yellow"), f" {notice.what}"))


class _Printer:
    """Prints log lines, each worker in a colour of its own.

    Parameters
    ----------
    json_lines
        Whether as JSON.
    """

    def __init__(self, json_lines: bool) -> None:
        self._json_lines = json_lines
        self._console = data_console()
        self._colours: dict[str, str] = {}
        self._day = ""
        self.shown = 0

    def show(self, line: LogLine) -> None:
        self.shown += 1
        if self._json_lines:
            print_json(dataclasses.asdict(line))
        elif self._console.is_terminal:
            self._show_on_terminal(line)
        else:
            prefix = "" if line.level else f"{line.worker} {line.file}: "
            for text in line.text.split("\n"):
                click.echo(prefix + plain(text, _KEPT))

    def _show_on_terminal(self, line: LogLine) -> None:
        """In local time, with the lines of a message below one another, and short where there is little room."""
        narrow = self._console.width < _NARROW
        local = line.time.astimezone()
        day = local.strftime("%A %d %B %Y")
        if day != self._day:
            self._day = day
            self._console.print(Text(f"── {day}, {local.tzname()} ──", style="dim"))
        colour = self._colours.setdefault(line.worker, _COLOURS[len(self._colours) % len(_COLOURS)])
        style = _LEVEL_STYLES.get(line.level, "")
        time = local.strftime("%H:%M:%S") + ("" if narrow else f".{local.microsecond // 1000:03d}")
        level = line.level or line.file
        head = Text.assemble(
            (time, "dim"),
            " ",
            (level[:1] if narrow else f"{level:7}", style),
            " ",
            (line.worker, colour),
            " ",
            (f"{line.calculation} " if line.calculation else "", "dim"),
        )
        first, *others = plain(line.message, _KEPT).split("\n")
        self._console.print(head.append(first, style=style))
        for text in others:
            self._console.print(Text(f"    {text}", style=style))
