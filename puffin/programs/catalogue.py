"""All programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from puffin.config import Configuration
from puffin.programs.ams import Ams
from puffin.programs.core import Core
from puffin.programs.cp2k import Cp2k
from puffin.programs.database import Database
from puffin.programs.dftbplus import Dftbplus
from puffin.programs.gaussian import Gaussian
from puffin.programs.kinetx import Kinetx
from puffin.programs.molassembler import Molassembler
from puffin.programs.mrcc import Mrcc
from puffin.programs.orca import Orca
from puffin.programs.parrot import Parrot
from puffin.programs.program import Program
from puffin.programs.readuct import Readuct
from puffin.programs.rms import Rms
from puffin.programs.serenity import Serenity
from puffin.programs.sparrow import Sparrow
from puffin.programs.swoose import Swoose
from puffin.programs.turbomole import Turbomole
from puffin.programs.utils import Utils
from puffin.programs.workshop import Workshop
from puffin.programs.xtb import Xtb
from puffin.settings import ProgramSettings, Settings

_BUILT_IN_THIS_ORDER: tuple[type[Program], ...] = (
    *(Core, Utils, Database, Molassembler, Kinetx, Sparrow, Xtb, Serenity, Dftbplus, Ams, Readuct, Swoose, Parrot),
    *(Orca, Turbomole, Gaussian, Cp2k, Mrcc, Rms),
)

CATALOGUE: Mapping[str, type[Program]] = {kind.name: kind for kind in _BUILT_IN_THIS_ORDER}
"""Every program by its name; each after those it is built on."""


def program_of(name: str, settings: ProgramSettings, workshop: Workshop | None = None) -> Program:
    """A program.

    Parameters
    ----------
    name
        Its name in the configuration.
    settings
        Its settings.
    workshop
        Runs what is needed to install it.
    """
    return CATALOGUE[name](asdict(settings), workshop)


def available_programs(settings: Settings) -> tuple[Program, ...]:
    """The programs that jobs may use, each after those it is built on.

    Parameters
    ----------
    settings
        The worker's settings.
    """
    return tuple(program_of(name, settings.programs[name]) for name in CATALOGUE if settings.programs[name].available)


def missing_programs(config: Configuration) -> dict[str, str]:
    """The programs that jobs may use but that are not there, and why; their environment has to be set up already.

    Parameters
    ----------
    config
        The configuration.
    """
    reasons = ((program.name, program.missing()) for program in available_programs(config.settings))
    return {name: reason for name, reason in reasons if reason}
