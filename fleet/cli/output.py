"""What a terminal shows: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fleet.errors import FleetError, RemoteError
from fleet.hosts.names import condensed
from fleet.reach.remote import HostResult
from fleet.words import plain, utc

_ROWS = 12


class _Console(Console):
    """Leaves a pipe that is read no more to the one place where errors become exit codes."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called where it was caught


def data_console() -> Console:
    """Where data goes."""
    return _Console(highlight=False, soft_wrap=True)


def note_console() -> Console:
    """Where everything else goes."""
    # Lines in a file are not broken to the width of a terminal that is not there.
    console = _Console(stderr=True, highlight=False)
    return console if console.is_terminal else _Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(record: Mapping[str, Any]) -> None:
    """Print one JSON line.

    Parameters
    ----------
    record
        What to print.
    """
    click.echo(json.dumps(record, ensure_ascii=False, default=_as_json))


def _as_json(value: object) -> str:
    return utc(value) if isinstance(value, datetime) else str(value)


def note(message: str, style: str = "") -> None:
    """Say something that is not data.

    Parameters
    ----------
    message
        Plain text.
    style
        How it looks on a terminal that has styles.
    """
    note_console().print(Text(plain(message, "\n\t"), style=style))


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    title
        Its heading.
    right
        Whether it is aligned to the right.
    spare
        How soon it is left out where a terminal is too narrow; 0 never, the largest first.
    cut
        Its least width where its cells may be cut for want of room; 0 where they may not.
    """

    title: str
    right: bool = False
    spare: int = 0
    cut: int = 0


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Text | str]]) -> None:
    """Print a table as data: fitted to a terminal, whole everywhere else.

    Parameters
    ----------
    columns
        Its columns.
    rows
        Its cells, a row each.
    """
    console = _Console(highlight=False)
    if not console.is_terminal:
        click.echo("\n".join(_plain_lines(columns, rows)))
        return
    lines, hidden = table_lines(columns, rows, console.width)
    console.print(Text("\n").join(lines), soft_wrap=True)
    if hidden:
        note(f"not shown for want of width: {', '.join(hidden)} (--json has all)", "dim")


def _plain_lines(columns: Sequence[Column], rows: Sequence[Sequence[Text | str]]) -> list[str]:
    """The lines of a table for a file: styling thousands only to take the styles away again takes long."""
    titles = [column.title for column in columns]
    cells = [titles, *([plain(cell if isinstance(cell, str) else cell.plain) for cell in row] for row in rows)]
    sizes = [[cell_len(cell) for cell in row] for row in cells]
    widths = [max(row[at] for row in sizes) for at in range(len(columns))]
    return [
        "  ".join(
            " " * (width - size) + cell if column.right else cell + " " * (width - size)
            for cell, size, width, column in zip(row, of_row, widths, columns, strict=True)
        ).rstrip()
        for row, of_row in zip(cells, sizes, strict=True)
    ]


def table_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[Text | str]], width: int | None = None
) -> tuple[list[Text], list[str]]:
    """The lines of a table, and the titles of columns for which there is no room.

    Parameters
    ----------
    columns
        Its columns.
    rows
        Its cells, a row each.
    width
        Of the terminal; None for as much as it takes.
    """
    cells = [[_plain(cell) for cell in row] for row in rows]
    widths = [max([len(column.title), *(row[at].cell_len for row in cells)]) for at, column in enumerate(columns)]
    shown = list(range(len(columns)))
    if width is not None:
        shown, widths = fit(columns, widths, width)
    lines = []
    for line in [[Text(column.title, style="bold") for column in columns], *cells]:
        joined = Text("  ").join(_aligned(line[at], widths[at], columns[at].right) for at in shown)
        joined.rstrip()
        lines.append(joined)
    return lines, [column.title for at, column in enumerate(columns) if at not in shown]


def _plain(cell: Text | str) -> Text:
    """A cell that stays in its line, whatever somebody called a process or wrote into a comment."""
    if isinstance(cell, str):
        return Text(plain(cell))
    if cell.plain.isprintable():
        return cell
    changed = cell.copy()
    changed.plain = plain(cell.plain)  # as long as before, so its styles stay where they are
    return changed


def fit(columns: Sequence[Column], wanted: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Which columns to show, and how wide each is.

    Parameters
    ----------
    columns
        The columns.
    wanted
        How wide their cells are.
    width
        Of the terminal.

    Returns
    -------
    tuple
        The numbers of the columns that are shown, and the widths of all.
    """
    widths = [_least(column, size) for column, size in zip(columns, wanted, strict=True)]
    shown = _fitting(columns, widths, width)
    # Room that is left is shared evenly by those that are cut; who needs least first, for what it leaves.
    tight = sorted((at for at in shown if columns[at].cut), key=lambda at: wanted[at] - widths[at])
    for number, at in enumerate(tight):
        left = width - sum(widths[other] + 2 for other in shown) + 2
        share = max(0, left) // (len(tight) - number)
        widths[at] = min(wanted[at], widths[at] + share)
    return shown, widths


def _least(column: Column, wanted: int) -> int:
    return min(wanted, max(column.cut, len(column.title))) if column.cut else wanted


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    shown = list(range(len(columns)))
    for at in sorted(shown, key=lambda at: -columns[at].spare):
        if sum(widths[at] + 2 for at in shown) - 2 <= width or not columns[at].spare:
            break
        shown.remove(at)
    return shown


def _aligned(cell: Text, width: int, right: bool) -> Text:
    aligned = cell.copy()
    if cell.cell_len > width:
        aligned.truncate(width, overflow="ellipsis")
        return aligned
    if right:
        aligned.pad_left(width - cell.cell_len)
    else:
        aligned.pad_right(width - cell.cell_len)
    return aligned


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
    failed = {result.host: result.error for result in results if result.error is not None}
    # Forty hosts that were not begun for the same reason are one line.
    alike: dict[_Told, list[str]] = {}
    for host, error in failed.items():
        alike.setdefault(_told(host, error), []).append(host)
    for hosts in alike.values():
        _print_error(condensed(hosts), _told(hosts[0], failed[hosts[0]]))
    return len(failed)


@dataclass(frozen=True)
class _Told:
    """All that is said of an error beside the host."""

    verdict: str
    step: str
    what: str
    hint: str


def _told(host: str, error: FleetError) -> _Told:
    if isinstance(error, RemoteError):
        return _Told(error.verdict, error.step, error.what, error.hint)
    return _Told("failed", "", str(error).removeprefix(f"{host}: "), "")


def print_error(host: str, error: FleetError) -> None:
    """Say what went wrong on a host, and what to do.

    Parameters
    ----------
    host
        Its name.
    error
        What went wrong.
    """
    _print_error(host, _told(host, error))


def _print_error(hosts: str, told: _Told) -> None:
    console = note_console()
    step = f" [bold]{escape(told.step)}[/]" if told.step else ""
    what = escape(plain(told.what, "\n\t"))
    console.print(f"[bold red]{escape(hosts)}[/] {escape(told.verdict)}{step}: {what}")
    if told.hint:
        console.print(Text("  " + told.hint))


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
        self._closed = False
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
        # Threads that an interruption leaves behind may still say something; nobody would know of what.
        self._closed = True
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
        if self._live is None and not self._closed and _without_numbers(before) != _without_numbers(what):
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
        # Expanded, the column with a ratio gets the room that the others leave; else it would take theirs.
        picture = Table.grid(padding=(0, 2, 0, 0), expand=True)
        picture.title, picture.title_justify, picture.title_style = heading, "left", "bold"
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
