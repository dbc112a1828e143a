"""The Python interface of SCINE Puffin, called as a program of somebody's own would call it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puffin import __version__
from puffin.config import Configuration
from puffin.jobloop import slow_connect
from puffin.pidfile import PidFile
from puffin.settings import DatabaseSettings, Settings
from tests.lab.fixtures_database import Database
from tests.lab.worker import Queue, Worker, Workers, until

scine_database = pytest.importorskip("scine_database", reason="needs the extra 'scine'")

PROGRAM = """
import json, sys
from puffin.config import Configuration
from puffin.daemon import start_daemon, stop_daemon
from puffin.jobloop import check_setup, kill_daemon

config = Configuration()
config.load(sys.argv[1])
print(json.dumps({function}(config)))
"""


@pytest.fixture
def worker(workers: Workers) -> Iterator[Worker]:
    """The files of a worker that starts itself in the background, as by default."""
    made = workers.make(daemon={"jobs": ["command", "sleep"], "commands": ["/bin/sh"]}, fleet={"name": ""})
    yield made
    if owner := of(made).owner():
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner, 9)


def of(worker: Worker) -> PidFile:
    config = Configuration()
    config.load(str(worker.place.config))
    return PidFile(config["daemon"]["pid"])


def call(function: str, worker: Worker) -> str:
    words = [sys.executable, "-c", PROGRAM.format(function=function), str(worker.place.config)]
    done = subprocess.run(words, cwd=worker.place.directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_worker_is_checked_started_and_stopped(worker: Worker, queue: Queue, tmp_path: Path) -> None:
    *shown, accepted = call("check_setup", worker).splitlines()
    assert json.loads(accepted) == dict.fromkeys(("command", "sleep"), f"puffin-fleet {__version__}")
    assert shown[0] == "Resources:"
    assert shown[-1] == "   - sleep"

    call("start_daemon", worker)
    assert of(worker).owner()
    may_end = tmp_path / "may-end"
    loop = f"until test -e {shlex.quote(str(may_end))}; do sleep 0.1; done"
    calculation = queue.submit("command", {"program": "sh", "arguments": ["-c", loop]})
    queue.wait(calculation, "pending")
    call("stop_daemon", worker)
    # It finishes what it has, and takes no other.
    other = queue.sleep()
    may_end.touch()
    assert queue.wait(calculation)["puffin"]["attempt"] == 1
    until(lambda: of(worker).owner() is None, "the worker to end")
    assert queue.status(other) == "new"


def test_a_worker_that_is_killed_gives_its_calculation_back(worker: Worker, queue: Queue) -> None:
    call("start_daemon", worker)
    calculation = queue.sleep(600.0)
    queue.wait(calculation, "pending")
    call("kill_daemon", worker)
    assert of(worker).owner() is None
    assert (queue.status(calculation), queue[calculation]["executor"]) == ("new", "")


def config_of(**database: Any) -> Configuration:
    return Configuration.of(Settings(database=DatabaseSettings(**database)))


def test_a_manager_is_connected_to_the_first_database(database: Database, queue: Queue) -> None:
    queue.sleep()
    for config in (
        config_of(uri=database.uri, name=f"{database.name},another"),
        config_of(ip=database.host, port=database.port, name=database.name),
    ):
        manager = scine_database.Manager()
        slow_connect(manager, config)
        try:
            assert manager.get_database_name() == database.name
            assert manager.get_collection("calculations").count("{}") == 1
        finally:
            manager.disconnect()


def test_a_manager_waits_for_a_database_that_is_not_there_yet(
    own_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    server = own_database.server
    server.kill()

    class Manager(scine_database.Manager):  # type: ignore[misc,name-defined]
        """After its first failure the server comes back."""

        def connect(self) -> None:
            try:
                super().connect()
            finally:
                if not server.running:
                    server.start()

    manager = Manager()
    slow_connect(manager, config_of(uri=own_database.uri, name=own_database.name))
    assert manager.is_connected()
    manager.disconnect()
    assert "no connection to" in capsys.readouterr().err
