"""SCINE Parrot: machine-learned potentials."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Parrot(ScineModule):
    """SCINE Parrot."""

    name = "parrot"
    module = "scine_parrot"
    package = "scine-parrot"
    needed_before_start = False

    def build(self, repo_dir: str, install_dir: str, ncores: int) -> None:
        """Build it with pip: it is all Python."""
        self.pip_module_source_install(repo_dir, install_dir)

    def available_models(self) -> list[str]:
        """The potentials that scine-puffin names; which of them work is decided by what else is installed."""
        return [] if self.missing() else ["lmlp", "ani", "m3gnet"]
