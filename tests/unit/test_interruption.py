"""Ctrl-C at moments at which nothing may be interrupted."""

from __future__ import annotations

import signal
from typing import NoReturn

import click
import pytest

from fleet.cli import _run, cli
from fleet.errors import ExitCode
from fleet.interruption import undisturbed
from fleet.reach.execute import Interrupted


def test_what_may_not_be_interrupted_is_done_to_its_end() -> None:
    done = []

    def work() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_who_ends_for_another_reason_says_that() -> None:
    def fail() -> None:
        try:
            raise ValueError("the reason")
        finally:
            with undisturbed():
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(ValueError, match="the reason"):
        fail()


def test_an_interrupted_command_says_whose_lock_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through click, which makes an error of its own of every Ctrl-C."""

    def interrupted(context: click.Context) -> NoReturn:
        error = Interrupted([])
        error.still_locked = ("node2", "node3")
        raise error

    monkeypatch.setattr(cli, "invoke", interrupted)
    assert _run(["deploy"]) == ExitCode.INTERRUPTED
    said = capsys.readouterr().err
    assert "node2, node3: cannot be reached, so the lock stays for up to 15 min, or until" in said
    assert "'puffin-fleet unlock --host node2 --host node3'" in said
