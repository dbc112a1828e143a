"""What `init` refuses before it writes a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.cli import cli
from fleet.errors import UsageError
from fleet.hosts.templates import hosts_template

GIVEN = ("--fleet", "f", "--database", "mongodb://db", "--name", "a", "--no-probe")


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (("n1", "n1"), "--host 'n1': n1 is given already, by 'n1'"),
        (("node[1-3]", "node2"), "--host 'node2': node2 is given already, by 'node[1-3]'"),
        (("localhost", "127.0.0.1"), "--host '127.0.0.1': localhost is given already, by 'localhost'"),
    ],
)
def test_a_host_that_is_given_twice(tmp_path: Path, hosts: tuple[str, ...], said: str) -> None:
    words = [word for host in hosts for word in ("--host", host)]
    ran = CliRunner().invoke(cli, ["init", str(tmp_path / "mine.yaml"), *GIVEN, *words], standalone_mode=False)
    assert isinstance(ran.exception, UsageError)
    assert str(ran.exception) == said
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "none" / "mine.yaml"
    ran = CliRunner().invoke(cli, ["init", str(file), *GIVEN, "--host", "n1"], standalone_mode=False)
    assert isinstance(ran.exception, UsageError)
    assert str(ran.exception) == f"cannot write {file}: No such file or directory"


def test_the_file_that_was_asked_for_is_named() -> None:
    with pytest.raises(Exception, match=r"^mine\.yaml:[0-9]+ hosts\.n1: given twice"):
        hosts_template("f", database_uri="mongodb://db", database_names=["a"], hosts=["n1", "n1"], source="mine.yaml")
