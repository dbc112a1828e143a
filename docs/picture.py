"""Makes docs/demo.svg from the real program: runs the demo in a terminal of its own and draws what it printed."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 92, 40


def printed_by(*words: str) -> str:
    """What a command prints on a terminal, styles included; progress that was drawn over is left out."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(words, stdin=follower, stdout=follower, stderr=subprocess.DEVNULL, close_fds=True)
    os.close(follower)
    pieces = []
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # how Linux says that nobody has the other end any more
            break
        if not piece:
            break
        pieces.append(piece)
    process.wait()
    return b"".join(pieces).decode().replace("\r\n", "\n")


def main() -> None:
    command = Path(sys.executable).parent / "puffin-fleet"
    console = Console(record=True, width=COLUMNS, file=Path(os.devnull).open("w"))  # noqa: SIM115 - ends with us
    console.print("[bold]$ puffin-fleet demo[/]")
    console.print(Text.from_ansi(printed_by(str(command), "demo")))
    Path(__file__).with_name("demo.svg").write_text(console.export_svg(title="puffin-fleet demo"), encoding="utf-8")


if __name__ == "__main__":
    main()
