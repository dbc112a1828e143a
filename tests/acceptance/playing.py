"""Runs Ansible as a site would: the collection installed as its README says, the command puffin-fleet beside it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.commands import BIN, Ran

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "ansible"

_TASK = re.compile(r"(?:TASK|RUNNING HANDLER) \[(.*)\] \*+$")
_CHANGED = re.compile(r"changed: \[([\w.-]+)")
_RECAP = re.compile(r"^([\w.-]+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Ansible:
    """A controller with the collection.

    Parameters
    ----------
    place
        A directory of its own, with ansible.cfg and collections.
    """

    place: Path

    def run(self, program: str, *words: object) -> Ran:
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("ANSIBLE_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_HOME": str(self.place / "home"),
            "ANSIBLE_CONFIG": str(self.place / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.place / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",  # Ansible refuses to work in any other encoding
            "COLUMNS": "160",
        }
        done = subprocess.run(
            [str(BIN / program), *map(str, words)],
            cwd=self.place,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def play(self, playbook: str, inventory: Path, *words: object) -> Ran:
        return self.run("ansible-playbook", playbook, "-i", inventory, *words)


def changed_tasks(ran: Ran) -> set[str]:
    """The tasks that changed a host, or would have in check mode."""
    found, task = set(), ""
    for line in ran.out.splitlines():
        if match := _TASK.match(line):
            task = match[1]
        elif _CHANGED.match(line):
            found.add(task)
    return found


def recap(ran: Ran) -> dict[str, tuple[int, int, int]]:
    """For each host: tasks that changed it, that could not reach it, and that failed."""
    return {host: (int(changed), int(lost), int(failed)) for host, changed, lost, failed in _RECAP.findall(ran.out)}


def blocks(language: str) -> list[str]:
    """What the README of the collection shows in a language."""
    text = (COLLECTION / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Ansible:
    """The collection, installed by the first command of its README, with the ansible.cfg that is shown there."""
    place = tmp_path_factory.mktemp("ansible")
    (configuration,) = blocks("ini")
    (place / "ansible.cfg").write_text(configuration)
    made = Ansible(place)
    install, *_ = blocks("console")[0].splitlines()
    program, *words = install.split()
    assert words[-1] == "./ansible"
    made.run(program, *words[:-1], COLLECTION, "-p", place / "collections").ok()
    return made
