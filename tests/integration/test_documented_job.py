"""docs/writing-a-job.md: its example is examples/job, and a worker runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.here import Here, until
from tests.lab.fixtures_database import Database
from tests.lab.worker import Queue, Workers

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "job"


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs" / "writing-a-job.md").read_text(encoding="utf-8")
    shown = re.findall(r'```\w+ title="([\w.]+)"\n(.*?)```', page, re.DOTALL)
    assert len(shown) == 3
    for name, code in shown:
        assert code.strip() == (EXAMPLE / name).read_text(encoding="utf-8").strip(), name


def test_a_worker_runs_it(tmp_path: Path, workers: Workers, queue: Queue, database: Database) -> None:
    install(tmp_path / "jobs")
    workers.python_path = str(tmp_path / "jobs")
    submitted = subprocess.run(
        [sys.executable, EXAMPLE / "submit.py", database.uri, database.name], capture_output=True, text=True, check=True
    )
    wrong = queue.submit("harmonic_frequency", {"force_constant": 575.0, "mass_1": 1.0}, disk=0.1)
    worker = workers.start(daemon={"jobs": ["harmonic_frequency"]})
    done = queue.wait(submitted.stdout.strip())
    # Hydrogen: 4401 1/cm, as measured; the force constant is rounded.
    assert float(done["raw_output"]) == pytest.approx(4401, rel=0.002)
    failed = queue.wait(wrong, "failed")
    assert failed["comment"] == "the calculation lacks the setting 'mass_2'"
    worker.stop()


@pytest.mark.soak
def test_a_fleet_runs_it_from_a_folder_that_the_hosts_share(tmp_path: Path, here: Here) -> None:
    install(tmp_path / "jobs")
    here.content["defaults"]["environment"] = {"PYTHONPATH": str(tmp_path / "jobs")}
    here.content["defaults"]["puffin"]["daemon"]["jobs"] = ["harmonic_frequency"]
    here.run("deploy", "--yes").ok()
    assert {tuple(each["jobs"]) for each in here.workers().values()} == {("harmonic_frequency",)}
    words = [sys.executable, EXAMPLE / "submit.py", here.database.uri, here.database.name]
    subprocess.run(words, check=True, capture_output=True)
    until(lambda: here.all_are("complete"), "the calculation")


def install(place: Path) -> None:
    """As the page says, but without what the environment of the tests has already."""
    words = ["pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(place), str(EXAMPLE)]
    for offline in (["--offline"], []):  # the build backend is in uv's cache, or not yet
        done = subprocess.run([uv(), *words, *offline], capture_output=True, text=True, env=os.environ)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


def uv() -> str:
    return str(Path(sys.executable).with_name("uv"))
