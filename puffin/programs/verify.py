"""Checks programs in a process of its own, in the environment that jobs get: one that crashes takes no one along.

The process writes one line of JSON when it begins with a program and one when it is done with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.programs.catalogue import CATALOGUE, available_programs, program_of
from puffin.programs.environment import environment_of, merged
from puffin.programs.module import ScineModule
from puffin.programs.program import PYPI, Program


@dataclass(frozen=True)
class ProgramCheck:
    """What the check of one program found.

    Parameters
    ----------
    program
        Its name.
    problem
        Why it cannot be used; empty if it can.
    version
        The version that was found; empty if it does not say.
    models
        What can be calculated with it.
    note
        What is odd, but no reason not to use it.
    """

    program: str
    problem: str = ""
    version: str = ""
    models: tuple[str, ...] = ()
    note: str = ""


def verify(config: Configuration) -> list[ProgramCheck]:
    """Check every available program.

    Parameters
    ----------
    config
        The configuration.

    Returns
    -------
    list[ProgramCheck]
        One for each.
    """
    environment = merged(environment_of(config), os.environ)
    waiting: dict[str, Any] = {program.name: program.settings for program in available_programs(config.settings)}
    verdicts: list[ProgramCheck] = []
    while waiting:
        found, crashed = _check_in_process(waiting, environment)
        if crashed is not None:
            found.append(crashed)
        if not found:
            raise ProgramError(f"the process that checks the programs did not start: {sys.executable}")
        verdicts += found
        for verdict in found:
            waiting.pop(verdict.program, None)
    return [_with_note_on_builds(verdict, config) for verdict in verdicts]


def _with_note_on_builds(verdict: ProgramCheck, config: Configuration) -> ProgramCheck:
    """Say so where a module works only because this Python happens to have it from elsewhere."""
    program = program_of(verdict.program, config.settings.programs[verdict.program])
    if verdict.problem or not isinstance(program, ScineModule) or program.source in {"", PYPI} or program.root:
        return verdict
    if program.prefix(config).is_dir():
        return verdict
    return replace(verdict, note=f"not built from {program.source}: run 'puffin bootstrap'; another one was found")


def _check_in_process(
    programs: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[list[ProgramCheck], ProgramCheck | None]:
    """Check programs until the process has ended; return what it found, and the verdict on what ended it early."""
    words = [sys.executable, "-c", "from puffin.programs.verify import main; main()"]
    # Python looks for modules where it is started: that must be an empty place, not the user's.
    with tempfile.TemporaryDirectory(prefix="puffin-check-") as directory:
        done = subprocess.run(
            words,
            input=json.dumps(programs),
            cwd=directory,
            env={**environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    found, begun = [], ""
    for message in _messages(done.stdout):
        begun = message["program"]
        if "problem" in message:
            found.append(ProgramCheck(**{**message, "models": tuple(message["models"])}))
            begun = ""
    if not begun:
        return found, None
    tail = " / ".join(done.stderr.strip().splitlines()[-3:])
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return found, ProgramCheck(begun, f"the process that used it ended with {how}: {tail or 'it printed nothing'}")


def _messages(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def main() -> None:
    """Check the programs whose settings are on the standard input; the other end of :func:`verify`."""
    # Whatever the programs print must not get between our lines.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for name, settings in json.load(sys.stdin).items():
            _answer(answers, {"program": name})
            _answer(answers, asdict(check(CATALOGUE[name](settings))))


def check(program: Program) -> ProgramCheck:
    """Check one program in this process.

    Parameters
    ----------
    program
        The program.
    """
    try:
        program.check_install()
        version = program.found_version()
        models = tuple(program.available_models())
    except ProgramError as error:
        return ProgramCheck(program.name, problem=str(error))
    return ProgramCheck(program.name, version=version, models=models, note=_note(program, version))


def _note(program: Program, version: str) -> str:
    comparable = not isinstance(program, ScineModule) or (program.source == PYPI and not program.root)
    wanted = program.version
    if not comparable or not version or not wanted or version in wanted or wanted in version:
        return ""
    return f"programs.{program.name}.version is {wanted}, and results will say so"


def _answer(stream: IO[str], message: Mapping[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()
