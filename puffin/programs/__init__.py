"""The programs that jobs use."""

from __future__ import annotations

MODULES = {
    "ams": "scine_ams_wrapper",
    "database": "scine_database",
    "dftbplus": "scine_dftbplus_wrapper",
    "kinetx": "scine_kinetx",
    "molassembler": "scine_molassembler",
    "parrot": "scine_parrot",
    "readuct": "scine_readuct",
    "serenity": "scine_serenity_wrapper",
    "sparrow": "scine_sparrow",
    "swoose": "scine_swoose",
    "utils": "scine_utilities",
    "xtb": "scine_xtb_wrapper",
}
"""The Python module of each program that is one. ``core`` has none of its own: it comes with ``utils``."""


def import_names() -> tuple[str, ...]:
    """The modules of all programs."""
    return tuple(MODULES.values())
