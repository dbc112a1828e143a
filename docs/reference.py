"""Writes the pages of reference from the code; a test keeps them the same."""

from __future__ import annotations

import runpy
import textwrap
from pathlib import Path
from typing import Any

from fleet.hosts import hostsfile
from fleet.hosts.inventory import json_schema
from fleet.hosts.variables import allowed
from puffin import settings

_INTRODUCTION = """\
# Settings of a worker

This page is made from the code by `python docs/reference.py`.

`puffin.yaml` has the sections below; every section and key may be missing. What the file says wins over the defaults,
and the environment wins over the file: `PUFFIN_DAEMON_MODE=debug`, `PUFFIN_PROGRAMS_ORCA_ROOT=/opt/orca`. Unknown keys
are refused, with the nearest that is known. The file is the one of `puffin -c FILE`, else of `PUFFIN_CONFIG`. In a
fleet, `defaults.puffin` of hosts.yaml takes the same sections; the fleet itself sets what must differ for each worker.
"""


_LISTS = {"tuple[str, ...]": "list of str", "tuple[int, ...]": "list of int", "Devices": "list of str"}


def _cell(value: object) -> str:
    text = "true" if value is True else "false" if value is False else str(value)
    return f"`{text}`" if text not in {"", "()"} else ""


def _plain(text: str) -> str:
    """A text in which a page shows every character."""
    return text.replace("<", "&lt;")


def _table(kind: type[object]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, type_name, default, meaning in settings.options(kind):
        readable = _LISTS.get(type_name, type_name)
        rows.append(f"| `{key}` | {readable} | {_cell(default)} | {_plain(meaning)} |")
    return "\n".join(rows)


def _programs() -> str:
    rows = ["| program | available | source | version |", "|---|---|---|---|"]
    for name, kind in settings.PROGRAMS.items():
        defaults = kind.defaults
        rows.append(
            f"| `{name}` | {_cell(defaults.available)} | {_cell(defaults.source)} | {_cell(defaults.version)} |"
        )
    return "\n".join(rows)


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for name, kind in settings.SECTIONS.items():
        meaning = (kind.__doc__ or "").strip().splitlines()[0]
        parts.append(f"## `{name}`\n\n{meaning}\n\n{_table(kind)}\n")
    parts.append(f"## `programs.<name>`\n\nNot every program has every key.\n\n{_table(settings.ProgramSettings)}\n")
    parts.append(f"Defaults of each program:\n\n{_programs()}\n")
    return "\n".join(parts)


_HOSTS_INTRODUCTION = """\
# hosts.yaml

This page is made from the code by `python docs/reference.py`. `puffin-fleet init` writes a commented file that suits
the hosts it can reach; `puffin-fleet schema` prints a JSON schema for editors; a whole example in several files is
`examples/cluster/hosts.yaml` of the repository.

Unknown keys are refused, with the nearest that is known. Everything that is wrong is said at once, each with file, line
and path: `hosts.yaml:14 hosts.node3.workers[0].cores: must be at least 1`.

**What wins.** For each host: `defaults`, then its `groups` in the order in which it lists them, then what the host says
itself. Mappings merge key by key; `workers` and lists are replaced as a whole.

**Several files.** `include: [site.yaml, racks/a.yaml]` at the top of a file lays it over these, the later over the
earlier; they may include others. Their names start from the directory of the file they stand in (all other relative
paths from that of the file given to `puffin-fleet`). A host may stand in one file only.

{variables}

**Workers.** Fixed counts are taken first, then each `count: auto`, in the order of the list, takes as many as fit by
the scarcest of cores, memory and GPUs. Cores are physical ones, within the affinity and control group of the login.
More than there is, less `reserve`, is refused with the sum.

**Processors.** With `affinity: cores` each worker is bound to one processor of each of as many cores as it has; with
`numa` these are on one NUMA node if all workers can be placed so, else for as many as possible when the largest are
placed first. Reserved cores are the first. With `cpus` alone, all workers share these.

**GPUs.** A worker of a shape with `gpus: 1` sees one GPU that no other worker of the host has. Ids are those of
`nvidia-smi -L`, UUIDs for MIG devices, or for AMD the order of ROCm. A host is asked for its GPUs only where a shape
wants some.
"""


_VARIABLES = """\
**Environment variables.** `${{NAME}}` stands for a variable of the machine on which `puffin-fleet` runs, in {places}.
Elsewhere it is refused, except that `puffin`, `environment` and `programs` keep it as it is: they are for the worker,
which does not expand it. A password never stands in this file, nor in a variable: put it in a file."""


def _type(schema: dict[str, Any]) -> str:
    """A type of the JSON schema as people say it."""
    if "$ref" in schema:
        return f"[{schema['$ref'].rsplit('/')[-1]}](#{schema['$ref'].rsplit('/')[-1].lower()})"
    if "anyOf" in schema:
        kinds = [_type(choice) for choice in schema["anyOf"] if choice != {"type": "null"}]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {_type(schema['items']).replace('whole number', 'whole numbers').replace('text', 'texts')}"
    if schema["type"] == "object":
        values = schema.get("additionalProperties")
        return f"mapping of {_type(values)}" if isinstance(values, dict) else "mapping"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(schema["type"], schema["type"])


def _usual(schema: dict[str, Any]) -> str:
    usual = schema.get("default")
    return "" if isinstance(usual, dict) or usual in (None, [], ()) else _cell(usual)


def _keys(schema: dict[str, Any]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, value in schema["properties"].items():
        needed = " **Required.**" if key in schema.get("required", ()) else ""
        rows.append(f"| `{key}` | {_type(value)} | {_usual(value)} | {_plain(value['description'])}{needed} |")
    return "\n".join(rows)


_AFTER = {
    "Hooks": """
`failed`, `quarantined`, `host_lost` and `queue_empty` are each a command (a path; relative ones start at this file; no
shell), a URL (`https://...`), `url_file: PATH` with a file whose content is a URL that is a secret, or a list of
those. See [operations](operations.md#being-told-of-what-happens).
"""
}


def hosts_page() -> str:
    """The page on hosts.yaml."""
    schema = json_schema()
    variables = _VARIABLES.format(places=", ".join(f"`{key}`" for key in allowed()))
    parts = [_HOSTS_INTRODUCTION.format(variables=textwrap.fill(variables, 120, break_on_hyphens=False))]
    parts.append(f"## The file\n\n{_keys(schema)}\n")
    for name in ("Database", "Release", "Block", "HostBlock", "Shape", "Reserve", "Ssh", "Update", "Hooks"):
        meaning = " ".join((getattr(hostsfile, name).__doc__ or "").split())
        keys = dict(schema["$defs"][name])
        if name == "HostBlock":
            meaning += " All keys of [Block](#block), and:"
            inherited = schema["$defs"]["Block"]["properties"]
            keys["properties"] = {key: value for key, value in keys["properties"].items() if key not in inherited}
        parts.append(f"## {name}\n\n{meaning}\n\n{_keys(keys)}\n{_AFTER.get(name, '')}")
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """Every page that is made from the code, by the name of its file."""
    here = Path(__file__).parent
    made = {"configuration.md": page(), "hosts.md": hosts_page()}
    for name in ("cli", "json", "dependencies"):
        made[f"{name}.md"] = runpy.run_path(str(here / f"reference_{name}.py"))["page"]()
    return made


if __name__ == "__main__":
    for name, text in pages().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
