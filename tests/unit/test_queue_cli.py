"""The verbs of the queue as a command line: quick to help, and all there."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from fleet.cli.queue import _VERBS, queue
from fleet.cli.queue_look import _print_output, _section

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


def test_what_a_program_printed_is_shown_without_its_colours(capsys: pytest.CaptureFixture[str]) -> None:
    _print_output("1\n\x1b[1;31mnot\x1b[0m\tconverged\n\x1b]0;mine\x07\n", 2)
    _section("History", [("12:00", "failed", "n-1", "\x1b[2Jgone\nfor good")])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    mark = "\N{REPLACEMENT CHARACTER}"
    assert [line.split() for line in lines[1:3]] == [["not", "converged"], [f"{mark}]0;mine{mark}"]]
    assert lines[4] == f"  12:00  failed  n-1  {mark}[2Jgone for good"


def test_a_verb_that_is_not_there() -> None:
    assert queue.get_command(click.Context(queue), "sumbit") is None
