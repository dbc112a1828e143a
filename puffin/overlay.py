"""Lays what files, the environment and programs say over the settings, and names all that is wrong with it; pure.

What was read is passed in as plain mappings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from puffin.conversion import Rejected, convert
from puffin.errors import ConfigurationError
from puffin.hints import nearest
from puffin.settings import PROGRAMS, SECTIONS, ProgramSettings, Settings, fields_of


def parse(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> Settings:
    """Lay mappings over the defaults, the later over the earlier.

    Parameters
    ----------
    layers
        Pairs of a name for error messages (a file, "environment") and a mapping of sections. Sections and
        keys may be missing.

    Returns
    -------
    Settings
        The settings.

    Raises
    ------
    ConfigurationError
        With every unknown key, wrong type and value out of range of all layers.
    """
    settings, problems = Settings(), []
    for source, mapping in layers:
        settings, found = _overlay(settings, mapping)
        problems += [f"{source}: {path}: {message}" for path, message in found]
    problems += [f"{path}: {message}" for path, message in _contradictions(settings)]
    if problems:
        raise ConfigurationError(*problems)
    return settings


def check_overrides(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a partial configuration.

    Parameters
    ----------
    mapping
        Sections with some of their keys.

    Returns
    -------
    list[tuple[str, str]]
        Pairs of the path of a key ("daemon.cycle_time_in_s") and what is wrong with it.
    """
    return _overlay(Settings(), mapping)[1]


def replace_value(section: Any, path: str, key: str, value: object) -> Any:
    """A section with one value changed.

    Parameters
    ----------
    section
        The frozen section.
    path
        Where it stands, for the error message.
    key
        A key it has.
    value
        The new value.

    Raises
    ------
    ConfigurationError
        The value has the wrong type or is out of range.
    """
    try:
        return dataclasses.replace(section, **{key: convert(type(section), key, value)})
    except Rejected as rejected:
        raise ConfigurationError(f"{path}.{key}: {rejected}") from rejected


def _overlay(settings: Settings, mapping: Mapping[str, Any]) -> tuple[Settings, list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    changes: dict[str, Any] = {}
    for name, keys in mapping.items():
        if name not in SECTIONS and name != "programs":
            problems.append((str(name), f"unknown section{nearest(str(name), [*SECTIONS, 'programs'])}"))
        elif keys is None:
            continue
        elif not isinstance(keys, Mapping):
            problems.append((name, f"must be a section with keys, not {type(keys).__name__}"))
        elif name == "programs":
            changes[name] = _overlay_programs(settings.programs, keys, problems)
        else:
            known = tuple(fields_of(SECTIONS[name]))
            changes[name] = _overlay_section(getattr(settings, name), keys, name, known, problems)
    return dataclasses.replace(settings, **changes), problems


def _overlay_programs(
    programs: Mapping[str, ProgramSettings], given: Mapping[str, Any], problems: list[tuple[str, str]]
) -> dict[str, ProgramSettings]:
    result = dict(programs)
    for name, keys in given.items():
        path = f"programs.{name}"
        if name not in PROGRAMS:
            problems.append((path, f"unknown program{nearest(str(name), PROGRAMS)}"))
        elif not isinstance(keys, Mapping):
            problems.append((path, "must be a section with keys such as 'available' and 'root'"))
        else:
            result[name] = _overlay_section(programs[name], keys, path, PROGRAMS[name].keys, problems)
    return result


def _overlay_section(
    section: Any, given: Mapping[str, Any], path: str, known: tuple[str, ...], problems: list[tuple[str, str]]
) -> Any:
    changes = {}
    for key, value in given.items():
        if key not in known:
            problems.append((f"{path}.{key}", f"unknown key{nearest(str(key), known)}"))
            continue
        try:
            changes[key] = convert(type(section), key, value)
        except Rejected as rejected:
            problems.append((f"{path}.{key}", str(rejected)))
    return dataclasses.replace(section, **changes)


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    daemon, database = settings.daemon, settings.database
    if daemon.touch_time_in_s >= daemon.job_reset_time_in_s:
        yield (
            "daemon.touch_time_in_s",
            "must be smaller than daemon.job_reset_time_in_s, or live jobs are taken away",
        )
    if not database.names:
        yield "database.name", "must name at least one database"
    if bool(database.username) != bool(database.password_file):
        yield "database.username", "needs database.password_file, and the other way round"
