"""Times in options: said as in `fleet.watch.moments`, refused with the option's name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar

import click

from fleet.errors import UsageError
from fleet.watch.moments import FORMS, parse_moment

Command = TypeVar("Command", bound=Callable[..., Any])


def since(meaning: str) -> Callable[[Command], Command]:
    """Add --since.

    Parameters
    ----------
    meaning
        What is chosen by it, in words that "since" can follow.
    """
    return click.option("--since", metavar="TIME", help=f"{meaning} since: {FORMS}.")


def moment(option: str, text: str | None) -> datetime | None:
    """Read the time that an option says, with its zone.

    Raises
    ------
    UsageError
        It is none.
    """
    if text is None:
        return None
    try:
        return parse_moment(text, datetime.now().astimezone())
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def seconds(option: str, text: str | None) -> float | None:
    """The same in seconds since 1970, as hosts are asked."""
    found = moment(option, text)
    return None if found is None else found.timestamp()


def utc(option: str, text: str | None) -> datetime | None:
    """The same naive and in UTC, as the database is asked."""
    found = moment(option, text)
    return None if found is None else found.astimezone(timezone.utc).replace(tzinfo=None)
