"""Typed values out of the reply of a host, which is not believed to be what it should be. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fleet.errors import RemoteError

Found = TypeVar("Found")


class Reader:
    """Reads typed values, and names the entry that is not what it should be.

    Every method raises RemoteError where the entry is missing or of another type.

    Parameters
    ----------
    host
        Name of the host in hosts.yaml.
    path
        Where in the reply this reader is; empty for the whole.
    value
        What is there; must be a JSON object.
    """

    def __init__(self, host: str, path: str, value: object) -> None:
        self._host = host
        self._path = path
        if not isinstance(value, Mapping):
            raise self._wrong(path, "a JSON object", value)
        self._value = value

    def _wrong(self, path: str, expected: str, value: object) -> RemoteError:
        what = f"malformed reply: {path or 'the whole'} should be {expected}, not {json.dumps(value)[:80]}"
        return RemoteError(self._host, "probe", what, "this is a defect of puffin-fleet: please report it")

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _get(self, key: str, kind: type[Found] | tuple[type[Found], ...], expected: str) -> Found:
        value = self._value.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._wrong(self._at(key), expected, value)
        return value

    def text(self, key: str) -> str:
        """The text at a key."""
        return self._get(key, str, "a text")

    def whole(self, key: str) -> int:
        """The whole number at a key."""
        return self._get(key, int, "a whole number")

    def number(self, key: str) -> float:
        """The number at a key."""
        return float(self._get(key, (int, float), "a number"))

    def flag(self, key: str) -> bool:
        """What is true or false at a key."""
        return self._get(key, bool, "true or false")

    def optional(self, key: str, read: Callable[[str], Found]) -> Found | None:
        """What `read` finds at a key; None where nothing, or null, is there."""
        return None if self._value.get(key) is None else read(key)

    def inner(self, key: str) -> Reader:
        """A reader of the object at a key."""
        return Reader(self._host, self._at(key), self._value.get(key))

    def names(self) -> Sequence[str]:
        """The keys that are there, whatever they are."""
        return list(self._value)

    def items(self, key: str) -> list[Reader]:
        """A reader of each object in the list at a key."""
        values: list[object] = self._get(key, list, "a list")
        return [Reader(self._host, f"{self._at(key)}[{i}]", value) for i, value in enumerate(values)]

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts at a key."""
        return self._all(key, str, "texts")

    def wholes(self, key: str) -> tuple[int, ...]:
        """The list of whole numbers at a key."""
        return self._all(key, int, "whole numbers")

    def _all(self, key: str, kind: type[Found], expected: str) -> tuple[Found, ...]:
        values: list[object] = self._get(key, list, f"a list of {expected}")
        found = tuple(value for value in values if isinstance(value, kind))
        if len(found) != len(values):
            raise self._wrong(self._at(key), f"a list of {expected}", values)
        return found
