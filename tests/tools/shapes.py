"""Holds records against what fleet/shapes.py says of them."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

_TIMES = frozenset({"at", "again_at", "began", "created", "ended", "modified", "seen", "since", "started", "time"})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")


def problems(value: Any, kind: Any, where: str = "") -> Iterator[str]:
    """Where a value is not of the kind: keys that are missing or not described, and wrong types."""
    if get_origin(kind) is Annotated:
        yield from problems(value, get_args(kind)[0], where)
    elif is_typeddict(kind):
        yield from _record_problems(value, kind, where)
    elif get_origin(kind) in {types.UnionType, Union}:
        found = [list(problems(value, part, where)) for part in get_args(kind)]
        yield from min(found, key=len)
    elif get_origin(kind) is list:
        if not isinstance(value, list):
            yield f"{where} is no list: {value!r}"
        else:
            for at, item in enumerate(value):
                yield from problems(item, get_args(kind)[0], f"{where}[{at}]")
    elif get_origin(kind) is dict:
        if not isinstance(value, dict):
            yield f"{where} is no mapping: {value!r}"
        else:
            for key, item in value.items():
                yield from problems(item, get_args(kind)[1], f"{where}.{key}")
    elif kind is not Any and not _is_a(value, kind):
        yield f"{where} is no {kind.__name__}: {value!r}"
    elif where.rpartition(".")[2] in _TIMES and kind is str and not _TIME.fullmatch(value):
        yield f"{where} is no time as docs/json.md has it: {value!r}"


def _record_problems(value: Any, kind: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no {kind.__name__}: {value!r}"
        return
    described = get_type_hints(kind, include_extras=True)
    yield from (f"{where}.{key} is not described by {kind.__name__}" for key in value.keys() - described.keys())
    yield from (f"{where}.{key} is missing" for key in kind.__required_keys__ - value.keys())
    for key in value.keys() & described.keys():
        yield from problems(value[key], described[key], f"{where}.{key}")


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))
