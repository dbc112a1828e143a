"""Turns a value from a file, a program or the environment into what its key holds, or says why it cannot; pure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from puffin.settings import Check, Devices, fields_of


class Rejected(Exception):
    """One value cannot be what it should be; the message ends the sentence that the path begins."""


def convert(kind: type[Any], key: str, value: object) -> Any:
    """Turn a value from a file, a program or the environment into what the key holds.

    Parameters
    ----------
    kind
        The section's class.
    key
        The key in that section.
    value
        The value as it was given.

    Returns
    -------
    Any
        The value with the key's type.

    Raises
    ------
    Rejected
        The value has the wrong type or lies outside the key's limits.
    """
    option = fields_of(kind)[key]
    converted = _CONVERTERS[str(option.type)](value)
    check = cast("Check | None", option.metadata["check"])
    complaint = check(converted) if check else None
    if complaint:
        raise Rejected(f"{complaint}, not {value!r}")
    return converted


def _boolean(value: object) -> bool:
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise Rejected(f"must be true or false, not {value!r}")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise Rejected(f"must be a whole number, not {value!r}")


def _number(value: object) -> float:
    found = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            found = float(value)
    # Neither a limit nor a time: whatever is compared with "not a number" is false, so it would mean "never".
    if found is None or not math.isfinite(found):
        raise Rejected(f"must be a number, not {value!r}")
    return found


def _text(value: object) -> str:
    if value is None:
        return ""
    # An unquoted version such as 4.1 is a number in YAML.
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return str(value)
    raise Rejected(f"must be text, not {value!r}")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise Rejected(f"must be a list of texts, not {value!r}")


def processors(text: str) -> tuple[int, ...]:
    """Numbers of processors, as the kernel lists them: ``0-3,8``.

    Parameters
    ----------
    text
        The list; may be empty.

    Raises
    ------
    ValueError
        It is no such list.
    """
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        run = range(int(first), int(last or first) + 1)
        if not run:
            raise ValueError(part)
        found.update(run)
    return tuple(sorted(found))


def _numbers(value: object) -> tuple[int, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    try:
        if any(isinstance(item, bool) or not isinstance(item, int | str) for item in items):
            raise ValueError
        return processors(",".join(str(item) for item in items))
    except ValueError:
        raise Rejected(f"must be a list of numbers, not {value!r}") from None


def _device_ids(value: object) -> Devices:
    items = value if isinstance(value, list | tuple) else [value] if isinstance(value, int) else None
    if items is None or any(isinstance(item, bool) for item in items):
        return _texts(value)
    return _texts([str(item) if isinstance(item, int) else item for item in items])


_CONVERTERS: Mapping[str, Callable[[object], Any]] = {
    "bool": _boolean,
    "int": _integer,
    "float": _number,
    "str": _text,
    "tuple[str, ...]": _texts,
    "tuple[int, ...]": _numbers,
    "Devices": _device_ids,
}
