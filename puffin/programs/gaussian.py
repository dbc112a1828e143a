"""Gaussian."""

from __future__ import annotations

from pathlib import Path

from puffin.programs.external import ExternalProgram, Trial


class Gaussian(ExternalProgram):
    """Gaussian, given by the folder that has the program ``g16`` or ``g09``."""

    name = "gaussian"
    models = ("DFT", "HF")
    variable = "GAUSSIAN_BINARY_PATH"
    executables = ("g16", "g09", "g16/g16", "g09/g09")
    trial = Trial(
        stdin="#P HF/STO-3G\n\ntrial\n\n0 1\nH 0.0 0.0 0.0\nH 0.0 0.0 0.74\n\n",
        success=r"Normal termination of Gaussian",
        version=r"Gaussian \d+:\s+\S*?-(\S+)",
    )

    def variables(self) -> dict[str, str]:
        """Also where Gaussian finds its own parts."""
        folder: Path = self.executable().parent
        return {**super().variables(), "GAUSS_EXEDIR": f"{folder}/bsd:{folder}"}
