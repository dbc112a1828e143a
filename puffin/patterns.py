"""Words in which ``*``, ``?`` and ``[a-c]`` stand for others, as in a shell and as filters for the database; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from puffin.calculations import Document


def any_of(fields: Sequence[str], words: Sequence[str]) -> list[Document]:
    """The filter that one of some fields is one of some words.

    Parameters
    ----------
    fields
        The fields.
    words
        The words, in which ``*``, ``?`` and ``[a-c]`` stand for others, as in a shell; none matches everything.

    Returns
    -------
    list
        One filter; empty where everything matches.
    """
    if not words:
        return []
    exact = [word for word in words if not is_pattern(word)]
    tests: list[Document] = [{"$in": exact}] if exact else []
    tests += [{"$regex": _regular_expression(word)} for word in words if is_pattern(word)]
    choices = [{field: test} for field in fields for test in tests]
    return [{"$or": choices} if len(choices) > 1 else choices[0]]


def is_any_of(text: str, words: Sequence[str]) -> bool:
    """Whether a text is one of some words, as :func:`any_of` would find it.

    Parameters
    ----------
    text
        The text.
    words
        The words; none matches everything.
    """
    return not words or any(fnmatchcase(text, word) for word in words)


def is_pattern(word: str) -> bool:
    """Whether a word stands for others, as :func:`any_of` takes it.

    Parameters
    ----------
    word
        The word.
    """
    return any(sign in word for sign in "*?[")


_PARTS = re.compile(r"\[(?:(?P<negated>!)|(?!!))(?P<choice>\][^\]]*|[^\]]+)\]|(?P<sign>.)", re.DOTALL)
_RANGE = re.compile(r"(.)-(.)|(.)", re.DOTALL)


def _regular_expression(pattern: str) -> str:
    """What :func:`fnmatch.fnmatchcase` does, in words that every database server understands."""
    parts = []
    for found in _PARTS.finditer(pattern):
        if found["sign"] is None:
            parts.append(_one_of(found["choice"], bool(found["negated"])))
        else:
            parts.append({"*": ".*", "?": "."}.get(found["sign"], re.escape(found["sign"])))
    return f"^{''.join(parts)}$"


def _one_of(choice: str, negated: bool) -> str:
    members = []
    for first, last, single in _RANGE.findall(choice):
        if single:
            members.append(re.escape(single))
        elif first <= last:
            members.append(f"{re.escape(first)}-{re.escape(last)}")
    if not members:
        return "." if negated else r"[^\s\S]"
    return f"[{'^' if negated else ''}{''.join(members)}]"
