from __future__ import annotations

import pytest

from fleet.errors import InventoryError
from fleet.hosts.inventory import parse_inventory
from fleet.hosts.templates import answer_problem, hosts_template

URI = "mongodb://db.example:27017"


def test_the_template_parses_to_what_was_asked_for() -> None:
    text = hosts_template(
        "lab",
        database_uri=URI,
        database_names=["explore_a", "explore_b"],
        hosts=["node[01-03]", "localhost", "10.0.0.7"],
        user="chem",
        username="reader",
        password_file="~/my secrets/db",
    )
    fleet = parse_inventory(text, "hosts.yaml")
    assert fleet.name == "lab"
    assert (fleet.database.uri, fleet.database.names) == (URI, ("explore_a", "explore_b"))
    assert (fleet.database.username, fleet.database.password_file) == ("reader", "~/my secrets/db")
    assert [host.name for host in fleet.hosts] == ["node01", "node02", "node03", "localhost", "10.0.0.7"]
    assert [host.connection for host in fleet.hosts] == ["ssh", "ssh", "ssh", "local", "ssh"]
    assert fleet.hosts[0].user == "chem"
    assert fleet.release.extras == ("scine",)


def test_hosts_are_taken_as_ssh_takes_them() -> None:
    given = ["root@127.0.0.1:22922", "127.0.0.1:22923", "me@node[1-2]", "fe80::1", "127.0.0.1", "[::2]:22"]
    text = hosts_template("lab", database_uri=URI, database_names=["a"], hosts=given, user="chem")
    assert [(host.name, host.address, host.user, host.ssh.port) for host in parse_inventory(text, "").hosts] == [
        ("127.0.0.1", "127.0.0.1", "root", 22922),
        ("127.0.0.1-22923", "127.0.0.1", "chem", 22923),
        ("node1", "node1", "me", None),
        ("node2", "node2", "me", None),
        ("fe80-1", "fe80::1", "chem", None),
        ("localhost", "localhost", "chem", None),
        ("2", "::2", "chem", 22),
    ]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("fleet", "lab", ""),
        ("fleet", "a b", "must start with a letter"),
        ("database_uri", "http://x", "must look like mongodb://"),
        ("database_names", ["a.b"], "must be a database name"),
        ("hosts", ["node[1-3]", "root@10.0.0.7:2222"], ""),
        ("hosts", ["node_1", "no/de"], "a host's name must start with a letter"),
        ("hosts", ["node:ssh"], "must have a port from 1 to 65535"),
        ("user", "-x", "must be one word"),
    ],
)
def test_each_answer_is_looked_at_alone(key: str, value: object, problem: str) -> None:
    found = answer_problem(key, value)
    assert problem in found
    assert bool(problem) == bool(found)


def test_without_hosts_it_is_this_machine() -> None:
    fleet = parse_inventory(hosts_template("lab", database_uri=f"{URI}/a", database_names=[]), "hosts.yaml")
    assert [(host.name, host.connection) for host in fleet.hosts] == [("localhost", "local")]
    assert fleet.database.names == ("a",)
    assert fleet.hosts[0].user is None


def test_every_line_that_is_commented_out_is_valid_too() -> None:
    """What people uncomment must work: all but the path that excludes push, and what would stand twice."""
    text = hosts_template("lab", database_uri=URI, database_names=["a"], hosts=["head"])
    lines = []
    for line in text.splitlines():
        stripped = line.lstrip()
        indent = line[: len(line) - len(stripped)]
        body = stripped.removeprefix("# ")
        option = stripped.startswith("# ") and body.split(":")[0].strip().replace("_", "").isidentifier()
        skip = stripped.startswith(("# install:", "# path:"))
        host = stripped.startswith("# node")
        lines.append(indent + body if (option or host) and ":" in body and not skip else line)
    uncommented = "\n".join(lines)
    assert uncommented.count("#") < text.count("#") - 10
    fleet = parse_inventory(uncommented, "hosts.yaml")
    assert [host.name for host in fleet.hosts[:3]] == ["head", "node1", "node02"]
    assert fleet.hosts[1].ssh.jump == "gateway.example"
    assert fleet.hosts[2].workers[0].cores == 16
    assert fleet.hosts[0].puffin == {"programs": {"orca": {"available": True, "root": "/opt/orca"}}}
    assert fleet.update.drain_timeout == 86400


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"fleet": "a b"}, "must start with a letter"),
        ({"database_uri": "http://x"}, "must look like mongodb://"),
        ({"database_uri": "mongodb://u:geheim@db"}, "must not hold a password"),
        ({"database_names": []}, "give 'names'"),
        ({"hosts": ["node[3-1]"]}, "runs backwards"),
        ({"username": "chem"}, "must not be empty"),
    ],
)
def test_bad_answers_are_refused_before_anything_is_written(change: dict[str, object], expected: str) -> None:
    given: dict[str, object] = {"fleet": "lab", "database_uri": URI, "database_names": ["a"]}
    with pytest.raises(InventoryError) as caught:
        hosts_template(**{**given, **change})
    assert expected in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_names_with_quotes_cannot_break_out() -> None:
    text = hosts_template("lab", database_uri=URI, database_names=["a"], password_file='/p"x #y', username="u")
    assert parse_inventory(text, "hosts.yaml").database.password_file == '/p"x #y'
