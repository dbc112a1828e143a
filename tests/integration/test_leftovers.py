"""What is left of a worker's jobs is ended, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from puffin.leftovers import MARK

# Processes of the worker's own come and go all the time while it looks for those of an earlier one.
_BUSY = """
import os, sys, threading, time
from puffin.leftovers import MARK, end_leftovers

ended, looking = [], True

def fork_and_fork():
    while looking:
        children = []
        for _ in range(5):
            child = os.fork()
            if child == 0:
                time.sleep(0.05)
                os._exit(0)
            children.append(child)
        ended.extend(os.waitpid(child, 0)[1] for child in children)

thread = threading.Thread(target=fork_and_fork)
thread.start()
strays = 0
while len(ended) < 200:
    strays += end_leftovers(os.environ[MARK])
looking = False
thread.join()
print(strays, set(ended))
"""


def test_who_looks_for_leftovers_spares_what_it_is_just_forking(tmp_path: Path) -> None:
    """Else a worker that starts kills its first job before that has begun."""
    environment = {**os.environ, MARK: str(tmp_path / "worker.pid")}
    done = subprocess.run([sys.executable, "-c", _BUSY], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "0 {0}", done.stderr


def test_a_marked_process_of_somebody_else_is_ended(tmp_path: Path) -> None:
    environment = {**os.environ, MARK: str(tmp_path / "worker.pid")}
    stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    look = "import os; from puffin.leftovers import MARK, end_leftovers; print(end_leftovers(os.environ[MARK]))"
    try:
        done = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "1\n"
        assert stray.wait(10) == -9
    finally:
        stray.kill()
        stray.wait()
