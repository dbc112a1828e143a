"""The environment in which jobs find their programs: for this process and its children, and as a shell script."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from puffin.config import Configuration
from puffin.programs.catalogue import available_programs, missing_programs
from puffin.settings import Settings

_PATHS = ("PATH", "LD_LIBRARY_PATH", "SCINE_MODULE_PATH", "PYTHONPATH")


@dataclass(frozen=True)
class Environment:
    """What programs add to the environment.

    Parameters
    ----------
    paths
        Directories to put before those in a variable.
    variables
        Variables to set.
    """

    paths: Mapping[str, tuple[str, ...]]
    variables: Mapping[str, str]


def environment_of(config: Configuration) -> Environment:
    """What the available programs add to the environment.

    Parameters
    ----------
    config
        The configuration.
    """
    paths = dict.fromkeys(_PATHS, "")
    variables = {"OMP_NUM_THREADS": str(config["resources"]["cores"])}
    for program in available_programs(config.settings):
        program.setup_environment(config, paths, variables)
    split = {name: tuple(part for part in joined.split(":") if part) for name, joined in paths.items()}
    return Environment({name: parts for name, parts in split.items() if parts}, variables)


def merged(environment: Environment, present: Mapping[str, str]) -> dict[str, str]:
    """Variables with those of the programs laid over them.

    Parameters
    ----------
    environment
        What to add.
    present
        The variables as they are.
    """
    variables = {**present, **environment.variables}
    for name, directories in environment.paths.items():
        others = [part for part in present.get(name, "").split(":") if part and part not in directories]
        variables[name] = ":".join([*directories, *others])
    return variables


def activate(environment: Environment) -> None:
    """Set up the environment of this process, and so of all that it starts from now on.

    Parameters
    ----------
    environment
        What to add.
    """
    os.environ.update(merged(environment, os.environ))
    # Where Python looks was read from the environment when this process started.
    sys.path[:0] = [path for path in environment.paths.get("PYTHONPATH", ()) if path not in sys.path]


def prepare(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """Set up the environment of this process for the programs, and find out which of them are there.

    Parameters
    ----------
    settings
        The worker's settings.

    Returns
    -------
    tuple[Settings, dict[str, str]]
        The settings with only those programs available that are there, and for each of the others the reason.
    """
    config = Configuration.of(settings)
    activate(environment_of(config))
    missing = missing_programs(config)
    programs = {
        name: replace(program, available=program.available and name not in missing)
        for name, program in settings.programs.items()
    }
    return replace(settings, programs=programs), missing


def script(environment: Environment) -> str:
    """A script for the shell that sets up the environment; it may be sourced any number of times.

    Parameters
    ----------
    environment
        What to add.
    """
    lines = ["# Written by 'puffin bootstrap'. Source it before you start the worker by hand."]
    for name, directories in environment.paths.items():
        # Each is put before what is there, so the most important comes last.
        lines += [_prepend(name, directory) for directory in reversed(directories)]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.variables.items())]
    return "\n".join([*lines, ""])


def _prepend(name: str, directory: str) -> str:
    quoted = shlex.quote(directory)
    return f'case ":${{{name}:-}}:" in *:{quoted}:*) ;; *) export {name}={quoted}"${{{name}:+:${name}}}" ;; esac'
