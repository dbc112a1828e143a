"""A fleet is run from Ansible, by playbooks and by the module; everything in the collection is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from puffin import __version__
from tests.acceptance.commands import Ran, puffin_fleet
from tests.acceptance.many import Many, many_hosts, until
from tests.acceptance.playing import COLLECTION, Ansible, ansible, blocks, changed_tasks, recap
from tests.lab.fixtures_database import Database
from tests.lab.sshd import end_processes

__all__ = ["ansible"]  # a fixture

TOKEN = "token-0815"


@pytest.fixture
def fleet(database: Database, tmp_path: Path) -> Iterator[Many]:
    made = many_hosts(database, tmp_path, ["a", "b"])
    made.content["defaults"]["environment"] = {"API_TOKEN": TOKEN}
    made.file.write_text(yaml.safe_dump(made.content, sort_keys=False))
    yield made
    end_processes(tmp_path)


def test_the_fleet_is_run_by_playbooks(fleet: Many, ansible: Ansible) -> None:
    def play(name: str, *words: str) -> Ran:
        return ansible.play(f"puffin.fleet.{name}", fleet.file, *words).ok()

    planned = play("deploy", "--check", "--diff")
    assert "add a-1" in planned.out
    assert "add b-1" in planned.out
    assert not fleet.host_root("a").exists()

    first = play("deploy")
    assert changed_tasks(first) == changed_tasks(planned)
    assert set(fleet.running()) == {"a-1", "b-1"}

    assert recap(play("deploy"))["a"] == (0, 0, 0)

    fleet.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4
    fleet.content["defaults"]["environment"]["API_TOKEN"] = TOKEN[::-1]
    fleet.file.write_text(yaml.safe_dump(fleet.content, sort_keys=False))
    shown = play("deploy", "--check", "--diff", "--limit", "a")
    assert "+  cycle_time_in_s: 0.4" in shown.out
    assert "b-1" not in shown.out
    assert TOKEN not in shown.out
    assert TOKEN[::-1] not in shown.out


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_playbooks_heed_limits(fleet: Many, ansible: Ansible) -> None:
    def play(name: str, *words: str) -> Ran:
        return ansible.play(f"puffin.fleet.{name}", fleet.file, *words).ok()

    play("deploy", "--limit", "b")
    assert {name: plan["empty"] for name, plan in fleet.plans().items()} == {"a": False, "b": True}
    play("deploy")
    processes = {name: record["pid"] for name, record in fleet.workers().items()}
    play("restart", "--limit", "b")
    assert {name for name, record in fleet.workers().items() if record["pid"] != processes[name]} == {"b-1"}
    play("stop", "--limit", "b")
    assert fleet.running() == ["a-1"]
    play("start")
    until(lambda: sorted(fleet.running()) == ["a-1", "b-1"], "both workers")
    play("collect", "--limit", "a", "-e", f"puffin_collect_to={fleet.place / 'collected'}")
    assert [file.name for file in (fleet.place / "collected").rglob("*-1.log")] == ["a-1.log"]


# What is asked of the module, one after the other, each in check mode and then twice; and whether it changes anything.
_STATES: tuple[tuple[dict[str, Any], bool], ...] = (
    ({"state": "deployed"}, True),
    ({"state": "stopped"}, True),
    ({"state": "started"}, True),
    ({"state": "drained", "hosts": ["a"], "why": "a new disk"}, True),
    ({"state": "started", "hosts": ["b"]}, False),
    ({"state": "started", "resume": True}, True),
    ({"state": "absent"}, True),
)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_every_state_is_predicted_reached_and_kept(fleet: Many, ansible: Ansible) -> None:
    told = run_module(
        fleet, ansible, [{**options, "check": check} for options, _ in _STATES for check in (True, False, False)]
    )
    for (options, changes), at in zip(_STATES, range(0, len(told), 3), strict=True):
        checked, first, second = told[at : at + 3]
        assert (checked["changed"], first["changed"], second["changed"]) == (changes, changes, False), options
        assert checked["changed_hosts"] == first["changed_hosts"], options
        assert [plan["host"] for plan in checked["plan"]] == options.get("hosts", ["a", "b"])
    assert fleet.running() == []
    assert not (fleet.host_root("a") / "etc").exists()


@pytest.mark.soak
def test_a_fleet_that_was_stopped_as_a_whole_is_started_also_where_drained_hosts_are(
    fleet: Many, ansible: Ansible
) -> None:
    states = ("deployed", {}), ("drained", {"hosts": ["a"]}), ("stopped", {}), ("started", {"resume": True})
    told = run_module(fleet, ansible, [{"state": state, **options} for state, options in states])
    assert [each["changed"] for each in told] == [True] * 4
    assert puffin_fleet("status", fleet.file).ok().err.count("told to stop") == 0
    until(lambda: sorted(fleet.running()) == ["a-1", "b-1"], "both hosts to work")


@pytest.mark.soak
def test_what_nobody_waited_for_is_waited_for_by_the_next_task(fleet: Many, ansible: Ansible) -> None:
    states: tuple[dict[str, Any], ...] = ({"state": "deployed", "wait": False}, *[{"state": "deployed"}] * 2)
    marked, seen, known = run_module(fleet, ansible, states)
    assert [each["changed"] for each in (marked, seen, known)] == [True, False, False]
    healths = [worker["health"] for record in seen["outcome"] for worker in record["workers"]]
    assert (healths, known["outcome"]) == (["healthy", "healthy"], [])


@pytest.mark.soak
def test_a_host_that_fails_is_named_and_the_others_are_served(fleet: Many, ansible: Ansible) -> None:
    fleet.content["hosts"]["lost"] = {"connection": "ssh", "address": "127.0.0.1", "ssh": {"port": 1}}
    fleet.content["hosts"].pop("b")
    states: tuple[dict[str, Any], ...] = (
        {"state": "deployed", "check": True},
        {"state": "deployed"},
    )
    checked, deployed = run_module(fleet, ansible, states)
    for told, outcome in ((checked, []), (deployed, ["a", "lost"])):
        assert told["failed"] is True
        assert list(told["failed_hosts"]) == ["lost"]
        assert told["msg"].startswith("1 hosts failed:\nlost: connect: ")
        assert told["changed_hosts"] == ["a"]
        assert [record["host"] for record in told["outcome"]] == outcome


@pytest.mark.soak
def test_a_host_out_of_reach_is_stopped_with_the_others(fleet: Many, ansible: Ansible, closed_port: int) -> None:
    fleet.run("deploy", "--yes").ok()
    fleet.content["hosts"]["b"] = {"connection": "ssh", "address": "127.0.0.1", "ssh": {"port": closed_port}}
    (checked,) = run_module(fleet, ansible, [{"state": "stopped", "check": True}])
    assert (checked.get("failed", False), checked["changed_hosts"]) == (False, ["a"])
    assert any("b cannot be looked at" in warning for warning in checked["warnings"])

    # Ansible, too, finds out that it is gone, and goes on without it.
    look: dict[str, Any] = {"hosts": "puffin_fleet", "gather_facts": False, "tasks": [{"ansible.builtin.ping": {}}]}
    playbook = fleet.place / "stop.yml"
    playbook.write_text(yaml.safe_dump([look, {"import_playbook": "puffin.fleet.stop"}], sort_keys=False))
    played = ansible.run("ansible-playbook", playbook, "-i", fleet.file)
    assert recap(played)["b"][1] == 1, played
    assert "b: stopped" in played.out, played
    # Of b's worker the database alone tells: it says that it ends before it has.
    until(lambda: fleet.running() == [], "both workers to end")
    assert "told to stop" in fleet.run("status").err


@pytest.mark.soak
def test_what_may_not_wait_is_not_told_to(fleet: Many, ansible: Ansible) -> None:
    fleet.run("deploy", "--yes").ok()
    fleet.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4
    before = {name: record["pid"] for name, record in fleet.workers().items()}
    at_once = {"now": True, "wait": False}
    deployed, restarted, stopped, again = run_module(
        fleet, ansible, [{"state": state, **at_once} for state in ("deployed", "restarted", "stopped", "stopped")]
    )
    assert [each.get("msg", "") for each in (deployed, restarted, stopped)] == [""] * 3
    assert [record["pending"] for record in (*deployed["outcome"], *restarted["outcome"])] == [[]] * 4
    assert all(record["pid"] != before[name] for name, record in fleet.workers().items())
    assert (stopped["changed_hosts"], stopped["plan"], again["changed"]) == (["a", "b"], [], False)


def test_members_of_a_database_have_a_name_or_an_address(ansible: Ansible) -> None:
    """A host without `ansible_host` is reached by its name."""
    defaults = COLLECTION / "roles" / "puffin_database" / "defaults" / "main.yml"
    (ansible.place / "members.ini").write_text("one\ntwo ansible_host=10.0.0.2\n")
    shown = {"ansible.builtin.debug": {"msg": "{{ puffin_database_members | join(' and ') }}"}, "run_once": True}
    play = {"hosts": "all", "gather_facts": False, "vars_files": [str(defaults)], "tasks": [shown]}
    (ansible.place / "members.yml").write_text(yaml.safe_dump([play]))
    ran = ansible.play(str(ansible.place / "members.yml"), ansible.place / "members.ini").ok()
    assert "one and 10.0.0.2" in ran.out


def test_what_cannot_be_is_said(fleet: Many, ansible: Ansible) -> None:
    asked = ({"executable": "/nowhere/puffin-fleet"}, {"hosts": ["nobody"]}, {"state": "drained"})
    messages = [told["msg"] for told in run_module(fleet, ansible, asked)]
    assert "there is no command /nowhere/puffin-fleet: correct the option 'executable'" in messages[0]
    assert "no host matches 'nobody'" in messages[1]
    assert "state 'drained' needs 'hosts'" in messages[2]


def run_module(fleet: Many, ansible: Ansible, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Call the module with some options, one after the other in one play; what it returned each time."""
    fleet.file.write_text(yaml.safe_dump(fleet.content, sort_keys=False))
    tasks: list[dict[str, Any]] = [
        {
            "puffin.fleet.puffin_fleet": {key: value for key, value in options.items() if key != "check"},
            "check_mode": options.get("check", False),
            "register": f"told_{number}",
            "ignore_errors": True,
        }
        for number, options in enumerate(asked)
    ]
    report = fleet.place / "report.json"
    names = ", ".join(f"told_{number}" for number in range(len(tasks)))
    tasks.append({"ansible.builtin.copy": {"content": f"{{{{ [{names}] | to_json }}}}", "dest": str(report)}})
    defaults = {"group/puffin.fleet.fleet": {"hosts_file": str(fleet.file)}}
    play = {"hosts": "localhost", "gather_facts": False, "module_defaults": defaults, "tasks": tasks}
    playbook = fleet.place / "states.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False))
    ansible.run("ansible-playbook", playbook).ok()
    found: list[dict[str, Any]] = json.loads(report.read_text())
    return found


# --- the collection ---


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("module", "puffin_fleet", "lock_timeout"),
        ("inventory", "hosts_yaml", "PUFFIN_FLEET_EXECUTABLE"),
        ("role", "puffin_host", "puffin_host_scratch_mode"),
        ("role", "puffin_database", "puffin_database_keyfile"),
    ],
)
def test_everything_is_documented(ansible: Ansible, kind: str, name: str, shown: str) -> None:
    assert shown in ansible.run("ansible-doc", "-t", kind, f"puffin.fleet.{name}").ok().out


@pytest.mark.parametrize("role", ["puffin_host", "puffin_database"])
def test_every_variable_of_a_role_is_documented(role: str) -> None:
    place = COLLECTION / "roles" / role
    documented = yaml.safe_load((place / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    assert set(yaml.safe_load((place / "defaults" / "main.yml").read_text())) <= set(documented)


def test_the_readme_is_true(ansible: Ansible) -> None:
    """Its two commands and its ansible.cfg are what the other tests use; here is the rest."""
    assert yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"] == __version__
    text = (COLLECTION / "README.md").read_text()
    playbooks = {file.stem for file in (COLLECTION / "playbooks").glob("*.yml")}
    assert set(re.findall(r"ansible-playbook puffin\.fleet\.(\w+)", text)) <= playbooks
    (row,) = [line for line in text.splitlines() if line.startswith("| playbooks |")]
    assert set(re.findall(r"`(\w+)`", row)) == playbooks
    used = {
        name
        for file in (COLLECTION / "playbooks").glob("*.yml")
        for name in re.findall(r"puffin_\w+ \| default", file.read_text())
    }
    assert {name.split()[0] for name in used} <= set(re.findall(r"`(puffin_\w+)`", text))
    for example in blocks("yaml"):
        assert yaml.safe_load(example)
