"""What may have been meant by a word that is not known; pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is most like this one, or nothing.

    Parameters
    ----------
    word
        What was written.
    known
        What could have been meant.

    Returns
    -------
    str
        ``", did you mean 'x'?"`` or an empty string.
    """
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean '{match[0]}'?" if match else ""
