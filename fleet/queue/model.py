"""What a calculation is to be, from words on a command line and in a file; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import yaml

from fleet.errors import UsageError
from puffin.documents import Model
from puffin.hints import nearest

_SEMI_EMPIRICAL = frozenset(
    {"am1", "dftb0", "dftb2", "dftb3", "gfn0", "gfn1", "gfn2", "gfnff", "mndo", "pm3", "pm6", "pm7", "rm1"}
)
_LARGEST_INT = 2**31 - 1
_FIELDS = tuple(field.name for field in fields(Model))


@dataclass(frozen=True)
class JobTemplate:
    """What is to be done with every molecule.

    Parameters
    ----------
    order
        The job's order.
    model
        How to calculate.
    settings
        The job's settings.
    charge, multiplicity
        Of every molecule; None for what its file says, else 0 and 1.
    cores, memory, disk
        What it needs; memory and disk in GB.
    priority
        1 (first) to 10 (last).
    """

    order: str
    model: Model
    settings: Mapping[str, Any]
    charge: int | None = None
    multiplicity: int | None = None
    cores: int = 1
    memory: float = 1.0
    disk: float = 1.0
    priority: int = 5


def make_model(from_file: Any, given: Mapping[str, str | None]) -> Model:
    """The model of a calculation.

    Parameters
    ----------
    from_file
        Content of a YAML file with fields of the model; None without one.
    given
        Fields given on the command line, which win; None for those that are not.

    Raises
    ------
    UsageError
        The file has something else in it, or nothing says which method.
    """
    values = {**_checked(from_file), **{name: value for name, value in given.items() if value is not None}}
    method = values.get("method", "")
    if not method and not values.get("method_family"):
        raise UsageError("which method? Say it with --method, such as PM6, or in the file for --model")
    values.setdefault("method_family", family_of(method))
    values.setdefault("method", values["method_family"])
    return Model(**values)


def read_model(text: str) -> Any:
    """The content of a file with fields of the model.

    Parameters
    ----------
    text
        YAML.

    Raises
    ------
    UsageError
        It is none.
    """
    try:
        # Not null, which would mean that there is no file.
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"--model: no valid YAML: {' '.join(str(error).split())}") from error


def _checked(from_file: Any) -> dict[str, str]:
    if from_file is None:
        return {}
    if not isinstance(from_file, Mapping):
        raise UsageError(f"--model: the file must hold fields such as 'method: PM6'; they are {', '.join(_FIELDS)}")
    problems = [
        f"--model: unknown field '{name}'{nearest(str(name), _FIELDS)}" for name in from_file if name not in _FIELDS
    ]
    problems += [
        f"--model: {name} must be text or a number"
        for name, value in from_file.items()
        if isinstance(value, bool) or not isinstance(value, str | int | float)
    ]
    if problems:
        raise UsageError("\n".join(problems))
    return {str(name): str(value) for name, value in from_file.items()}


def family_of(method: str) -> str:
    """The method family that SCINE's calculators know a method by.

    Parameters
    ----------
    method
        The method, such as ``PM6``, ``HF``, ``DLPNO-CCSD(T)`` or ``PBE-D3BJ``.

    Returns
    -------
    str
        A semi-empirical method's own name; ``HF``, ``CC`` or ``DFT`` for others.
    """
    lower = method.lower()
    if lower in _SEMI_EMPIRICAL:
        return method
    if lower == "hf" or lower.startswith(("hf-", "uhf", "rhf")):
        return "HF"
    return "CC" if "ccsd" in lower or "cc2" in lower else "DFT"


def parse_settings(words: Iterable[str]) -> dict[str, Any]:
    """Settings such as ``convergence_max_iterations=200``.

    Whole numbers, numbers, ``true`` and ``false``, lists and mappings in JSON are what they look like; quotes make
    text of anything.

    Parameters
    ----------
    words
        The words.

    Raises
    ------
    UsageError
        With everything that is wrong.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.strip():
            problems.append(f"--setting {word}: must look like name=value")
        elif name.strip() in found:
            problems.append(f"--setting {name.strip()}: given twice")
        else:
            value = _value(text.strip())
            problem = _value_problem(value)
            if problem:
                problems.append(f"--setting {name.strip()}: {problem}")
            found[name.strip()] = value
    if problems:
        raise UsageError("\n".join(problems))
    return found


def _value(text: str) -> Any:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if text[:1] in {'"', "[", "{"}:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return _Broken(text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class _Broken:
    text: str


def _value_problem(value: Any) -> str:
    """Why a SCINE reader could not take a value; empty if it could."""
    if isinstance(value, _Broken):
        return f"is no valid JSON: {value.text}"
    if isinstance(value, Mapping):
        return next((problem for problem in map(_value_problem, value.values()) if problem), "")
    if isinstance(value, list):
        if len({type(item) for item in value}) > 1:
            return "all items of a list must be of one kind: 1.0 among numbers with a point"
        if value and isinstance(value[0], bool):
            return "SCINE stores no list of true and false"
        return next((problem for problem in map(_value_problem, value) if problem), "")
    return _plain_problem(value)


def _plain_problem(value: Any) -> str:
    if value is None:
        return "null is no value: leave the setting out"
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        return f"{value} is too large for a whole number: write {value}.0"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    return ""
