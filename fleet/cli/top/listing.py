"""A table of any length on the screen: only the lines that can be seen are drawn."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from fleet.cli.output import Column, fit
from fleet.watch.boardtable import Row, Table
from fleet.watch.cells import Cell
from fleet.words import plain

STYLES = {
    "bad": Style(color="red", bold=True),
    "warn": Style(color="yellow"),
    "good": Style(color="green"),
    "dim": Style(dim=True),
    "accent": Style(color="cyan"),
    "": Style(),
}
_HEADING = Style(bold=True, underline=True)
_CHOSEN = Style(reverse=True)
_GAP = "  "
_MEASURED = 500
"""Lines whose cells tell how wide the columns are; a wider cell further down is cut."""


class Listing(ScrollView, can_focus=True):
    """A table with a chosen line, which stays chosen when the table changes."""

    DEFAULT_CSS = "Listing { height: 1fr; overflow-x: hidden; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
        Binding("enter", "open", "See", key_display="⏎"),
    ]
    at = reactive(0)

    class Opened(Message):
        """Somebody wants to see more of a line."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    def __init__(self) -> None:
        super().__init__(id="listing")
        self._table = Table((), (), "")
        self._shown: list[int] = []
        self._widths: list[int] = []

    def show(self, table: Table) -> None:
        """Show another table, or the same anew.

        Parameters
        ----------
        table
            The table.
        """
        before = self.chosen
        self._table = table
        if before is not None:
            where = {row.key: at for at, row in enumerate(table.rows)}
            self.at = where.get(before.key, self.at)
        self.at = max(0, min(self.at, len(table.rows) - 1))
        self._fit()
        self.refresh()

    @property
    def chosen(self) -> Row | None:
        """The chosen line; None where there is none."""
        return self._table.rows[self.at] if self.at < len(self._table.rows) else None

    @property
    def texts(self) -> list[str]:
        """What can be seen, heading included."""
        return [self.render_line(y).text.rstrip() for y in range(self.size.height)]

    def on_resize(self) -> None:
        """Fit the columns to the new width."""
        self._fit()

    def _fit(self) -> None:
        columns = [Column(head.title, head.right, head.spare, head.cut) for head in self._table.headings]
        widths = [len(head.title) + (head.title == self._table.sorted_by) for head in self._table.headings]
        if widths:
            widths[0] = max([widths[0], *(len(row.key) for row in self._table.rows)])
        for row in self._table.rows[:_MEASURED]:
            widths = [max(width, len(cell.text)) for width, cell in zip(widths, row.cells, strict=True)]
        self._shown, self._widths = fit(columns, widths, max(20, self.size.width - 2))
        self.virtual_size = Size(self.size.width, len(self._table.rows) + 1)

    def render_line(self, y: int) -> Strip:
        """Draw one line; the first is always the heading.

        Parameters
        ----------
        y
            Which, counted from the top of the screen.
        """
        index = y - 1 + self.scroll_offset.y
        if y == 0:
            heads = [
                Cell(head.title + ("▾" if head.title == self._table.sorted_by else "")) for head in self._table.headings
            ]
            return self._strip(heads, _HEADING)
        if index >= len(self._table.rows):
            return Strip.blank(self.size.width, self.rich_style)
        return self._strip(self._table.rows[index].cells, _CHOSEN if index == self.at else Style())

    def _strip(self, cells: list[Cell] | tuple[Cell, ...], over: Style) -> Strip:
        segments = []
        for at in self._shown:
            width, cell = self._widths[at], cells[at]
            text = plain(cell.text if len(cell.text) <= width else cell.text[: width - 1] + "…")
            text = text.rjust(width) if self._table.headings[at].right else text.ljust(width)
            segments.append(Segment(text + _GAP, self.rich_style + STYLES[cell.tone] + over))
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style + over)

    def watch_at(self) -> None:
        """Keep the chosen line in sight."""
        height = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self.at < top:
            self.scroll_to(y=self.at, animate=False)
        elif self.at >= top + height:
            self.scroll_to(y=self.at - height + 1, animate=False)
        self.refresh()

    def action_move(self, by: int) -> None:
        """Choose another line.

        Parameters
        ----------
        by
            How many lines further down.
        """
        self.at = max(0, min(self.at + by, len(self._table.rows) - 1))

    def action_page(self, by: int) -> None:
        """Choose a line a screen further.

        Parameters
        ----------
        by
            How many screens further down.
        """
        self.action_move(by * max(1, self.size.height - 2))

    def action_open(self) -> None:
        """Tell that somebody wants to see more of the chosen line."""
        if self.chosen is not None:
            self.post_message(self.Opened(self.chosen))

    def on_click(self, event: Click) -> None:
        """Choose the line under the mouse.

        Parameters
        ----------
        event
            Where.
        """
        if event.y > 0:
            self.action_move(event.y - 1 + self.scroll_offset.y - self.at)
