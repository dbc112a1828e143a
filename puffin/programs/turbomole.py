"""Turbomole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from puffin.errors import ProgramError
from puffin.programs.external import ExternalProgram, Trial


class Turbomole(ExternalProgram):
    """Turbomole, given by the folder that Turbomole calls ``TURBODIR``."""

    name = "turbomole"
    models = ("DFT",)
    variable = "TURBODIR"
    executables = ("scripts/sysname",)
    # Without an input the programs print who they are, and complain.
    trial = Trial(success=r"TURBOMOLE", version=r"TURBOMOLE\s+(?:rev\.\s+)?V?([\d.]+)")

    def variables(self) -> dict[str, str]:
        """Only the folder: its programs depend on the machine."""
        return {self.variable: self.root}

    def executable(self) -> Path:
        """The program ``dscf`` for this machine."""
        if not self.root and not os.environ.get(self.variable):
            raise ProgramError("programs.turbomole.root: name the folder that Turbomole calls TURBODIR")
        root = Path(self.root or os.environ[self.variable])
        system = root / "scripts" / "sysname"
        if not os.access(system, os.X_OK):
            raise ProgramError(f"programs.turbomole.root: {root} has no program scripts/sysname")
        said = subprocess.run([str(system)], capture_output=True, text=True, errors="replace", check=False)
        program = root / "bin" / said.stdout.strip() / "dscf"
        if not os.access(program, os.X_OK):
            raise ProgramError(f"programs.turbomole.root: {program} is no program that can be run")
        return program
