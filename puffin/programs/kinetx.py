"""SCINE KiNetX: kinetic modelling."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Kinetx(ScineModule):
    """SCINE KiNetX."""

    name = "kinetx"
    module = "scine_kinetx"
    package = "scine-kinetx"
    features = ("NetworkBuilder", "integrate", "get_integrator")
