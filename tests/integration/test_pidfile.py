"""The lock that proves that a worker lives: at no time have two processes got it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TAKE_AND_LEAVE = """
import os, sys
from puffin.errors import DaemonError
from puffin.pidfile import PidFile
path, rounds, held = sys.argv[1], int(sys.argv[2]), 0
while held < rounds:
    file = PidFile(path)
    try:
        file.acquire()
    except DaemonError:
        continue
    held += 1
    os.close(os.open(path + ".held", os.O_CREAT | os.O_EXCL))
    os.unlink(path + ".held")
    file.release()
"""


def test_two_processes_never_have_it_at_once(tmp_path: Path) -> None:
    """Not even while the one before them lets it go: a file that was removed meanwhile proves nothing."""
    words = [sys.executable, "-c", TAKE_AND_LEAVE, str(tmp_path / "worker.pid"), "500"]
    running = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    complaints = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, "\n".join(complaints)
