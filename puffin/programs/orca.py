"""ORCA."""

from __future__ import annotations

from puffin.programs.external import ExternalProgram, Trial


class Orca(ExternalProgram):
    """ORCA, given by the folder that has the program ``orca``."""

    name = "orca"
    models = ("DFT", "HF", "PM3")
    variable = "ORCA_BINARY_PATH"
    executables = ("orca", "bin/orca")
    trial = Trial(
        arguments=("trial.inp",),
        files={"trial.inp": "! HF STO-3G\n* xyz 0 1\nH 0.0 0.0 0.0\nH 0.0 0.0 0.74\n*\n"},
        success=r"ORCA TERMINATED NORMALLY",
        version=r"Program Version\s+(\S+)",
    )
