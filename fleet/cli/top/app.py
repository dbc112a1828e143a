"""The full-screen view: widgets, keys, and who is told what. What is shown is decided in `fleet.watch`."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Input, Static

from fleet.cli.options import Chosen
from fleet.cli.top.feed import Feed
from fleet.cli.top.listing import STYLES, Listing
from fleet.cli.top.screens import LogScreen, Question
from fleet.errors import FleetError
from fleet.operation.touching import Target, Verb, give, host_named, meaning
from fleet.watch import board, boardtable, eventlines
from fleet.watch.board import History, Snapshot
from fleet.watch.boardtable import Mode, View
from fleet.watch.cells import Cell
from fleet.watch.moments import local
from puffin.store import EventRecord, Store

_EVENTS_SHOWN = 200
_OF_THE_TABLE = frozenset({"switch", "filter", "sort", "reverse", "order", "maintain", "logs", "failures", "leave"})


class Top(App[None]):
    """The view.

    Parameters
    ----------
    chosen
        The fleet, and the hosts of it to be shown.
    store
        Its database.
    every
        Seconds between two looks.
    """

    CSS = """
    #title { height: 1; background: $primary-darken-2; color: $text; }
    #totals { height: 3; padding: 0 1; }
    #listing { padding: 0 1; }
    #title, #totals, #event-lines { text-wrap: nowrap; text-overflow: ellipsis; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    #filter.open { display: block; }
    #events { height: 25%; min-height: 5; padding: 0 1; border-top: solid $primary-darken-2; }
    """
    ENABLE_COMMAND_PALETTE = False
    # Else the hidden filter has what is typed before the first look.
    AUTO_FOCUS = "Listing"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("tab", "switch", "View", key_display="⇥", priority=True),
        Binding("slash", "filter", "Find", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse", show=False),
        Binding("d", "order('stop')", "Stop"),
        Binding("u", "order('start')", "Start"),
        Binding("x", "order('restart')", "Restart"),
        Binding("m", "maintain", "Drain"),
        Binding("l", "logs", "Log"),
        Binding("f", "failures", "Fails"),
        # For want of room in 80 columns the title says it, where there is something to leave.
        Binding("escape", "leave", "Back", show=False),
    ]

    def __init__(self, chosen: Chosen, store: Store, every: float) -> None:
        # With the terminal's own colours Textual can leave them out; its others it would only turn grey.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self._chosen = chosen
        self._where = store.where
        self._control = store.control
        self._snapshot: Snapshot | None = None
        self._history = History()
        self._view = View()
        self._failures = False
        self._trouble = ""
        self._laid_out = False
        self._feed = Feed(
            chosen=chosen,
            store=store,
            every=every,
            on_look=lambda snapshot: self._later(self._looked, snapshot),
            on_events=lambda events: self._later(self._happened, events),
            on_trouble=lambda trouble: self._later(self._troubled, trouble),
        )

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="title")
        yield Static(id="totals")
        yield Input(id="filter", placeholder="words that a line must have; Enter keeps them, Escape drops them")
        yield Listing()
        with VerticalScroll(id="events", can_focus=False):
            yield Static(id="event-lines")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to look."""
        self._laid_out = True
        self.query_one(Listing).focus()
        self._draw()
        self._feed.start()

    def on_unmount(self) -> None:
        """Stop looking."""
        self._feed.stop()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._draw()

    # What comes from the threads -----------------------------------------------------------------------

    def _later(self, function: object, value: object) -> None:
        """From a thread: have it done by the one that draws, and do not wait for that."""
        assert callable(function)  # noqa: S101 - ours
        if self.is_running:
            self.call_later(function, value)

    def _looked(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        waiting = snapshot.queue.get("new", 0)
        self._history = self._history.with_depth(snapshot.at, waiting)
        self._draw()

    def _happened(self, events: Sequence[EventRecord]) -> None:
        self._history = self._history.with_events(events)
        self._draw_events()

    def _troubled(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._draw_title()

    # Drawing -------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        self._draw_title()
        snapshot = self._snapshot
        if snapshot is None or not self._laid_out:
            return
        lines = board.headlines(snapshot, self._history, self.size.width - 2)
        self.query_one("#totals", Static).update(Text("\n").join(_text(line) for line in lines))
        self.query_one(Listing).show(boardtable.table(snapshot, self._view))
        self._draw_events()

    def _draw_title(self) -> None:
        if not self._laid_out:
            return
        at = f"{local(self._snapshot.at):%H:%M:%S %Z}" if self._snapshot else "looking"
        what = f"workers of {self._view.host} (Esc: back)" if self._view.host else self._view.mode.value
        words = f" {self._chosen.fleet.name}   {what}   {at}   {self._where}"
        if self._view.needle:
            words += f"   filter: {self._view.needle} (Esc: none)"
        title = Text(words, no_wrap=True, overflow="ellipsis")
        if self._trouble:
            known = f"this is from {at}: " if self._snapshot else ""
            title = Text(f" {known}{self._trouble}", style="bold white on red", no_wrap=True, overflow="ellipsis")
        self.query_one("#title", Static).update(title)

    def _draw_events(self) -> None:
        lines = eventlines.event_lines(self._history.events, failures=self._failures, host=self._view.host)
        nothing = [Cell("no failures" if self._failures else "nothing has happened yet", "dim")]
        texts = [_text(line) for line in lines[:_EVENTS_SHOWN] or [nothing]]
        for text in texts:
            text.no_wrap, text.overflow = True, "ellipsis"
        self.query_one("#event-lines", Static).update(Text("\n", no_wrap=True, overflow="ellipsis").join(texts))

    # Keys ----------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys of the table mean nothing where something else covers it.

        Parameters
        ----------
        action, parameters
            What a key asks for.
        """
        return action == "quit" or len(self.screen_stack) == 1 or action not in _OF_THE_TABLE

    def _show(self, view: View) -> None:
        self._view = view
        self._draw()

    def action_switch(self) -> None:
        """Show workers instead of hosts, or hosts instead of workers."""
        mode = Mode.WORKERS if self._view.mode is Mode.HOSTS else Mode.HOSTS
        self._show(replace(self._view, mode=mode, order=0, reverse=False, host=""))

    def on_listing_opened(self, message: Listing.Opened) -> None:
        """Show the workers of a host, or the log of a worker.

        Parameters
        ----------
        message
            Of which.
        """
        if self._view.mode is Mode.HOSTS:
            self._show(View(mode=Mode.WORKERS, host=message.row.host))
        else:
            self.action_logs()

    def action_leave(self) -> None:
        """Drop the filter, else return to the hosts."""
        filter_input = self.query_one("#filter", Input)
        if self._view.needle or filter_input.has_class("open"):
            filter_input.value = ""
            filter_input.remove_class("open")
            self.query_one(Listing).focus()
            self._show(replace(self._view, needle=""))
        elif self._view.host:
            self._show(View())

    def action_filter(self) -> None:
        """Ask for words that a line must have."""
        self.query_one("#filter", Input).add_class("open").focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        """Filter with every letter.

        Parameters
        ----------
        message
            What is written.
        """
        self._show(replace(self._view, needle=message.value))

    def on_input_submitted(self) -> None:
        """Keep the filter and return to the table."""
        self.query_one("#filter", Input).remove_class("open")
        self.query_one(Listing).focus()

    def action_sort(self) -> None:
        """Sort by the next column."""
        order = (self._view.order + 1) % len(boardtable.orders(self._view.mode))
        self._show(replace(self._view, order=order, reverse=False))

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._show(replace(self._view, reverse=not self._view.reverse))

    def action_failures(self) -> None:
        """Show failures alone, or everything that happens."""
        self._failures = not self._failures
        self._draw_events()

    # Orders --------------------------------------------------------------------------------------------

    def _target(self) -> Target | None:
        row = self.query_one(Listing).chosen
        if row is None:
            return None
        try:
            host = host_named(self._chosen.fleet, row.host)
        except FleetError as error:
            self.notify(str(error), severity="error", markup=False)
            return None
        return Target(host, "" if self._view.mode is Mode.HOSTS else row.key)

    def action_order(self, word: str) -> None:
        """Give an order to what is chosen, once it is confirmed.

        Parameters
        ----------
        word
            The order.
        """
        order, target = Verb(word), self._target()
        if target is None:
            return
        if order.of_a_host:
            target = Target(target.host)

        def answered(yes: bool | None) -> None:
            if yes:
                self.notify(f"{target}: {order.value}…", timeout=2)
                threading.Thread(target=self._give, args=(target, order), name="top-order", daemon=True).start()

        self.push_screen(Question(f"{order.value.capitalize()} {target}?", meaning(order)), answered)

    def action_maintain(self) -> None:
        """Drain the host of what is chosen, or resume it where it is drained."""
        row = self.query_one(Listing).chosen
        if row is not None:
            self.action_order((Verb.RESUME if row.host in self._feed.drained else Verb.DRAIN).value)

    def _give(self, target: Target, order: Verb) -> None:
        """In a thread: a host may take its time."""
        try:
            said, severity = give(self._chosen.fleet, target, order, self._control), "information"
        except FleetError as error:
            said, severity = str(error), "error"
        # One of the words that notify knows.
        self._later(lambda _: self.notify(said, severity=severity, timeout=10, markup=False), None)  # type: ignore[arg-type]
        self._feed.hurry()

    def action_logs(self) -> None:
        """Read the log of what is chosen."""
        target = self._target()
        if target is not None and self._snapshot is not None:
            workers = [each.record.worker for each in self._snapshot.statuses if each.record.host == target.host.name]
            self.push_screen(LogScreen(self._chosen.fleet, target, workers))


def _text(cells: Sequence[Cell]) -> Text:
    return Text("  ").join(Text(cell.text, style=STYLES[cell.tone]) for cell in cells)
