"""Fleets of which every host is this machine, with the environment that runs the tests."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fleet.watch.status import status_of
from puffin.documents import Model, Request
from puffin.settings import DatabaseSettings
from puffin.store import Store
from tests.acceptance.commands import BIN, Ran, puffin_fleet
from tests.lab.fixtures_database import Database
from tests.lab.sshd import end_processes
from tests.lab.worker import until as look_until


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for something that is asked of many processes: with more patience than for one, and asked less often."""
    look_until(condition, what, seconds, pause_s=0.1)


@dataclass(frozen=True)
class Aside:
    """A command that runs beside the test."""

    process: subprocess.Popen[bytes]
    place: Path

    @property
    def err(self) -> str:
        """What it has said so far."""
        return (self.place / "err").read_text(errors="replace")  # perhaps half a character yet

    @property
    def ran(self) -> Ran:
        """How it ended."""
        return Ran(self.process.wait(), (self.place / "out").read_text(), self.err)


@dataclass
class OnThisMachine:
    """A fleet whose hosts are all this machine, with the environment that runs the tests."""

    place: Path
    content: dict[str, Any]
    database: Database
    _gates: dict[str, Path] = field(default_factory=dict, init=False)

    @property
    def file(self) -> Path:
        return self.place / "hosts.yaml"

    @property
    def fleet(self) -> Path:
        return self.place / "base" / "day"

    def root_of(self, host: str) -> Path:
        return self.fleet / "hosts" / host

    def run(self, verb: str, *words: object) -> Ran:
        self.file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return puffin_fleet(verb, self.file, *words)

    def run_words(self, *words: object) -> Ran:
        """A verb whose first argument is not the file."""
        self.file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return puffin_fleet(*words)

    def submit(self, seconds: float, count: int = 1) -> list[str]:
        return self._put_in("sleep", [{"time": seconds}] * count)

    def _put_in(self, order: str, settings: Sequence[dict[str, Any]]) -> list[str]:
        store = Store(DatabaseSettings(uri=self.database.uri, name=self.database.name))
        requests = [Request(order, Model(), settings=each, memory=0.1, disk=0.1) for each in settings]
        try:
            return store.submit(self.database.name, [(None, request) for request in requests])
        finally:
            store.close()

    def submit_held(self, count: int = 1) -> list[str]:
        """Calculations that end when `let_go` says so: however slow the machine is, what comes meets them running."""
        gates = [self.place / f"let-go-{number}" for number in range(len(self._gates), len(self._gates) + count)]
        loops = [f"until test -e {shlex.quote(str(gate))}; do sleep 0.2; done" for gate in gates]
        ids = self._put_in("command", [{"program": "sh", "arguments": ["-c", loop]} for loop in loops])
        self._gates |= zip(ids, gates, strict=True)
        return ids

    def let_go(self, *ids: str) -> None:
        """Let these calculations end, or all that are held."""
        for id_ in ids or self._gates:
            self._gates[id_].touch()

    @contextlib.contextmanager
    def meanwhile(self, verb: str, *words: object, lets_go: Sequence[str] = ()) -> Iterator[Aside]:
        """Run a verb that waits for held calculations.

        At the end of the block, when it has to wait still, these are let go, or all; and the verb ends.
        """
        self.file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        place = Path(tempfile.mkdtemp(dir=self.place))
        with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
            process = subprocess.Popen(
                [str(BIN / "puffin-fleet"), verb, str(self.file), *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "COLUMNS": "160"},
            )
        aside = Aside(process, place)
        try:
            yield aside
            assert process.poll() is None, f"it did not wait: {aside.err}"
        finally:
            self.let_go(*lets_go)
            try:
                process.wait(120)
            finally:
                process.kill()
                process.wait()

    def calculations(self) -> list[dict[str, Any]]:
        with self.database.server.client() as client:
            return list(client[self.database.name]["calculations"].find())


class Here(OnThisMachine):
    """One host."""

    @property
    def root(self) -> Path:
        return self.root_of("here")

    def events(self) -> list[str]:
        with self.database.server.client() as client:
            found = client[self.database.name]["puffin_events"].find()
            return [
                f"{item['at']} {item['worker']} {item['kind']} {item['calculation']} {item['detail']}" for item in found
            ]

    def all_are(self, status: str) -> bool:
        return {item["status"] for item in self.calculations()} == {status}

    def workers(self) -> dict[str, dict[str, Any]]:
        """What `status --json` says, without the cost of a command: tests ask for it again and again."""
        store = Store(DatabaseSettings(uri=self.database.uri, name=self.database.name))
        try:
            fleet = self.content["fleet"]
            seen = status_of(store.registry.workers(fleet), store.server_time(), store.control.releases(fleet))
        finally:
            store.close()
        return {
            one.record.worker: {
                **dataclasses.asdict(one.record),
                "state": one.state,
                "wanted_release": one.wanted_release,
            }
            for one in seen
        }

    def states(self) -> set[str]:
        return {record["state"] for record in self.workers().values()}

    def running(self) -> list[str]:
        return [name for name, record in self.workers().items() if psutil.pid_exists(record["pid"])]


def fleet_on_this_machine(database: Database, place: Path, hosts: Sequence[str], workers: int) -> dict[str, Any]:
    """What its hosts.yaml says, with so many workers on each host."""
    return {
        "fleet": "day",
        "database": {"uri": database.uri, "names": [database.name]},
        "release": {"install": "path", "path": sys.prefix, "python": sys.executable},
        "defaults": {
            "base_dir": str(place / "base"),
            "boot": "none",  # this machine stays as it is
            "scratch": str(place / "scratch"),
            "reserve": {"cores": 0, "memory": 0},
            "workers": {"cores": 1, "memory": 1, "disk": 0.1, "count": workers},
            "puffin": {"daemon": {"cycle_time_in_s": 0.3, "commands": ["/bin/sh"], "jobs": ["command", "sleep"]}},
        },
        "update": {"min_healthy_time": "1s"},
        "hosts": {host: {"connection": "local"} for host in hosts},
    }


@pytest.fixture
def here(database: Database, tmp_path: Path) -> Iterator[Here]:
    yield Here(tmp_path, fleet_on_this_machine(database, tmp_path, ["here"], workers=2), database)
    end_processes(tmp_path)
