"""Words for what is in a queue; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta

from puffin.documents import Model

_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def duration(seconds: float | None) -> str:
    """A time as people say it, such as ``3 min`` or ``1.5 d``.

    Parameters
    ----------
    seconds
        The time; None is an empty text.
    """
    if seconds is None:
        return ""
    for size, unit in _STEPS:
        if seconds >= size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 10 and size > 60 else f"{count:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def age(when: datetime | None, now: datetime) -> str:
    """How long ago something was.

    Parameters
    ----------
    when
        When it was; None is an empty text.
    now
        The present by the same clock.
    """
    return "" if when is None else duration((now - when) / timedelta(seconds=1))


def first_line(text: str, limit: int) -> str:
    """The first line of a text, cut to a length.

    Parameters
    ----------
    text
        The text.
    limit
        Longest result.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def model_text(model: Mapping[str, str]) -> str:
    """The fields of a model that say something.

    Parameters
    ----------
    model
        All of its fields.
    """
    usual = asdict(Model())
    told = ("program", "method_family", "method", "basis_set")
    words = [f"{name}={model[name]}" for name in told if model.get(name)]
    words += [f"{name}={value}" for name, value in model.items() if name not in told and value != usual.get(name)]
    return ", ".join(words)
