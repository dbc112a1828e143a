"""One word for one thing in all verbs, and what scripts have said until now goes on working."""

from __future__ import annotations

import click
import pytest

from fleet.cli import cli
from fleet.errors import UsageError


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["events", "--failed"], "failed", True),
        (["events", "--failures"], "failed", True),
        (["events", "--limit", "3"], "limit", 3),
        (["history", "--limit", "3"], "limit", 3),
        (["history", "--number=3"], "limit", 3),
        (["history", "-n3"], "limit", 3),
    ],
)
def test_new_names_and_old_ones(words: list[str], name: str, value: object) -> None:
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    context = command.make_context(words[0], words[1:])
    assert context.params[name] == value
    assert not {"--failures", "--number"} & set(command.get_help(context).split())


def test_failures_and_kinds_are_not_chosen_at_once() -> None:
    with pytest.raises(UsageError, match="--failed and --kind do not go together"):
        cli.main(["events", "none.yaml", "--failed", "--kind", "x"], standalone_mode=False)
