"""Runs many commands at the price of one: the interpreter that has imported everything forks for each of them.

``python -m tests.acceptance.forked`` reads a list of [words, width] from standard input; with a width the command has
a terminal that wide, else files. It prints a list of [exit code, standard output, standard error], where a terminal's
text counts as output.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fleet.cli import main as command
from tests.acceptance.commands import Ran

_ROWS = 24


def run_all(commands: Sequence[tuple[Sequence[str], int | None]], cwd: Path, **environment: str) -> list[Ran]:
    """Run commands one after the other."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.forked"],
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "TERM": "xterm", **environment},
    )
    return [Ran(*result) for result in json.loads(done.stdout)]


def main() -> None:
    import_verbs()
    results = [on_terminal(words, width) if width else to_files(words) for words, width in json.load(sys.stdin)]
    print(json.dumps(results))


def import_verbs() -> None:
    """All of them, and what they import when they are used."""
    from tests.unit import test_help

    assert test_help.EVERY_VERB
    import fleet.reach.ssh  # noqa: F401 - for its own imports


def to_files(words: Sequence[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            run(words)
        _, status = os.waitpid(child, 0)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
        return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def on_terminal(words: Sequence[str], width: int) -> tuple[int, str, str]:
    child, master = pty.fork()
    if child == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, width, 0, 0))
        run(words)
    shown = b""
    while True:
        try:
            part = os.read(master, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    _, status = os.waitpid(child, 0)
    os.close(master)
    return os.waitstatus_to_exitcode(status), shown.decode().replace("\r\n", "\n"), ""


def run(words: Sequence[str]) -> NoReturn:
    """As the installed command does."""
    try:
        command(list(words))
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(99)


if __name__ == "__main__":
    main()
