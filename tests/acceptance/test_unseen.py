"""Deploys that came to their end unseen: cut off while they waited, or with nobody who reads what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import yaml

from tests.acceptance.commands import BIN
from tests.acceptance.here import Here, until

TRAP = """\
import os, pathlib, time

pathlib.Path({begun!r}).touch()
while not os.path.exists({fail!r}):
    time.sleep(0.1)
os._exit(1)
"""
"""What no worker starts with: each fails, but not before it is let."""


def deploy_until(here: Here, said: str) -> subprocess.Popen[str]:
    """A deploy in the background that has come so far as to say something."""
    here.file.write_text(yaml.safe_dump(here.content, sort_keys=False))
    words: list[str | Path] = [BIN / "puffin-fleet", "deploy", here.file, "--yes"]
    deploy = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert deploy.stderr is not None
    lines = []
    for line in deploy.stderr:
        lines.append(line)
        if re.search(said, line):
            return deploy
    raise AssertionError(f"it ended before it said '{said}': {lines}")


def interrupt(deploy: subprocess.Popen[str]) -> None:
    deploy.send_signal(signal.SIGINT)
    deploy.communicate(timeout=60)
    assert deploy.returncode == 130


def the_plan(here: Here) -> tuple[bool, bool]:
    """Whether it is empty, and whether the workers have yet to prove themselves."""
    (plan,) = here.run("plan", "--json").ok().json()
    return plan["empty"], plan["unproven"]


def test_what_was_cut_off_while_it_waited_is_waited_for_by_the_next(here: Here) -> None:
    here.content["defaults"]["workers"]["count"] = 1
    here.content["update"]["min_healthy_time"] = "5m"
    first = deploy_until(here, "in good health so far")

    # All is written by now, and yet it may be put back again.
    second = here.run("deploy", "--yes", "--json")
    assert (second.code, second.out) == (4, "")
    assert "here: locked by" in second.err

    interrupt(first)
    assert the_plan(here) == (True, True)
    here.content["update"]["min_healthy_time"] = "1s"
    marks = (here.root / "manifest.json").read_bytes()
    assert here.run("deploy").code == 2, "it may put the host back"
    proven = here.run("deploy", "--yes")
    assert proven.ok().out.splitlines()[-1].split()[:4] == ["here", "unchanged", "1", "healthy"]
    assert the_plan(here) == (True, False)
    assert (here.root / "manifest.json").read_bytes() == marks
    assert "Nothing to do" in here.run("deploy").ok().err


def test_settings_that_do_not_work_are_taken_back_also_after_a_deploy_that_was_cut_off(
    here: Here, tmp_path: Path
) -> None:
    here.content["defaults"]["workers"]["count"] = 1
    deploy_to_nobody(here)
    before = the_environment(here)
    trap, begun, fail = tmp_path / "trap", tmp_path / "begun", tmp_path / "fail"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(TRAP.format(begun=str(begun), fail=str(fail)))
    here.content["defaults"]["environment"] = {"PYTHONPATH": str(trap)}
    deploy = deploy_until(here, "here-1: (starting|has not reported yet)")
    # The worker before has ended by then, and the next does not fail before somebody has looked.
    until(begun.exists, "the next worker to begin")
    interrupt(deploy)
    assert the_environment(here) != before
    assert the_plan(here) == (True, True), "nothing is left to be changed"
    fail.touch()

    ran = here.run("deploy", "--yes")

    assert ran.code == 1
    assert "put back" in ran.out
    assert the_environment(here) == before


def the_environment(here: Here) -> str:
    return (here.root / "etc/workers/here-1.env").read_text()


def deploy_to_nobody(here: Here) -> None:
    """As `deploy --yes 2>&1 | true`: what it says cannot be written from its first line on."""
    here.file.write_text(yaml.safe_dump(here.content, sort_keys=False))
    reader, writer = os.pipe()
    os.close(reader)
    words: list[str | Path] = [BIN / "puffin-fleet", "deploy", here.file, "--yes"]
    try:
        ran = subprocess.run(words, check=False, timeout=120, stdout=writer, stderr=writer)
    finally:
        os.close(writer)
    assert ran.returncode == 0
    assert the_plan(here) == (True, False)
