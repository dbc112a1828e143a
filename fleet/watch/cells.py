"""A few words and how they look, wherever they are shown; pure."""

from __future__ import annotations

from dataclasses import dataclass

TONES = {
    "lost": "bad",
    "quarantined": "bad",
    "unreported": "bad",
    "frozen": "warn",
    "starting": "warn",
    "draining": "warn",
    "running": "good",
    "stopped": "dim",
}
"""How a worker's state looks; nothing special where it is not here."""


@dataclass(frozen=True)
class Cell:
    """A few words and how they look: "bad", "warn", "good", "dim", "accent" or nothing special."""

    text: str
    tone: str = ""
