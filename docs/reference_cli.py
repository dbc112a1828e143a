"""Makes docs/cli.md from the commands themselves; see reference.py."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import click

from fleet.cli import cli as fleet_cli
from fleet.shapes import PRINTED
from puffin.cli import cli as worker_cli

_INTRODUCTION = """\
# Commands

This page is made from the code by `python docs/reference.py`. `puffin-fleet VERB --help` says the same.

HOSTS_FILE defaults to `$PUFFIN_FLEET`, else to `hosts.yaml` in the present folder. Patterns are those of a shell, such
as `'node0*'`, and may be given several times. Data goes to standard output, everything else
to standard error; [`--json`](json.md) prints JSON lines.

What has the option `--yes` says what it will do and asks, unless that is given; where nobody can be asked it is
refused, so scripts give it. `restart` and `drain` ask with `--now` only: without, as `start` and `resume`, they end no
calculation and do at once what they say. `collect` asks where it is more than 1 GB.

| exit code | |
|---|---|
| 0 | done |
| 1 | failed on at least one host |
| 2 | usage, hosts.yaml, or nobody there to be asked |
| 4 | locked by somebody else |
| 130 | interrupted, or answered with no |
"""

_WORKER = """\
## puffin

One worker by hand: `puffin -c puffin.yaml VERB`. In a fleet, supervisord runs `puffin container`.
"""


def _verbs(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None  # noqa: S101 - it was just listed
        if isinstance(command, click.Group):
            yield (*above, name), command
            yield from _verbs(command, (*above, name))
        else:
            yield (*above, name), command


def _plain(text: str) -> str:
    """A text in which a page shows every character."""
    for character, shown in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*")):
        text = text.replace(character, shown)
    return " ".join(text.split())


def _text(command: click.Command) -> str:
    """The help of a command, what is to be typed as blocks of code."""
    parts = []
    for paragraph in (command.help or "").split("\n\n"):
        if "\b" in paragraph:  # how click is told to leave lines as they are
            typed = textwrap.dedent(paragraph.replace("\b", "").strip("\n")).strip()
            kind = "sh" if typed.startswith("puffin") else "text"
            parts.append(f"```{kind}\n{typed}\n```")
        else:
            parts.append(_plain(paragraph))
    return "\n\n".join(parts)


def _options(command: click.Command, words: tuple[str, ...]) -> str:
    rows = []
    context = click.Context(command, info_name=" ".join(words))
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or "--help" in parameter.opts:
            continue
        described = parameter.get_help_record(context)
        if described is None:
            continue
        names, meaning = described
        shown = names.replace("|", "\\|")
        rows.append(f"| `{shown}` | {_plain(meaning)} |")
    return "\n".join(["| option | |", "|---|---|", *rows]) if rows else ""


def _section(words: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(words))
    usage = " ".join([*words, *command.collect_usage_pieces(context)])
    parts = [f"### {' '.join(words)}", f"```text\n{usage}\n```", _text(command), _options(command, words)]
    verb = " ".join(words[1:])
    if words[0] == "puffin-fleet" and verb in PRINTED:
        parts.append(f"`--json` prints [{PRINTED[verb].__name__}](json.md#{PRINTED[verb].__name__.lower()}).")
    return "\n\n".join(part for part in parts if part)


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "## puffin-fleet"]
    parts += [_section(words, command) for words, command in _verbs(fleet_cli, ("puffin-fleet",))]
    parts.append(_WORKER.strip())
    parts += [_section(words, command) for words, command in _verbs(worker_cli, ("puffin",))]
    return "\n\n".join(parts) + "\n"
