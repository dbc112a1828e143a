"""SCINE Utilities: structures, elements, files, calculators."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Utils(ScineModule):
    """SCINE Utilities."""

    name = "utils"
    module = "scine_utilities"
    package = "scine-utilities"
    features = ("core", "io", "AtomCollection", "Property")
