"""SCINE Swoose: molecular mechanics, its parametrization, and QM/MM."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Swoose(ScineModule):
    """SCINE Swoose."""

    name = "swoose"
    module = "scine_swoose"
    package = "scine-swoose"
    models = ("SFAM", "GAFF")
    features = ("parametrize", "select_qm_region")
