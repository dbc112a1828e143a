"""What is said where there is nothing to do or to show."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from click.testing import CliRunner

from fleet.cli import cli
from fleet.cli.events import _once as events_once
from fleet.cli.notify import _once as notify_once
from fleet.cli.options import Chosen
from fleet.cli.queue_results import _nothing
from fleet.notify.notifying import Notifier
from puffin.calculations import Status
from puffin.entries import Selection
from puffin.store import EventSelection, Store


def test_trust_says_that_this_machine_needs_no_key(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(
        "fleet: f\ndatabase: {uri: 'mongodb://db', names: [a]}\ndefaults: {workers: {cores: 1}}\n"
        "hosts: {here: {connection: local}}\n"
    )
    ran = CliRunner().invoke(cli, ["trust", str(file)], standalone_mode=False)
    assert (ran.return_value, ran.stdout) == (0, "")
    assert ran.stderr == "here: this machine, which needs no key\n"


@pytest.mark.parametrize(("terminal", "said"), [(True, "Nothing to tell.\n"), (False, "")])
def test_notify_says_so_on_a_terminal_alone_since_cron_sends_mails(
    terminal: bool, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "dumb")
    idle = SimpleNamespace(step=lambda _: None, told=list, busy=False)
    assert not notify_once(cast("Notifier", idle), json_lines=False)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("selection", "said"),
    [(EventSelection("f"), "No events of f yet."), (EventSelection("f", kinds=("x",)), "No such")],
)
def test_events_of_a_new_fleet_and_of_no_kind(
    selection: EventSelection, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = cast("Store", SimpleNamespace(events=SimpleNamespace(recent=lambda *_: [])))
    chosen = cast("Chosen", SimpleNamespace(fleet=SimpleNamespace(name="f")))
    assert list(events_once(chosen, store, selection, 20)) == [[]]
    assert said in capsys.readouterr().err


def test_results_of_a_new_database_and_of_no_kind() -> None:
    usual = (Status.COMPLETE, Status.ANALYZED)
    assert _nothing(Selection(usual), "explore").startswith("No calculation in explore has finished yet")
    assert _nothing(Selection(usual, orders=("x",)), "explore").startswith("No such calculation in explore")
