"""Hooks, as real scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from fleet.deployment.hooks import Hook, HookEnvironment, HookFailed, check_hooks, run_hook
from fleet.deployment.lock import LockTarget, hold, new_deed
from fleet.errors import ExitCode, InventoryError
from fleet.hosts.inventory import Fleet, parse_inventory
from tests.acceptance.commands import BIN
from tests.lab.processes import has_ended
from tests.lab.worker import lines_of, until

TOLD = HookEnvironment("t0ken", ["n1", "n2"], "20261122T144500Z-3f9a", "deploy")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the last lines of a hook may be read later than is waited for."""
    monkeypatch.setattr("fleet.deployment.hooks._END_S", 60.0)


def fleet_with(place: Path, **hooks: str) -> Fleet:
    content = {
        "fleet": "f",
        "database": {"uri": "mongodb://127.0.0.1:1", "names": ["d"]},
        "defaults": {"base_dir": str(place / "base"), "workers": {"cores": 1}},
        "hosts": {"n1": {"connection": "local"}},
        "hooks": {name: f"./hooks/{name}" for name in hooks},
    }
    (place / "hooks").mkdir(exist_ok=True)
    for name, text in hooks.items():
        (place / "hooks" / name).write_text(text)
        (place / "hooks" / name).chmod(0o755)
    file = place / "hosts.yaml"
    file.write_text(yaml.safe_dump(content))
    return parse_inventory(file.read_text(), str(file))


def test_a_hook_is_told_what_happens_and_has_no_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = """#!/bin/sh
cat
echo "$PUFFIN_FLEET|$PUFFIN_FLEET_LOCK|$PUFFIN_FLEET_HOSTS|$PUFFIN_FLEET_DEPLOY|$PUFFIN_FLEET_VERB"
echo "${PUFFIN_FLEET_OUTCOME-unset}|${PUFFIN_FLEET_FAILED-unset}|$PWD"
"""
    fleet = fleet_with(tmp_path, pre_deploy=script, post_deploy=script)
    check_hooks(fleet)
    assert run_hook(fleet, Hook.PRE_DEPLOY, TOLD)
    out, err = capfd.readouterr()
    assert out == ""  # data only
    first = f"{tmp_path}/hosts.yaml|t0ken|n1 n2|20261122T144500Z-3f9a|deploy"
    assert err.splitlines() == [first, f"unset|unset|{tmp_path}"]
    after = HookEnvironment(**{**vars(TOLD), "outcome": "failed", "failed": ["n2"]})
    assert run_hook(fleet, Hook.POST_DEPLOY, after)
    assert capfd.readouterr().err.splitlines() == [first, f"failed|n2|{tmp_path}"]


def test_a_command_that_a_hook_runs_runs_no_hooks_of_that_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = fleet_with(tmp_path, pre_deploy="#!/bin/sh\n")
    monkeypatch.setenv("PUFFIN_FLEET_LOCK", "t0ken")
    monkeypatch.setenv("PUFFIN_FLEET", str(tmp_path / "other.yaml"))
    assert run_hook(fleet, Hook.PRE_DEPLOY, TOLD)
    monkeypatch.setenv("PUFFIN_FLEET", fleet.source)
    assert not run_hook(fleet, Hook.PRE_DEPLOY, TOLD)


def test_no_hook_is_nothing_to_run(tmp_path: Path) -> None:
    fleet = fleet_with(tmp_path)
    check_hooks(fleet)
    assert not run_hook(fleet, Hook.PRE_DEPLOY, TOLD)


def test_all_that_is_wrong_with_hooks_is_said_at_once(tmp_path: Path) -> None:
    fleet = fleet_with(tmp_path, pre_deploy="", post_deploy="")
    (tmp_path / "hooks" / "pre_deploy").unlink()
    (tmp_path / "hooks" / "post_deploy").chmod(0o644)
    lines = (tmp_path / "hosts.yaml").read_text().splitlines()
    pre, post = (next(n for n, line in enumerate(lines, 1) if name in line) for name in ("pre_deploy", "post_deploy"))
    with pytest.raises(InventoryError) as refused:
        check_hooks(fleet)
    assert refused.value.exit_code == ExitCode.USAGE
    file, hooks = tmp_path / "hosts.yaml", tmp_path / "hooks"
    assert str(refused.value).splitlines() == [
        f"{file}:{pre} hooks.pre_deploy: no file {hooks}/pre_deploy",
        f"{file}:{post} hooks.post_deploy: {hooks}/post_deploy cannot be executed: 'chmod +x' it",
    ]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("#!/bin/sh\necho no licence >&2\nexit 3\n", "ended with status 3; its last lines:\n    no licence"),
        ("#!/bin/sh\nkill -9 $$\n", "was ended by signal 9"),
        ("echo without a first line\n", "cannot be started: Exec format error"),
        ("#!/no/such/shell\n", "cannot be started: No such file or directory"),
    ],
)
def test_a_hook_that_fails(tmp_path: Path, script: str, expected: str) -> None:
    fleet = fleet_with(tmp_path, pre_deploy=script)
    with pytest.raises(HookFailed) as failed:
        run_hook(fleet, Hook.PRE_DEPLOY, TOLD)
    assert f"hooks.pre_deploy ({tmp_path}/hooks/pre_deploy) {expected}" in str(failed.value)


def test_a_hook_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    fleet = fleet_with(tmp_path, pre_deploy="#!/bin/sh\necho working\nsleep 300 &\necho $! >child\nwait\n")
    # On a busy machine it may not have come far in a second; then it is given more.
    for timeout_s in (1, 8, 60):
        with pytest.raises(HookFailed, match=f"did not end within {timeout_s} s, and was ended") as failed:
            run_hook(fleet, Hook.PRE_DEPLOY, TOLD, timeout_s=timeout_s)
        if lines_of(tmp_path / "child"):  # it has said something before
            break
    assert str(failed.value).endswith("and was ended; its last lines:\n    working")
    [child] = lines_of(tmp_path / "child")
    until(lambda: has_ended(int(child)), "what the hook has started to end")


def test_what_a_hook_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    fleet = fleet_with(tmp_path, pre_deploy="#!/bin/sh\nsleep 60 >/dev/null 2>&1 &\necho $! >child\n")
    assert run_hook(fleet, Hook.PRE_DEPLOY, TOLD)
    os.kill(int((tmp_path / "child").read_text()), 15)


def test_a_hook_that_runs_our_own_command_is_not_stopped_by_its_lock(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The token tells that the lock is the one it runs under."""
    code = (
        "import os, sys; from fleet.reach.local import LocalRemote; from fleet.deployment.lock import *;"
        "root = os.environ['ROOT']; target = {'n1': LockTarget(root, 0)};"
        "held = hold({'n1': LocalRemote('n1', sys.executable)}, target, new_deed('deploy'), 0, 1);"
        "print('held', sorted(held.__enter__().hosts)); held.__exit__(None, None, None)"
    )
    root = tmp_path / "root"
    fleet = fleet_with(tmp_path, pre_deploy=f"#!/bin/sh\nROOT='{root}' exec '{BIN}/python' -c \"{code}\"\n")
    from fleet.reach.local import LocalRemote

    here = {"n1": LocalRemote("n1", str(BIN / "python"))}
    with hold(here, {"n1": LockTarget(str(root))}, new_deed("deploy"), 0, 1) as lock:
        with pytest.raises(HookFailed, match="locked by"):
            run_hook(fleet, Hook.PRE_DEPLOY, TOLD)
        capfd.readouterr()
        run_hook(fleet, Hook.PRE_DEPLOY, HookEnvironment(lock.token, ["n1"], "id", "deploy"))
        assert capfd.readouterr().err == "held ['n1']\n"
