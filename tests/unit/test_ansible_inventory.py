"""What Ansible is told of a fleet."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.errors import UsageError
from fleet.hosts.ansible import servers, to_ansible
from fleet.hosts.hostsfile import Database
from fleet.hosts.inventory import Fleet, parse_inventory
from fleet.shapes import PRINTED
from tests.acceptance.commands import puffin_fleet

ROOT = Path(__file__).parents[2]

HOSTS: dict[str, Any] = {
    "fleet": "f",
    "database": {"uri": "mongodb://one,two:27018/?replicaSet=r", "names": ["a"]},
    "release": {"python": "/opt/python/bin/python3"},
    "defaults": {"user": "chem", "scratch": "/scratch/chem", "workers": {"cores": 4, "memory": 8}},
    "groups": {"big-ones": {"workers": [{"cores": 16, "memory": 64, "count": 2}]}, "2nd": {}, "nobody's": {}},
    "hosts": {"node[1-2]": {"groups": ["big-ones", "2nd"]}, "tower": {}, "here": {"connection": "local"}},
}


def fleet_of(**changes: Any) -> Fleet:
    content = {**HOSTS, "groups": {name: {} for name in HOSTS["groups"] if "'" not in name}, **changes}
    return parse_inventory(yaml.safe_dump(content, sort_keys=False), "hosts.yaml")


def told(fleet: Fleet) -> dict[str, Any]:
    return to_ansible(fleet, fleet.hosts, "/at/hosts.yaml", lambda text: f"/at/{text}")


def variables(fleet: Fleet, host: str) -> dict[str, Any]:
    found: dict[str, Any] = told(fleet)["_meta"]["hostvars"][host]
    return found


def test_groups_have_names_that_ansible_allows() -> None:
    found = told(fleet_of())
    assert found["all"]["children"] == ["puffin_fleet", "big_ones", "_2nd"]
    assert found["puffin_fleet"]["hosts"] == ["node1", "node2", "tower", "here"]
    assert found["big_ones"] == found["_2nd"] == {"hosts": ["node1", "node2"]}
    assert found["_meta"]["hostvars"]["node1"]["puffin_groups"] == ["big-ones", "2nd"]


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        (["a-b", "a_b"], "groups 'a-b' and 'a_b' would both be 'a_b' in Ansible; rename one"),
        (["all"], "group 'all': Ansible has a group 'all' of its own; rename it"),
        (["puffin-fleet"], "group 'puffin-fleet': Ansible has a group 'puffin_fleet' of its own; rename it"),
    ],
)
def test_groups_that_would_mean_something_else_are_refused(groups: list[str], problem: str) -> None:
    fleet = fleet_of(groups={name: {} for name in groups}, hosts={"node": {"groups": groups}})
    with pytest.raises(UsageError) as error:
        told(fleet)
    assert str(error.value) == f"hosts.yaml: {problem}"


def test_how_to_reach_a_host() -> None:
    found = variables(
        fleet_of(hosts={"tower": {"address": "10.0.0.9", "ssh": {"port": 2222, "key": "my key"}}}), "tower"
    )
    reach = {name: value for name, value in found.items() if name.startswith("ansible_")}
    assert reach == {
        "ansible_host": "10.0.0.9",
        "ansible_port": 2222,
        "ansible_user": "chem",
        "ansible_ssh_private_key_file": "/at/my key",
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=yes",
        "ansible_python_interpreter": "/opt/python/bin/python3",
    }


def test_this_machine_is_not_reached_by_ssh() -> None:
    found = variables(fleet_of(), "here")
    assert found["ansible_connection"] == "local"
    assert not any(name.startswith("ansible_ssh") or name == "ansible_host" for name in found)


@pytest.mark.parametrize(
    ("jump", "end"),
    [
        ("gate", "-i '/at/a key' -W '[%h]:%p' gate"),
        ("me@gate:2222", "-i '/at/a key' -p 2222 -l me -W '[%h]:%p' gate"),
        ("me@[fe80::1]:22", "-i '/at/a key' -p 22 -l me -W '[%h]:%p' fe80::1"),
    ],
)
def test_the_way_through_a_jump_host_knows_key_and_known_hosts(jump: str, end: str) -> None:
    ssh = {"jump": jump, "key": "a key", "known_hosts": "100% known"}
    words = shlex.split(variables(fleet_of(hosts={"tower": {"ssh": ssh}}), "tower")["ansible_ssh_common_args"])
    known = 'UserKnownHostsFile="/at/100%% known" ~/.ssh/known_hosts ~/.ssh/known_hosts2'
    assert words[:4] == ["-o", "StrictHostKeyChecking=yes", "-o", known]
    option, _, command = words[5].partition("=")
    assert option == "ProxyCommand"
    assert command.endswith(end)
    # ssh itself turns two percent signs into one before it starts this command, in which they stand for one again.
    assert shlex.split(command)[4] == known.replace("%%", "%%%%")


def test_the_layout_is_told_and_secrets_are_not() -> None:
    secret = {"environment": {"API_TOKEN": "token-0815"}, "puffin": {"programs": {"orca": {"root": "/opt/orca"}}}}
    database = {"uri": "mongodb://db", "names": ["a"], "username": "chem", "password_file": "/secrets/db"}
    fleet = fleet_of(defaults={**HOSTS["defaults"], **secret}, database=database)
    found = variables(fleet, "node1")
    assert found["puffin_layout"] == [{"cores": 4, "memory": 8.0, "disk": None, "count": 1, "gpus": 0, "jobs": []}]
    assert (found["puffin_scratch"], found["puffin_directory"]) == ("/scratch/chem", "~/.puffin-fleet/f/hosts/node1")
    text = json.dumps(told(fleet))
    assert not any(word in text for word in ("token-0815", "/secrets/db", "/opt/orca"))


@pytest.mark.parametrize(
    ("database", "found"),
    [
        ({"ip": "10.0.0.1"}, [("10.0.0.1", 27017)]),
        ({"uri": "mongodb://db.example"}, [("db.example", 27017)]),
        ({"uri": "mongodb://me@one:1,two:2/a?ssl=true", "password_file": "p"}, [("one", 1), ("two", 2)]),
        ({"uri": "mongodb://[fe80::1]:7"}, [("fe80::1", 7)]),
        ({"uri": "mongodb+srv://cluster.example"}, []),
    ],
)
def test_the_databases_servers(database: dict[str, Any], found: list[tuple[str, int]]) -> None:
    told = servers(Database.model_validate({"names": ["a"], **database}))
    assert [(server["address"], server["port"]) for server in told] == found


def test_the_command_shows_hosts_to_people_and_programs(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    content = {**HOSTS, "groups": {"big-ones": HOSTS["groups"]["big-ones"], "2nd": {}}}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    lines = puffin_fleet("inventory", file).ok().out.splitlines()
    assert lines[1].split() == ["node1", "node1", "chem", "big-ones,", "2nd", "2", "x", "16", "cores"]
    assert "this machine" in lines[4]
    (record,) = puffin_fleet("inventory", file, "--json", "--host", "tower").ok().json()
    assert (record["host"], record["workers"][0]["cores"]) == ("tower", 4)
    found = json.loads(puffin_fleet("inventory", file, "--ansible", "--host", "tower").ok().out)
    assert found["_meta"]["hostvars"]["tower"]["puffin_hosts_file"] == str(file)
    assert puffin_fleet("inventory", file, "--ansible", "--json").code == 2


def test_playbooks_read_keys_that_the_commands_print() -> None:
    read = []
    for playbook in sorted((ROOT / "ansible" / "playbooks").glob("*.yml")):
        text = playbook.read_text(encoding="utf-8")
        for key in re.findall(r"map\('from_json'\) \| map\(attribute='(\w+)'\)", text):
            (verb,) = re.findall(r"\['(\w+)', '--json'", text)
            assert key in PRINTED[verb].__annotations__, f"{playbook.name}: {verb} prints no {key}"
            read.append(verb)
    assert read == ["collect"]
