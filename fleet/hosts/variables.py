"""`${NAME}` in hosts.yaml: where it may stand, and what is put there. Pure: the environment is passed in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fleet.errors import Problem
from fleet.hosts.yamlmap import Document, Path

_IN_BLOCKS = frozenset({("user",), ("address",), ("base_dir",), ("scratch",), ("ssh", "key"), ("ssh", "known_hosts")})
_ELSEWHERE = frozenset(
    {
        ("database", "uri"),
        ("database", "username"),
        ("database", "password_file"),
        ("database", "tls_ca_file"),
        ("release", "package"),
        ("release", "path"),
        ("hooks", "pre_deploy"),
        ("hooks", "post_deploy"),
    }
)
_REFERENCE = re.compile(r"\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def allowed() -> tuple[str, ...]:
    """Keys in which variables may stand, as people write them."""
    return tuple(".".join(keys) for keys in (*sorted(_IN_BLOCKS), *sorted(_ELSEWHERE)))


ONLY_THERE = f"'${{' may stand only in {', '.join(allowed())}"


def substitute(document: Document, environment: Mapping[str, str]) -> Document:
    """Put variables where they are named; what cannot be becomes a problem, which never holds a value.

    What `puffin`, `environment` and `programs` hold is for the worker, so it stays as it is.

    Parameters
    ----------
    document
        hosts.yaml, whole.
    environment
        The variables there are.
    """
    problems: list[Problem] = []
    value = _replaced(document, document.value, (), environment, problems)
    return dataclasses.replace(document, value=value, problems=(*document.problems, *problems))


def _replaced(document: Document, value: Any, path: Path, environment: Mapping[str, str], out: list[Problem]) -> Any:
    if isinstance(value, str):
        if "${" not in value or _is_left_alone(path):
            return value
        found = list(_complaints(value, environment)) if _is_allowed(path) else [ONLY_THERE]
        out += [document.problem(path, complaint) for complaint in dict.fromkeys(found)]
        return value if found else _REFERENCE.sub(lambda reference: environment[reference[1]], value)
    if isinstance(value, Mapping):
        return {key: _replaced(document, item, (*path, key), environment, out) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(document, item, (*path, index), environment, out) for index, item in enumerate(value)]
    return value


def _complaints(value: str, environment: Mapping[str, str]) -> Iterator[str]:
    for reference in _REFERENCE.finditer(value):
        if not reference[2] or not _NAME.match(reference[1]):
            yield "'${' must be followed by the name of an environment variable and '}'"
        elif reference[1] not in environment:
            yield f"the environment variable {reference[1]} is not set"


def _in_block(path: Path) -> Path | None:
    """Where a path is within the block for all hosts, a group or a host; None where it is in none."""
    if path[:1] == ("defaults",):
        return path[1:]
    return path[2:] if path[:1] in {("groups",), ("hosts",)} else None


def _is_allowed(path: Path) -> bool:
    inner = _in_block(path)
    return path in _ELSEWHERE if inner is None else inner in _IN_BLOCKS


def _is_left_alone(path: Path) -> bool:
    inner = _in_block(path) or ()
    if inner[:1] == ("workers",):
        return "programs" in inner
    # A password is refused with better advice than where variables may stand.
    return inner[:1] in {("puffin",), ("environment",)} or path == ("database", "password")
