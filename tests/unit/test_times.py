"""Times are said and shown by the clock on the operator's wall, whatever the verb."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime

import click
import pytest

from fleet.cli import cli, times
from fleet.cli.queue import queue
from fleet.cli.queue_look import _when
from fleet.cli.queue_options import selected
from fleet.errors import UsageError
from fleet.watch.eventlines import event_cells
from fleet.watch.moments import FORMS, full, local
from puffin.store import EventRecord

EIGHT = datetime(2026, 11, 22, 8, 0)
"""As the database has it."""


@pytest.fixture(autouse=True)
def _tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_database_is_asked_in_its_time_for_what_was_said_in_ours() -> None:
    assert selected((), (), (), (), "2026-11-22T17:00").since == EIGHT
    assert selected((), (), (), (), "2026-11-22T08:00Z").since == EIGHT
    assert selected((), (), (), (), None).since is None
    assert times.seconds("--since", "1970-01-01T09:00:01") == 1.0


@pytest.mark.parametrize("text", ["yesterday", "5", "5y", "99999999w", ""])
def test_what_is_no_time_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--since: {text!r} is no time; a time is written as one of 10m")):
        selected((), (), (), (), text)


def test_what_the_database_says_is_shown_in_our_time() -> None:
    event = EventRecord("1", EIGHT, "failed", "n-1", "n", "lab", "", "")
    assert event_cells(event)[0].text == "17:00:00"
    assert full(EIGHT) == _when(EIGHT) == "2026-11-22 17:00:00 JST"
    assert local(datetime.min).year == 1  # an event that does not say when


@pytest.mark.parametrize("verb", ["events", "logs", "collect", "queue list", "queue requeue"])
def test_since_is_explained_alike_everywhere(verb: str) -> None:
    group = queue if verb.startswith("queue ") else cli
    command = group.get_command(click.Context(group), verb.removeprefix("queue "))
    assert command is not None
    (since,) = (each for each in command.params if each.name == "since")
    assert isinstance(since, click.Option)
    assert since.help is not None
    assert since.help.endswith(f"since: {FORMS}.")
