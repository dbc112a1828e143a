"""The wrapper of xtb: the GFN methods."""

from __future__ import annotations

from collections.abc import MutableMapping

from puffin.config import Configuration
from puffin.programs.module import ScineModule


class Xtb(ScineModule):
    """The wrapper of xtb."""

    name = "xtb"
    module = "scine_xtb_wrapper"
    package = "scine-xtb-wrapper"
    models = ("GFN0", "GFN1", "GFN2", "GFNFF")

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """Also tell xtb where its parameters are; the wheel has them built in."""
        super().setup_environment(config, env_paths, env_vars)
        parameters = self.prefix(config) / "share" / "xtb"
        if parameters.is_dir():
            env_vars["XTBPATH"] = str(parameters)
