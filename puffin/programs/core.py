"""SCINE Core: what all SCINE modules are built on. Its wheel is that of Utils."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Core(ScineModule):
    """SCINE Core."""

    name = "core"
    module = "scine_utilities"
    features = ("core",)

    def requirement(self) -> str:
        """Nothing: it comes with Utils."""
        return ""
