"""Writes docs/configuration.md from the code; a test keeps the two the same."""

from __future__ import annotations

from pathlib import Path

from puffin import settings

_INTRODUCTION = """\
# Settings of a worker

This page is made from the code by `python docs/reference.py`.

`puffin.yaml` has the sections below; every section and key may be missing. What the file says wins over the defaults,
and the environment wins over the file: `PUFFIN_DAEMON_MODE=debug`, `PUFFIN_PROGRAMS_ORCA_ROOT=/opt/orca`. Unknown
keys are refused, with the nearest that is known. In a fleet, `defaults.puffin` of hosts.yaml takes the same sections;
the fleet itself sets what must differ for each worker.
"""


_LISTS = {"tuple[str, ...]": "list of str", "tuple[int, ...]": "list of int", "Devices": "list of str"}


def _cell(value: object) -> str:
    text = "true" if value is True else "false" if value is False else str(value)
    return f"`{text}`" if text not in {"", "()"} else ""


def _table(kind: type[object]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, type_name, default, meaning in settings.options(kind):
        readable = _LISTS.get(type_name, type_name)
        rows.append(f"| `{key}` | {readable} | {_cell(default)} | {meaning} |")
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


if __name__ == "__main__":
    Path(__file__).with_name("configuration.md").write_text(page(), encoding="utf-8")
