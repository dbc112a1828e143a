"""What a terminal shows: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fleet.errors import FleetError, RemoteError
from fleet.remote import HostResult

_ROWS = 12


def data_console() -> Console:
    """Where data goes."""
    return Console(highlight=False, soft_wrap=True)


def note_console() -> Console:
    """Where everything else goes."""
    return Console(stderr=True, highlight=False)


def print_json(record: Mapping[str, Any]) -> None:
    """Print one JSON line.

    Parameters
    ----------
    record
        What to print.
    """
    click.echo(json.dumps(record, ensure_ascii=False, default=str))


def note(message: str, style: str = "") -> None:
    """Say something that is not data.

    Parameters
    ----------
    message
        Plain text.
    style
        How it looks on a terminal that has styles.
    """
    note_console().print(Text(message, style=style))


def table(columns: Sequence[str], rows: Sequence[Sequence[Text | str]], right: Sequence[str] = ()) -> Table:
    """A table without lines, which stays readable when it is piped.

    Parameters
    ----------
    columns
        Headings.
    rows
        Cells.
    right
        Headings of columns that are aligned to the right.
    """
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def print_table(made: Table) -> None:
    """Print a table as data; not cut to a width where nobody looks at it.

    Parameters
    ----------
    made
        The table.
    """
    console = data_console()
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
        for line in console.render_lines(made, pad=False):
            click.echo("".join(segment.text for segment in line).rstrip())
        return
    Console(highlight=False).print(made)


def report_failures(results: Sequence[HostResult[Any]]) -> int:
    """Say what went wrong on which host.

    Parameters
    ----------
    results
        Of all hosts.

    Returns
    -------
    int
        How many failed.
    """
    failed = [result for result in results if result.error is not None]
    for result in failed:
        assert result.error is not None  # noqa: S101 - chosen so above
        print_error(result.host, result.error)
    return len(failed)


def print_error(host: str, error: FleetError) -> None:
    """Say what went wrong on a host, and what to do.

    Parameters
    ----------
    host
        Its name.
    error
        What went wrong.
    """
    console = note_console()
    if isinstance(error, RemoteError):
        console.print(f"[bold red]{escape(host)}[/] failed at [bold]{escape(error.step)}[/]: {escape(error.what)}")
        if error.hint:
            console.print(Text("  " + error.hint))
    else:
        console.print(f"[bold red]{escape(host)}[/] failed: {escape(str(error))}")


class Board:
    """What is being done on each host: a live picture on a terminal, a line for each new step elsewhere.

    Parameters
    ----------
    title
        What all of it is.
    total
        How many hosts there are.
    """

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._console = note_console()
        self._lock = threading.Lock()
        self._doing: dict[str, tuple[str, float]] = {}
        self._done = 0
        self._failed = 0
        self._live = (
            Live(get_renderable=self._picture, console=self._console, refresh_per_second=4, transient=True)
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def step(self, host: str, what: str) -> None:
        """A host is at something.

        Parameters
        ----------
        host
            Its name.
        what
            What is being done there.
        """
        with self._lock:
            before, since = self._doing.get(host, ("", time.monotonic()))
            self._doing[host] = (what, since)
        # Numbers in a step tell how far it has come; in a log one line for the step is enough.
        if self._live is None and _without_numbers(before) != _without_numbers(what):
            self._console.print(Text(f"{host}: {what}"))

    def finished(self, host: str, ok: bool) -> None:
        """A host is done.

        Parameters
        ----------
        host
            Its name.
        ok
            Whether it went well.
        """
        with self._lock:
            self._doing.pop(host, None)
            self._done += 1
            self._failed += not ok

    def _picture(self) -> Table:
        with self._lock:
            doing = sorted(self._doing.items())
            failed = f", {self._failed} failed" if self._failed else ""
            heading = f"{self._title}: {self._done} of {self._total} done{failed}"
        picture = Table(
            box=None, pad_edge=False, title=heading, title_justify="left", title_style="bold", show_header=False
        )
        picture.add_column(no_wrap=True)
        picture.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        picture.add_column(justify="right", no_wrap=True)
        for host, (what, since) in doing[:_ROWS]:
            picture.add_row(
                Text(host, style="cyan"), Text(what), Text(f"{time.monotonic() - since:.0f} s", style="dim")
            )
        if len(doing) > _ROWS:
            picture.add_row("", Text(f"and {len(doing) - _ROWS} more hosts", style="dim"), "")
        return picture


def _without_numbers(text: str) -> str:
    return "".join(character for character in text if not character.isdigit())
