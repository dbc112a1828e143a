"""Tables that fit, and notes that are not data."""

from __future__ import annotations

import re

import pytest
from rich.console import Console
from rich.text import Text

from fleet.cli.output import Board, Column, fit, note, print_error, print_table, report_failures, table_lines
from fleet.cli.top.screens import log_text
from fleet.errors import FleetError, RemoteError
from fleet.reach.remote import HostResult

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


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        (30, [4, 10, 20]),
        (50, [8, 14, 24]),
        (80, [18, 24, 34]),
        (110, [24, 30, 52]),
        (200, [24, 30, 60]),
    ],
)
def test_columns_that_are_cut_share_the_room_that_is_left(width: int, widths: list[int]) -> None:
    columns = (Column("ID", cut=4), Column("WHAT", cut=10), Column("COMMENT", cut=20))
    assert fit(columns, [24, 30, 60], width) == ([0, 1, 2], widths)


def test_a_file_gets_the_same_lines_as_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, [Text("Knoten-é中", style="red"), Text("12345"), "", Text("", style="dim")]]
    print_table(COLUMNS, rows)
    assert capsys.readouterr().out.splitlines() == [line.plain for line in table_lines(COLUMNS, rows)[0]]


@pytest.mark.parametrize(
    "cell", ["sh -c 'a\nb\x1b[2J'", Text("sh -c 'a\nb\x1b[2J'", style="red")], ids=["text", "styled"]
)
def test_a_cell_stays_in_its_line_and_moves_no_cursor(cell: Text | str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table((Column("PID"), Column("COMMAND")), [["7", cell]])
    out = capsys.readouterr().out
    assert out.splitlines() == ["PID  COMMAND", "7    sh -c 'a b\N{REPLACEMENT CHARACTER}[2J'"]


def test_what_is_replaced_in_a_cell_leaves_its_styles_where_they_are() -> None:
    cell = Text.assemble(("a\n", "red"), ("b", "bold"))
    (_, line), _ = table_lines((Column("X"),), [[cell]])
    assert [(line.plain[span.start : span.end], span.style) for span in line.spans] == [("a ", "red"), ("b", "bold")]
    assert cell.plain == "a\nb"


def test_the_picture_of_progress_cuts_neither_hosts_nor_times() -> None:
    board = Board("Deploying", 3)
    board.step("node1", "waiting for workers that compute: " + ", ".join(f"node1-{number}" for number in range(20)))
    board.step("node02.cluster.example", "installing")
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(board._picture())
    lines = captured.get().splitlines()
    assert lines[0].rstrip() == "Deploying: 0 of 3 done"
    assert lines[1].split() == ["node02.cluster.example", "installing", "0", "s"]
    assert re.fullmatch(r"node1 +waiting for workers that compute: node1-0, .*… +\d+ s", lines[2])
    assert max(map(len, lines)) == 80


def test_what_threads_say_after_the_end_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Board("Deploying", 1) as board:
        board.step("node1", "waiting")
    board.step("node1", "trying again")
    assert capsys.readouterr().err == "node1: waiting\n"


def test_notes_and_errors_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    note("gone: \x1b[2J")
    print_error("n1", RemoteError("n1", "run", "\x9b2J", ""))
    err = capsys.readouterr().err
    assert ("\x1b" in err, "\x9b" in err, err.count("\N{REPLACEMENT CHARACTER}")) == (False, False, 2)


def test_what_went_wrong_alike_on_many_hosts_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    full, away = "No space left on device", "does not answer"
    errors = {
        "node1": RemoteError("node1", "upload", full, "make room"),
        "node2": RemoteError("node2", "connect", away),
        "node3": RemoteError("node3", "upload", full, "make room"),
        "node4": RemoteError("node4", "upload", full, "ask ada"),
        "node5": FleetError("node5: given up"),
        "node6": FleetError("node6: given up"),
    }
    assert report_failures([HostResult(host, error=error) for host, error in errors.items()]) == 6
    assert without_styles(capsys.readouterr().err).splitlines() == [
        f"node1, node3 failed at upload: {full}",
        "  make room",
        f"node2 failed at connect: {away}",
        f"node4 failed at upload: {full}",
        "  ask ada",
        "node5, node6 failed: given up",
    ]


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_line_of_a_log_on_the_screen_moves_no_cursor() -> None:
    shown = log_text("n-1", "\x1b[31mERROR\x1b[0m \x1b[2Jgone")
    assert shown.plain == "n-1 ERROR \N{REPLACEMENT CHARACTER}[2Jgone"
