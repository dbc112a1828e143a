"""Programs that are installed by other means and given by their ``root``."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.programs.program import Program

_LONGEST_TRIAL_S = 120.0
_SHOWN_LINES = 3


@dataclass(frozen=True)
class Trial:
    """A run of the program that shows whether it works.

    Parameters
    ----------
    success
        Regular expression that its output matches if it does.
    version
        Regular expression whose first group is its version.
    arguments
        Of the command line.
    files
        Contents of files that must be there, by name.
    stdin
        Its standard input.
    """

    success: str
    version: str
    arguments: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""


class ExternalProgram(Program):
    """A program that SCINE's calculators start; they find it through an environment variable."""

    variable: ClassVar[str] = ""
    """The variable."""
    executables: ClassVar[tuple[str, ...]] = ()
    """Where the program may be below ``root``, the best first."""
    trial: ClassVar[Trial]

    def install(self, repo_dir: str, install_dir: str, ncores: int) -> None:
        """Nothing is installed: the program has to be in its ``root``."""
        self.executable()

    def executable(self) -> Path:
        """The program's file.

        Raises
        ------
        ProgramError
            It is not there.
        """
        if not self.root:
            present = os.environ.get(self.variable, "")
            if present:
                return self._from_variable(present)
            raise ProgramError(f"programs.{self.name}.root: name the folder in which {self.name} is installed")
        for name in self.executables:
            candidate = Path(self.root) / name
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return candidate
        expected = " or ".join(self.executables)
        raise ProgramError(f"programs.{self.name}.root: {self.root} has no program {expected}")

    def setup_environment(
        self, config: Configuration, env_paths: MutableMapping[str, str], env_vars: MutableMapping[str, str]
    ) -> None:
        """Tell SCINE's calculators where the program is, if it is where ``root`` says."""
        if self.root and not self.missing():
            env_vars.update(self.variables())

    def variables(self) -> dict[str, str]:
        """The variables that the program, and SCINE in order to find it, need."""
        return {self.variable: str(self.executable())}

    def missing(self) -> str:
        """Whether the program's file is there."""
        try:
            self.executable()
        except ProgramError as error:
            return str(error)
        return ""

    def check_install(self) -> None:
        """Run the program on something tiny."""
        self.trial_output  # noqa: B018 - whether it can be had is the question

    def found_version(self) -> str:
        """The version that the program prints when it is run."""
        found = re.search(self.trial.version, self.trial_output)
        return found[1] if found else ""

    def _from_variable(self, value: str) -> Path:
        path = Path(value)
        if not path.is_file():
            raise ProgramError(f"{self.variable} names no file: {value}")
        return path

    @cached_property
    def trial_output(self) -> str:
        """What the program printed when it was tried.

        Raises
        ------
        ProgramError
            It is not there, or does not work.
        """
        executable = self.executable()
        with tempfile.TemporaryDirectory(prefix=f"puffin-{self.name}-") as directory:
            for name, content in self.trial.files.items():
                (Path(directory) / name).write_text(content, encoding="ascii")
            output = self._run(executable, directory)
        if not re.search(self.trial.success, output):
            tail = " / ".join([line.strip() for line in output.splitlines() if line.strip()][-_SHOWN_LINES:])
            raise ProgramError(
                f"{executable} was run and did not work; it printed: {tail or 'nothing'}. "
                f"Run it by hand to see more, or correct programs.{self.name}.root"
            )
        return output

    def _run(self, executable: Path, directory: str) -> str:
        variables = self.variables() if self.root else {}
        # Some programs start their parts through the PATH.
        variables["PATH"] = f"{executable.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        try:
            done = subprocess.run(
                [str(executable), *self.trial.arguments],
                cwd=directory,
                env={**os.environ, **variables, "OMP_NUM_THREADS": "1"},
                input=self.trial.stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_LONGEST_TRIAL_S,
                check=False,
            )
        except OSError as error:
            raise ProgramError(f"{executable} cannot be started: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise ProgramError(f"{executable} did not end within {_LONGEST_TRIAL_S:.0f} s on one tiny input") from error
        return done.stdout
