"""Runs the commands that install programs: everything they print goes to a log, failures name it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from puffin.errors import ProgramError

_SHOWN_LINES = 5


def _ignore(_line: str) -> None:
    return


@dataclass(frozen=True)
class Workshop:
    """What a program needs besides its settings in order to be installed.

    Parameters
    ----------
    log
        The file to append to.
    environment
        Variables set on top of the present ones.
    prefixes
        Installations of other programs that it may be built against.
    watch
        Called with each line that is printed.
    """

    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[Path, ...] = ()
    watch: Callable[[str], None] = _ignore

    def run(self, argv: Sequence[str], what: str, extra: Mapping[str, str] | None = None) -> None:
        """Run a command.

        Parameters
        ----------
        argv
            Program and arguments.
        what
            What it is to do, for the error: "build xtb".
        extra
            More variables.

        Raises
        ------
        ProgramError
            It cannot be started, or fails; with the last lines it printed and the path of the log.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        printed: list[str] = []
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {shlex.join(argv)}\n")
            log.flush()
            try:
                process = subprocess.Popen(
                    list(argv),
                    env={**os.environ, **self.environment, **(extra or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
            except OSError as error:
                raise ProgramError(f"cannot {what}: {argv[0]}: {error.strerror}. Install {argv[0]}.") from error
            with process:
                assert process.stdout is not None  # noqa: S101 - it was asked for above
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    self.watch(line.rstrip())
                    printed = [*printed[1 - _SHOWN_LINES :], line.rstrip()] if line.strip() else printed
        if process.returncode != 0:
            tail = "".join(f"\n    {line}" for line in printed)
            raise ProgramError(f"cannot {what}; everything that was printed is in {self.log}{tail}")

    def ask(self, argv: Sequence[str]) -> str | None:
        """Run a command whose answer is wanted.

        Parameters
        ----------
        argv
            Program and arguments.

        Returns
        -------
        str | None
            Its standard output without the white space around it; None if it failed.
        """
        try:
            done = subprocess.run(
                list(argv),
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None
