"""The first thing that anybody runs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from fleet.shapes import PRINTED
from tests.acceptance.commands import BIN, puffin_fleet
from tests.tools.shapes import problems

MOLECULES = 20


def demo_processes(place: Path) -> list[str]:
    """What runs from a demo in this directory; all that it starts has the directory in its command line."""
    mark = f"{place}/puffin-demo-"
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(mark in word for word in process.info["cmdline"] or ()):
            found.append(" ".join(process.info["cmdline"]))
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_demo_optimizes_all_molecules_and_leaves_nothing(place: Path) -> None:
    ran = puffin_fleet("demo", "--json").ok()
    results = {record["molecule"]: record for record in ran.json()}
    assert [problem for record in results.values() for problem in problems(record, PRINTED["demo"])] == []
    assert len(results) == MOLECULES
    assert {record["status"] for record in results.values()} == {"complete"}
    assert {record["worker"] for record in results.values()} <= {"here-1", "here-2"}
    # A molecule's PM6 energy is below that of the part of it that the other molecule is.
    assert (
        results["caffeine"]["energy_hartree"]
        < results["benzene"]["energy_hartree"]
        < results["water"]["energy_hartree"]
        < 0
    )
    assert list(place.iterdir()) == []
    assert demo_processes(place) == []


@pytest.mark.parametrize(("number", "seed"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 3)])
def test_an_interrupted_demo_leaves_nothing(place: Path, number: signal.Signals, seed: int) -> None:
    process = subprocess.Popen(
        [str(BIN / "puffin-fleet"), "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        wait_for_directory(place, process)
        # Anywhere between the start of the database and the first results.
        time.sleep(random.Random(f"{seed}{number.value}").uniform(0.0, 7.0))
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=150)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, (out, err)
    assert b"Traceback" not in err
    assert demo_processes(place) == []
    assert list(place.glob("puffin-demo-*")) == []


def wait_for_directory(place: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not list(place.glob("puffin-demo-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
