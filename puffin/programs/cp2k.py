"""CP2K."""

from __future__ import annotations

import os
from pathlib import Path

from puffin.programs.external import ExternalProgram, Trial


class Cp2k(ExternalProgram):
    """CP2K, given by its program, or by the folder that has it; there are several builds of it."""

    name = "cp2k"
    models = ("DFT",)
    variable = "CP2K_BINARY_PATH"
    executables = tuple(
        f"{folder}cp2k{kind}" for folder in ("", "bin/") for kind in (".psmp", ".popt", ".ssmp", ".sopt", "")
    )
    trial = Trial(arguments=("--version",), success=r"CP2K version", version=r"CP2K version (\S+)")

    def executable(self) -> Path:
        """The program."""
        if self.root and Path(self.root).is_file() and os.access(self.root, os.X_OK):
            return Path(self.root)
        return super().executable()
