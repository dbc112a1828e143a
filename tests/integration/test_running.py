"""A command of the operator's on a host, over SSH as well as without."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from fleet.errors import RemoteError
from fleet.hosts.inventory import Fleet, parse_inventory
from fleet.operation.running import Command, list_processes, run_command
from fleet.reach.remote import Remote
from tests.acceptance.here import until

FLEET: Fleet = parse_inventory(
    "fleet: f\ndatabase: {uri: 'mongodb://localhost', names: [a]}\nrelease: {package: x}\n"
    "hosts: {node1: {workers: {cores: 1}}}\n",
    "hosts.yaml",
)


def test_it_says_what_it_says_and_how_it_ended(remote: Remote) -> None:
    said: list[tuple[str, str]] = []
    text = "printf '%s|' \"$@\"; cat; echo oops >&2; exit 7"
    words = ("/bin/sh", "-c", text, "sh", "a  b", "$HOME", "ü", "'\"")
    ended = run_command(FLEET, FLEET.hosts[0], remote, Command(words), lambda *heard: said.append(heard))
    assert (ended.status, ended.timed_out) == (7, False)
    assert "".join(text for stream, text in said if stream == "out") == "a  b|$HOME|ü|'\"|"
    assert "".join(text for stream, text in said if stream == "err") == "oops\n"
    assert remote.round_trips == 1


def test_what_it_leaves_behind_neither_holds_it_up_nor_stays(remote: Remote) -> None:
    mark = f"{time.time_ns() % 10**9}.25"
    command = Command((f"sleep {mark} & echo begun",), shell=True)
    ended = run_command(FLEET, FLEET.hosts[0], remote, command, lambda *_: None)
    assert ended.ok
    until(lambda: not _sleeping(mark), "what it left to be gone")


def test_it_ends_with_its_time(remote: Remote) -> None:
    ended = run_command(FLEET, FLEET.hosts[0], remote, Command(("sleep", "600"), timeout_s=0.3), lambda *_: None)
    assert ended.timed_out
    assert not ended.ok


def test_it_ends_when_the_connection_does(remote: Remote, request: pytest.FixtureRequest) -> None:
    if "local" in request.node.name:
        pytest.skip("there is no connection that could end")
    mark = f"{time.time_ns() % 10**9}.75"

    def run() -> None:
        with pytest.raises(RemoteError):
            run_command(FLEET, FLEET.hosts[0], remote, Command(("sleep", mark)), lambda *_: None)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: bool(_sleeping(mark)), "it to run")
    remote.close()
    until(lambda: not _sleeping(mark), "it to be gone")
    thread.join(20)
    assert not thread.is_alive()


def test_a_worker_that_is_not_there(remote: Remote) -> None:
    with pytest.raises(RemoteError, match="there is no worker node1-9"):
        run_command(FLEET, FLEET.hosts[0], remote, Command(("true",), as_worker="node1-9"), lambda *_: None)
    assert list_processes(FLEET, FLEET.hosts[0], remote) == ()


def _sleeping(mark: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", mark]]
