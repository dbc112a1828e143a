"""The commands that build and install programs; none is run here, but uv is looked for, and pip asked for its index."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from puffin.errors import ProgramError
from puffin.indexes import uv_environment


def cmake_configure(
    repository: Path, build: Path, install: Path, settings: Mapping[str, Any], prefixes: Iterable[Path]
) -> list[str]:
    """The command that prepares the build of a SCINE module.

    Parameters
    ----------
    repository
        Its sources.
    build
        Where to build.
    install
        Where it will be installed.
    settings
        The program's settings; ``march``, ``cxx_compiler_flags`` and ``cmake_flags`` are used.
    prefixes
        Where what it needs is installed.
    """
    words = ["cmake", "-S", str(repository), "-B", str(build)]
    words += [
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_INSTALL_PREFIX={install}",
        f"-DCMAKE_PREFIX_PATH={';'.join(str(prefix) for prefix in prefixes)}",
        f"-DPYTHON_EXECUTABLE={sys.executable}",
        f"-DPython3_EXECUTABLE={sys.executable}",
        "-DSCINE_BUILD_TESTS=OFF",
        "-DSCINE_BUILD_DOCS=OFF",
        "-DSCINE_BUILD_PYTHON_BINDINGS=ON",
        f"-DSCINE_MARCH={settings.get('march', 'native')}",
        # Always given: CMake remembers a flag that is only left out.
        f"-DCMAKE_CXX_FLAGS={settings.get('cxx_compiler_flags', '')}",
    ]
    return [*words, *shlex.split(settings.get("cmake_flags", ""))]


def cmake_build(build: Path, cores: int) -> list[str]:
    """The command that builds.

    Parameters
    ----------
    build
        Where to build.
    cores
        Number of parallel jobs.
    """
    return ["cmake", "--build", str(build), "--parallel", str(cores)]


def cmake_install(build: Path) -> list[str]:
    """The command that installs what was built.

    Parameters
    ----------
    build
        Where it was built.
    """
    return ["cmake", "--install", str(build)]


def site_packages(prefix: Path) -> tuple[Path, ...]:
    """Where Python packages may be below an installation; the first is where we put them.

    Parameters
    ----------
    prefix
        The installation.
    """
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return tuple(
        prefix / part / python / kind
        for part, kind in (
            ("lib", "site-packages"),
            ("lib64", "site-packages"),
            ("local/lib", "dist-packages"),
            ("local/lib64", "dist-packages"),
        )
    )


def uv_install(requirements: Sequence[str], target: Path, wheels_only: bool, dependencies: bool = True) -> list[str]:
    """The command that installs Python packages into a directory.

    Parameters
    ----------
    requirements
        What to install: names with versions, or paths of sources.
    target
        The directory, which belongs into ``PYTHONPATH``.
    wheels_only
        Whether to refuse packages that would have to be built.
    dependencies
        Whether to install what they require, too.

    Raises
    ------
    ProgramError
        uv is not installed.
    """
    words = [uv_program(), "pip", "install", "--target", str(target), "--python", sys.executable]
    words += ["--only-binary", ":all:"] if wheels_only else []
    words += [] if dependencies else ["--no-deps"]
    return [*words, *requirements]


def uv_program() -> str:
    """The path of uv: the installed package's, else the one on the PATH.

    Raises
    ------
    ProgramError
        There is none.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise ProgramError(f"uv is not installed: run '{sys.executable} -m pip install uv'")
    return found


def uv_settings() -> dict[str, str]:
    """Variables that make uv use pip's index and certificates, unless uv has settings of its own."""
    own = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "uv/uv.toml"
    settings = {"UV_PYTHON_DOWNLOADS": "never"}
    if own.is_file() or Path("/etc/uv/uv.toml").is_file():
        return settings
    words = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    return {**settings, **uv_environment(listed.stdout if listed.returncode == 0 else "", os.environ, "install")}


_SYMPTOMS = (
    (
        r"dns error|error sending request|Failed to fetch|Connection refused|Network is unreachable|tunnel error",
        "the package index cannot be reached: check the network, or the mirror in pip's or uv's settings",
    ),
    (
        r"no wheels? with a matching|has no usable wheels|no wheels with",
        "a package has no wheel for this Python and machine: give the program a git repository as its source",
    ),
    (r"not found in the package registry|has no version|there is no version", "the package index has no such version"),
)


def explain(output: str) -> str:
    """What a failed run of uv means; empty if that is unknown.

    Parameters
    ----------
    output
        What it printed.
    """
    return next((meaning for pattern, meaning in _SYMPTOMS if re.search(pattern, output)), "")
