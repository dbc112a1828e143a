"""The verbs of the queue as a command line: quick to help, and all there."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from fleet.cli.queue import _VERBS, queue

_LIST_MODULES = """
import sys
from fleet.cli import _run
code = _run(["queue", "--help"])
print(code, *(name for name in ("pymongo", "pydantic", "rich", "scine_utilities") if name in sys.modules))
"""


def test_help_loads_neither_driver_nor_chemistry() -> None:
    done = subprocess.run([sys.executable, "-c", _LIST_MODULES], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stdout.splitlines()[-1] == "0"


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_is_there_with_help_and_examples(verb: str) -> None:
    command = queue.get_command(click.Context(queue), verb)
    assert command is not None
    assert command.name == verb
    text = command.get_help(click.Context(command))
    assert f"puffin-fleet queue {verb}" in text
    for option in ("--json", "--uri", "--database", "--hosts-file"):
        assert option in text


def test_a_verb_that_is_not_there() -> None:
    assert queue.get_command(click.Context(queue), "sumbit") is None
