"""The wrapper of DFTB+."""

from __future__ import annotations

from collections.abc import MutableMapping

from puffin.config import Configuration
from puffin.programs.module import ScineModule


class Dftbplus(ScineModule):
    """The wrapper of DFTB+; there is no wheel of it."""

    name = "dftbplus"
    module = "scine_dftbplus_wrapper"
    models = ("GFN1", "GFN2", "IPEA1", "DFTB0", "DFTB2", "DFTB3")

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """Also tell DFTB+ where its parameters are."""
        super().setup_environment(config, env_paths, env_vars)
        own = self.settings.get("parameters", "")
        parameters = own or str(self.prefix(config) / "share" / "slakos" / "origin")
        if own or self.prefix(config).is_dir():
            env_vars["DFTBPLUS_PARAM_DIR"] = parameters
