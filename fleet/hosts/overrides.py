"""What hosts.yaml says of the workers' own settings: sections `puffin`, and `programs` of shapes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from fleet.errors import Problem
from fleet.hosts.values import PASSWORD_ADVICE, check_uri
from fleet.hosts.yamlmap import Document, Path
from puffin import overlay
from puffin.settings import SECRET_KEYS

_PER_WORKER = "it must differ for each worker"
_RELIED_ON = "stop, start and recycle rely on it"
_SET_BY_FLEET = {
    "daemon": {
        **dict.fromkeys(("uuid", "pid", "pid_dir", "log", "stop", "stop_shared", "recycle"), _PER_WORKER),
        **dict.fromkeys(("remove_stop_file", "mode"), _RELIED_ON),
    },
    "resources": {
        **dict.fromkeys(("cores", "memory", "disk"), "say it in 'workers'"),
        "cpus": "say it with 'affinity' or 'cpus' of the host",
        "gpus": "say it with 'gpus' in 'workers', and of the host",
    },
}


def problems(document: Document) -> list[Problem]:
    """What is wrong with the workers' settings in hosts.yaml.

    Parameters
    ----------
    document
        hosts.yaml, whole.
    """
    found = []
    for path, block in _blocks(document):
        found += list(_of_puffin(document, (*path, "puffin"), mapping_or_empty(block.get("puffin"))))
        for place, shape in _shapes((*path, "workers"), block.get("workers")):
            programs = {"programs": mapping_or_empty(shape.get("programs"))}
            for keys, message in overlay.check_overrides(programs):
                found.append(document.problem((*place, *keys.split(".")), message))
    return found


def mapping_or_empty(value: object) -> Mapping[str, Any]:
    """The value, if it is a mapping; what it is instead is complained about elsewhere."""
    return value if isinstance(value, Mapping) else {}


def _blocks(document: Document) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every block of settings in the file: defaults, groups, hosts."""
    yield ("defaults",), mapping_or_empty(document.value.get("defaults"))
    for section in ("groups", "hosts"):
        for key, block in mapping_or_empty(document.value.get(section)).items():
            yield (section, key), mapping_or_empty(block)


def _shapes(path: Path, workers: object) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if isinstance(workers, list):
        for index, shape in enumerate(workers):
            yield (*path, index), mapping_or_empty(shape)
    else:
        yield path, mapping_or_empty(workers)


def _of_puffin(document: Document, path: Path, overrides: Mapping[str, Any]) -> Iterator[Problem]:
    refused = dict(_refused(overrides))
    for keys, message in refused.items():
        yield document.problem((*path, *keys.split(".")), message)
    for keys, message in overlay.check_overrides(overrides):
        if keys not in refused and keys.split(".")[0] != "fleet":
            if tuple(keys.split(".")) in SECRET_KEYS:
                message = message.partition(", not ")[0]  # noqa: PLW2901 - what follows is the value
            yield document.problem((*path, *keys.split(".")), message)


def _refused(overrides: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings that are the fleet's own to make, and secrets."""
    if "fleet" in overrides:
        yield "fleet", "is written by the fleet itself: drop it"
    for section, keys in _SET_BY_FLEET.items():
        for key, advice in keys.items():
            if key in mapping_or_empty(overrides.get(section)):
                yield f"{section}.{key}", f"is set by the fleet for each worker ({advice}): drop it"
    database = mapping_or_empty(overrides.get("database"))
    if "password" in database:
        yield "database.password", f"a password does not belong in this file: {PASSWORD_ADVICE}"
    if isinstance(database.get("uri"), str):
        try:
            check_uri(database["uri"])
        except PydanticCustomError as error:
            yield "database.uri", error.message()
