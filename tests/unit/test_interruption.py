"""Ctrl-C at moments at which nothing may be interrupted."""

from __future__ import annotations

import signal

import pytest

from fleet.interruption import undisturbed


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
