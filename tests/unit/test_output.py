"""Tables that fit, and notes that are not data."""

from __future__ import annotations

import re

import pytest
from rich.text import Text

from fleet.cli.output import Column, print_table, table_lines

COLUMNS = (Column("WORKER"), Column("DONE", right=True), Column("RELEASE", spare=1), Column("GB", spare=2))
ROWS = [["node1-1", "7", "0.1.0-a9f91f6d1a8e", "16"]]


def test_a_table_that_goes_to_a_file_is_whole_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, ROWS)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "WORKER   DONE  RELEASE             GB",
        "node1-1     7  0.1.0-a9f91f6d1a8e  16",
    ]
    assert captured.err == ""


@pytest.mark.parametrize(
    ("width", "heading", "hidden"),
    [
        ("80", "WORKER   DONE  RELEASE             GB", ""),
        ("36", "WORKER   DONE  RELEASE", "GB"),
        ("20", "WORKER   DONE", "RELEASE, GB"),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns_and_is_told(
    width: str, heading: str, hidden: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", width)
    print_table(COLUMNS, ROWS)
    captured = capsys.readouterr()
    assert without_styles(captured.out).splitlines()[0] == heading
    told = "not shown for want of width: " + hidden
    assert (told in " ".join(without_styles(captured.err).split())) == bool(hidden)


def test_a_file_gets_the_same_lines_as_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, [Text("Knoten-é中", style="red"), Text("12345"), "", Text("", style="dim")]]
    print_table(COLUMNS, rows)
    assert capsys.readouterr().out.splitlines() == [line.plain for line in table_lines(COLUMNS, rows)[0]]


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
