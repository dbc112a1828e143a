"""`puffin-fleet init`: from nothing to a hosts.yaml that suits the hosts."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import psutil
import pytest

from fleet.hosts.inventory import parse_inventory
from tests.acceptance.commands import BIN, Ran, puffin_fleet
from tests.lab.sshd import SshHost

ABOUT = ("--fleet", "lab", "--database", "mongodb://db.example", "--name", "explore")


@pytest.fixture
def home(tmp_path: Path, node: SshHost) -> Path:
    """A home directory whose SSH configuration says where node1 and stranger are, and knows the key of one."""
    ssh = tmp_path / "home" / ".ssh"
    ssh.mkdir(parents=True, mode=0o700)
    key = ssh / "id_ed25519"
    key.write_bytes(node.key.read_bytes())
    key.chmod(0o600)
    address = f"Port {node.port}\n  IdentityFile {key}\n"
    (ssh / "config").write_text(
        f"Host node1\n  HostName 127.0.0.1\n  {address}Host stranger\n  HostName localhost\n  {address}"
    )
    (ssh / "known_hosts").write_text(node.known_hosts.read_text())
    return ssh.parent


def init(home: Path, file: Path, *words: object) -> Ran:
    return puffin_fleet("init", file, *ABOUT, *words, home=home)


def test_hosts_are_looked_at_and_a_layout_proposed(tmp_path: Path, node: SshHost, home: Path) -> None:
    file = tmp_path / "hosts.yaml"
    ran = init(
        home, file, "--user", node.user, "--host", "node[1-3]", "--host", "stranger", "--host", "nowhere.invalid"
    )
    assert (ran.ok().out, ran.code) == ("", 0)
    text = file.read_text()
    found = re.search(r"# Found node1: (\d+) cores?", text)
    assert found is not None
    cores = int(found[1])
    assert 1 <= cores <= len(os.sched_getaffinity(0))
    assert f"free in {node.home}/.puffin-fleet." in text
    fleet = parse_inventory(text, str(file))
    assert [host.name for host in fleet.hosts] == ["node1", "node2", "node3", "stranger", "nowhere.invalid"]
    (shape,) = fleet.hosts[0].workers
    assert shape.count == "auto"
    assert shape.memory is not None
    assert cores // shape.cores * shape.memory < psutil.virtual_memory().total / 2**30
    # What could not be looked at is said, with what to do, and has what was proposed for the others.
    assert "looking at node1, stranger, nowhere.invalid" in ran.err
    assert "the host key of [localhost]:" in ran.err
    assert f"puffin-fleet trust {file} --host stranger" in ran.err
    assert "nowhere.invalid failed at connect: the name nowhere.invalid cannot be resolved" in ran.err
    assert f"wrote {file}" in ran.err
    # Nothing was left on the host.
    assert not (node.home / ".puffin-fleet").exists()


def test_without_probing_nothing_is_connected_to(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "hosts.yaml"
    ran = init(home, file, "--host", "nowhere.invalid", "--no-probe").ok()
    assert "nowhere.invalid" not in ran.err
    assert "workers: {cores: 1, memory: 2, count: auto}" in file.read_text()
    again = init(home, file, "--host", "other")
    assert (again.code, again.err.strip()) == (2, f"{file} exists: use --force to replace it")


def test_what_is_not_given_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    ours, terminal = os.openpty()
    asking = subprocess.Popen(
        [BIN / "puffin-fleet", "init", file, "--name", "explore"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    os.close(terminal)
    # A bad answer is asked for again; and this machine, which is proposed.
    os.write(ours, b"my lab\nlab\nmongodb://db.example\n\n")
    out, said = asking.communicate(timeout=60)
    os.close(ours)
    assert (asking.returncode, out) == (0, ""), said
    assert re.match(
        r"Name of the fleet.*Error: must start with.*Name of the fleet.*Database server.*Hosts, separated by spaces",
        said,
        re.DOTALL,
    )
    fleet = parse_inventory(file.read_text(), "hosts.yaml")
    assert (fleet.name, fleet.database.uri, fleet.database.names) == ("lab", "mongodb://db.example", ("explore",))
    assert [host.connection for host in fleet.hosts] == ["local"]
    assert "# Found localhost: " in file.read_text()


def test_bad_options_are_named(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "hosts.yaml"
    words = (
        "--fleet",
        "a b",
        "--database",
        "mongodb://u:geheim@db",
        "--name",
        "a",
        "--host",
        "n1:ssh",
        "--host",
        "n/1",
    )
    ran = puffin_fleet("init", file, *words, home=home)
    assert ran.code == 2
    told = [line.split(" must ")[0] for line in ran.err.splitlines()]
    assert told == ["--fleet:", "--database:", "--host 'n1:ssh':", "--host 'n/1': a host's name"]
    assert "geheim" not in ran.err
    assert not file.exists()


def test_what_is_not_given_and_cannot_be_asked_for(tmp_path: Path) -> None:
    ran = puffin_fleet("init", tmp_path / "hosts.yaml", home=tmp_path)
    assert ran.code == 2
    assert "nobody can be asked here: give --fleet and --database and --name and --host" in ran.err
    assert not (tmp_path / "hosts.yaml").exists()


def test_included_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other verb reads them."""
    (tmp_path / "racks").mkdir()
    (tmp_path / "racks" / "a.yaml").write_text("hosts:\n  a1: {connection: telnet}\n")
    file = tmp_path / "hosts.yaml"
    file.write_text(
        "include: [racks/a.yaml, gone.yaml]\n"
        "fleet: lab\n"
        "database: {uri: 'mongodb://db', names: [a], username: me, password_file: '${SECRETS}/db'}\n"
        "defaults: {workers: {cores: 1}}\n"
    )
    ran = puffin_fleet("plan", file, home=tmp_path)
    assert ran.code == 2
    assert f"{file}:1 include[1]: there is no file {tmp_path}/gone.yaml" in ran.err
    (tmp_path / "gone.yaml").write_text("")
    ran = puffin_fleet("plan", file, home=tmp_path)
    assert f"{file}:3 database.password_file: the environment variable SECRETS is not set" in ran.err
    assert f"{tmp_path}/racks/a.yaml:2 hosts.a1.connection: must be 'ssh' or 'local'" in ran.err
    monkeypatch.setenv("SECRETS", "/somewhere/else")
    ran = puffin_fleet("plan", file, home=tmp_path)
    assert "SECRETS" not in ran.err
    assert "/somewhere/else" not in ran.err
