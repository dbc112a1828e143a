"""`${NAME}` in hosts.yaml."""

from __future__ import annotations

import pytest

from fleet.errors import InventoryError
from fleet.hosts.inventory import Fleet, parse_inventory
from fleet.hosts.variables import allowed

EVERYWHERE = """\
fleet: lab
database:
  uri: "mongodb://${DB}:27017"
  names: [a]
  username: ${ME}
  password_file: ~/${ME}/secret
  tls: true
  tls_ca_file: /ca/${ME}.pem
release: {package: "${WHEELS}/puffin.whl", install: push}
defaults:
  user: ${ME}
  base_dir: /home/${ME}/pool
  scratch: /scratch/${ME}
  ssh: {key: "~/.ssh/${ME}", known_hosts: "${ME}_hosts"}
  workers: {cores: 1, programs: {orca: {root: "${ORCA}"}}}
  environment: {TMP: "${HOME}/tmp"}
  puffin: {daemon: {archive_dir: "${X}"}}
groups:
  big: {scratch: "/big/${ME}${DB}"}
hosts:
  n1: {address: "${DB}", groups: [big]}
hooks: {pre_deploy: "${WHEELS}/pre", post_deploy: ./post}
"""
ENVIRONMENT = {"DB": "db.example", "ME": "chem", "WHEELS": "/wheels", "ORCA": "no", "HOME": "no"}

SMALL = """\
fleet: lab
database: {uri: "mongodb://db", names: [a]}
defaults: {workers: {cores: 1}}
hosts:
  n1: {user: chem}
"""


def parse(text: str, **environment: str) -> Fleet:
    return parse_inventory(text, "hosts.yaml", environment=environment)


def complaints(text: str, **environment: str) -> list[str]:
    with pytest.raises(InventoryError) as caught:
        parse(text, **environment)
    return [str(problem) for problem in caught.value.problems]


def test_where_variables_may_stand() -> None:
    fleet = parse(EVERYWHERE, **ENVIRONMENT)
    (host,) = fleet.hosts
    database = fleet.database
    assert (database.uri, database.username) == ("mongodb://db.example:27017", "chem")
    assert (database.password_file, database.tls_ca_file) == ("~/chem/secret", "/ca/chem.pem")
    assert (host.user, host.address, host.base_dir) == ("chem", "db.example", "/home/chem/pool")
    assert (host.scratch, host.ssh.key, host.ssh.known_hosts) == ("/big/chemdb.example", "~/.ssh/chem", "chem_hosts")
    assert (fleet.release.package, fleet.hooks.pre_deploy) == ("/wheels/puffin.whl", "/wheels/pre")


def test_what_is_for_the_worker_stays_as_it_is() -> None:
    (host,) = parse(EVERYWHERE, **ENVIRONMENT).hosts
    assert host.environment == {"TMP": "${HOME}/tmp"}
    assert host.puffin == {"daemon": {"archive_dir": "${X}"}}
    assert host.workers[0].programs == {"orca": {"root": "${ORCA}"}}


def test_variables_that_are_not_set_are_all_named_once_each() -> None:
    found = complaints(EVERYWHERE, ME="chem", WHEELS="/w")
    assert found == [
        "hosts.yaml:3 database.uri: the environment variable DB is not set",
        "hosts.yaml:19 groups.big.scratch: the environment variable DB is not set",
        "hosts.yaml:21 hosts.n1.address: the environment variable DB is not set",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fleet: lab", "fleet: ${X}", "1 fleet: '${' may stand only in address, base_dir, scratch, ssh.key,"),
        ("names: [a]", 'names: ["${X}"]', "2 database.names[0]: '${' may stand only in"),
        ("n1: {user: chem}", 'n1: {groups: ["${X}"]}', "5 hosts.n1.groups[0]: '${' may stand only in"),
        ("cores: 1", 'cores: 1, jobs: ["${X}"]', "3 defaults.workers.jobs[0]: '${' may stand only in"),
        ("user: chem", 'ssh: {jump: "${X}"}', "5 hosts.n1.ssh.jump: '${' may stand only in"),
        (
            "user: chem",
            'user: "${1X}"',
            "5 hosts.n1.user: '${' must be followed by the name of an environment",
        ),
        ("user: chem", 'user: "${X"', "5 hosts.n1.user: '${' must be followed by the name of an environment"),
        ("user: chem", 'base_dir: "${NO}"', "5 hosts.n1.base_dir: the environment variable NO is not set"),
    ],
)
def test_where_they_may_not(old: str, new: str, expected: str) -> None:
    (found,) = complaints(SMALL.replace(old, new), X="geheim")
    assert expected in found
    assert "geheim" not in found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("mongodb://db", "mongodb://me:${X}@db", "database.uri: must not hold a password: put the password in a file"),
        ("mongodb://db", "${X}", "database.uri: must look like mongodb://"),
        ("names: [a]", "names: [a], password: '${X}'", "a password does not belong in this file"),
        ("user: chem", 'user: "-${X} y"', "hosts.n1.user: must be one word"),
        ("user: chem", 'base_dir: "${X}"', "hosts.n1.base_dir: must start with '/' or '~'"),
        ("user: chem", 'scratch: "/${X}[0]"', "hosts.n1.scratch: must not hold any of"),
    ],
)
def test_the_value_of_a_variable_is_never_repeated(old: str, new: str, expected: str) -> None:
    found = complaints(SMALL.replace(old, new), X="geheim")
    assert expected in "\n".join(found)
    assert "geheim" not in "\n".join(found)


def test_the_list_of_places_is_what_people_read() -> None:
    assert allowed()[:3] == ("address", "base_dir", "scratch")
    assert "database.uri" in allowed()
    assert "database.password" not in allowed()
