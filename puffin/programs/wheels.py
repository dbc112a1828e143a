"""Installs the programs that are on PyPI, all together, so that they fit each other."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, requires
from pathlib import Path

from puffin.errors import ProgramError
from puffin.programs import building
from puffin.programs.catalogue import CATALOGUE, available_programs
from puffin.programs.module import ScineModule
from puffin.programs.places import WHEELS, Places
from puffin.programs.program import PYPI
from puffin.programs.workshop import Workshop
from puffin.settings import PROGRAMS, Settings

_JOB_CLASSES = "scine-puffin"


def from_pypi(settings: Settings) -> tuple[ScineModule, ...]:
    """The available programs whose wheels are wanted.

    Parameters
    ----------
    settings
        The worker's settings.
    """
    return tuple(
        program
        for program in available_programs(settings)
        if isinstance(program, ScineModule) and program.source == PYPI and not program.root and program.package
    )


def lacking(programs: Iterable[ScineModule], path: list[str]) -> list[str]:
    """Which of the programs' packages, and of what their jobs need, are not installed.

    An installed version other than the default one will do; a version that somebody chose has to be that one.

    Parameters
    ----------
    programs
        The programs.
    path
        The folders in which Python looks.

    Returns
    -------
    list[str]
        Requirements.
    """
    missing = []
    for program in programs:
        installed = _installed_version(program.package, path)
        chosen = program.version not in {"", PROGRAMS[program.name].defaults.version}
        if installed is None or (chosen and installed != program.version):
            missing.append(program.requirement())
    return missing + [need for need in _for_jobs() if _installed_version(_name(need), path) is None]


def install(settings: Settings, places: Places, workshop: Workshop) -> tuple[str, ...]:
    """Install the wheels, unless they are installed.

    Parameters
    ----------
    settings
        The worker's settings.
    places
        Where to.
    workshop
        Runs uv.

    Returns
    -------
    tuple[str, ...]
        What was installed.

    Raises
    ------
    ProgramError
        They cannot be installed; the old installation stays.
    """
    programs = from_pypi(settings)
    root = places.root.resolve()
    own = [entry for entry in sys.path if not Path(entry or ".").resolve().is_relative_to(root)]
    if not lacking(programs, own):
        places.current(WHEELS).unlink(missing_ok=True)
        return ()
    requirements = sorted([program.requirement() for program in programs] + _for_jobs())
    name = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    installation = places.installations(WHEELS) / name
    if places.current(WHEELS).resolve() == installation.resolve() and installation.is_dir():
        return ()
    if not installation.is_dir():
        _install(requirements, installation, workshop)
    places.use(WHEELS, installation)
    return tuple(requirements)


def _install(requirements: list[str], installation: Path, workshop: Workshop) -> None:
    unfinished = installation.with_name(f"{installation.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # It requires a documentation system and more, which no job imports; and it has no wheel.
    job_classes = [need for need in requirements if _name(need) == _JOB_CLASSES]
    others = [need for need in requirements if need not in job_classes]
    _run(building.uv_install(others, unfinished, wheels_only=True), workshop)
    if job_classes:
        _run(building.uv_install(job_classes, unfinished, wheels_only=False, dependencies=False), workshop)
    unfinished.rename(installation)


def _run(words: list[str], workshop: Workshop) -> None:
    try:
        workshop.run(words, "install the wheels", building.uv_settings())
    except ProgramError as error:
        meaning = building.explain(str(error))
        raise ProgramError(f"{meaning}\n{error}" if meaning else str(error)) from error


def _for_jobs() -> list[str]:
    """What jobs need besides the programs: the rest of the extra ``scine``."""
    packages = {_normal(kind.package) for kind in CATALOGUE.values() if issubclass(kind, ScineModule)}
    try:
        declared = requires("puffin-fleet") or []
    except PackageNotFoundError:
        declared = []
    extra = [re.split(r"\s*;", line)[0] for line in declared if re.search(r"extra\s*==\s*['\"]scine['\"]", line)]
    return [need for need in extra if _name(need) not in packages] or [_JOB_CLASSES]


def _name(requirement: str) -> str:
    return _normal(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed_version(package: str, path: list[str]) -> str | None:
    found = next(iter(Distribution.discover(name=package, path=path)), None)
    return found.version if found else None
