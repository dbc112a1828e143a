"""What `--json` prints is an interface: every verb is run, and held against fleet/shapes.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from fleet.cli import cli
from fleet.deployment.lock import LockTarget, hold, new_deed
from fleet.reach.local import LocalRemote
from fleet.shapes import PRINTED, WorkerFinding
from puffin.cli import cli as puffin
from tests.acceptance.here import Here, until
from tests.tools.shapes import problems
from tests.unit.test_help import EVERY_VERB

WATER = "3\ncharge=0\nO 0 0 0\nH 0 0 0.96\nH 0.93 0 -0.24\n"


class Tour:
    """Runs verbs in this process, which is quicker, and remembers which."""

    def __init__(self, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PUFFIN_FLEET", str(here.file))
        self._here = here
        self.verbs: set[str] = set()
        here.content["defaults"]["workers"]["count"] = 1
        here.content["update"]["min_healthy_time"] = 0
        here.content["hooks"] = {"queue_empty": "/bin/true"}
        self.release("first")

    def release(self, name: str) -> None:
        """Have another release deployed next: the same under another name."""
        alias = self._here.place / name
        alias.symlink_to(sys.prefix)
        self._here.content["release"]["path"] = str(alias)
        self._here.file.write_text(yaml.safe_dump(self._here.content))

    def __call__(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """The records that a verb prints."""
        ran = CliRunner().invoke(cli, words, standalone_mode=False)
        verb = " ".join(words[:2]) if words[0] == "queue" else words[0]
        assert ran.exception is None, (words, ran.exception, ran.output)
        assert int(ran.return_value or 0) == code, (words, ran.output)
        records = [json.loads(line) for line in ran.stdout.splitlines()]
        assert records, f"{verb} printed nothing"
        found = [problem for record in records for problem in problems(record, PRINTED[verb], verb)]
        assert not found, "\n".join([*found, "correct fleet/shapes.py, then run: python docs/reference.py"])
        self.verbs.add(verb)
        return records


def test_every_verb_prints_what_is_documented(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tour = Tour(here, monkeypatch)
    put_in_and_look(tour, tmp_path)
    tour("plan", "--diff", "--json")
    tour("deploy", "--yes", "--json")
    before = here.workers()["here-1"]["pid"]
    tour("restart", "--when-idle", "--json")
    (calculation,) = here.submit(0)
    until(lambda: "complete" in [each["status"] for each in here.calculations()], "the calculation to end")
    # While it is between two lives `check` may find it down.
    until(lambda: here.workers()["here-1"]["pid"] != before, "the worker to be back")
    tour("start", "--json")
    look(tour, tmp_path, calculation)
    change_while_drained(tour, here)
    tour("destroy", "--now", "--yes", "--json")
    with_json = {" ".join(words) for words, verb in EVERY_VERB if any("--json" in each.opts for each in verb.params)}
    assert with_json == set(PRINTED)
    # The demo has a test of its own.
    assert tour.verbs == with_json - {"demo"}


def put_in_and_look(tour: Tour, place: Path) -> None:
    """Calculations that nobody takes, since the workers of this fleet only sleep."""
    (place / "water.xyz").write_text(WATER)
    model = ("--job", "scine_single_point", "--program", "sparrow", "--method", "PM6", "--force")
    (submitted,) = tour("queue", "submit", str(place / "water.xyz"), *model, "--json")
    tour("queue", "hold", submitted["id"], "--yes", "--json")
    tour("queue", "release", submitted["id"], "--yes", "--json")
    tour("queue", "list", "--json")
    tour("queue", "cancel", submitted["id"], "--yes", "--json")
    tour("queue", "requeue", submitted["id"], "--yes", "--json")
    tour("queue", "hold", submitted["id"], "--yes", "--json")


def look(tour: Tour, place: Path, calculation: str) -> None:
    tour("queue", "status", "--json")
    tour("queue", "show", calculation, "--json")
    tour("queue", "results", calculation, "--json")
    tour("status", "--json")
    tour("status", "--deep", "--json")
    tour("events", "--json")
    tour("logs", "--json")
    tour("collect", "-o", str(place / "collected"), "--yes", "--json")
    tour("history", "--json")
    tour("notify", "--try", "--json")
    tour("inventory", "--json")
    tour("check", "--json")
    tour("ps", "--json")
    tour("exec", "--json", "--", "true")
    tour("scale", "here", "2", "--json")
    tour("prune", "--dry-run", "--json")


def change_while_drained(tour: Tour, here: Here) -> None:
    """Nobody has to wait for workers that do not run."""
    tour("drain", "here", "--why", "new disk", "--now", "--yes", "--json")
    tour.release("second")
    tour("deploy", "--yes", "--json")
    tour("rollback", "--yes", "--json")
    with hold({"here": LocalRemote("here", sys.executable)}, {"here": LockTarget(str(here.root))}, new_deed("a"), 0, 1):
        tour("unlock", "--yes", "--json")
    tour("stop", "--yes", "--json")
    tour("resume", "here", "--json")


def test_the_check_of_a_worker_prints_what_is_documented(here: Here, tmp_path: Path) -> None:
    file = tmp_path / "puffin.yaml"
    file.write_text(f"database: {{uri: '{here.database.uri}'}}\nprograms: {{}}\n")
    ran = CliRunner().invoke(puffin, ["-c", str(file), "check", "--json"], standalone_mode=False)
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(records) > 3
    assert [problem for record in records for problem in problems(record, WorkerFinding)] == []
