"""SCINE ReaDuct: optimizations, reaction paths and reaction trials."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Readuct(ScineModule):
    """SCINE ReaDuct."""

    name = "readuct"
    module = "scine_readuct"
    package = "scine-readuct"
    features = ("run_single_point_task", "run_optimization_task", "run_hessian_task", "run_tsopt_task", "run_irc_task")
