"""Builds the programs that are given by a git repository, when something about them has changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from puffin.errors import ProgramError
from puffin.programs import sources
from puffin.programs.ams import Ams
from puffin.programs.catalogue import available_programs, program_of
from puffin.programs.module import ScineModule
from puffin.programs.places import Places
from puffin.programs.program import PYPI
from puffin.programs.workshop import Workshop
from puffin.settings import ProgramSettings, Settings

_STAMP = "puffin-built.json"


@dataclass(frozen=True)
class Stamp:
    """What an installation was made from; written into it when it is complete.

    Parameters
    ----------
    recipe
        Hash of everything but the commit.
    commit
        The commit that was built.
    pinned
        Whether the version always means this commit.
    """

    recipe: str
    commit: str
    pinned: bool


def from_sources(settings: Settings) -> tuple[str, ...]:
    """The available programs that are built, each after those it is built on.

    Parameters
    ----------
    settings
        The worker's settings.
    """
    return tuple(
        program.name
        for program in available_programs(settings)
        if isinstance(program, ScineModule)
        and program.source not in {"", PYPI}
        and (isinstance(program, Ams) or not program.root)
    )


def prefixes(settings: Settings, places: Places) -> tuple[Path, ...]:
    """Where programs are installed that others can be built against.

    Parameters
    ----------
    settings
        The worker's settings.
    places
        Where bootstrap installs.
    """
    roots = [
        Path(program.root)
        for program in available_programs(settings)
        if isinstance(program, ScineModule) and not isinstance(program, Ams) and program.root
    ]
    built = [places.current(name).resolve() for name in from_sources(settings) if places.current(name).exists()]
    return (*roots, *built)


def build(name: str, settings: Settings, places: Places, workshop: Workshop) -> bool:
    """Build a program, unless what is installed was made from the same.

    Parameters
    ----------
    name
        The program.
    settings
        The worker's settings.
    places
        Where to.
    workshop
        Runs git and the build.

    Returns
    -------
    bool
        Whether it was built.

    Raises
    ------
    ProgramError
        It cannot be built; the old installation stays.
    """
    chosen = settings.programs[name]
    sources.refuse_passwords(chosen.source, f"programs.{name}.source")
    recipe = _recipe(chosen, workshop.prefixes)
    if _is_up_to_date(places.current(name), recipe, chosen, workshop):
        return False
    installation = _new_installation(places.installations(name), recipe)
    repository = places.repository(name)
    program = program_of(name, chosen, workshop)
    try:
        program.install(str(repository), str(installation), settings.resources.cores)
        commit = workshop.ask(["git", "-C", str(repository), "rev-parse", "HEAD"]) or ""
        stamp = Stamp(recipe, commit, sources.is_pinned(chosen.version, repository, workshop))
        (installation / _STAMP).write_text(json.dumps(asdict(stamp)), encoding="utf-8")
    except OSError as error:
        raise ProgramError(f"cannot install {name} into {installation}: {error.strerror}") from error
    finally:
        if not (installation / _STAMP).exists():
            shutil.rmtree(installation, ignore_errors=True)
    places.use(name, installation)
    return True


def _recipe(chosen: ProgramSettings, built_on: tuple[Path, ...]) -> str:
    parts = [sys.version, *(str(value) for value in asdict(chosen).values()), *(str(path) for path in built_on)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _is_up_to_date(current: Path, recipe: str, chosen: ProgramSettings, workshop: Workshop) -> bool:
    try:
        stamp = Stamp(**json.loads((current / _STAMP).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return False
    if stamp.recipe != recipe:
        return False
    # A branch may have moved. Without an answer, what is there has to do.
    return stamp.pinned or sources.remote_commit(chosen.source, chosen.version, workshop) in {stamp.commit, None}


def _new_installation(directory: Path, recipe: str) -> Path:
    """A directory that was never used: paths of an installation are in what is built on it."""
    numbers = [int(path.suffix[1:]) for path in directory.glob("*.*") if path.suffix[1:].isdigit()]
    installation = directory / f"{recipe}.{max(numbers, default=0) + 1}"
    installation.mkdir(parents=True)
    return installation
