"""restart: refused where it could not be watched, and why a host was left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from fleet.cli import cli, restart
from fleet.errors import FleetError
from fleet.reach.facts import Drained, Facts, FileFact
from puffin.errors import DatabaseUnavailable
from tests.unit.test_doctor import good

HOSTS = "fleet: f\ndatabase: {uri: 'mongodb://db', names: [a]}\ndefaults: {workers: {cores: 1}}\nhosts: {n: {}}\n"


def test_without_the_database_nothing_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise DatabaseUnavailable("cannot reach the database at db")

    def touched(*_: object) -> None:
        pytest.fail("a host was to be touched")

    (tmp_path / "hosts.yaml").write_text(HOSTS)
    monkeypatch.setattr(restart, "open_store", lambda _: SimpleNamespace(check=away, close=lambda: None))
    monkeypatch.setattr(restart, "open_remotes", touched)
    ran = CliRunner().invoke(cli, ["restart", str(tmp_path / "hosts.yaml")], standalone_mode=False)
    assert isinstance(ran.exception, FleetError)
    assert str(ran.exception).startswith("cannot reach the database at db\n  A restart watches its workers through")


def facts(*workers: str, drained: Drained | None = None) -> Facts:
    files = tuple(FileFact(f"etc/workers/{name}.yaml", "0" * 64, 0o600) for name in workers)
    return replace(good().facts, files=files, drained=drained)


@pytest.mark.parametrize(
    ("found", "patterns", "why"),
    [
        (facts("n-1", drained=Drained("ann@desk", "new disk", 0.0)), (), "drained by ann@desk: new disk"),
        (facts("n-1"), (), "stopped"),
        (facts("n-1"), ("n-*",), "stopped"),
        (facts("n-1"), ("m-1",), "no such worker"),
        (facts(), (), "no workers"),
    ],
)
def test_why_a_host_was_left_alone(found: Facts, patterns: tuple[str, ...], why: str) -> None:
    assert restart._why_left_alone(found, patterns) == why
