"""What a worker requires: chosen from the project's requirements, and lock files taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.release.tools import BundleError
from fleet.release.wheels import normalised

PROJECT = "puffin-fleet"
BYTECODE = "puffin-fleet-bytecode"
"""What is made of a release here, beside its wheels: see `fleet.release.bytecode`."""

WORKER_RUNTIME = frozenset({"click", "psutil", "pymongo", "pyyaml"})
"""The part of the project's requirements that the worker imports; the rest serves the controller."""

SOURCE_ONLY = frozenset({"scine-puffin"})
"""Published without a wheel although pure Python: built here, and only these are ever built."""


def worker_requirements(requires: Iterable[str], extras: Sequence[str]) -> tuple[str, ...]:
    """Choose from the project's requirements those that its workers need.

    Parameters
    ----------
    requires
        The ``Requires-Dist`` lines of the project.
    extras
        Chosen extras; all that they name is taken, whatever it is.

    Raises
    ------
    BundleError
        An extra does not exist.
    """
    lines = [_split_extra(line) for line in requires]
    known = {extra for _, extra in lines if extra}
    wanted = {normalised(extra) for extra in extras}
    if wanted - known:
        raise BundleError(
            f"release.extras: {PROJECT} has no extra named {', '.join(sorted(wanted - known))}; "
            f"there are: {', '.join(sorted(known))}."
        )
    chosen = {line for line, extra in lines if (extra in wanted if extra else requirement_name(line) in WORKER_RUNTIME)}
    return tuple(sorted(chosen))


def _split_extra(line: str) -> tuple[str, str]:
    """Split a requirement into what is required and the extra that asks for it ("" if none does)."""
    found = re.search(r"""(?:\s+and\s+)?extra\s*==\s*['"]([^'"]+)['"]""", line)
    if found is None:
        return line.strip(), ""
    rest = (line[: found.start()] + line[found.end() :]).strip()
    return rest.removesuffix(";").strip(), normalised(found[1])


def requirement_name(requirement: str) -> str:
    """Normalised name of what is required; empty where there is none."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return normalised(found[0]) if found else ""


@dataclass(frozen=True)
class LockEntry:
    """One requirement of a lock file, with its hashes."""

    name: str
    text: str


def split_lock(text: str) -> tuple[LockEntry, ...]:
    """Split the output of ``uv pip compile --generate-hashes`` into its requirements."""
    blocks = re.split(r"\n(?=\S)", text.strip())
    return tuple(LockEntry(requirement_name(block), block) for block in blocks if re.match(r"[A-Za-z0-9]", block))
