"""The command of a worker: which configuration it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from puffin.check import _directories
from puffin.cli import cli
from puffin.config import Configuration
from puffin.settings import DaemonSettings, Settings
from puffin.severity import Severity


@pytest.mark.parametrize("named", [False, True])
def test_the_environment_names_the_configuration_where_the_command_line_does_not(tmp_path: Path, named: bool) -> None:
    for name in ("mine", "other"):
        (tmp_path / f"{name}.yaml").write_text(f"daemon: {{stop: '{tmp_path}/new/{name}.stop'}}\n")
    words = ["-c", str(tmp_path / "other.yaml")] if named else []
    ran = CliRunner().invoke(cli, [*words, "stop"], env={"PUFFIN_CONFIG": str(tmp_path / "mine.yaml")})
    assert ran.exit_code == 0, ran.output
    assert [path.name for path in tmp_path.glob("new/*.stop")] == ["other.stop" if named else "mine.stop"]


def test_configure_leaves_the_file_that_only_the_environment_names_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.touch()
    ran = CliRunner().invoke(cli, ["configure", "--force"], env={"PUFFIN_CONFIG": str(file)})
    assert "daemon:" in ran.stdout
    assert file.read_text() == ""


def test_a_folder_that_is_not_there_is_not_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = {"job_dir": "jobs", "pid_dir": "", "error_dir": "file/errors", "log": "logs/log", "stop": "x/stop"}
    daemon = DaemonSettings(**{key: str(tmp_path / name) for key, name in places.items()})
    found = _directories(Configuration.of(Settings(daemon=daemon)))
    assert [(each.severity, each.what.partition(": user")[0]) for each in found] == [
        (Severity.OK, f"{tmp_path}/jobs: is not there yet, and will be created"),
        (Severity.FAIL, f"{tmp_path}/file/errors: is not there, and cannot be created"),
        (Severity.OK, str(tmp_path)),
        (Severity.OK, f"{tmp_path}/logs: is not there yet, and will be created"),
        (Severity.OK, f"{tmp_path}/x: is not there yet, and will be created"),
    ]
