"""Logs read on the host, through rotation of every kind and across interrupted connections."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import re
import shutil
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest

from fleet.hostside import tail
from fleet.hostside.common import Failure
from fleet.hostside.loglines import Gathering, Line, MessageFilter
from fleet.hostside.rotation import LogReader, pieces

MARKER = "puffin-test"


def read(log: LogReader, flush: bool = True) -> list[str]:
    return [message.text for message, _ in log.messages(flush)]


def opened(path: Path) -> LogReader:
    log = LogReader(path)
    log.start(pieces(path), 0)
    return log


def append(path: Path, *lines: object) -> None:
    with path.open("a") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def test_a_log_is_read_through_rotation_and_truncation(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("1\n2\nhalf")
    log = opened(path)
    assert read(log) == ["1", "2"]
    append(path, " done", 4)
    assert read(log) == ["half done", "4"]
    append(path, 5)
    path.rename(tmp_path / "w.log.1")
    assert read(log) == ["5"]
    append(path, 6)
    assert read(log) == ["6"]
    path.write_text("")  # thrown away
    assert read(log) == []
    append(path, 7)
    assert read(log) == ["7"]


def test_several_rotations_between_two_looks(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    append(path, 1)
    log = opened(path)
    assert read(log) == ["1"]
    for number in (2, 3, 4):
        append(path, number)
        for old in (2, 1):
            if (tmp_path / f"w.log.{old}").exists():
                (tmp_path / f"w.log.{old}").rename(tmp_path / f"w.log.{old + 1}")
        path.rename(tmp_path / "w.log.1")
    append(path, 5)
    assert read(log) == ["2", "3", "4", "5"]


def test_a_log_that_is_copied_and_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    append(path, 1, 2)
    log = opened(path)
    assert read(log) == ["1", "2"]
    position = log.position()
    append(path, 3)
    shutil.copy(path, tmp_path / "w.log.1")
    os.truncate(path, 0)
    append(path, 4, 5, 6, 7)  # longer than what was read before
    assert read(log) == ["3", "4", "5", "6", "7"]
    again = LogReader(path)
    again.resume(position)
    assert read(again) == ["3", "4", "5", "6", "7"]
    assert not again.cut


def test_what_was_thrown_away_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    append(path, 1)
    log = opened(path)
    read(log)
    position = log.position()
    path.unlink()
    append(path, 2, 3)
    again = LogReader(path)
    again.resume(position)
    assert (again.cut, read(again)) == (True, ["2", "3"])


def test_a_log_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = opened(tmp_path / "w.log")
    assert read(log) == []
    append(tmp_path / "w.log", 1)
    assert read(log) == ["1"]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_or_doubled_whenever_a_reader_breaks_off(tmp_path: Path, seed: int) -> None:
    """A writer that rotates as workers do, and readers that end at any moment and hand their position on."""
    chance = random.Random(seed)
    path = tmp_path / "w.log"
    handler = RotatingFileHandler(path, maxBytes=300, backupCount=1000)
    log, position = opened(path), None
    found: list[str] = []
    for number in range(400):
        handler.emit(logging.LogRecord("", 20, "", 0, f"line {number}" + "\n  more" * chance.randint(0, 1), (), None))
        if chance.random() < 0.2:
            for message, position in log.messages():
                found.append(message.lines[0])
                if chance.random() < 0.2:
                    log = LogReader(path)
                    log.resume(json.loads(json.dumps(position.record())))
                    break
    handler.close()
    found += [text.split("\n")[0] for text in read(log)]
    assert found == [f"line {number}" for number in range(400)]


def test_no_file_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    append(path, 1)
    log = opened(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    gc.disable()
    try:
        for number in range(20):
            append(path, number)
            path.rename(tmp_path / f"w.log.{number % 3 + 1}")
            append(path, "new")
            read(log)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
    finally:
        gc.enable()


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "w.log").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "w.log.1")
    assert pieces(tmp_path / "w.log") == []


def gather(*texts: str) -> list[str]:
    lines = [Line(text, number, number + 1, 5.0) for number, text in enumerate(texts)]
    return [message.text for message in Gathering().all(lines)]


def test_a_traceback_stays_together() -> None:
    traceback = ("Traceback (most recent call last):", '  File "x.py", line 1', "    f()", "ValueError: no")
    stamped = "2026-11-22T12:00:00.000Z ERROR   w - failed"
    assert gather("starting", *traceback, "next") == ["starting", "\n".join(traceback), "next"]
    assert gather(stamped, *traceback, stamped) == ["\n".join([stamped, *traceback]), stamped]


# The action --------------------------------------------------------------------------------------------


def stamp(second: int, level: str = "INFO", worker: str = "n-1", text: str = "-") -> str:
    return f"2026-11-22T12:00:{second:02d}.000Z {level:7} {worker} {text} {second}"


ID = "6b02d5829fc92b7451414cc0"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    place = tmp_path / "log"
    place.mkdir()
    append(place / "n-1.log.1", stamp(1), stamp(4, "ERROR"))
    append(place / "n-1.log", stamp(5), stamp(8, text=ID))
    append(place / "n-2.log", stamp(2, worker="n-2"), stamp(7, "WARNING", "n-2"))
    append(place / "n-2.out", "bad interpreter")
    os.utime(place / "n-2.out", (1795348806.5, 1795348806.5))  # 12:00:06.5
    append(place / "supervisord.log", "not a worker")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], host: Path, **request: Any) -> list[str]:
    tail.main({"host_root": str(host), "marker": MARKER, **request})
    out = capsys.readouterr().out.splitlines()
    entries = [json.loads(line.removeprefix(MARKER)) for line in out if line]
    return [text.split()[-1] for entry in entries for _, _, text in entry.get("messages", ())]


NOON = 1795348800.0


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, "1 2 4 5 interpreter 7 8"),
        ({"lines": 1}, "7 8"),
        ({"lines": 2}, "5 interpreter 7 8"),
        ({"lines": 3}, "2 4 5 interpreter 7 8"),
        ({"lines": 0}, ""),
        ({"workers": ["*-2"]}, "2 interpreter 7"),
        ({"workers": ["n-1", "n-[2]"]}, "1 2 4 5 interpreter 7 8"),
        ({"workers": ["n-3"]}, ""),
        ({"since": NOON + 5}, "5 interpreter 7 8"),
        ({"until": NOON + 4}, "1 2 4"),
        ({"level": "WARNING"}, "4 interpreter 7"),
        ({"calculation": ID}, "8"),
        ({"grep": "ERR|bad"}, "4 interpreter"),
        ({"grep": "INFO", "lines": 1}, "2 8"),
    ],
)
def test_what_is_wanted_of_the_logs_of_a_host(
    capsys: pytest.CaptureFixture[str], host: Path, request_: dict[str, Any], expected: str
) -> None:
    assert said(capsys, host, **request_) == expected.split()


def test_files_that_were_last_written_to_before_are_passed_over(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    os.utime(host / "log" / "n-1.log.1", (NOON - 1, NOON - 1))
    assert said(capsys, host, since=NOON) == ["2", "5", "interpreter", "7", "8"]


def test_a_pattern_that_this_python_does_not_know(host: Path) -> None:
    with pytest.raises(Failure, match=re.escape("the pattern is not understood")):
        tail.main({"host_root": str(host), "marker": MARKER, "grep": "("})


def test_logs_elsewhere_are_refused(host: Path) -> None:
    position = {"file": [0, 0], "offset": 0, "mark": "", "mtime": 0}
    with pytest.raises(Failure, match="is no log"):
        tail.main({"host_root": str(host), "marker": MARKER, "resume": {"../../etc/passwd.log": position}})


LONG = [
    stamp(1, text="- one"),
    stamp(2, text=r"- a\nb\nc C:\\new"),  # three lines
    stamp(3, text="- three"),
]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(0, ""), (1, "4"), (2, "4"), (3, "4"), (4, "3 4"), (6, "3 4"), (7, "2 3 4"), (8, "1 2 3 4"), (99, "1 2 3 4")],
)
def test_messages_count_as_the_lines_that_they_are_shown_as_and_are_never_cut(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, lines: int, expected: str
) -> None:
    place = tmp_path / "log"
    place.mkdir()
    append(place / "n-1.log.1", *LONG[:2])
    append(place / "n-1.log", *LONG[2:])
    append(place / "n-1.out", "Traceback (most recent call last):", "  File", "OSError: 4")
    assert said(capsys, tmp_path, lines=lines) == expected.split()


def test_a_long_log_is_searched_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    from fleet.hostside.rotation import last_messages

    files = pieces(path)
    (last,) = last_messages(files, 1, MessageFilter())
    assert files[0].read(100, last.start) == b"line 99999\n"
    assert len(last_messages(files, 70_000, MessageFilter())) == 70_000
