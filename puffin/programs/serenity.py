"""The wrapper of Serenity: density functional theory, Hartree-Fock, local coupled cluster, embedding."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from puffin.config import Configuration
from puffin.programs.module import ScineModule

_MB_PER_GB = 1024


class Serenity(ScineModule):
    """The wrapper of Serenity."""

    name = "serenity"
    module = "scine_serenity_wrapper"
    package = "scine-serenity-wrapper"
    models = ("DFT", "HF", "CC")
    needed_before_start = False

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """Also tell Serenity how much memory it may use, and where its basis sets are; the wheel knows that."""
        super().setup_environment(config, env_paths, env_vars)
        env_vars["SERENITY_MEMORY"] = str(config["resources"]["memory"] * _MB_PER_GB)
        data = self.prefix(config) / "share" / "serenity" / "data"
        if data.is_dir():
            env_vars["SERENITY_RESOURCES"] = f"{data}{os.sep}"
