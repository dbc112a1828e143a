"""Runs the installed commands as a user would."""

from __future__ import annotations

import json
import os
import pty
import select
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


def on_terminal(width: int, *words: object, answer: str = "", **environment: str) -> tuple[str, int]:
    """Run the command on a terminal of its own; return what it showed, and its exit code."""
    master, slave = pty.openpty()
    if answer:  # before anything is shown, so that its echo never stands in the middle of that
        os.write(master, f"{answer}\n".encode())
    process = subprocess.Popen(
        [str(BIN / "puffin-fleet"), *map(str, words)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(width), "LINES": "40", **environment},
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    while select.select([master], [], [], 60)[0]:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    return shown.decode().replace("\r", ""), process.wait(60)
