"""Makes docs/dependencies.md from pyproject.toml and what is installed; see reference.py."""

from __future__ import annotations

import re
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path

_INTRODUCTION = """\
# Dependencies

This page is made by `python docs/reference.py` from `pyproject.toml`, where the reasons stand, and from the metadata of
what is installed, where the licences stand. What these packages require in turn is not listed.
"""

_PARTS = {
    "": ("Always", "What the two commands need. On hosts, only what the worker needs of it is installed."),
    "scine": ("Extra `scine`", "Without it a worker runs its own jobs alone, and the demo's jobs only wait."),
    "embedded": ("Extra `embedded`", "For trials and tests. Run as a process of its own, never imported."),
    "dev": ("Extra `dev`", "For tests, checks and these pages."),
}

_LONGEST = 40

# What distributions write at length, or only in their classifiers.
_SHORT = {
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "BSD 3-Clause License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def _licence(about: PackageMetadata) -> str:
    """The short name of a licence; some write its whole text, others only a classifier."""
    classifiers = about.get_all("Classifier") or []
    named = [line.rsplit(" :: ")[-1] for line in classifiers if line.startswith("License :: OSI Approved :: ")]
    text = about.get("License") or ""
    written = text if len(text) < _LONGEST and "\n" not in text and "http" not in text else ""
    said = about.get("License-Expression") or written or next(iter(named), "") or text.partition(" (")[0]
    return _SHORT.get(said, said)


def requirements(text: str) -> dict[str, list[tuple[str, str]]]:
    """By extra, empty for none: each requirement and why it is there.

    Parameters
    ----------
    text
        Of ``pyproject.toml``.
    """
    project = text.split("[project]")[1].split("[project.scripts]", maxsplit=1)[0]
    found = {}
    for name, lines in re.findall(r"^([\w-]+) = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL):
        if name == "dependencies" or name in _PARTS:
            lines_with_reason = re.findall(r'^ +"([^"]+)",(?:\s*# (.+))?$', lines, re.MULTILINE)
            found["" if name == "dependencies" else name] = lines_with_reason
    return found


def page() -> str:
    """The whole page.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        One of them is not installed.
    """
    parts = [_INTRODUCTION]
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for extra, found in requirements(text).items():
        title, meaning = _PARTS[extra]
        rows = ["| package | at least | licence | why |", "|---|---|---|---|"]
        for each, reason in found:
            name, _, least = each.partition(">=")
            rows.append(f"| {name} | {least} | {_licence(metadata(name))} | {reason} |")
        parts.append(f"## {title}\n\n{meaning}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)
