"""hosts.yaml: text in, a typed and validated fleet out.

Pure. Everything that is wrong is reported at once, with file, line and path. Blocks that apply to one host
(defaults, groups, its own) are merged as plain data and validated again as one :class:`Host`.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fleet.errors import InventoryError, Problem, UsageError
from fleet.hosts import overrides
from fleet.hosts.hostsfile import (
    NAME,
    Database,
    Fleet,
    Hooks,
    Host,
    HostsFile,
    Release,
    Reserve,
    Shape,
    Share,
    Ssh,
    Update,
)
from fleet.hosts.includes import ReadFile, gather, no_files
from fleet.hosts.overrides import mapping_or_empty as _mapping
from fleet.hosts.variables import substitute
from fleet.hosts.yamlmap import Document, Path
from puffin import overlay
from puffin.errors import ConfigurationError

__all__ = [
    "Database",
    "Fleet",
    "Hooks",
    "Host",
    "Release",
    "Reserve",
    "Shape",
    "Share",
    "Ssh",
    "Update",
    "deep_merge",
    "expand_range",
    "json_schema",
    "parse_inventory",
    "select",
]

MOST_HOSTS = 10_000

_WHOLES = frozenset({"", "database", "release", "hosts"})
"""Paths at which it is said that something is missing or does not go together; it may stand in another file."""

_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_SPAN = re.compile(r"([0-9]+)(?:-([0-9]+))?\Z")


def parse_inventory(
    text: str, source: str, *, read_file: ReadFile = no_files, environment: Mapping[str, str] = MappingProxyType({})
) -> Fleet:
    """Read hosts.yaml.

    Parameters
    ----------
    text
        Content of the file.
    source
        Its name, for messages, and from which the names of included files start.
    read_file
        Reads an included file; raises OSError or UnicodeDecodeError where it cannot.
    environment
        What ``${NAME}`` stands for.

    Returns
    -------
    Fleet
        The fleet, every range expanded and every host with its defaults and groups merged.

    Raises
    ------
    InventoryError
        With everything that is wrong, in the order of the files and lines.
    """
    document = gather(text, source, read_file)
    problems = list(document.problems)
    if document.value is None and not problems:
        problems.append(Problem("is empty: 'puffin-fleet init' writes an example", source=source))
    if document.value is not None and not isinstance(document.value, dict):
        problems.append(document.problem((), "must be a mapping with keys such as fleet, database and hosts"))
    if not isinstance(document.value, dict):
        raise InventoryError(tuple(problems))

    document = substitute(document, environment)
    unresolved = document.problems[len(problems) :]
    file, found = _validated(document)
    names, range_problems = _expand_all(document)
    found += [*overrides.problems(document), *range_problems]
    if document.complete:
        found += _group_problems(document)
    # Of a text whose variables are not known, or of a part of the whole, it is of no use to say what else is wrong.
    said = {problem.path for problem in unresolved} | (frozenset() if document.complete else _WHOLES)
    problems += [*unresolved, *(problem for problem in found if problem.path not in said)]
    hosts: list[Host] = []
    if not problems:
        hosts, problems = _merge_all(document, names)
    if problems or file is None:
        raise InventoryError(_in_order(problems, document.files))
    parts = {key: getattr(file, key) for key in ("database", "release", "update", "hooks")}
    places = {f"hooks.{name}": document.place(("hooks", name)) for name in Hooks.model_fields}
    return Fleet(name=file.fleet, hosts=tuple(hosts), source=source, places=places, **parts)


def _validated(document: Document) -> tuple[HostsFile | None, list[Problem]]:
    try:
        return HostsFile.model_validate(document.value), []
    except ValidationError as error:
        return None, [_translate(details, document) for details in error.errors(include_url=False)]


def select(fleet: Fleet, host_patterns: Sequence[str]) -> tuple[Host, ...]:
    """Hosts whose names match any of the patterns, in the order of the file; all without a pattern.

    Parameters
    ----------
    fleet
        The fleet.
    host_patterns
        Shell patterns such as ``node*``.

    Raises
    ------
    UsageError
        A pattern matches no host.
    """
    names = [host.name for host in fleet.hosts]
    lost = [pattern for pattern in host_patterns if not fnmatch.filter(names, pattern)]
    if lost:
        known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        patterns = ", ".join(f"'{pattern}'" for pattern in lost)
        raise UsageError(f"no host matches {patterns}; {fleet.source} has {known}")
    return tuple(
        host
        for host in fleet.hosts
        if not host_patterns or any(fnmatch.fnmatchcase(host.name, pattern) for pattern in host_patterns)
    )


def json_schema() -> dict[str, Any]:
    """JSON schema of hosts.yaml, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **HostsFile.model_json_schema()}


def expand_range(pattern: str) -> tuple[str, ...]:
    """Expand ``rack[1-2]n[01-03,7]`` into names; zeros in front are kept, the last bracket varies fastest.

    Raises
    ------
    ValueError
        The brackets cannot be understood; the message says why.
    """
    pieces = _BRACKET.split(pattern)
    if any(character in piece for piece in pieces[::2] for character in "[]"):
        raise ValueError("brackets do not match: write node[01-40] or node[1,3-5]")
    choices: list[Sequence[str]] = [[piece] for piece in pieces]
    size = 1
    for index in range(1, len(pieces), 2):
        spans = [_span(item.strip()) for item in pieces[index].split(",")]
        size *= sum(len(numbers) for numbers, _ in spans)
        if size > MOST_HOSTS:
            raise ValueError(f"gives more than {MOST_HOSTS} hosts")
        choices[index] = [f"{number:0{width}d}" for numbers, width in spans for number in numbers]
    return tuple("".join(parts) for parts in itertools.product(*choices))


def _span(item: str) -> tuple[range, int]:
    """Numbers of one item of a range, and the width to which zeros fill them up."""
    match = _SPAN.match(item)
    if match is None:
        raise ValueError(f"'{item}' is no range: write node[01-40] or node[1,3-5]")
    first, last = match.group(1), match.group(2) or match.group(1)
    if len(first) > 9 or len(last) > 9:
        raise ValueError(f"'{item}' has too many digits")
    if int(last) < int(first):
        raise ValueError(f"'{item}' runs backwards")
    if last.startswith("0") and len(last) != len(first):
        raise ValueError(f"'{item}': write both ends with the same number of digits")
    return range(int(first), int(last) + 1), len(first) if first.startswith("0") else 0


def _expand_all(document: Document) -> tuple[list[tuple[str, str]], list[Problem]]:
    """Pairs of host name and the key that gave it, and what is wrong with the keys."""
    owner: dict[str, str] = {}
    problems: list[Problem] = []
    for key, block in _mapping(document.value.get("hosts")).items():
        path = ("hosts", key)
        try:
            names = expand_range(key)
        except ValueError as error:
            problems.append(document.problem(path, str(error)))
            continue
        if len(names) > 1 and "address" in _mapping(block):
            problems.append(document.problem((*path, "address"), f"one address cannot serve {len(names)} hosts"))
        if any(not NAME.match(name) for name in names):
            message = "a host's name must start with a letter or digit and hold only letters, digits, '.', '_', '-'"
            problems.append(document.problem(path, message))
        problems += [_twice(document, path, name, owner[name]) for name in names if name in owner]
        owner.update({name: key for name in names if name not in owner})
    if len(owner) > MOST_HOSTS:
        problems.append(document.problem(("hosts",), f"gives {len(owner)} hosts, more than {MOST_HOSTS}"))
    return list(owner.items()), problems


def _twice(document: Document, path: Path, name: str, first_key: str) -> Problem:
    file, line = document.place(("hosts", first_key))
    place = f"on line {line}" if file == document.place(path)[0] else f"in {file}:{line}"
    return document.problem(path, f"host '{name}' is already given by '{first_key}' {place}")


def _merge_all(document: Document, names: list[tuple[str, str]]) -> tuple[list[Host], list[Problem]]:
    hosts: list[Host] = []
    problems: list[Problem] = []
    for key, pairs in itertools.groupby(names, key=lambda pair: pair[1]):
        data = _merged(document.value, key)
        found = _host_problems(document, key, data)
        problems += found
        if not found:
            hosts += [Host.model_validate({"address": name, **data, "name": name}) for name, _ in pairs]
    return hosts, problems


def _merged(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    own = _mapping(value["hosts"][key])
    groups = _mapping(value.get("groups"))
    layers = [
        _mapping(value.get("defaults")),
        *(_mapping(groups[group]) for group in own.get("groups") or ()),
        own,
    ]
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = deep_merge(merged, layer)
    base_dir = merged.setdefault("base_dir", "~/.puffin-fleet")
    merged.setdefault("scratch", f"{base_dir.rstrip('/')}/scratch")
    return merged


def deep_merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another: mappings merge key by key, all else is replaced.

    A list replaces a mapping and the other way round; None says nothing.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and key != "workers":
            merged[key] = deep_merge(old, value)
        elif value is not None:
            merged[key] = value
    return merged


def _host_problems(document: Document, key: str, data: Mapping[str, Any]) -> list[Problem]:
    """What only shows once a host's layers are merged."""
    path = ("hosts", key)
    problems = []
    if "workers" not in data:
        message = "has no workers: say for example 'workers: {cores: 4, memory: 8, count: auto}' here or in defaults"
        problems.append(document.problem(path, message))
    if data.get("connection") == "local":
        own = [word for word in ("address", "user", "ssh") if word in _mapping(document.value["hosts"][key])]
        message = "has no meaning with 'connection: local'; drop it or say 'connection: ssh'"
        problems += [document.problem((*path, word), message) for word in own]
    try:
        overlay.parse([("puffin", {"daemon": _mapping(data.get("puffin")).get("daemon")})])
    except ConfigurationError as error:
        problems += [document.problem((*path, "puffin"), problem) for problem in error.problems]
    return problems


def _group_problems(document: Document) -> list[Problem]:
    known = list(_mapping(document.value.get("groups")))
    problems = []
    for key, block in _mapping(document.value.get("hosts")).items():
        groups = _mapping(block).get("groups")
        for index, group in enumerate(groups if isinstance(groups, list) else ()):
            if isinstance(group, str) and group not in known:
                message = f"unknown group '{group}'{_suggest(group, known)}"
                problems.append(document.problem(("hosts", key, "groups", index), message))
    return problems


def _translate(details: ErrorDetails, document: Document) -> Problem:
    """Say one of pydantic's findings in the words of hosts.yaml; the value itself is never repeated."""
    path = _path_in(document.value, details["loc"])
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        word = str(path[-1])
        return document.problem(path, f"unknown key '{word}'{_suggest(word, _keys_at(HostsFile, path[:-1]))}")
    if kind == "missing":
        return document.problem(path[:-1], f"'{path[-1]}' is missing")
    sentence = _SENTENCES.get(kind)
    message = sentence(context) if sentence else details["msg"].lower()
    if kind == "too_short" and path[-1] == "workers":
        message += ": 'puffin-fleet drain' or 'destroy' a host that is to run nothing"
    return document.problem(path, message)


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "refused": lambda context: str(context["message"]),
    "int_type": lambda _: "must be a whole number",
    "float_type": lambda _: "must be a number",
    "finite_number": lambda _: "must be a number, and not an infinite one",
    "string_type": lambda _: "must be text; put it in quotes if it looks like a number, a date or yes/no",
    "bool_type": lambda _: "must be true or false",
    "model_type": lambda _: "must be a mapping of keys",
    "dict_type": lambda _: "must be a mapping of keys",
    "mapping_type": lambda _: "must be a mapping of keys",
    "tuple_type": lambda _: "must be a list",
    "too_short": lambda _: "must not be empty",
    "literal_error": lambda context: f"must be {context['expected']}",
    "greater_than": lambda context: f"must be more than {context['gt']:g}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']:g}",
    "less_than_equal": lambda context: f"must be at most {context['le']:g}",
}


def _path_in(value: Any, location: tuple[int | str, ...]) -> Path:
    """Where pydantic's location is in the file: one shape is written without the index it is given."""
    path: list[str | int] = []
    for part in location:
        if part == "[key]" or (isinstance(part, int) and isinstance(value, Mapping)):
            continue
        path.append(part)
        known = isinstance(value, Mapping) or (isinstance(value, list) and isinstance(part, int))
        value = value[part] if known and (isinstance(part, int) or part in value) else None
    return tuple(path)


def _keys_at(kind: Any, path: Path) -> list[str]:
    """Keys that the model allows at a path."""
    for part in path:
        kind = _inner(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        elif not isinstance(part, int) or get_origin(kind) is tuple:
            arguments = get_args(kind)
            kind = arguments[0] if isinstance(part, int) else arguments[-1]
    kind = _inner(kind)
    kind = _inner(get_args(kind)[0]) if get_origin(kind) is tuple else kind
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _inner(kind: Any) -> Any:
    """Take off Annotated and `| None`."""
    while get_origin(kind) is Annotated or type(None) in get_args(kind):
        kind = next(argument for argument in get_args(kind) if argument is not type(None))
    return kind


def _suggest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f", did you mean '{near[0]}'?"
    return f"; known here: {', '.join(known)}" if known else ""


def _in_order(problems: Sequence[Problem], files: Sequence[str]) -> tuple[Problem, ...]:
    at = {file: index for index, file in enumerate(files)}
    return tuple(sorted(dict.fromkeys(problems), key=lambda each: (at.get(each.source, -1), each.line or 0)))
