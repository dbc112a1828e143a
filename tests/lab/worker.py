"""Workers as real processes, for tests that stop, kill, freeze and watch them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from puffin.cgroup import remove_leftovers
from puffin.documents import Model, Request
from puffin.settings import DatabaseSettings
from puffin.store import Store
from tests.lab.fixtures_database import Database

_ROOT = Path(__file__).resolve().parents[2]
_Found = TypeVar("_Found")
PATIENCE_S = 40.0


def until(look: Callable[[], _Found], what: str, patience_s: float = PATIENCE_S, pause_s: float = 0.02) -> _Found:
    """Look again and again until there is something to see; return it."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s in vain: {what}"
        time.sleep(pause_s)
    return found


def puffin() -> str:
    return str(Path(sys.executable).with_name("puffin"))


def plugin_path(directory: Path) -> str:
    """Make a distribution that offers the laboratory's jobs; return what to put into PYTHONPATH."""
    information = directory / "lab-1.0.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[puffin.jobs]\nlab = tests.lab.lab_jobs:kinds\n")
    return os.pathsep.join([str(directory), str(_ROOT)])


@dataclass(frozen=True)
class Place:
    """Where a worker has its files."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "puffin.yaml"

    @property
    def log(self) -> Path:
        return self.directory / "puffin.log"

    @property
    def stop(self) -> Path:
        return self.directory / "puffin.stop"

    @property
    def recycle(self) -> Path:
        return self.directory / "puffin.recycle"

    @property
    def jobs(self) -> Path:
        return self.directory / "jobs"


WITHOUT_SCINE = ("command", "lab_code", "lab_needs_orca", "lab_own_end", "sleep")
"""Jobs for which SCINE need not be loaded: that takes most of the time of a worker's start."""
ALL_JOBS: dict[str, Any] = {"jobs": []}
"""For section ``daemon``: every job that is installed, SCINE's too."""


def configuration(
    place: Place, database: Database, sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """A worker's configuration with everything in its own directory; ``sections`` are laid over it.

    Where these name no jobs it takes those that need no SCINE.
    """
    base: dict[str, dict[str, Any]] = {
        "daemon": {
            "uuid": place.directory.name,
            "job_dir": str(place.jobs),
            "pid_dir": str(place.directory),
            "log": str(place.log),
            "stop": str(place.stop),
            "recycle": str(place.recycle),
            "cycle_time_in_s": 0.2,
            "jobs": list(WITHOUT_SCINE),
        },
        "database": {"uri": database.uri, "name": database.name},
        "resources": {"cores": 1, "memory": 2.0, "disk": 1.0},
        "fleet": {"name": "lab", "host": f"host-of-{place.directory.name}", "worker": place.directory.name},
    }
    for name, keys in sections.items():
        base[name] = {**base.get(name, {}), **keys}
    return base


class Worker:
    """`puffin container` as a process."""

    def __init__(self, place: Place, environment: Mapping[str, str]) -> None:
        self.place = place
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uuid(self) -> str:
        return self.place.directory.name

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self, *, under: Sequence[str] = (), **environment: str) -> Worker:
        """Start it, perhaps by way of a command that becomes it."""
        with (self.place.directory / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [*under, puffin(), "-c", str(self.place.config), "container"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment, **environment},
                cwd=self.place.directory,
            )
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        return self.process.wait(patience_s)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    @property
    def log(self) -> str:
        return self.place.log.read_text() if self.place.log.exists() else ""

    @property
    def console(self) -> str:
        return (self.place.directory / "console").read_text()

    def below(self) -> list[psutil.Process]:
        """All processes below the worker's."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def forkserver(self) -> psutil.Process:
        def look() -> psutil.Process | None:
            found = [process for process in self.below() if any("forkserver" in word for word in _words(process))]
            return min(found, key=lambda process: process.create_time(), default=None)

        return until(look, "the fork server")

    def marked(self) -> list[psutil.Process]:
        """Every process of the worker's jobs, wherever it hangs in the tree."""
        return [
            process
            for process in psutil.process_iter()
            if (mark := _mark(process)) and Path(mark).parent == self.place.directory
        ]

    def is_gone(self) -> None:
        """Wait until nothing is left of it: the fork server notices the end of its worker by itself."""
        until(lambda: not self.marked(), "the processes of the worker to end")

    def end(self) -> None:
        """Leave nothing running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for process in self.marked():
            with contextlib.suppress(psutil.Error):
                process.kill()
        remove_leftovers(str(self.place.directory / f"{self.uuid}.pid"), lambda _: False)


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _mark(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get("PUFFIN_PID_FILE", "")
    return ""


class Queue:
    """A database of calculations as a test sees it."""

    def __init__(self, database: Database) -> None:
        self.name = database.name
        self.client = database.server.client()
        self.store = Store(DatabaseSettings(uri=database.uri, name=database.name), has_pulse=True)

    def close(self) -> None:
        self.store.close()
        self.client.close()

    @property
    def documents(self) -> Any:
        return self.client[self.name]["calculations"]

    def submit(self, order: str, settings: Mapping[str, Any] | None = None, **request: Any) -> str:
        memory = request.pop("memory", 0.5)
        wanted = Request(order, Model(**request.pop("model", {})), settings=settings or {}, memory=memory, **request)
        return self.store.submit(self.name, [(None, wanted)])[0]

    def sleep(self, seconds: float = 0.0, **request: Any) -> str:
        return self.submit("sleep", {"time": seconds}, **request)

    def code(self, code: str, **request: Any) -> str:
        return self.submit("lab_code", {"code": code, **request.pop("settings", {})}, **request)

    def __getitem__(self, id_: str) -> dict[str, Any]:
        from bson.objectid import ObjectId

        document = self.documents.find_one({"_id": ObjectId(id_)})
        assert document is not None
        return dict(document)

    def set(self, id_: str, **fields: Any) -> None:
        from bson.objectid import ObjectId

        self.documents.update_one({"_id": ObjectId(id_)}, {"$set": fields})

    def status(self, id_: str) -> str:
        return str(self[id_]["status"])

    def wait(self, id_: str, *statuses: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until a calculation is in one of the states (default: complete)."""
        wanted = statuses or ("complete",)

        def look() -> dict[str, Any] | None:
            document = self[id_]
            return document if document["status"] in wanted else None

        try:
            return until(look, f"{id_} to be {' or '.join(wanted)}", patience_s)
        except AssertionError as error:
            document = self[id_]
            seen = {key: document.get(key) for key in ("status", "executor", "comment", "puffin")}
            raise AssertionError(f"{error}; it is {seen}") from error

    def settled(self, id_: str) -> dict[str, Any]:
        """Wait until a calculation has ended and the worker has added what it used: a SCINE job ends first."""

        def look() -> dict[str, Any] | None:
            document = self[id_]
            return document if document["status"] in {"complete", "failed"} and document["runtime"] != "" else None

        return until(look, f"{id_} to be settled")

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.store.events.latest(1000) if event["kind"] == kind]


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def write_configuration(place: Place, content: Mapping[str, Any]) -> None:
    place.directory.mkdir(parents=True, exist_ok=True)
    place.config.write_text(yaml.safe_dump(content))


class Workers:
    """Makes workers and ends them all."""

    def __init__(self, directory: Path, database: Database) -> None:
        self._directory = directory
        self._database = database
        self.python_path = plugin_path(directory / "plugin")
        self._made: list[Worker] = []

    def make(self, name: str = "worker", /, **sections: Mapping[str, Any]) -> Worker:
        """Write a worker's configuration; it is not started."""
        # The directory's name is the uuid: it has to be unique on this machine.
        place = Place(self._directory / f"{name}-{os.getpid()}-{self._directory.name}")
        write_configuration(place, configuration(place, self._database, sections))
        worker = Worker(place, {"PYTHONPATH": self.python_path})
        self._made.append(worker)
        return worker

    def start(self, name: str = "worker", /, **sections: Any) -> Worker:
        return self.make(name, **sections).start()

    def end(self) -> None:
        for worker in self._made:
            worker.end()


def queue_of(database: Database) -> Iterator[Queue]:
    queue = Queue(database)
    yield queue
    queue.close()
