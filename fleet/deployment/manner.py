"""In which manner workers change, as the operator asks for it. Pure."""

from __future__ import annotations

from enum import Enum


class Manner(Enum):
    """How workers change: whether hosts wait for one another, and what becomes of the calculations that run."""

    ROLLING = "rolling"
    WHEN_IDLE = "when-idle"
    NOW = "now"
