from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from fleet.errors import ExitCode, InventoryError, Problem, UsageError
from fleet.hosts.inventory import Fleet, Share, expand_range, json_schema, parse_inventory, select

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster" / "hosts.yaml"

DESIGN = """\
fleet: reactions
database:
  {uri: "mongodb://db.example:27017", names: [explore_a, explore_b], username: chem, password_file: ~/.secrets/db}
release: {package: auto, extras: [scine], install: push, python: python3, keep: 3}
defaults:
  user: chem
  base_dir: ~/.puffin-fleet
  scratch: /scratch/puffin
  ssh: {port: 22, key: ~/.ssh/id_ed25519, jump: gateway.example, known_hosts: ~/.ssh/known_hosts}
  reserve: {cores: 1, memory: 2}
  workers: {cores: 4, memory: 8, disk: 20, count: auto}
  puffin: {daemon: {cycle_time_in_s: 5}, programs: {orca: {available: true, root: /opt/orca}}}
groups:
  big: {workers: [{cores: 16, memory: 64, count: 2}, {cores: 4, memory: 8, count: auto, jobs: [scine_single_point]}]}
hosts:
  node1: {address: 10.0.0.11}
  node[02-40]: {groups: [big]}
  here: {connection: local}
update:
  {max_parallel: 25%, canary: 1, min_healthy_time: 10s, healthy_deadline: 5m, progress_deadline: 30m, auto_revert: true,
   failure_budget: 10%, drain_timeout: 24h}
hooks: {pre_deploy: ./hooks/pre, post_deploy: ./hooks/post}
"""

SMALL = """\
fleet: lab
database: {ip: 10.0.0.1, port: 27018, name: "a, b"}
defaults:
  workers: {cores: 1}
hosts:
  n1:
"""


def parse(text: str) -> Fleet:
    return parse_inventory(text, "hosts.yaml")


def complaints(text: str) -> list[str]:
    with pytest.raises(InventoryError) as caught:
        parse(text)
    assert caught.value.exit_code is ExitCode.USAGE
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("address", ["::1", "fe80::1%eth0", "2001:db8::7:22", "n1.example", "head_node"])
def test_addresses_that_may_be(address: str) -> None:
    fleet = parse_inventory(SMALL.replace("n1:", f"n1: {{address: '{address}'}}"), "hosts.yaml")
    assert fleet.hosts[0].address == address


def test_the_example_of_the_design() -> None:
    fleet = parse(DESIGN)
    assert (fleet.name, fleet.source) == ("reactions", "hosts.yaml")
    assert [host.name for host in fleet.hosts] == ["node1", *(f"node{n:02d}" for n in range(2, 41)), "here"]
    node1, node02, here = fleet.hosts[0], fleet.hosts[1], fleet.hosts[-1]
    assert (node1.address, node1.user, node1.connection) == ("10.0.0.11", "chem", "ssh")
    assert (node02.address, here.connection) == ("node02", "local")
    assert (node1.ssh.port, node1.ssh.jump, node1.reserve.cores, node1.reserve.memory) == (22, "gateway.example", 1, 2)
    assert [(shape.cores, shape.count) for shape in node1.workers] == [(4, "auto")]
    assert [(shape.cores, shape.count, shape.jobs) for shape in node02.workers] == [
        (16, 2, ()),
        (4, "auto", ("scine_single_point",)),
    ]
    assert node1.puffin["programs"] == {"orca": {"available": True, "root": "/opt/orca"}}
    assert fleet.database.names == ("explore_a", "explore_b")
    assert (fleet.release.extras, fleet.release.install, fleet.release.keep) == (("scine",), "push", 3)
    assert (fleet.update.healthy_deadline, fleet.update.drain_timeout) == (300.0, 86400.0)
    assert fleet.update.max_parallel == Share(value=25, percent=True)
    assert fleet.hooks.post_deploy == "./hooks/post"


def test_the_smallest_file_has_sensible_defaults() -> None:
    fleet = parse(SMALL)
    (host,) = fleet.hosts
    assert (host.address, host.connection, host.user) == ("n1", "ssh", None)
    assert (host.base_dir, host.scratch) == ("~/.puffin-fleet", "~/.puffin-fleet/scratch")
    assert [(shape.cores, shape.count) for shape in host.workers] == [(1, 1)]
    assert (fleet.database.ip, fleet.database.port, fleet.database.names) == ("10.0.0.1", 27018, ("a", "b"))
    assert fleet.release.package == "auto"


def test_later_blocks_win_and_mappings_merge() -> None:
    fleet = parse(
        """\
fleet: lab
database: {uri: "mongodb://db/explore"}
defaults:
  user: a
  ssh: {port: 22, key: ~/k}
  reserve: {cores: 1}
  environment: {A: "1", B: "1"}
  puffin: {daemon: {cycle_time_in_s: 5, lease_in_s: 30}}
  workers: [{cores: 1}, {cores: 2}]
groups:
  one: {user: b, ssh: {port: 23}, environment: {B: "2"}, puffin: {daemon: {lease_in_s: 40}}}
  two: {user: c, reserve: {memory: 4}, workers: {cores: 8}}
hosts:
  x: {groups: [one, two], environment: {C: "3"}, ssh: {port: 24}}
  y: {groups: [two, one]}
"""
    )
    x, y = fleet.hosts
    assert (x.user, y.user) == ("c", "b")
    assert (x.ssh.port, x.ssh.key, y.ssh.port) == (24, "~/k", 23)
    assert (x.reserve.cores, x.reserve.memory) == (1, 4)
    assert dict(x.environment) == {"A": "1", "B": "2", "C": "3"}
    assert x.puffin == {"daemon": {"cycle_time_in_s": 5, "lease_in_s": 40}}
    assert [shape.cores for shape in x.workers] == [8]
    assert fleet.database.names == ("explore",)


def test_a_user_in_the_connection_string_is_taken_out() -> None:
    database = parse(
        SMALL.replace('{ip: 10.0.0.1, port: 27018, name: "a, b"}', '{uri: "mongodb://me@db/x", password_file: /p}')
    ).database
    assert (database.uri, database.username) == ("mongodb://db/x", "me")


def test_all_errors_at_once_with_line_and_path() -> None:
    text = """\
fleet: lab
database: {uri: "mongodb://db", names: [a]}
defaults:
  ssh: {port: many}
  workers: {corse: 4, memory: 0}
  puffin:
    daemon: {uuid: mine, cycle_tme: 5}
groups:
  big: {workers: [{cores: 0}]}
hosts:
  node[01-03]: {groups: [bgi]}
  node02:
  node02: {adress: 10.0.0.1}
updat: {}
"""
    assert complaints(text) == [
        "hosts.yaml:4 defaults.ssh.port: must be a whole number",
        "hosts.yaml:5 defaults.workers: 'cores' is missing",
        "hosts.yaml:5 defaults.workers.memory: must be more than 0",
        "hosts.yaml:5 defaults.workers.corse: unknown key 'corse', did you mean 'cores'?",
        "hosts.yaml:7 defaults.puffin.daemon.uuid: is set by the fleet for each worker"
        " (it must differ for each worker): drop it",
        "hosts.yaml:7 defaults.puffin.daemon.cycle_tme: unknown key, did you mean 'cycle_time_in_s'?",
        "hosts.yaml:9 groups.big.workers[0].cores: must be at least 1",
        "hosts.yaml:11 hosts.node[01-03].groups[0]: unknown group 'bgi', did you mean 'big'?",
        "hosts.yaml:12 hosts.node02: host 'node02' is already given by 'node[01-03]' on line 11",
        "hosts.yaml:13 hosts.node02: given twice, first on line 12: keep one",
        "hosts.yaml:14 updat: unknown key 'updat', did you mean 'update'?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fleet: lab", "fleet: a/b", "1 fleet: must start with a letter"),
        ("fleet: lab\n", "", "'fleet' is missing"),
        ("fleet: lab", "fleet: 2024-01-01", "1 fleet: must be text"),
        ("n1:", "-n1:", "6 hosts.-n1: a host's name must start"),
        ("n1:", "node[5-2]:", "runs backwards"),
        ("n1:", "node[a-b]:", "'a-b' is no range"),
        ("n1:", "node[1-2:", "brackets do not match"),
        ("n1:", "node[0-99999]:", "more than 10000 hosts"),
        ("n1:", "n[1-2]: {address: 10.0.0.1}", "hosts.n[1-2].address: one address cannot serve 2 hosts"),
        ("n1:", "n1: {connection: local, address: 10.0.0.1}", "n1.address: has no meaning with 'connection: local'"),
        ("n1:", "n1: {connection: telnet}", "hosts.n1.connection: must be 'ssh' or 'local'"),
        ("n1:", "n1: {address: '-oProxyCommand=x'}", "hosts.n1.address: must be one word"),
        (
            "n1:",
            "n1: {address: '127.0.0.1:22922', ssh: {port: 22922}}",
            "hosts.n1.address: must be a name or address alone: write address: 127.0.0.1, ssh: {port: 22922}",
        ),
        ("n1:", "n1: {address: root@n1}", "name or address alone: write address: n1, user: root"),
        ("n1:", "n1: {address: 'me@[fe80::1]:2'}", "alone: write address: fe80::1, user: me, ssh: {port: 2}"),
        ("n1:", "n1: {base_dir: relative}", "hosts.n1.base_dir: must start with '/' or '~'"),
        ("n1:", "n1: {base_dir: '/a ;b'}", "supervisord cannot read that"),
        ("n1:", "n1: {base_dir: '/a[b]'}", "must not hold any of"),
        ("n1:", "n1: {groups: big}", "hosts.n1.groups: must be a list"),
        ("n1:", "n1: {groups: [big]}", "unknown group 'big'"),
        ("n1:", "n1: {workers: []}", "hosts.n1.workers: must not be empty: 'puffin-fleet drain' or"),
        ("n1:", "n1: {workers: {cores: true}}", "hosts.n1.workers.cores: must be a whole number"),
        ("n1:", "n1: {workers: {cores: 1, count: some}}", "must be auto or a whole number of at least 1"),
        *(
            ("n1:\n", f"n1:\nupdate: {{stagger: {value}}}\n", "update.stagger: must be a time such as 10s, 5m")
            for value in (".inf", ".nan", "-1", "1" + "0" * 400 + "d")
        ),
        ("n1:", "n1: {workers: {cores: 1, memory: .inf}}", "memory: must be a number, and not an infinite one"),
        ("n1:", "n1: {environment: {A: 1}}", "hosts.n1.environment.A: must be text"),
        ("n1:", "n1: {environment: {PUFFIN_DAEMON_MODE: debug}}", "use the 'puffin' section"),
        ("n1:", 'n1: {environment: {A: "x\\ny"}}', "hosts.n1.environment.A: must be one line"),
        ("n1:", "n1: {puffin: {daemon: {touch_time_in_s: 9000}}}", "hosts.n1.puffin: daemon.touch_time_in_s"),
        ("n1:", "n1: {puffin: {demon: {}}}", "hosts.n1.puffin.demon: unknown section, did you mean 'daemon'?"),
        ("n1:", "n1: {puffin: {resources: {cores: 4}}}", "say it in 'workers'"),
        ("n1:", "n1: {puffin: {resources: {cpus: [1]}}}", "say it with 'affinity' or 'cpus' of the host"),
        ("n1:", "n1: {puffin: {resources: {gpus: [1]}}}", "say it with 'gpus' in 'workers', and of the host"),
        ("n1:", "n1: {workers: {cores: 1, gpus: -1}}", "hosts.n1.workers.gpus: must be at least 0"),
        (
            "n1:",
            "n1: {workers: [{cores: 1, programs: {oca: {}}}]}",
            "workers[0].programs.oca: unknown program, did you",
        ),
        ("n1:", "n1: {workers: {cores: 1, programs: {orca: {rot: /o}}}}", "n1.workers.programs.orca.rot: unknown key"),
        ("n1:", "n1: {workers: {cores: 1, programs: [orca]}}", "n1.workers.programs: must be a mapping of keys"),
        ("n1:", "n1: {affinity: socket}", "hosts.n1.affinity: must be 'none', 'cores' or 'numa'"),
        ("n1:", "n1: {cpus: 3-1}", "hosts.n1.cpus: must be numbers of processors, such as 0-15,32-47"),
        ("n1:", "n1: {cpus: []}", "hosts.n1.cpus: must be numbers of processors"),
        ("n1:", "n1: {cpus: [0, true]}", "hosts.n1.cpus: must be numbers of processors"),
        ("n1:", "n1: {cpus: 1.5}", "hosts.n1.cpus: must be numbers of processors"),
        ("n1:", "n1: {gpus: 2}", "hosts.n1.gpus: must be auto, or a list of ids such as [0, 1]"),
        ("n1:", "n1: {gpus: [0, '0']}", "hosts.n1.gpus: must not name a device twice"),
        ("n1:", "n1: {gpus: ['a b']}", "hosts.n1.gpus: must be auto, or a list of ids"),
        ("fleet: lab", "fleet: lab\nupdate: {stagger: soon}", "update.stagger: must be a time such as 10s"),
        ("fleet: lab", "fleet: lab\ninclude: other.yaml", "2 include: must be a list of files"),
        ("fleet: lab", "fleet: lab\ninclude: [5]", "2 include[0]: must be the name of a file"),
        ("n1:", "n1: {puffin: {fleet: {name: x}}}", "hosts.n1.puffin.fleet: is written by the fleet itself"),
        ("n1:", "n1: {puffin: {daemon: {mode: debug}}}", "hosts.n1.puffin.daemon.mode: is set by the fleet"),
        ("n1:", "n1: 5", "hosts.n1: must be a mapping"),
        ("hosts:\n  n1:", "hosts: {}", "5 hosts: must not be empty"),
        ("hosts:\n  n1:", "hosts: [n1]", "5 hosts: must be a mapping"),
        ("defaults:\n  workers: {cores: 1}", "", "hosts.n1: has no workers: say for example"),
        ("fleet: lab", "fleet: lab\nrelease: {install: pip}", "release.install: must be 'push', 'index' or 'path'"),
        ("fleet: lab", "fleet: lab\nrelease: {install: index, path: /x}", "'path' has no meaning with install: index"),
        ("fleet: lab", "fleet: lab\nrelease: {install: path}", "install: path needs 'path'"),
        ("fleet: lab", "fleet: lab\nrelease: {path: /opt/x}", "'path' has no meaning with install: push"),
        ("fleet: lab", "fleet: lab\nrelease: {keep: 0}", "release.keep: must be at least 1"),
        ("fleet: lab", "fleet: lab\nupdate: {max_parallel: 0}", "update.max_parallel: must be more than 0"),
        ("fleet: lab", "fleet: lab\nupdate: {failure_budget: 120%}", "a percentage such as 25%"),
        ("fleet: lab", "fleet: lab\nupdate: {drain_timeout: soon}", "must be a time such as 10s"),
        ("fleet: lab", "fleet: lab\nupdate: {auto_revert: 1}", "update.auto_revert: must be true or false"),
        ("fleet: lab", "fleet: lab\nhooks: {pre_deploy: ''}", "hooks.pre_deploy: must not be empty"),
        ("ip: 10.0.0.1, port: 27018,", "", "2 database: give either 'uri' or 'ip'"),
        (', name: "a, b"', "", "2 database: give 'names'"),
        ('name: "a, b"', "names: [a], name: b", "give either 'name' or 'names'"),
        ('name: "a, b"', "names: ['a b']", "database.names[0]: must be a database name"),
        ("ip: 10.0.0.1", "uri: 'mongodb://db'", "'port' goes with 'ip'"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'http://db'", "database.uri: must look like mongodb://"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb://db:99999'", "2 database.uri: must have a port from 1 to 65535"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb://a,b:0'", "database.uri: must have a port from 1 to 65535"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb://db:'", "database.uri: must have a port"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb://:27017'", "database.uri: must name a host"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb://a,,b'", "database.uri: must name a host"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb://[::1'", "database.uri: must name a host"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb:///x'", "database.uri: must look like"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb+srv://db:1'", "database.uri: must not name a port"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb+srv://a,b'", "database.uri: must name one host"),
        ("ip: 10.0.0.1, port: 27018", "uri: 'mongodb://a@b@db'", "database.uri: must not hold a user's name with '@'"),
        ("n1:", "n1: {puffin: {database: {uri: 'mongodb://db:99999'}}}", "puffin.database.uri: must have a port"),
        ("ip: 10.0.0.1", "ip: 10.0.0.1, username: me", "'username' and 'password_file' go together"),
        ("port: 27018", "port: 70000", "database.port: must be at most 65535"),
        ("port: 27018", "port: 27018, tls_ca_file: /ca", "'tls_ca_file' goes with 'tls: true'"),
        ("fleet: lab", "fleet: [lab", "not valid YAML"),
        ("fleet: lab", "fleet: !!python/name:os.system x", "1 fleet: cannot be read as a value"),
        ("fleet: lab", "fleet: 2024-99-01", "1 fleet: cannot be read as a value"),
        ("fleet: lab", "fleet: &a [*a]", "an alias cannot contain itself"),
    ],
)
def test_bad_input(old: str, new: str, expected: str) -> None:
    assert old in SMALL
    found = complaints(SMALL.replace(old, new))
    assert expected in "\n".join(found), found
    assert all(line.startswith("hosts.yaml") for line in found)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "words\n", "\0", "a: b\x07"])
def test_a_file_that_is_no_mapping(text: str) -> None:
    assert len(complaints(text)) == 1


@pytest.mark.parametrize(
    "database",
    [
        '{uri: "mongodb://me:geheim@db", names: [a]}',
        '{uri: "mongodb://me:geheim@db/a?x=y"}',
        '{uri: "mongodb://me:ge@heim:geheim@db:99999/a"}',
        '{uri: "mongodb://me:a/geheim@db"}',
        '{uri: "mongodb://me:a?geheim@db"}',
        '{uri: "http://me:geheim@db"}',
        '{uri: "mongodb://db/a?tlsCertificateKeyFilePassword=geheim"}',
        "{ip: db, names: [a], password: geheim}",
        '{uri: ["mongodb://me:geheim@db"], names: [a]}',
    ],
)
def test_a_password_is_refused_and_never_repeated(database: str) -> None:
    text = SMALL.replace('{ip: 10.0.0.1, port: 27018, name: "a, b"}', database)
    override = SMALL.replace("n1:", f"n1: {{puffin: {{database: {database}}}}}")
    for found in (complaints(text), complaints(override)):
        assert "geheim" not in "".join(found)
    if "[" + '"' not in database:
        assert "database.password_file" in "".join(complaints(text))


def test_a_syntax_error_does_not_quote_the_file() -> None:
    (found,) = complaints('database: {password: "geheim}\n')
    assert found.startswith("hosts.yaml:")
    assert "geheim" not in found


def test_merge_keys_and_anchors() -> None:
    fleet = parse(SMALL.replace("  n1:", "  n1: &one {user: chem, workers: {cores: 2}}\n  n2: {<<: *one, user: other}"))
    assert [(host.user, host.workers[0].cores) for host in fleet.hosts] == [("chem", 2), ("other", 2)]


def test_keys_are_names_even_where_yaml_sees_a_number() -> None:
    fleet = parse(SMALL.replace("n1:", "007:\n  on:\n  1e3:"))
    assert [host.name for host in fleet.hosts] == ["007", "on", "1e3"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("n1", ["n1"]),
        ("node[02-04]", ["node02", "node03", "node04"]),
        ("node[8-11]", ["node8", "node9", "node10", "node11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("n[1,3-5]x", ["n1x", "n3x", "n4x", "n5x"]),
        ("rack[1-2]n[1-3]", ["rack1n1", "rack1n2", "rack1n3", "rack2n1", "rack2n2", "rack2n3"]),
    ],
)
def test_ranges(pattern: str, expected: list[str]) -> None:
    assert list(expand_range(pattern)) == expected


@given(st.integers(0, 9999), st.integers(0, 300), st.integers(1, 6))
def test_a_range_gives_each_number_once_in_order(first: int, more: int, width: int) -> None:
    names = expand_range(f"n[{first:0{width}d}-{first + more:0{width}d}]")
    assert [int(name[1:]) for name in names] == list(range(first, first + more + 1))
    assert all(len(name) > width for name in names)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_the_size_of_a_product(sizes: list[int]) -> None:
    total = 1
    for size in sizes:
        total *= size
    pattern = "".join(f"x[1-{size}]" for size in sizes)
    if total > 10_000:
        with pytest.raises(ValueError, match="more than"):
            expand_range(pattern)
    else:
        assert len(set(expand_range(pattern))) == total


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("5m", 300), ("24h", 86400), ("1h30m", 5400), ("0.5s", 0.5), ("2d", 172800), ("90", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    fleet = parse(SMALL + f"update: {{drain_timeout: {text}}}\n")
    assert fleet.update.drain_timeout == seconds


@pytest.mark.parametrize(
    ("text", "total", "hosts"), [("25%", 40, 10), ("25%", 3, 0), ("10%", 39, 3), ("7", 40, 7), ("100%", 5, 5)]
)
def test_shares(text: str, total: int, hosts: int) -> None:
    share = parse(SMALL + f"update: {{max_parallel: {text}}}\n").update.max_parallel
    assert share.of(total) == hosts
    assert hosts <= share.of(total, round_up=True) <= hosts + 1
    assert str(share) == text


def test_processors_gpus_and_stagger() -> None:
    host = "n1: {affinity: numa, cpus: '0-3, 8', gpus: [1, GPU-a], workers: {cores: 1, gpus: 1, programs: {orca: }}}"
    with pytest.raises(InventoryError, match="orca: must be a section"):
        parse(SMALL.replace("n1:", host))
    fleet = parse(SMALL.replace("n1:", host.replace("orca: ", "orca: {root: /o}")) + "update: {stagger: 1m}\n")
    (found,) = fleet.hosts
    assert (found.affinity, found.cpus, found.gpus) == ("numa", (0, 1, 2, 3, 8), ("1", "GPU-a"))
    assert (found.workers[0].gpus, found.workers[0].programs) == (1, {"orca": {"root": "/o"}})
    assert fleet.update.stagger == 60
    (plain,) = parse(SMALL).hosts
    assert (plain.affinity, plain.cpus, plain.gpus, plain.workers[0].gpus) == ("none", (), "auto", 0)
    assert [parse(SMALL.replace("n1:", f"n1: {{cpus: {text}}}")).hosts[0].cpus for text in ("5", "[2, 1]")] == [
        (5,),
        (1, 2),
    ]


def test_select() -> None:
    fleet = parse(DESIGN)
    assert select(fleet, []) == fleet.hosts
    assert [host.name for host in select(fleet, ["here", "node0[2-3]"])] == ["node02", "node03", "here"]
    with pytest.raises(UsageError) as caught:
        select(fleet, ["node1", "nodeX*", "other"])
    assert "'nodeX*', 'other'" in str(caught.value)
    assert "node02" in str(caught.value)
    assert "21 more" in str(caught.value)


@pytest.mark.parametrize(
    "text", [DESIGN, SMALL, EXAMPLE.read_text(encoding="utf-8")], ids=["design", "small", "example"]
)
def test_an_editor_accepts_by_the_schema_what_is_right(text: str) -> None:
    assert list(Draft202012Validator(json_schema()).iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        ("fleet:", "fleets:", ""),
        ("names:", "name_s:", "database"),
        ("extras:", "extra:", "release"),
        ("jump:", "jumps:", "defaults"),
        ("reserve: {cores: 1", "reserve: {cores: some", "defaults"),
        ("count: auto}\n  puffin", "count: all}\n  puffin", "defaults"),
        ("jobs:", "job:", "groups/big"),
        ("connection: local", "connection: telnet", "hosts/here"),
        ("canary: 1", "canary: {}", "update"),
        ("install: push", "install: pull", "release"),
    ],
)
def test_an_editor_marks_by_the_schema_what_is_wrong(right: str, wrong: str, where: str) -> None:
    assert DESIGN.count(right) == 1
    found = Draft202012Validator(json_schema()).iter_errors(yaml.safe_load(DESIGN.replace(right, wrong)))
    assert {"/".join(map(str, error.absolute_path)) for error in found} == {where}


def test_a_thousand_hosts_come_from_one_line() -> None:
    assert len(parse(SMALL.replace("n1:", "n[0001-1000]:")).hosts) == 1000


def test_problem_without_a_place() -> None:
    assert str(Problem("is wrong")) == "is wrong"
    assert str(Problem("is wrong", path="node1")) == "node1: is wrong"
