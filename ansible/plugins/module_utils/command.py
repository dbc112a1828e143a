# Part of Puffin Fleet, under the BSD 3-Clause License; see LICENSE.
"""The command ``puffin-fleet``: where it is, and what it says.

Ansible may well run in an environment of its own, so nothing of Puffin Fleet is imported: its command is the interface.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

VARIABLE = "PUFFIN_FLEET_EXECUTABLE"
DONE, FAILED, USAGE, LOCKED = 0, 1, 2, 4


class CommandError(Exception):
    """The command is missing, or did not do what it was asked for; the message says what to do."""


class Said:
    """How a command ended, and what it said.

    Parameters
    ----------
    code
        Its exit code.
    out, err
        Its standard output and standard error.
    """

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    def records(self) -> list[dict]:
        """The JSON lines of its output."""
        found = []
        for line in self.out.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                found.append(record)
        return found

    def complaint(self) -> str:
        """What it said on standard error, without the lines that tell how far it is."""
        return self.err.strip() or f"it said nothing and ended with exit code {self.code}"


def find(executable: str | None) -> str:
    """Find the command: as named, else by the environment, on the PATH, or beside the Python that runs this.

    Parameters
    ----------
    executable
        A path, or a name on the PATH; None where nobody named one.

    Raises
    ------
    CommandError
        It is nowhere.
    """
    named = executable or os.environ.get(VARIABLE)
    if named:
        found = shutil.which(pathlib.Path(named).expanduser())
        if found is None:
            raise CommandError(f"there is no command {named}: correct the option 'executable' or ${VARIABLE}")
        return found
    beside = pathlib.Path(sys.executable).parent
    found = shutil.which("puffin-fleet") or shutil.which("puffin-fleet", path=beside)
    if found is None:
        raise CommandError(
            f"the command puffin-fleet was not found on the PATH nor in {beside}: install it with "
            f"'pip install puffin-fleet', or name it with the option 'executable' or ${VARIABLE}"
        )
    return found


def run(words: list[str]) -> Said:
    """Run the command to its end; it is never asked anything.

    Parameters
    ----------
    words
        The command line.

    Raises
    ------
    CommandError
        It cannot be started.
    """
    # Ansible may run under an environment that Python has prepared for itself alone.
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**environment, "NO_COLOR": "1"},
            check=False,
        )
    except OSError as error:
        raise CommandError(f"{words[0]} cannot be started: {error.strerror}") from error
    return Said(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
