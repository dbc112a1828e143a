"""The verbs of the queue as a command line: quick to help, and all there."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from datetime import datetime
from types import SimpleNamespace
from typing import cast

import click
import pytest

from fleet.cli.ps import _without_directories
from fleet.cli.queue import _VERBS, queue
from fleet.cli.queue_look import _print_output, _section, print_entries
from fleet.cli.queue_options import named_file
from fleet.errors import UsageError
from puffin.calculations import Status
from puffin.entries import Selection, to_entry
from puffin.outcomes import CalculationOutcome, StructureInfo
from puffin.store import Queue

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


FAILED = Selection(statuses=(Status.FAILED,))
REASON = "Error: the calculation did not converge within 500 cycles"


@pytest.mark.parametrize(
    ("width", "wanted", "comment", "heading"),
    [
        (80, Selection(), REASON, ["ID", "STATUS", "WHAT", "COMMENT"]),
        (80, Selection(), "", ["ID", "STATUS", "JOB", "WHAT", "CHANGED"]),
        (80, FAILED, REASON, ["ID", "JOB", "WHAT", "COMMENT"]),
        (80, dataclasses.replace(FAILED, orders=("scine_single_point",)), REASON, ["ID", "WHAT", "CHANGED", "COMMENT"]),
        (100, Selection(), REASON, ["ID", "STATUS", "JOB", "WHAT", "CHANGED", "COMMENT"]),
        (
            160,
            Selection(),
            REASON,
            ["ID", "STATUS", "JOB", "WHAT", "METHOD", "PROGRAM", "CHANGED", "SECONDS", "WORKER", "COMMENT"],
        ),
    ],
)
def test_a_list_shows_what_matters_on_any_terminal(
    width: int,
    wanted: Selection,
    comment: str,
    heading: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "LINES": "24", "COLUMNS": str(width)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    model = {"method": "PM6", "program": "sparrow"}
    document = {"_id": "1" * 24, "status": "failed", "job": {"order": "scine_geometry_optimization"}, "model": model}
    ours = {"executor": "w", "worker": "node7.cluster-12"}
    ended = {"_lastmodified": datetime(2025, 1, 1), "runtime": 12.5, "executor": "w", "puffin": ours}
    entry = to_entry("db", {**document, **ended, "comment": comment})
    water = StructureInfo("s", "a molecule with a long name", "", (), (), "H2O", 0, 1)
    queue = cast(
        "Queue", SimpleNamespace(name="db", outcomes=lambda found: [CalculationOutcome(found[0], (water,), (), ())])
    )
    print_entries(queue, [entry], datetime(2025, 1, 2), wanted)
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert out[0].split() == heading
    assert out[1].startswith("1" * 24)
    assert "a molecul" in out[1]
    assert ("Error: the calcula" in out[1]) == bool(comment)
    assert max(map(len, out)) <= width


def test_what_a_process_is_comes_before_where_it_is() -> None:
    place = "/home/chem/.puffin-fleet/reactions"
    command = f"{place}/releases/0.1.0-a9f91f6d1a8e/bin/python -I {place}/bin/puffin container {place}/etc/node1-1.yaml"
    assert _without_directories(command) == "python -I puffin container node1-1.yaml"
    assert _without_directories("sh -c ls  / --at=/tmp") == "sh -c ls  / --at=/tmp"


def test_hosts_yaml_may_be_named_as_a_word() -> None:
    assert named_file(None, None, None) is None
    assert named_file(None, "b.yaml", None) == "b.yaml"
    assert named_file("a.yaml", None, None) == "a.yaml"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a.yaml", "b.yaml", None), "a.yaml and --hosts-file do not go together"),
        (("a.yaml", None, "mongodb://x"), "a.yaml and --uri do not go together"),
        (("failed", None, None), "failed is no hosts.yaml: calculations of a status are listed with --status failed"),
        (("65f0c1", None, "mongodb://x"), "'puffin-fleet queue show 65f0c1' shows one calculation"),
    ],
)
def test_a_word_that_is_no_hosts_yaml(given: tuple[str | None, str | None, str | None], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        named_file(*given)


def test_a_verb_that_is_not_there() -> None:
    assert queue.get_command(click.Context(queue), "sumbit") is None
