"""start and resume: refused before anything is changed, and only what was seen is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.cli import cli, control
from fleet.errors import RemoteError, UsageError
from fleet.operation.host_control import HostControl, Started
from fleet.reach.facts import Program, States, Supervisord
from fleet.reach.remote import HostResult


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A fleet whose only host is this machine, with one worker that was stopped."""
    found = tmp_path / "hosts.yaml"
    found.write_text(
        "fleet: f\ndatabase: {uri: 'mongodb://db', names: [a]}\n"
        f"defaults: {{workers: {{cores: 1}}, base_dir: '{tmp_path}'}}\nhosts: {{n: {{connection: local}}}}\n"
    )
    root = tmp_path / "f" / "hosts" / "n"
    (root / "etc" / "workers").mkdir(parents=True)
    (root / "etc" / "workers" / "n-1.yaml").touch()
    (root / "current").symlink_to(tmp_path)
    return found


def test_a_worker_that_does_not_exist_is_refused_before_the_fleets_stop_is_lifted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: object) -> None:
        pytest.fail("the database was to be changed")

    monkeypatch.setattr(control, "open_store", touched)
    ran = CliRunner().invoke(cli, ["start", str(file), "--worker", "NOBODY"], standalone_mode=False)
    assert isinstance(ran.exception, UsageError)
    assert "no worker matches 'NOBODY'" in str(ran.exception)
    assert ran.stdout == ""


def program(name: str, state: str) -> Program:
    return Program(name, state, 100 if state != "STOPPED" else 0, "", "", 0, 1, 0, 2)


class Answering(HostControl):
    """A host that answers this, whatever it is asked."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch, ending: set[str], *programs: Program) -> None:
        (host,) = (chosen := control.options.choose(str(file), ())).hosts
        super().__init__(chosen.fleet, host, {}, lambda _: None)  # type: ignore[arg-type]  # nothing is sent
        supervisord = Supervisord(True, True, 1, "/run/sv.sock", "4.3.0", None, programs)
        states = States(supervisord, False, frozenset(), frozenset(), {}, "r", 0.0, ending=frozenset(ending))
        monkeypatch.setattr("fleet.operation.host_control.parse_states", lambda *_: states)

    def _ask(self, *_: object) -> dict[str, Any]:
        return {"deployed": True, "refused": False, "resumed": False, "told": ["n-1"]}


def test_what_has_only_just_begun_or_still_ends_is_not_said_to_run(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"n-1": "RUNNING", "n-2": "STARTING", "n-3": "RUNNING", "n-4": "STOPPED"}
    programs = [program(name, state) for name, state in words.items()]
    started = Answering(file, monkeypatch, {"n-3"}, *programs).start()
    assert started == Started(("n-1", "n-2", "n-3"), starting=("n-2",), ending=("n-3",))
    control._report_started([HostResult("n", started)], json_lines=False)
    said = "running: n-1; starting: n-2; told to end before, so start again when they have: n-3"
    assert capsys.readouterr().out.splitlines()[1] == f"n     {said}"


def test_of_a_host_that_was_not_reached_nothing_is_said_but_that() -> None:
    error = RemoteError("n", "connect", "no route")
    assert control._started_words(HostResult[Started]("n", error=error)).plain == "failed"
