"""SCINE Molassembler: molecular graphs and conformers."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Molassembler(ScineModule):
    """SCINE Molassembler."""

    name = "molassembler"
    module = "scine_molassembler"
    package = "scine-molassembler"
    features = ("Molecule", "interpret")
