"""MRCC."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.programs.external import ExternalProgram, Trial
from puffin.programs.program import add_path


class Mrcc(ExternalProgram):
    """MRCC, given by the folder that has the program ``dmrcc``."""

    name = "mrcc"
    models = ("DFT", "HF", "CC", "MP2")
    variable = "MRCC_BINARY_PATH"
    executables = ("dmrcc",)
    trial = Trial(
        files={"MINP": "basis=sto-3g\ncalc=SCF\nmem=200MB\ngeom=xyz\n2\n\nH 0.0 0.0 0.0\nH 0.0 0.0 0.74\n"},
        success=r"Normal termination of mrcc",
        version=r"Release date:\s+(.+)",
    )

    def variables(self) -> dict[str, str]:
        """The folder, not the program."""
        return {self.variable: self.root}

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """Also put it on the PATH, through which its parts start each other."""
        super().setup_environment(config, env_paths, env_vars)
        if self.root:
            add_path(env_paths, "PATH", Path(self.root))

    def _from_variable(self, value: str) -> Path:
        program = Path(value) / "dmrcc"
        if not program.is_file():
            raise ProgramError(f"{self.variable} names no folder with the program dmrcc: {value}")
        return program
