"""`logs -f` for minutes, from hosts whose logs rotate all the time and one of which is cut off and healed."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.commands import BIN
from tests.acceptance.here import until
from tests.lab.laboratory import Laboratory, hosts_yaml
from tests.lab.machine import USER

SECONDS = float(os.environ.get("PUFFIN_FOLLOW_SECONDS", "600"))
HOSTS = ("alpha", "beta", "gamma")
WORKERS = [f"{host}-{number}" for host in HOSTS for number in (1, 2)]
LOGS = f"/home/{USER}/.puffin-fleet/laboratory/hosts/{{host}}/log"
PAUSE_S = 0.05
SIZE = 18_000
"""Bytes of a log before it is rotated, every 15 s or so; as five old files are kept, a cut must end within 75 s."""

# As a worker writes its log: the same handler, with as many old files, but smaller ones.
WRITER = """
import logging, pathlib, sys, time
from logging.handlers import RotatingFileHandler
path, lines, pause, size = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
path.parent.mkdir(parents=True, exist_ok=True)
handler = RotatingFileHandler(path, maxBytes=size, backupCount=5)
for number in range(lines):
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%03dZ" % (now % 1 * 1000)
    text = f"{stamp} INFO    {path.stem} - number {number} of it"
    handler.emit(logging.LogRecord("", 20, "", 0, text, (), None))
    time.sleep(pause)
"""


@pytest.fixture
def file(laboratory: Laboratory, tmp_path: Path) -> Path:
    laboratory.up(HOSTS)
    content = hosts_yaml(laboratory, "laboratory", {"uri": "mongodb://127.0.0.1:1", "names": ["none"]})
    content["defaults"] |= {"workers": {"cores": 1}}
    path = tmp_path / "hosts.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def followed(file: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command, with what it says in files of its own."""
    words = [str(BIN / "puffin-fleet"), "logs", str(file), "-f", "--since", "1h"]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    yield process
    process.kill()
    process.wait()


def write(laboratory: Laboratory, worker: str, lines: int) -> subprocess.Popen[bytes]:
    """Have a worker's log written on its host."""
    host = worker.partition("-")[0]
    path = f"{LOGS.format(host=host)}/{worker}.log"
    words = ["python3", "-", path, str(lines), str(PAUSE_S), str(SIZE)]
    process = subprocess.Popen(laboratory[host].ssh_words(*words), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(WRITER.encode())
    process.stdin.close()
    return process


def lines_of(path: Path, worker: str) -> list[int]:
    """The numbers of a worker's lines, in their order."""
    whole, _, _ = path.read_text().rpartition("\n")  # the last line may be on its way
    found = [line.split() for line in whole.splitlines()]
    return [int(words[5]) for words in found if words[2] == worker]


@pytest.mark.soak
@pytest.mark.timeout(3 * SECONDS + 300)
def test_no_line_is_lost_or_doubled(
    laboratory: Laboratory, file: Path, followed: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    lines = round(SECONDS / PAUSE_S)
    writers = {worker: write(laboratory, worker, lines) for worker in WORKERS}
    until(lambda: all(lines_of(out, worker) for worker in WORKERS), "the first lines")
    time.sleep(SECONDS / 5)

    # For so long that the connection is given up, and the logs rotate meanwhile.
    laboratory.cut("beta")
    until(lambda: "beta is away" in err.read_text(), "the notice", 90)
    before = len(lines_of(out, "gamma-1"))
    until(lambda: len(lines_of(out, "gamma-1")) > before + 100, "the other hosts to go on")
    laboratory.heal("beta")
    until(lambda: "beta is connected again" in err.read_text(), "the connection", 90)
    # So short that only its packets come late.
    time.sleep(SECONDS / 5)
    laboratory.cut("alpha")
    time.sleep(3)
    laboratory.heal("alpha")

    for writer in writers.values():
        # A connection of its own, which a cut ends as well; the writer goes on.
        writer.wait(timeout=SECONDS + 120)
    last = lines - 1
    until(lambda: all(lines_of(out, worker)[-1] == last for worker in WORKERS), "the last lines", SECONDS + 120)
    time.sleep(2)  # what is doubled may come late
    followed.send_signal(signal.SIGINT)
    assert followed.wait(timeout=20) == 130
    counted = {worker: len(lines_of(out, worker)) for worker in WORKERS}
    print(f"{counted}, {len(out.read_bytes())} bytes; {err.read_text()}")
    for worker in WORKERS:
        found = lines_of(out, worker)
        doubled = [number for number, count in collections.Counter(found).items() if count > 1]
        assert (doubled, found) == ([], list(range(lines))), worker
    assert len(out.read_text().splitlines()) == lines * len(WORKERS)
    assert "lines may be missing" not in err.read_text()
    old = laboratory.ssh("beta", "ls", LOGS.format(host="beta")).stdout.split()
    assert {"beta-1.log.1", "beta-1.log.5"} <= set(old), "it was rotated"
