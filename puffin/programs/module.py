"""Programs that are SCINE modules: Python packages with compiled parts."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.programs.places import WHEELS
from puffin.programs.program import PYPI, Program, add_path, add_prefix


class ScineModule(Program):
    """A SCINE module, from PyPI, from its sources or installed already."""

    module: ClassVar[str] = ""
    """The Python module that jobs import."""
    package: ClassVar[str] = ""
    """Its name on PyPI; empty if it is not there."""
    features: ClassVar[tuple[str, ...]] = ()
    """What jobs use of it."""

    def requirement(self) -> str:
        """What to ask the package index for; empty if the module comes with another."""
        if not self.package:
            raise ProgramError(
                f"programs.{self.name}.source: {self.name} is not on PyPI; give a git repository to build it from"
            )
        return f"{self.package}=={self.version}" if self.version else self.package

    def install(self, repo_dir: str, install_dir: str, ncores: int) -> None:
        """Install the module from the source in its settings; with a ``root`` nothing is installed."""
        if self.root:
            self._require_root()
        elif self.source == PYPI:
            if self.requirement():
                self.pip_package_install(self.requirement(), install_dir)
        else:
            self.build(repo_dir, install_dir, ncores)

    def build(self, repo_dir: str, install_dir: str, ncores: int) -> None:
        """Build the module from its sources.

        Parameters
        ----------
        repo_dir, install_dir, ncores
            As for :meth:`install`.
        """
        self.scine_module_install(repo_dir, install_dir, ncores, add_lib=True, add_bin=True)

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """Let Python and SCINE find the module where it was installed."""
        if self.source == PYPI and not self.root:
            add_path(env_paths, "PYTHONPATH", self.places(config).current(WHEELS))
        else:
            add_prefix(env_paths, self.prefix(config))

    def prefix(self, config: Configuration) -> Path:
        """Where the module is installed, if it was not from PyPI.

        Parameters
        ----------
        config
            The configuration.
        """
        return Path(self.root) if self.root else self.places(config).current(self.name)

    @classmethod
    def initialize(cls) -> None:
        """Import the module; that registers its calculators."""
        try:
            import_module(cls.module)
        # C++ libraries that do not fit each other fail in many ways.
        except Exception as error:
            raise ProgramError(f"{cls.module} cannot be imported: {error}") from error

    def check_install(self) -> None:
        """Import the module, and look for what jobs use of it."""
        if self.missing():
            raise ProgramError(self.missing())
        try:
            self.initialize()
        except ProgramError as error:
            raise ProgramError(f"{error}: {self._how_to_get()}") from error
        module = import_module(self.module)
        absent = [feature for feature in self.features if not hasattr(module, feature)]
        absent += [model for model in self.models if model not in _registered_models()]
        if absent:
            where = getattr(module, "__file__", self.module)
            raise ProgramError(f"{self.module} lacks {', '.join(absent)}: {where} is of another version")

    def available_models(self) -> list[str]:
        """The models that can be calculated now; the module is imported for that."""
        if not self.models or self.missing():
            return []
        try:
            self.initialize()
        except ProgramError:
            return []
        registered = _registered_models()
        return [model for model in self.models if model in registered]

    def missing(self) -> str:
        """Whether Python finds the module."""
        if self.root and not Path(self.root).is_dir():
            return f"programs.{self.name}.root: there is no folder {self.root}"
        return "" if find_spec(self.module) else f"{self.module} is not installed: {self._how_to_get()}"

    def found_version(self) -> str:
        """The version of the installed package, or what the module itself says."""
        try:
            return version(self.package) if self.package else ""
        except PackageNotFoundError:
            return str(getattr(import_module(self.module), "__version__", ""))

    def _require_root(self) -> None:
        if not Path(self.root).is_dir():
            raise ProgramError(f"programs.{self.name}.root: there is no folder {self.root}")

    def _how_to_get(self) -> str:
        if self.root:
            return f"look into programs.{self.name}.root, {self.root}"
        return "run 'puffin bootstrap'"


def _registered_models() -> frozenset[str]:
    if find_spec("scine_utilities") is None:
        return frozenset()
    import scine_utilities

    manager = scine_utilities.core.ModuleManager.get_instance()
    return frozenset(manager.models("calculator"))
