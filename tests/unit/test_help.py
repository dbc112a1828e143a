"""Help that teaches, and what a shell is told at every Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fleet.cli import cli
from tests.acceptance.commands import BIN

HOSTS = """\
fleet: f
defaults: {workers: {cores: 1, count: auto}}
groups: {big: {workers: [{cores: 4, count: 2}, {cores: 2}]}}
hosts: {"node[1-3]": {}, tower: {groups: [big]}}
"""


def verbs(group: click.Group = cli, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from verbs(command, (*above, name))
        else:
            yield (*above, name), command


EVERY_VERB = list(verbs())


@pytest.mark.parametrize(("words", "command"), EVERY_VERB, ids=[" ".join(words) for words, _ in EVERY_VERB])
def test_every_verb_has_two_examples(words: tuple[str, ...], command: click.Command) -> None:
    lines = [line.strip() for line in (command.help or "").splitlines()]
    begins = f"puffin-fleet {' '.join(words)}"
    assert sum(begins in line for line in lines) >= 2, f"'{begins}' has fewer than two examples"
    assert CliRunner().invoke(cli, [*words, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        *(f"{verb} --timeout {value}" for verb in ("stop", "drain x", "destroy", "exec x") for value in ("-5", "nan")),
        "restart --lock-timeout nan",
    ],
)
def test_no_time_is_less_than_none(words: str) -> None:
    refused = CliRunner().invoke(cli, words.split())
    assert (refused.exit_code, "Invalid value for '--" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("verb", "meaning"),
    [
        ("deploy", "Hosts looked at and installed on at a time;"),
        ("restart", "Hosts looked at at a time;"),
        ("stop", "Hosts told at a time."),
        ("ps", "Hosts at a time."),
        ("exec", "Hosts at a time."),
    ],
)
def test_what_is_done_in_parallel_is_said(verb: str, meaning: str) -> None:
    (found,) = [command for words, command in EVERY_VERB if words == (verb,)]
    (option,) = [each for each in found.params if each.name == "parallel"]
    assert isinstance(option, click.Option)
    assert (option.help or "").startswith(meaning)


def test_the_command_alone_shows_the_verbs_of_a_day() -> None:
    shown = CliRunner().invoke(cli, [])
    assert shown.exit_code == 0
    found = [line.split()[1] for line in shown.output.splitlines() if line.startswith("puffin-fleet ")]
    assert found == ["deploy", "status", "logs", "check", "stop"]
    assert max(map(len, shown.output.splitlines())) <= 80


def complete(place: Path, line: str) -> list[str]:
    """What bash is offered for the last word."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_PUFFIN_FLEET_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    environment.pop("PUFFIN_FLEET", None)
    command = str(BIN / "puffin-fleet")
    done = subprocess.run([command], env=environment, cwd=place, capture_output=True, text=True, timeout=60)
    return [entry.partition(",")[2] for entry in done.stdout.splitlines() if entry]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("puffin-fleet re", ["restart", "resume"]),
        ("puffin-fleet stop --no", ["--now", "--no-wait"]),
        ("puffin-fleet stop --host no", ["node1", "node2", "node3"]),
        ("puffin-fleet stop --worker t", ["tower-1", "tower-2", "tower-3"]),
        ("puffin-fleet drain t", ["tower"]),
        ("puffin-fleet scale b", ["big"]),
        ("puffin-fleet queue hol", ["hold"]),
    ],
)
def test_names_are_completed(tmp_path: Path, line: str, offered: list[str]) -> None:
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    assert complete(tmp_path, line) == offered


def test_a_file_that_is_wrong_completes_nothing_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("hosts: [")
    assert complete(tmp_path, "puffin-fleet stop --host n") == []


def test_verbs_are_completed_without_importing_them() -> None:
    program = (
        "import sys, click; from fleet.cli import cli; "
        "found = cli.shell_complete(click.Context(cli), 'de'); "
        "heavy = [name for name in ('pymongo', 'pydantic', 'rich') if name in sys.modules]; "
        "print([item.value for item in found], heavy)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['deploy', 'destroy', 'demo'] []"


@pytest.mark.parametrize("command", ["fleet.cli", "puffin.cli"])
def test_help_is_quick_because_it_imports_little(command: str) -> None:
    program = (
        f"import sys; from {command} import cli; cli.main(['--help'], standalone_mode=False); "
        "heavy = ('pymongo', 'pydantic', 'rich', 'textual', 'fabric', 'psutil', 'yaml', 'multiprocessing'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_printed(shell: str) -> None:
    shown = CliRunner().invoke(cli, ["completion", shell], prog_name="puffin-fleet")
    assert shown.exit_code == 0
    assert f"{shell}_complete" in shown.output


@pytest.mark.parametrize(
    ("verbs", "not_needed"),
    [
        (["completion"], {"rich", "pydantic", "pymongo", "paramiko", "textual"}),
        (
            ["plan", "logs", "exec", "ps", "collect", "history", "prune", "setup", "scale"],
            {"pymongo", "paramiko", "textual"},
        ),
        (["status", "deploy", "queue_look", "notify"], {"paramiko", "textual"}),
    ],
    ids=["completion", "no database at once", "no host at once"],
)
def test_verbs_begin_without_what_they_may_not_need(verbs: list[str], not_needed: set[str]) -> None:
    code = f"import sys, {', '.join(f'fleet.cli.{verb}' for verb in verbs)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not_needed.isdisjoint(done.stdout.split())
