"""What `top` lays over its screen: a question, and a log."""

from __future__ import annotations

import threading
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, RichLog, Static

from fleet.errors import FleetError
from fleet.hosts.access import Remotes
from fleet.hosts.inventory import Fleet
from fleet.operation.touching import Target, lines_of
from fleet.words import plain, uncoloured

_LINES = 200
_KEPT = 5000


class Question(ModalScreen[bool]):
    """Asks whether to do something.

    Parameters
    ----------
    question
        What would be done.
    meaning
        What that means.
    """

    DEFAULT_CSS = """
    Question { align: center middle; }
    Question > Vertical { width: 64; max-width: 90%; height: auto; padding: 1 2; border: round $warning; background: $surface; }
    """  # noqa: E501 - a line of a style sheet
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, question: str, meaning: str) -> None:
        super().__init__()
        self._question = question
        self._meaning = meaning

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Vertical(
            Static(Text(self._question, style="bold"), id="question"),
            Static(Text(f"{self._meaning}\n")),
            Static(Text("y: yes    n: no", style="dim")),
        )

    def action_answer(self, answer: bool) -> None:
        """Answer.

        Parameters
        ----------
        answer
            Whether to do it.
        """
        self.dismiss(answer)


class LogScreen(Screen[None]):
    """The log of a worker, or of all of a host, as it grows.

    Parameters
    ----------
    fleet
        The fleet.
    target
        Whose log.
    workers
        The workers of its host.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,l", "back", "Back")]

    def __init__(self, fleet: Fleet, target: Target, workers: list[str]) -> None:
        super().__init__()
        self._fleet = fleet
        self._target = target
        self._workers = workers
        self._remotes: Remotes | None = None
        self._left = False

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(Text(f"log of {self._target}", style="bold"), id="log-title")
        yield RichLog(id="log", max_lines=_KEPT, wrap=True, min_width=20, highlight=False, markup=False)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one(RichLog).focus()
        threading.Thread(target=self._read, name="top-log", daemon=True).start()

    def _read(self) -> None:
        """In a thread: whoever waits for a host must not hold up the screen."""
        self._remotes = remotes = Remotes(self._fleet, [self._target.host])
        self._write(Text(f"asking {self._target.host.name}", style="dim"))
        try:
            for worker, line in lines_of(self._fleet, self._target, self._workers, remotes, _LINES):
                if self._left:
                    return
                self._write(log_text(worker, line))
            self._write(Text("the host tells no more", style="yellow"))
        except FleetError as error:
            self._write(Text(str(error), style="bold red"))
        finally:
            remotes.close()

    def _write(self, text: Text) -> None:
        if not self._left:
            self.app.call_from_thread(self._show, text)

    def _show(self, text: Text) -> None:
        if not self._left:
            self.query_one(RichLog).write(text)

    def action_back(self) -> None:
        """Return to the table."""
        self._end()
        self.dismiss(None)

    def on_unmount(self) -> None:
        """Stop reading, however the screen goes."""
        self._end()

    def _end(self) -> None:
        self._left = True
        remotes, self._remotes = self._remotes, None
        if remotes is not None:
            threading.Thread(target=remotes.close, daemon=True).start()


def log_text(worker: str, line: str) -> Text:
    """A line as it is shown: it must not be able to move the cursor.

    Parameters
    ----------
    worker
        Who wrote it.
    line
        The line.
    """
    shown = plain(uncoloured(line), "\n\t")
    return Text(shown if worker in line else f"{worker} {shown}", style=_style(line))


def _style(line: str) -> str:
    if " ERROR " in line:
        return "bold red"
    return "yellow" if " WARNING " in line else ""
