"""Options that once had another name: scripts that say the old one go on working, and nobody learns it."""

from __future__ import annotations

from typing import Any


def renamed(**names: str) -> dict[str, Any]:
    """Settings for a command whose options have new names.

    Parameters
    ----------
    **names
        The new name of each old one, without dashes.
    """
    return {"token_normalize_func": lambda word: names.get(word, word)}
