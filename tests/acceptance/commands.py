"""Runs the installed commands as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    def json(self) -> list[dict[str, Any]]:
        """Its output, JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def ok(self) -> Ran:
        """The same, after a look at its exit code."""
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        return self


def puffin_fleet(*words: object, home: Path | None = None, timeout: float = 200) -> Ran:
    """Run ``puffin-fleet``; ``home`` keeps the user's own SSH configuration out of it."""
    environment = {**os.environ, "COLUMNS": "160"}
    if home is not None:
        environment["HOME"] = str(home)
    done = subprocess.run(
        [str(BIN / "puffin-fleet"), *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    return Ran(done.returncode, done.stdout, done.stderr)
