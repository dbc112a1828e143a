"""The files of a worker: output, archives, spooled results, directories of attempts, process id, log."""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fleet.reach.logs import parse
from puffin import archive
from puffin.calculations import Claim, Status, Usage, Verdict
from puffin.errors import ConfigurationError, DaemonError
from puffin.output import read_shortened
from puffin.pidfile import PidFile
from puffin.spool import Spool
from puffin.worklog import Log, Ping, open_log
from puffin.workplace import Workplace

CLAIM = Claim("db", "6b02d5829fc92b7451414cc0", 2, "worker", "sleep", 1, 1.0, 1.0, {"big": 1}, lost_on=("a",))
VERDICT = Verdict(Status.FAILED, "why", "ünicode \\x00", Usage(1.5, 0.5, 0.25))


# Output ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"plain\n", "plain\n"),
        ("grün".encode(), "grün"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"a\x00b", "a\\x00b"),
        (b"0123456789abcdefghij", "01234567\n[... 4 bytes left out ...]\ncdefghij"),
    ],
)
def test_output_is_read_whatever_it_is(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "stdout").write_bytes(data)
    assert read_shortened(tmp_path / "stdout", limit=16) == text


def test_output_that_is_missing_or_no_file_is_empty(tmp_path: Path) -> None:
    assert read_shortened(tmp_path / "missing") == ""
    os.mkfifo(tmp_path / "fifo")
    assert read_shortened(tmp_path / "fifo") == ""
    assert read_shortened(tmp_path) == ""


def test_output_that_cannot_be_read_says_so() -> None:
    assert read_shortened("/proc/self/mem") == "[mem cannot be read: Input/output error]\n"


# Archives ----------------------------------------------------------------------------------------------


def test_an_archive_holds_the_directory_under_the_calculations_id(tmp_path: Path) -> None:
    job = tmp_path / "abc.1"
    (job / "sub").mkdir(parents=True)
    (job / "sub" / "file").write_text("content")
    os.mkfifo(job / "fifo")
    path = archive.archive(job, "abc", tmp_path / "kept")
    with tarfile.open(path) as tarball:
        assert "abc/sub/file" in tarball.getnames()
    assert [kept.name for kept in (tmp_path / "kept").iterdir()] == ["abc.tar.gz"]


def test_an_archive_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        archive.archive(tmp_path / "gone", "abc", tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


# Spool -------------------------------------------------------------------------------------------------


def test_a_result_survives_on_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(CLAIM, VERDICT, writes_own_end=True)
    [found] = spool.waiting("worker")
    assert spool.unreadable() == []
    assert (found.claim.id, found.claim.attempt, found.claim.lost_on) == (CLAIM.id, 2, ("a",))
    assert (found.verdict, found.writes_own_end) == (VERDICT, True)
    assert list(spool.waiting("somebody else")) == []
    spool.remove(CLAIM)
    assert list(tmp_path.iterdir()) == []
    spool.remove(CLAIM)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"claim": {}}', '{"claim": {"id": "x"}, "verdict": {}}'])
def test_what_is_no_result_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "db.x.1.result.json").write_text(content)
    assert list(Spool(tmp_path).waiting("worker")) == []
    assert Spool(tmp_path).unreadable() == [tmp_path / "db.x.1.result.json"]


def test_a_refused_result_is_set_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(CLAIM, VERDICT, writes_own_end=False)
    aside = spool.set_aside(CLAIM)
    assert aside.exists()
    assert list(spool.waiting("worker")) == []


# Directories of attempts -------------------------------------------------------------------------------


def test_an_attempt_starts_with_an_empty_directory(tmp_path: Path) -> None:
    place = Workplace(str(tmp_path / "jobs"), "a/worker")
    place.prepare()
    (place.directory / CLAIM.label).mkdir()
    (place.directory / CLAIM.label / "old").touch()
    path = place.make(CLAIM)
    assert list(path.iterdir()) == []
    place.remove(path)
    assert list(place.directory.iterdir()) == []


def test_the_next_incarnation_removes_what_was_left_but_not_that_of_others(tmp_path: Path) -> None:
    mine, other = Workplace(str(tmp_path), "mine"), Workplace(str(tmp_path), "other")
    left = mine.make(CLAIM)
    theirs = other.make(Claim("db", "f" * 24, 1, "other", "sleep", 1, 1.0, 1.0, {}))
    Workplace(str(tmp_path), "mine").prepare()
    assert not left.exists()
    assert theirs.exists()


def test_a_relative_job_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Workplace("jobs", "w").directory == tmp_path / "jobs"


def test_a_job_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DaemonError, match=r"daemon.job_dir: cannot use"):
        Workplace(str(tmp_path / "file" / "jobs"), "w").prepare()


# Process id --------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from puffin.pidfile import PidFile
PidFile(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_only_one_holds_the_file_and_death_releases_it(tmp_path: Path) -> None:
    path = str(tmp_path / "sub" / "pid")
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert PidFile(path).owner() == holder.pid
        with pytest.raises(DaemonError, match=rf"runs already .process {holder.pid}"):
            PidFile(path).acquire()
        holder.kill()
    assert PidFile(path).owner() is None, "a file left over is nobody's"
    mine = PidFile(path)
    mine.acquire()
    assert Path(path).read_text() == f"{os.getpid()}\n"
    mine.release()
    assert not Path(path).exists()
    mine.release()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DaemonError, match=r"daemon.pid: cannot write"):
        PidFile(str(tmp_path / "file" / "pid")).acquire()


def test_a_file_system_without_locks_is_not_taken_for_another_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    file = PidFile(str(tmp_path / "pid"))
    with pytest.raises(DaemonError, match=r"daemon.pid: cannot lock .*: No locks available"):
        file.acquire()
    with pytest.raises(DaemonError, match=r"daemon.pid: cannot lock .*: No locks available"):
        file.owner()


# Log ---------------------------------------------------------------------------------------------------


def memory_log() -> tuple[Log, io.StringIO]:
    stream = io.StringIO()
    logger = logging.Logger("test")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(worker)s %(calculation)s %(message)s"))
    logger.addHandler(handler)
    return Log(logger, "node1-1"), stream


def test_a_message_is_one_line_with_worker_and_calculation(tmp_path: Path) -> None:
    worklog = open_log(str(tmp_path / "sub" / "log"), "node1-1", also_stderr=False)
    worklog.info("started")
    worklog.warning("two\nlines", "abc")
    worklog.error("C:\\new\r\n\\")
    first, second, third = (tmp_path / "sub" / "log").read_text().splitlines()
    assert third.endswith(r"- C:\\new\r\n\\")
    assert parse("node1", "node1-1.log", 0, third).message == "C:\\new\r\n\\"  # can be read back exactly
    assert first.endswith("Z INFO    node1-1 - started")
    assert second.endswith("Z WARNING node1-1 abc two\\nlines")


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"daemon.log: cannot open"):
        open_log(str(tmp_path), "w", also_stderr=False)


def test_it_pings_every_fifteen_minutes() -> None:
    log, stream = memory_log()
    ping = Ping(log, now=100.0)
    for now in (500.0, 999.0, 1000.0, 1001.0, 1899.0, 1901.0):
        ping.maybe(now, "waiting for work")
    assert stream.getvalue() == "INFO node1-1 - alive, waiting for work\n" * 2
