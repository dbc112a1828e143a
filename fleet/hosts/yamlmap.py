"""YAML with line numbers: reading that knows where every key stands, and writing that never varies.

Pure: text in, data out. PyYAML's own loader forgets lines and lets a later duplicate key win in silence,
and both would hide a host that is described twice.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from fleet.errors import Problem

Path = tuple[str | int, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is: ten times faster
_MERGE_TAG = "tag:yaml.org,2002:merge"
_PLAIN_KEY = re.compile(r"[a-z][a-z0-9_]*\Z")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


@dataclass(frozen=True)
class Document:
    """What a YAML text says and where.

    Parameters
    ----------
    value
        Dictionaries with text keys, lists and scalars; None for an empty or unreadable text.
    lines
        Line of every key and list item, counted from 1.
    problems
        Syntax errors, duplicate keys, aliases that contain themselves.
    sources
        Where it was put together from several files: the file of each path, if not `source`.
    files
        These files, in the order in which they were read.
    complete
        Whether all of these could be read.
    """

    source: str
    value: Any
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...]
    sources: Mapping[Path, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    complete: bool = True

    def place(self, path: Path) -> tuple[str, int | None]:
        """File and line of a path, or of its nearest ancestor that stands in a file."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.source_of(path[:length]), self.lines[path[:length]]
        return self.source, None

    def source_of(self, path: Path) -> str:
        """The file in which a path stands."""
        return self.sources.get(path, self.source)

    def problem(self, path: Path, message: str) -> Problem:
        """Make a problem at a path of this document.

        Parameters
        ----------
        path
            Keys and indices from the top; the line is that of the nearest ancestor that stands in a file.
        message
            What is wrong, in words that follow the path.
        """
        source, line = self.place(path)
        return Problem(message, path=path_text(path), source=source, line=line)


def path_text(path: Path) -> str:
    """Write a path as people do: ``hosts.node3.workers[0].cores``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def read(text: str, source: str) -> Document:
    """Read one YAML document; problems are collected, never raised.

    Parameters
    ----------
    text
        The document.
    source
        Name of its file, for messages.
    """
    try:
        loader = _LOADER(text)  # already looks at the characters of the text
    except yaml.YAMLError as error:
        return Document(source, None, {}, (_syntax_problem(error, text, source),))
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(source, None, {(): 1}, ())
        reader = _Reader(source, loader)
        value = reader.value(node, (), ())
    except yaml.YAMLError as error:
        return Document(source, None, {}, (_syntax_problem(error, text, source),))
    finally:
        loader.dispose()
    return Document(source, value, reader.lines, tuple(reader.problems))


def _syntax_problem(error: Exception, text: str, source: str) -> Problem:
    # Not str(error): it quotes the text, which may hold what should not be printed.
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "a value cannot be read"
    line = mark.line + 1 if mark is not None else _line_of_offset(error, text)
    tabs = " (indent with spaces, not tabs)" if "\\t" in problem else ""
    return Problem(f"not valid YAML: {problem}{tabs}", source=source, line=line)


def _line_of_offset(error: Exception, text: str) -> int | None:
    position = getattr(error, "position", None)
    return None if not isinstance(position, int) else text[:position].count("\n") + 1


@dataclass
class _Reader:
    source: str
    loader: Any
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def value(self, node: yaml.Node, path: Path, above: tuple[int, ...]) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in above:
            self._complain(node, path, "an alias cannot contain itself")
            return None
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, above)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index), above) for index, item in enumerate(node.value)]
        try:
            return self.loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError):  # an unknown tag; a date that is none
            self._complain(node, path, "cannot be read as a value: put it in quotes")
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path, above: tuple[int, ...]) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, path, "a key must be a single word")
                continue
            # The text as written: a host called 007, 1e3 or no is meant by that name.
            key = key_node.value
            here = (*path, key)
            if key in entries:
                first = self.lines[here]
                self._complain(key_node, here, f"given twice, first on line {first}: keep one")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            entries[key] = self.value(value_node, here, above)
        for key, value in self._merged(node, path, above).items():
            entries.setdefault(key, value)
        return entries

    def _merged(self, node: yaml.MappingNode, path: Path, above: tuple[int, ...]) -> dict[str, Any]:
        """Collect what ``<<`` brings in; the first of several sources wins, as YAML has it."""
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE_TAG:
                continue
            for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                value = self.value(source, path, above)
                if not isinstance(value, dict):
                    self._complain(source, path, "'<<' takes a mapping or a list of mappings")
                    continue
                for key, item in value.items():
                    merged.setdefault(key, item)
        return merged

    def _complain(self, node: yaml.Node, path: Path, message: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(Problem(message, path=path_text(path), source=self.source, line=line))


def write(value: Mapping[str, Any]) -> str:
    """Write a mapping as YAML, the same bytes for the same data whatever library version is installed.

    A worker's configuration hash is taken from these bytes, so they must not depend on how PyYAML was
    built; and a plan for a thousand hosts writes thousands of them, where PyYAML takes a millisecond each.
    """
    return "".join(_lines(value, ""))


def _lines(value: Mapping[str, Any], indent: str) -> list[str]:
    out: list[str] = []
    for key, item in value.items():
        name = key if _PLAIN_KEY.match(key) and key not in _YAML_WORDS else _text(key)
        if isinstance(item, Mapping) and item:
            out += [f"{indent}{name}:\n", *_lines(item, indent + "  ")]
        else:
            out.append(f"{indent}{name}: {_flow(item)}\n")
    return out


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        return _float(value)
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    return _text(str(value))


def _text(value: str) -> str:
    """Quote as JSON, which YAML's double quotes understand; characters YAML calls unprintable as escapes."""
    quoted = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]", _escape, quoted)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


def _float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    # YAML 1.1 takes 1e-07 for text: a number needs its point.
    return text if "." in text or "e" not in text else text.replace("e", ".0e")
