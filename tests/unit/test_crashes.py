"""How often a worker ended without saying so."""

from __future__ import annotations

from pathlib import Path

from puffin.crashes import Crashes, last_lines


def test_only_ends_that_nobody_announced_count_and_not_for_ever(tmp_path: Path) -> None:
    crashes = Crashes(str(tmp_path / "w.pid"), window_s=100)
    assert crashes.begin(1000) == 0
    assert crashes.begin(1010) == 1
    assert crashes.begin(1020) == 2
    assert crashes.begin(1115) == 2, "the first is over"
    crashes.forget()
    assert crashes.begin(1116) == 0
    # A clock that was set back makes no crashes of the future.
    assert crashes.begin(1117) == 1
    assert crashes.begin(50) == 1


def test_a_file_that_cannot_be_read_or_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "w.pid.crashes").write_text("[12")
    assert Crashes(str(tmp_path / "w.pid"), 100).begin(20) == 1
    nowhere = Crashes(str(tmp_path / "missing" / "w.pid"), 100)
    assert nowhere.begin(1) == nowhere.begin(2) == 0
    nowhere.forget()


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number} {'x' * 200}\n" for number in range(300)))
    lines = last_lines(str(log), count=2, longest=10)
    assert lines == ["line 298 x", "line 299 x"]
    assert last_lines(str(tmp_path / "none")) == []
