"""What all programs have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, ClassVar

from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.programs import building, sources
from puffin.programs.places import Places
from puffin.programs.workshop import Workshop

PYPI = "pypi"
"""The ``source`` of a program whose wheel is installed."""


class Program:
    """A program, as its section of the configuration describes it.

    Parameters
    ----------
    settings
        That section; ``available``, ``source``, ``root`` and ``version`` are in each.
    workshop
        Runs what is needed to install it. By default the log is written beside the installation.
    """

    name: ClassVar[str] = ""
    models: ClassVar[tuple[str, ...]] = ()
    needed_before_start: ClassVar[bool] = True
    """Whether to load it once for all jobs; False where that costs seconds or gigabytes."""

    def __init__(self, settings: Mapping[str, Any], workshop: Workshop | None = None) -> None:
        self.settings = dict(settings)
        self.version = str(settings["version"])
        self.root = str(settings["root"])
        self.source = str(settings["source"])
        self._workshop = workshop

    def available_models(self) -> list[str]:
        """The models that can be calculated with it now.

        Returns
        -------
        list[str]
            Their names; empty if the program is not there.
        """
        return [] if self.missing() else list(self.models)

    def check_install(self) -> None:
        """Use the program, to see that it is there and does what jobs need.

        Raises
        ------
        ProgramError
            What is missing, and how to get it.
        """
        raise NotImplementedError

    @classmethod
    def initialize(cls) -> None:
        """Make the program known to SCINE; done once for each available program when the worker starts.

        Raises
        ------
        ProgramError
            It cannot be loaded.
        """

    def install(self, repo_dir: str, install_dir: str, ncores: int) -> None:
        """Install the program, or do nothing if it is installed already.

        Parameters
        ----------
        repo_dir
            Where its sources are kept, if it is built from them; ``<repo_dir>.build`` is where it is built.
        install_dir
            Where it is installed.
        ncores
            How many compilers may run at once.

        Raises
        ------
        ProgramError
            It cannot be installed.
        """
        raise NotImplementedError

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """Add what the program, and SCINE in order to find it, need in the environment.

        Parameters
        ----------
        config
            The whole configuration.
        env_paths
            Variables that hold directories, joined with colons; they are put before the present ones.
        env_vars
            Variables that replace the present ones.
        """
        raise NotImplementedError

    def missing(self) -> str:
        """Why the program cannot be used, at a glance, without starting it; empty if nothing speaks against it."""
        return ""

    def found_version(self) -> str:
        """The version that is there; empty if that is unknown."""
        return ""

    def scine_module_install(
        self, repo_dir: str, install_dir: str, ncores: int, add_lib: bool = False, add_bin: bool = False
    ) -> None:
        """Build a SCINE module from its sources with CMake.

        Parameters
        ----------
        repo_dir
            Where its sources are kept.
        install_dir
            Where it is installed.
        ncores
            How many compilers may run at once.
        add_lib
            Whether the libraries in ``install_dir`` are needed by the build.
        add_bin
            Whether the programs in ``install_dir`` are needed by the build.

        Raises
        ------
        ProgramError
            It cannot be built.
        """
        workshop = self.workshop(install_dir)
        repository, build = Path(repo_dir), Path(f"{repo_dir}.build")
        self._fetch(repository, workshop)
        parts = (["lib", "lib64"] if add_lib else []) + (["bin"] if add_bin else [])
        extra = _build_environment((*workshop.prefixes, Path(install_dir)), parts, workshop)
        configure = building.cmake_configure(repository, build, Path(install_dir), self.settings, workshop.prefixes)
        workshop.run(configure, f"configure {self.name}", extra)
        workshop.run(building.cmake_build(build, ncores), f"build {self.name}", extra)
        workshop.run(building.cmake_install(build), f"install {self.name}", extra)

    def pip_module_source_install(self, repo_dir: str, install_dir: str) -> None:
        """Build a Python package from its sources.

        Parameters
        ----------
        repo_dir
            Where its sources are kept.
        install_dir
            Where it is installed, in ``lib/python<version>/site-packages``.

        Raises
        ------
        ProgramError
            It cannot be built.
        """
        workshop = self.workshop(install_dir)
        self._fetch(Path(repo_dir), workshop)
        _install_package(str(Path(repo_dir).absolute()), install_dir, workshop, wheels_only=False)

    @staticmethod
    def pip_package_install(package: str, install_dir: str) -> None:
        """Install a Python package from the package index.

        Parameters
        ----------
        package
            Its name, with a version if it matters: ``scine-sparrow==5.2.0``.
        install_dir
            Where it is installed, in ``lib/python<version>/site-packages``.

        Raises
        ------
        ProgramError
            It cannot be installed.
        """
        _install_package(package, install_dir, Workshop(Path(f"{install_dir}.log")), wheels_only=True)

    def workshop(self, install_dir: str) -> Workshop:
        """What runs the commands.

        Parameters
        ----------
        install_dir
            Where the program is to be installed.
        """
        return self._workshop or Workshop(Path(f"{install_dir}.log"))

    def places(self, config: Configuration) -> Places:
        """The directories of the configured software.

        Parameters
        ----------
        config
            The configuration.
        """
        return Places(Path(config["daemon"]["software_dir"]))

    def _fetch(self, repository: Path, workshop: Workshop) -> None:
        if not self.source:
            raise ProgramError(f"programs.{self.name}.source: names no repository to build {self.name} from")
        sources.refuse_passwords(self.source, f"programs.{self.name}.source")
        sources.fetch(self.source, self.version, repository, workshop)


def add_path(env_paths: MutableMapping[str, str], variable: str, *directories: Path) -> None:
    """Add directories that exist to a variable, unless they are in it.

    Parameters
    ----------
    env_paths
        The variables.
    variable
        The one to add to.
    directories
        What to add, the most important first.
    """
    present = [part for part in env_paths.get(variable, "").split(":") if part]
    existing = [str(directory) for directory in directories if directory.is_dir()]
    env_paths[variable] = ":".join(dict.fromkeys([*present, *existing]))


def add_prefix(env_paths: MutableMapping[str, str], prefix: Path) -> None:
    """Add the directories of an installation.

    Parameters
    ----------
    env_paths
        The variables.
    prefix
        The installation.
    """
    libraries = (prefix / "lib", prefix / "lib64")
    add_path(env_paths, "PATH", prefix / "bin")
    add_path(env_paths, "LD_LIBRARY_PATH", *libraries)
    add_path(env_paths, "SCINE_MODULE_PATH", *libraries)
    add_path(env_paths, "PYTHONPATH", *building.site_packages(prefix))


def _install_package(package: str, install_dir: str, workshop: Workshop, wheels_only: bool) -> None:
    target = building.site_packages(Path(install_dir))[0]
    words = building.uv_install([package], target, wheels_only)
    workshop.run(words, f"install {package}", building.uv_settings())


def _build_environment(prefixes: tuple[Path, ...], parts: list[str], workshop: Workshop) -> dict[str, str]:
    added: dict[str, str] = {}
    for prefix in prefixes:
        libraries = [prefix / part for part in parts if part.startswith("lib")]
        add_path(added, "LD_LIBRARY_PATH", *libraries)
        add_path(added, "PATH", *(prefix / part for part in parts if part == "bin"))
        add_path(added, "PYTHONPATH", *building.site_packages(prefix))
    present = {**os.environ, **workshop.environment}
    return {name: ":".join(filter(None, [paths, present.get(name, "")])) for name, paths in added.items() if paths}
