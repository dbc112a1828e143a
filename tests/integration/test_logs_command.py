"""`puffin-fleet logs` on hosts behind a real sshd: rotation, connections that are cut, hosts that are dead."""

from __future__ import annotations

import collections
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.commands import Ran
from tests.integration.logging_fleet import LoggingFleet
from tests.lab.fixtures_ssh import HostFactory
from tests.lab.worker import until

LINES = 3000
WRITER = f"""
import logging, sys, time
from logging.handlers import RotatingFileHandler
handler = RotatingFileHandler(sys.argv[1], maxBytes=8000, backupCount=200)
for number in range({LINES}):
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%03dZ" % (now % 1 * 1000)
    text = f"{{stamp}} INFO    {{sys.argv[2]}} - number {{number}} of it"
    handler.emit(logging.LogRecord("", 20, "", 0, text, (), None))
    time.sleep(0.002)
"""


@pytest.fixture
def logs(ssh_hosts: HostFactory, tmp_path: Path) -> LoggingFleet:
    return LoggingFleet([ssh_hosts("node1", base="pool"), ssh_hosts("node2", base="pool")], tmp_path)


def stamped(second: int, worker: str, level: str, message: str, calculation: str = "-") -> str:
    return f"2026-11-22T12:00:{second:02d}.000Z {level:7} {worker} {calculation} {message}"


def test_following_through_rotation_and_a_connection_that_is_cut_loses_and_doubles_nothing(
    logs: LoggingFleet, closed_port: int, processes: Callable[[subprocess.Popen[bytes]], subprocess.Popen[bytes]]
) -> None:
    logs.add_dead("node3", closed_port)
    writers = []
    for host in ("node1", "node2"):
        words = [sys.executable, "-c", WRITER, logs.directory(host) / f"{host}-1.log", f"{host}-1"]
        writers.append(processes(subprocess.Popen(words)))
    until(lambda: all((logs.directory(host) / f"{host}-1.log").exists() for host in ("node1", "node2")), "the writers")
    process = processes(logs.start("-f", "--since", "1h"))
    for times, count in enumerate((300, 900, 1500), 1):
        until(lambda count=count: logs.out.count(" node1-1 - number") > count, "lines")
        for session in logs.hosts["node1"].sessions():
            with contextlib.suppress(psutil.NoSuchProcess):
                # sshd first: it would still tell that the program on the host was killed.
                for each in [session, *session.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
        until(lambda times=times: logs.err.count("node1 is connected again") >= times, "a new connection")
    for writer in writers:
        assert writer.wait(timeout=120) == 0
    until(lambda: all(f"{host}-1 - number {LINES - 1} of it" in logs.out for host in logs.hosts), "the last lines")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    found = collections.Counter(line.split(" ", 1)[1].split(maxsplit=1)[1] for line in logs.out.splitlines())
    expected = {f"{host}-1 - number {number} of it": 1 for host in logs.hosts for number in range(LINES)}
    assert dict(found) == expected
    assert len(list(logs.directory("node1").glob("*.log.*"))) > 5
    assert logs.err.count("node3 failed at connect") == 1
    assert logs.err.count("node1 is away: the connection was lost") == logs.err.count("node1 is connected again") > 0


@pytest.fixture
def processes() -> Iterator[Callable[[subprocess.Popen[bytes]], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def keep(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        started.append(process)
        return process

    yield keep
    for process in started:
        process.kill()
        process.wait()


def test_lines_of_hosts_are_merged_and_a_dead_host_is_named(logs: LoggingFleet, closed_port: int) -> None:
    logs.add_dead("node3", closed_port)
    traceback = r"Traceback:\n  File x\nValueError: \x1b[31mred"
    logs.write("node1", "node1-1.log", stamped(1, "node1-1", "INFO", "one"), stamped(4, "node1-1", "ERROR", traceback))
    logs.write(
        "node2", "node2-1.log", stamped(2, "node2-1", "INFO", "two"), stamped(3, "node2-1", "WARNING", "\033[1m")
    )

    def look() -> Ran | None:
        """Nobody waits for a host that takes 4 s, as on a busy machine; the dead one takes no time."""
        ran = logs.run()
        return None if "the others are shown meanwhile" in ran.err else ran

    ran = until(look, "quick answers", patience_s=90)
    assert [line.split()[0][-7:-5] for line in ran.out.splitlines()] == ["01", "02", "03", "04"]
    assert "\033" not in ran.out
    assert ran.code == 1
    assert "node3 failed at connect" in ran.err

    found = logs.run("--json", "--level", "error", "--host", "node1").ok().json()
    assert [(each["host"], each["worker"], each["level"], each["time"]) for each in found] == [
        ("node1", "node1-1", "ERROR", "2026-11-22T12:00:04.000+00:00")
    ]
    assert found[0]["message"].split("\n")[1:] == ["  File x", r"ValueError: \x1b[31mred"]
    ran = logs.run("--host", "node[12]", "--calculation", "6" * 24)
    assert (ran.code, ran.out) == (0, "")
    assert "All hosts are asked, since the database does not say where it ran" in ran.err
    assert "Nothing was written that matches." in ran.err


def test_as_json_every_line_is_json(logs: LoggingFleet) -> None:
    logs.write("node1", "node1-1.out", "Traceback (most recent call last):", "  File", "OSError: no", "restarted")
    ran = logs.run("--json", "--host", "node1").ok()
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert [(each["file"], each["level"], len(each["text"].splitlines())) for each in found] == [
        ("out", "", 3),
        ("out", "", 1),
    ]


def test_several_workers_can_be_named(logs: LoggingFleet) -> None:
    for number in (1, 2, 3):
        logs.write("node1", f"node1-{number}.log", stamped(number, f"node1-{number}", "INFO", "it"))
    ran = logs.run("--host", "node1", "--worker", "node1-1", "--worker", "node[1]-3", "--json").ok()
    assert [each["worker"] for each in ran.json()] == ["node1-1", "node1-3"]
