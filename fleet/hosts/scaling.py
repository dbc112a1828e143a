"""Finds the one place in hosts.yaml that says how many workers a host or a group has, and what to write there. Pure.

The file stays the operator's: nothing but that value is touched, and where it is not certain that just the wanted
hosts would change, nothing is, and it says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from fleet.errors import UsageError
from fleet.hosts.inventory import Fleet, expand_range
from fleet.hosts.names import condensed
from fleet.hosts.yamlmap import Document, Path, path_text

Node = yaml.Node
ReadText = Mapping[str, str]
"""By name, the texts of hosts.yaml and of the files that it includes."""


@dataclass(frozen=True)
class Edit:
    """A change of one line.

    Parameters
    ----------
    file, line
        Where; lines are counted from 1.
    before, after
        The line as it is and as it shall be.
    text
        The whole file as it shall be.
    hosts
        The hosts whose number of workers changes.
    count
        The new number, or ``auto``.
    """

    file: str
    line: int
    before: str
    after: str
    text: str
    hosts: tuple[str, ...]
    count: str


def find_edit(document: Document, fleet: Fleet, texts: ReadText, target: str, count: str) -> Edit:
    """Find out what to write where.

    Parameters
    ----------
    document
        hosts.yaml with what it includes, as it is written.
    fleet
        What it means.
    texts
        The files.
    target
        A host, or a group.
    count
        The new number, or ``auto``.

    Raises
    ------
    UsageError
        There is no such host or group, or no one place that says how many workers just these have.
    """
    wanted = _hosts_of(document, fleet, target)
    path = _layer_of(document, target, wanted)
    sharing = [host for host, layer in _layers(document).items() if layer == path]
    if set(sharing) != set(wanted):
        others = condensed([host for host in sharing if host not in wanted])
        missing = condensed([host for host in wanted if host not in sharing])
        raise UsageError(_shared(document, path, target, others, missing))
    file, _ = document.place(path)
    where = f"{file}:{document.place(path)[1]} {path_text(path)}"
    text = texts[file]
    node, plain = _node_at(text, path)
    if node is None or not plain:
        raise UsageError(f"{where}: comes from an alias or a '<<', which others may share: change it by hand")
    start, end, new = _replacement(text, _shape(node, where), where, count)
    after = text[:start] + new + text[end:]
    line = text.count("\n", 0, start) + 1
    return Edit(
        file=file,
        line=line,
        before=text.splitlines()[line - 1],
        after=after.splitlines()[line - 1],
        text=after,
        hosts=tuple(wanted),
        count=count,
    )


def _hosts_of(document: Document, fleet: Fleet, target: str) -> list[str]:
    groups = _mapping(document.value.get("groups"))
    names = [host.name for host in fleet.hosts]
    if target in names:
        return [target]
    if target not in groups:
        known = ", ".join([*names[:20], *groups])
        raise UsageError(f"no host and no group is called '{target}'; {fleet.source} has {known}")
    members = [
        name
        for key, block in _mapping(document.value.get("hosts")).items()
        if target in (_mapping(block).get("groups") or ())
        for name in expand_range(key)
    ]
    if not members:
        raise UsageError(f"no host is in group '{target}'")
    return members


def _layers(document: Document) -> dict[str, Path]:
    """By host, the path of the `workers` that count: its own, else those of its last group with any, else defaults."""
    groups = _mapping(document.value.get("groups"))
    found: dict[str, Path] = {}
    for key, block in _mapping(document.value.get("hosts")).items():
        own = _mapping(block)
        candidates: list[tuple[Path, Any]] = [(("hosts", key), own)]
        candidates += [(("groups", name), groups.get(name)) for name in reversed(own.get("groups") or ())]
        candidates.append((("defaults",), document.value.get("defaults")))
        path = next((place for place, one in candidates if _mapping(one).get("workers") is not None), None)
        for name in expand_range(key):
            if path is not None:
                found[name] = (*path, "workers")
    return found


def _layer_of(document: Document, target: str, wanted: Sequence[str]) -> Path:
    layers = _layers(document)
    own: Path = ("groups", target, "workers")
    return own if own in layers.values() and target not in layers else layers[wanted[0]]


def _shared(document: Document, path: Path, target: str, others: str, missing: str) -> str:
    file, line = document.place(path)
    what = f"{file}:{line} {path_text(path)} does not say it for '{target}' alone"
    if others:
        what += f", but also for {others}"
    if missing:
        what += f", and not for {missing}, which have workers of their own"
    key = path[1] if path[0] == "hosts" else ""
    if key and others:
        return f"{what}: take '{target}' out of '{key}' and give it an entry of its own"
    entry = next((key for key in _mapping(document.value.get("hosts")) if target in expand_range(key)), target)
    apart = f"take '{target}' out of '{entry}', and " if entry != target else ""
    return f"{what}: {apart}give '{target}' 'workers' of its own, with all that they have there and the new count"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _node_at(text: str, path: Path) -> tuple[Node | None, bool]:
    """The node at a path as it is written, and whether it stands only there."""
    root = yaml.compose(text, yaml.SafeLoader)
    seen: dict[int, int] = {}
    _count(root, seen)
    node, plain = root, True
    for key in path:
        if not isinstance(node, yaml.MappingNode):
            return None, False
        node = next((value for name, value in node.value if name.value == key), None)
        plain = plain and node is not None and seen[id(node)] == 1
    return node, plain


def _count(node: Node | None, seen: dict[int, int]) -> None:
    """How often each node is reached; one with an alias is more than once."""
    if node is None:
        return
    seen[id(node)] = seen.get(id(node), 0) + 1
    if seen[id(node)] > 1:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _count(key, seen)
            _count(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _count(item, seen)


def _shape(node: Node, where: str) -> yaml.MappingNode:
    if isinstance(node, yaml.SequenceNode) and len(node.value) == 1:
        node = node.value[0]
    if isinstance(node, yaml.SequenceNode):
        lines = ", ".join(str(item.start_mark.line + 1) for item in node.value)
        raise UsageError(
            f"{where}: has {len(node.value)} kinds of workers (lines {lines}): change the count of one by hand"
        )
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise UsageError(f"{where}: is not a mapping such as {{cores: 4, count: 2}}: change it by hand")
    return node


def _replacement(text: str, shape: yaml.MappingNode, where: str, count: str) -> tuple[int, int, str]:
    """Where in the text something goes out, and what comes in."""
    for key, value in shape.value:
        if key.value == "count":
            if not isinstance(value, yaml.ScalarNode) or text[value.start_mark.index] in "&*!|>":
                raise UsageError(f"{where}.count: is no plain value: change it by hand")
            return value.start_mark.index, value.end_mark.index, count
    first = shape.value[0][0].start_mark
    if shape.flow_style:
        return first.index, first.index, f"count: {count}, "
    return first.index, first.index, f"count: {count}\n{' ' * first.column}"
