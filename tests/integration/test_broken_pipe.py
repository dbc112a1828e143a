"""`puffin-fleet ... | head`: whoever has read enough is not told that something failed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.acceptance.commands import BIN

HOSTS = """
fleet: pool
database: {uri: "mongodb://127.0.0.1:1", names: [none]}
defaults: {workers: {cores: 1, memory: 1}}
hosts: {here: {connection: local}}
"""


@pytest.mark.parametrize(
    ("words", "unread"),
    [
        (["--help"], "stdout"),
        (["schema"], "stdout"),
        (["inventory", "hosts.yaml"], "stdout"),
        (["exec", "-F", "hosts.yaml", "--", "echo", "a"], "stdout"),
        (["exec", "-F", "hosts.yaml", "--prefix", "--", "echo", "a"], "stdout"),
        (["exec", "-F", "hosts.yaml", "--prefix", "--", "no-such-program"], "stderr"),
    ],
)
def test_a_reader_that_is_gone_is_no_failure(tmp_path: Path, words: list[str], unread: str) -> None:
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, unread: writer}
        ran = subprocess.run(
            [BIN / "puffin-fleet", *words], cwd=tmp_path, check=False, timeout=60, text=True, **streams
        )
    finally:
        os.close(writer)
    assert (ran.returncode, ran.stdout or "", ran.stderr or "") == (0, "", "")


@pytest.mark.parametrize("words", [["--help"], ["schema"], ["exec", "-F", "hosts.yaml", "--", "echo", "a"]])
def test_output_that_cannot_be_written_is_said_in_a_line(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [BIN / "puffin-fleet", *words],
            cwd=tmp_path, check=False, timeout=60, text=True, stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (1, "cannot write the output: No space left on device\n")


def test_a_failure_stays_one_where_somebody_reads(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    ran = subprocess.run([BIN / "puffin-fleet", "exec", "-F", "hosts.yaml", "--", "false"], cwd=tmp_path, check=False)
    assert ran.returncode == 1


# Commands that change something go on ------------------------------------------------------------------

WORK = """
import sys
from pathlib import Path
from fleet.cli.streams import UnfailingOutput
output = UnfailingOutput()
for line in range(5000):
    print("a line for somebody", line)
sys.stdout.flush()
Path("done").write_text(str(output.failure))
"""


def work(place: Path, stdout: int) -> str:
    """Say much of some work; return what was noticed."""
    ran = subprocess.run(
        [sys.executable, "-c", WORK], cwd=place, check=False, timeout=60, stdout=stdout, stderr=subprocess.PIPE
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    return (place / "done").read_text()


def test_work_goes_on_where_nobody_reads_of_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert work(tmp_path, writer) == "None"
    finally:
        os.close(writer)


def test_work_goes_on_where_a_full_disk_takes_what_is_said_of_it(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        assert "No space left on device" in work(tmp_path, full.fileno())


def test_a_pipe_that_is_full_for_a_while_gets_everything(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got: list[bytes] = []
    with os.fdopen(reader, "rb") as stream:
        slow = threading.Thread(target=lambda: (time.sleep(0.5), got.append(stream.read())))
        slow.start()
        try:
            assert work(tmp_path, writer) == "None"
        finally:
            os.close(writer)
            slow.join()
    assert got[0].count(b"\n") == 5000
