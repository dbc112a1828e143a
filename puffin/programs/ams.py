"""The wrapper of AMS: a SCINE module that is built, and the program itself in its ``root``."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.programs.module import ScineModule
from puffin.programs.program import add_prefix


class Ams(ScineModule):
    """The wrapper of AMS.

    Unlike that of other modules, its ``root`` is the folder of AMS; the wrapper is built all the same.
    """

    name = "ams"
    module = "scine_ams_wrapper"

    def install(self, repo_dir: str, install_dir: str, ncores: int) -> None:
        """Build the wrapper; AMS itself has to be in its ``root``."""
        if self._ams_problem():
            raise ProgramError(self._ams_problem())
        self.build(repo_dir, install_dir, ncores)

    def prefix(self, config: Configuration) -> Path:
        """Where the wrapper is installed."""
        return self.places(config).current(self.name)

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """Tell the wrapper where AMS and its license are; what the environment says already stays."""
        add_prefix(env_paths, self.prefix(config))
        license_file = self.settings.get("license", "")
        if license_file:
            env_vars["SCMLICENSE"] = license_file
        if self.root and not any(name in os.environ for name in ("AMSHOME", "AMSBIN", "AMS_BINARY_PATH")):
            binaries = str(Path(self.root) / "bin")
            env_vars.update(AMSHOME=self.root, AMSBIN=binaries, AMS_BINARY_PATH=binaries)

    def missing(self) -> str:
        """Whether AMS and its wrapper are there."""
        return self._ams_problem() or super().missing()

    def available_models(self) -> list[str]:
        """What AMS can calculate; each needs a license."""
        return [] if self.missing() else ["DFT", "DFTB3", "DFTB2", "DFTB0", "GFN1", "GFN0", "REAXFF", "MLPOTENTIAL"]

    def _ams_problem(self) -> str:
        home = self.root or os.environ.get("AMSHOME", "")
        if not home:
            return "programs.ams.root: name the folder in which AMS is installed"
        if not os.access(Path(home) / "bin" / "ams", os.X_OK):
            return f"programs.ams.root: {home} has no program bin/ams"
        if not (self.settings.get("license", "") or "SCMLICENSE" in os.environ):
            return "programs.ams.license: name the license file, or set SCMLICENSE"
        return ""

    def _how_to_get(self) -> str:
        return "run 'puffin bootstrap'"
