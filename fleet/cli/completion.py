"""completion, and what shells are told about names in hosts.yaml.

No host and no database is asked: a shell waits for the answer at every Tab.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from fleet.errors import ExitCode, FleetError

PROGRAM = "puffin-fleet"
VARIABLE = "_PUFFIN_FLEET_COMPLETE"
_SHELLS = ("bash", "zsh", "fish")
_HINTS = {
    "bash": f"echo 'eval \"$({PROGRAM} completion bash)\"' >> ~/.bashrc",
    "zsh": f"echo 'eval \"$({PROGRAM} completion zsh)\"' >> ~/.zshrc",
    "fish": f"{PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print what makes a shell complete verbs, options, and the names of hosts and workers in hosts.yaml.

    \b
    eval "$(puffin-fleet completion bash)"
    puffin-fleet completion fish > ~/.config/fish/completions/puffin-fleet.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click brings all three
    command = context.find_root().command
    click.echo(kind(command, {}, PROGRAM, VARIABLE).source())
    click.echo(f"# To have it in every session: {_HINTS[shell]}")
    return ExitCode.DONE


def hosts(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The hosts in hosts.yaml."""
    return _items(_blocks(context), incomplete)


def workers(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Their workers, as far as the file says how many there are; the first of each otherwise."""
    counts = {name: _count(blocks) for name, blocks in _blocks(context).items()}
    names = [f"{name}-{number + 1}" for name, count in counts.items() for number in range(count)]
    return _items(names, incomplete)


def hosts_and_groups(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The hosts and groups in hosts.yaml."""
    groups = _mapping(_read(context).get("groups"))
    return [*hosts(context, parameter, incomplete), *_items(groups, incomplete)]


def _items(names: Any, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _read(context: click.Context) -> Mapping[str, Any]:
    """The file as it is; what is wrong with it is said by the verb, not in the middle of a line."""
    from fleet.hosts.includes import gather

    named = context.params.get("hosts_file") or context.params.get("file")
    source = named or os.environ.get("PUFFIN_FLEET") or "hosts.yaml"

    def read(name: str) -> str:
        return Path(name).expanduser().read_text(encoding="utf-8")

    try:
        return _mapping(gather(read(str(source)), str(source), read).value)
    except (OSError, UnicodeDecodeError, FleetError):
        return {}


def _blocks(context: click.Context) -> dict[str, list[Mapping[str, Any]]]:
    """By host, all that is said of it, its own first."""
    from fleet.hosts.inventory import expand_range

    content = _read(context)
    groups = _mapping(content.get("groups"))
    found: dict[str, list[Mapping[str, Any]]] = {}
    for key, block in _mapping(content.get("hosts")).items():
        own = _mapping(block)
        names = own.get("groups")
        layers = [_mapping(groups.get(name)) for name in reversed(names if isinstance(names, list) else [])]
        for name in _expanded(key, expand_range):
            found[name] = [own, *layers, _mapping(content.get("defaults"))]
    return found


def _expanded(key: str, expand: Any) -> Iterator[str]:
    try:
        yield from expand(key)
    except ValueError:
        return


def _count(blocks: list[Mapping[str, Any]]) -> int:
    shapes = next((block["workers"] for block in blocks if block.get("workers")), None)
    counts = [_mapping(shape).get("count", 1) for shape in (shapes if isinstance(shapes, list) else [shapes])]
    return max(1, sum(count for count in counts if isinstance(count, int)))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
