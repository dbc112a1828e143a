"""How workers come back after a reboot: the line in the crontab, the unit, the program that both run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.hostside import boot, crontab, places, startup, user_unit
from fleet.hostside.common import Failure

AWKWARD = "50% of it's $HOME \\ here"
MARK = crontab.marker("reactions", "node1")
LINE = crontab.line("reactions", "node1", Path("/pool/bin/boot"))
OTHERS = "MAILTO=me\n@reboot /usr/bin/mine # puffin-fleet:reactions/node1\n*/5 * * * * date +\\%s\n"

# The crontab ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ("", LINE, f"{LINE}\n"),
        ("", None, ""),
        (OTHERS, LINE, f"{OTHERS}{LINE}\n"),
        (OTHERS.rstrip("\n"), LINE, f"{OTHERS}{LINE}\n"),
        (OTHERS, None, OTHERS),
        (f"{LINE}\n{OTHERS}", LINE, f"{LINE}\n{OTHERS}"),
        (f"{LINE.replace('/pool', '/old')}\n{OTHERS}", LINE, f"{LINE}\n{OTHERS}"),
        (f"{LINE}\n{OTHERS}{LINE}\n", LINE, f"{LINE}\n{OTHERS}"),
        (f"{LINE}\n{OTHERS}", None, OTHERS),
    ],
)
def test_one_line_of_ours_and_all_others_as_they_were(before: str, wanted: str | None, after: str) -> None:
    assert crontab.with_line(before, MARK, wanted) == after
    assert crontab.our_line(after, MARK) == wanted


@pytest.mark.parametrize(("fleet", "host"), [("reactions", "node10"), ("reactions2", "node1"), ("other", "node1")])
def test_the_lines_of_other_hosts_and_fleets_are_left_alone(fleet: str, host: str) -> None:
    neighbour = crontab.line(fleet, host, Path("/pool/bin/boot"))
    assert crontab.with_line(f"{neighbour}\n", MARK, LINE) == f"{neighbour}\n{LINE}\n"
    assert crontab.with_line(f"{neighbour}\n", MARK, None) == f"{neighbour}\n"


def test_a_line_of_somebody_elses_is_left_as_it_is_whatever_is_in_it() -> None:
    others = "0 4 * * * echo a\x0cb\x85c\u2028d\n"
    assert crontab.with_line(crontab.with_line(others, MARK, LINE), MARK, None) == others


def test_the_line_runs_the_program_whatever_its_path(tmp_path: Path) -> None:
    program = tmp_path / AWKWARD / "boot"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho started > {tmp_path!s}/told\n")
    program.chmod(0o755)
    line = crontab.line("reactions", "node1", program)
    assert line.replace("\\%", "").count("%") == 0
    assert "\n" not in line
    # As cron does: the first word off, backslashes before percent signs off, the rest to a shell without a PATH.
    command = line.removeprefix("@reboot ").replace("\\%", "%")
    subprocess.run(["/bin/sh", "-c", command], env={}, check=True, timeout=30)
    assert (tmp_path / "told").read_text() == "started\n"


def test_a_path_that_no_crontab_can_hold() -> None:
    with pytest.raises(Failure, match="cannot stand in a crontab"):
        crontab.line("reactions", "node1", Path("/pool\n* * * * * rm"))


# The unit ---------------------------------------------------------------------------------------------------


def unit(home: Path, monkeypatch: pytest.MonkeyPatch, program: str = "/pool/bin/boot") -> user_unit.Unit:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    return user_unit.unit("reactions", "node-1", Path(program), Path("/run/user/7/50%/supervisord.pid"), "node1")


def test_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = unit(tmp_path, monkeypatch)
    assert made.path.parent == tmp_path / "systemd/user"
    assert made.name.startswith("puffin-fleet-reactions-node-1-")
    assert made.name.endswith(".service")
    lines = made.text.splitlines()
    assert "ConditionHost=node1" in lines
    assert "PIDFile=/run/user/7/50%%/supervisord.pid" in lines
    assert 'ExecStop=-/bin/sh "/pool/bin/boot" stop' in lines
    assert {"Type=forking", "KillMode=process", "OOMPolicy=continue", "WantedBy=default.target"} <= set(lines)
    assert "$$1" in made.text
    assert not made.in_place


def test_words_of_a_unit_are_quoted() -> None:
    assert user_unit._quoted(AWKWARD) == '"50%% of it\'s $$HOME \\\\ here"'
    assert user_unit._quoted('say "no"') == '"say \\"no\\""'
    with pytest.raises(Failure, match="cannot stand in a unit"):
        user_unit._quoted("a\nb")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze to ask")
def test_systemd_takes_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / AWKWARD / "boot"
    program.parent.mkdir()
    program.touch(mode=0o755)
    made = unit(tmp_path, monkeypatch, str(program))
    made.directory.mkdir(parents=True)
    made.path.write_text(made.text)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(made.path)],
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_unit_is_removed_also_where_systemd_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = unit(tmp_path, monkeypatch)
    wants = made.directory / "default.target.wants"
    wants.mkdir(parents=True)
    made.path.write_text(made.text)
    (wants / made.name).symlink_to(made.path)
    (wants / "mine.service").touch()
    assert made.enabled
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert user_unit.remove(made) is True
    assert user_unit.remove(made) is False
    assert [path.name for path in wants.iterdir()] == ["mine.service"]


# What is kept for the boot, and what is made again --------------------------------------------------------------


def host(tmp_path: Path) -> Path:
    root = tmp_path / "pool/reactions/hosts/node1"
    (root / "log").mkdir(parents=True)
    return root


def test_the_environment_of_workers_is_kept_for_the_boot(tmp_path: Path) -> None:
    root = host(tmp_path)
    environment = {"PATH": "/opt/orca:/usr/bin", "LD_LIBRARY_PATH": "/opt/mpi", "TOKEN": "s3cret", "TERM": "xterm"}
    boot.remember(root, {**environment, "SSH_CONNECTION": "1", "PUFFIN_X": "1", "XDG_SESSION_ID": "9", "_": "python"})
    assert boot.remembered(root) == {name: text for name, text in environment.items() if name != "TERM"}
    assert (root / "boot.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"environment": []}'])
def test_notes_that_are_damaged_are_no_notes(tmp_path: Path, text: str) -> None:
    root = host(tmp_path)
    (root / "boot.json").write_text(text)
    assert boot.remembered(root) == {}


def test_the_directory_of_sockets_is_made_again(tmp_path: Path) -> None:
    root = host(tmp_path)
    gone = tmp_path / "run-user" / "puffin-fleet" / "abc"
    (root / "run").symlink_to(gone)
    with pytest.raises(Failure):  # what a login makes is not there yet
        places.restore_run_directory(root)
    (tmp_path / "run-user").mkdir()
    places.restore_run_directory(root)
    assert gone.stat().st_mode & 0o777 == 0o700
    assert (root / "run").is_dir()


def test_stop_files_are_not_where_a_reboot_empties(tmp_path: Path) -> None:
    root = host(tmp_path)
    assert places.stop_file(root).parent == places.stop_file(root, "node1-1").parent == root / "orders"


def test_a_start_that_fails_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = host(tmp_path)
    (root / "run").mkdir()
    assert startup.main([str(root)]) == 1
    assert "start: starting supervisord: " in capsys.readouterr().out


def test_there_is_nothing_to_give_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = host(tmp_path)
    (root / "run").mkdir()
    assert startup.main([str(root), "stop"]) == 0
    assert "nothing to do: no answer at" in capsys.readouterr().out


def test_a_supervisord_that_is_silent_for_a_while_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = host(tmp_path)
    (root / "run").mkdir()
    code = "import time; time.sleep(60)"
    silent = subprocess.Popen([sys.executable, "-c", code, "supervisord", str(root / "etc/supervisord.conf")])
    try:
        (root / "run/supervisord.pid").write_text(str(silent.pid))
        monkeypatch.setattr(startup, "GIVING_BACK_S", 1.2)
        assert startup.main([str(root), "stop"]) == 1
        assert f"supervisord runs (pid {silent.pid}) but does not answer" in capsys.readouterr().out
    finally:
        silent.kill()
        silent.wait()


def test_what_was_refused_is_not_available_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which nothing works must not have it planned with each deploy."""
    root = host(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(crontab, "read", lambda: "")  # whoever runs this may have a fleet of the same name
    refused: dict[str, Any] = {"systemd": "lingering was not turned on", "cron": "crontab does not take the line"}
    boot._note(root, refused=refused)
    found = boot.look(root)
    assert (found["kind"], found["current"], found["available"]) == ("none", False, "none")
    assert "lingering was not turned on" in found["why"]
    assert "an administrator can run 'loginctl enable-linger" in found["why"]
