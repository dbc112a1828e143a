"""Makes docs/json.md from fleet/shapes.py; see reference.py."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from fleet import shapes

_INTRODUCTION = """\
# JSON

This page is made from the code by `python docs/reference.py`.

`--json` prints one JSON object to a line, on standard output; everything else goes to standard error, and exit codes
are the same. The keys below are an interface: they may become more, but none will change its meaning or type within a
major version. A test runs every verb and holds what it prints against this page.

A command that is refused as a whole prints no object: where hosts.yaml or the command line is wrong (exit code 2), or
where somebody else holds a lock (4). Standard error says why.

Every time is ISO 8601 in UTC with milliseconds, such as `2026-11-22T12:00:04.250+00:00`.

```sh
puffin-fleet status --json | jq -r 'select(.state == "lost") | .worker'
puffin-fleet check --json | jq -r 'select(.severity == "fail") | [.host, .what] | @tsv'
puffin-fleet queue results --json | jq -r '[.name, .energy_hartree] | @csv'
```
"""

_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "any"}


def _bare(kind: Any) -> tuple[Any, str]:
    """A type without its meaning, and that."""
    if get_origin(kind) is Annotated:
        bare, meaning = get_args(kind)
        return bare, str(meaning)
    return kind, ""


def _type(kind: Any) -> str:
    if is_typeddict(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if get_origin(kind) in {types.UnionType, Union}:
        return " or ".join(_type(part) for part in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {_type(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"mapping of {_type(get_args(kind)[1])}"
    return _NAMES[kind]


def _parts(kind: Any) -> Iterator[Any]:
    """The records within a type."""
    if is_typeddict(kind):
        yield kind
    for part in get_args(_bare(kind)[0]):
        yield from _parts(part)


def _record(kind: type, verbs: list[str]) -> str:
    rows = ["| key | type | meaning |", "|---|---|---|"]
    required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
    for key, annotated in get_type_hints(kind, include_extras=True).items():
        bare, meaning = _bare(annotated)
        sometimes = "" if key in required else " (not always there)"
        rows.append(f"| `{key}` | {_type(bare)} | {meaning}{sometimes} |")
    printed = f"Printed by {', '.join(f'`{verb} --json`' for verb in verbs)}. " if verbs else ""
    meaning = " ".join((kind.__doc__ or "").split()) if "dict(" not in (kind.__doc__ or "") else ""
    return f"## {kind.__name__}\n\n{printed}{meaning}".rstrip() + "\n\n" + "\n".join(rows)


def page() -> str:
    """The whole page."""
    verbs: dict[Any, list[str]] = {}
    for verb, kind in shapes.PRINTED.items():
        verbs.setdefault(kind, []).append(f"puffin-fleet {verb}")
    verbs[shapes.WorkerFinding] = ["puffin check"]
    sections: dict[Any, None] = {}
    for kind in verbs:
        sections[kind] = None
        for annotated in get_type_hints(kind, include_extras=True).values():
            sections.update(dict.fromkeys(_parts(_bare(annotated)[0])))
    rows = ["| printed by | record |", "|---|---|"]
    for kind, names in verbs.items():
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {_type(kind)} |")
    parts = [_INTRODUCTION.strip(), "\n".join(rows), *(_record(kind, verbs.get(kind, [])) for kind in sections)]
    return "\n\n".join(parts) + "\n"
