"""The Reaction Mechanism Simulator: a Julia program with a Python face, installed with conda."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.programs.program import Program

_MODULES = ("julia", "diffeqpy")


class Rms(Program):
    """The Reaction Mechanism Simulator.

    Its ``root`` is the compiled system image of Julia (a file that ends in ``.so``), which spares minutes at the
    start of each job; jobs read it from there. Without it Julia compiles on the fly.
    """

    name = "rms"
    needed_before_start = False

    def install(self, repo_dir: str, install_dir: str, ncores: int) -> None:
        """Nothing is installed: conda has to have done that."""
        if self.missing():
            raise ProgramError(self.missing())

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """It needs nothing: the job loads the system image itself."""

    def missing(self) -> str:
        """Whether Python finds its modules, and the system image is there."""
        absent = [module for module in _MODULES if find_spec(module) is None]
        if absent:
            return (
                f"{' and '.join(absent)} cannot be imported: install rms with conda, "
                "and start the worker from that environment"
            )
        if self.root and (not self.root.endswith(".so") or not Path(self.root).is_file()):
            return f"programs.rms.root: {self.root} is no system image (.so) of Julia"
        return ""

    def check_install(self) -> None:
        """Import its modules and load the simulator into Julia."""
        if self.missing():
            raise ProgramError(self.missing())
        try:
            import_module("diffeqpy")
            julia = import_module("julia")
            julia.Julia(**({"sysimage": self.root} if self.root else {"compiled_modules": False}))
            import_module("julia.ReactionMechanismSimulator")
        # What is thrown here comes from Julia.
        except Exception as error:
            raise ProgramError(f"the simulator cannot be loaded into Julia: {error}") from error
