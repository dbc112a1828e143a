"""SCINE Sparrow: semiempirical methods."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Sparrow(ScineModule):
    """SCINE Sparrow."""

    name = "sparrow"
    module = "scine_sparrow"
    package = "scine-sparrow"
    models = ("PM6", "AM1", "RM1", "PM3", "MNDO", "DFTB0", "DFTB2", "DFTB3")
