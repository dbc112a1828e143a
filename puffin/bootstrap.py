"""Prepares a host for a worker: directories, programs, and the environment to start it in."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from puffin.config import Configuration
from puffin.errors import ConfigurationError, ProgramError
from puffin.programs import builds, wheels
from puffin.programs.environment import environment_of, script
from puffin.programs.places import WHEELS, Places, locked
from puffin.programs.sources import git_environment
from puffin.programs.verify import verify
from puffin.programs.workshop import Workshop
from puffin.settings import Settings

SCRIPT = "puffin.sh"


def bootstrap(config: Configuration) -> None:
    """Install the available programs and write ``puffin.sh``, to be sourced before a worker is started by hand.

    What is installed already is left alone. Progress goes to standard error.

    Parameters
    ----------
    config
        The configuration.

    Raises
    ------
    ConfigurationError
        A directory or the file cannot be written.
    ProgramError
        With every program that cannot be installed or does not work; the others are installed, and what was
        installed before stays.
    """
    settings = config.settings
    _make_directories(settings)
    places = Places(Path(settings.daemon.software_dir).absolute())
    progress = _Progress()
    with locked(places):
        problems = _install_wheels(settings, places, progress)
        problems += _build(settings, places, progress)
    try:
        _write_atomically(Path(SCRIPT), script(environment_of(config)))
    except OSError as error:
        raise ConfigurationError(f"cannot write {SCRIPT} in {Path.cwd()}: {error.strerror}") from error
    problems += _verify(config, progress)
    if problems:
        raise ProgramError("\n".join(problems))
    progress.say("environment", f"in {Path(SCRIPT).absolute()}, to be sourced where a worker is started by hand")


class _Progress:
    """Tells a person what is going on: a line per program, and on a terminal what is printed in between."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def say(self, subject: str, text: str) -> None:
        self._clear()
        print(f"{subject:12}  {text}", file=sys.stderr, flush=True)  # noqa: T201 - telling is its task

    def watch(self, line: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:{width}}", end="", file=sys.stderr, flush=True)  # noqa: T201 - as above

    def _clear(self) -> None:
        if self._live:
            self.watch("")
            print("\r", end="", file=sys.stderr)  # noqa: T201 - as above


def _make_directories(settings: Settings) -> None:
    daemon = settings.daemon
    if ":" in daemon.software_dir or not daemon.software_dir:
        raise ConfigurationError("daemon.software_dir: must name a folder without a colon in its path")
    wanted = [daemon.job_dir, daemon.software_dir, daemon.error_dir, daemon.archive_dir, daemon.pid_dir]
    wanted += [str(Path(file).parent) for file in (daemon.log, daemon.stop) if file]
    problems = []
    for directory in dict.fromkeys(filter(None, wanted)):
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problems.append(f"cannot make the folder {directory}: {error.strerror}")
    if problems:
        raise ConfigurationError(*problems)


def _install_wheels(settings: Settings, places: Places, progress: _Progress) -> list[str]:
    if not wheels.from_pypi(settings):
        return []
    workshop = Workshop(places.log(WHEELS), watch=progress.watch)
    with _attempt(WHEELS) as problems:
        began = time.monotonic()
        installed = wheels.install(settings, places, workshop)
        if installed:
            seconds = time.monotonic() - began
            progress.say(WHEELS, f"installed {len(installed)} packages from PyPI in {seconds:.1f} s")
    return problems


def _build(settings: Settings, places: Places, progress: _Progress) -> list[str]:
    found: list[str] = []
    git = git_environment(settings.resources.ssh_keys, os.environ)
    for name in builds.from_sources(settings):
        built_on = tuple(
            path for path in builds.prefixes(settings, places) if path.parent != places.installations(name)
        )
        workshop = Workshop(places.log(name), git, built_on, progress.watch)
        began = time.monotonic()
        with _attempt(name) as problems:
            progress.watch(f"{name}: building; see {workshop.log}")
            if builds.build(name, settings, places, workshop):
                progress.say(name, f"built in {time.monotonic() - began:.1f} s; log in {workshop.log}")
        found += problems
    return found


def _verify(config: Configuration, progress: _Progress) -> list[str]:
    problems = []
    for verdict in verify(config):
        if verdict.problem:
            progress.say(verdict.program, "does not work")
            problems.append(f"{verdict.program}: {verdict.problem}")
            continue
        models = f"models {', '.join(verdict.models)}" if verdict.models else ""
        words = [f"odd: {verdict.note}" if verdict.note else "works", verdict.version, models]
        progress.say(verdict.program, "  ".join(filter(None, words)))
    return problems


@contextmanager
def _attempt(name: str) -> Iterator[list[str]]:
    """Note a failure instead of passing it on: the other programs can be installed all the same."""
    problems: list[str] = []
    try:
        yield problems
    except ProgramError as error:
        problems.append(f"{name}: {error}")


def _write_atomically(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
