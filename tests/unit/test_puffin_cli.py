"""The command of a worker: which configuration it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from puffin.cli import cli


@pytest.mark.parametrize("named", [False, True])
def test_the_environment_names_the_configuration_where_the_command_line_does_not(tmp_path: Path, named: bool) -> None:
    for name in ("mine", "other"):
        (tmp_path / f"{name}.yaml").write_text(f"daemon: {{stop: '{tmp_path}/{name}.stop'}}\n")
    words = ["-c", str(tmp_path / "other.yaml")] if named else []
    ran = CliRunner().invoke(cli, [*words, "stop"], env={"PUFFIN_CONFIG": str(tmp_path / "mine.yaml")})
    assert ran.exit_code == 0, ran.output
    assert [path.name for path in tmp_path.glob("*.stop")] == ["other.stop" if named else "mine.stop"]


def test_configure_leaves_the_file_that_only_the_environment_names_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.touch()
    ran = CliRunner().invoke(cli, ["configure", "--force"], env={"PUFFIN_CONFIG": str(file)})
    assert "daemon:" in ran.stdout
    assert file.read_text() == ""
