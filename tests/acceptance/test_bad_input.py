"""What a user does wrong, or what is wrong on the way: one clear message each, and the other hosts go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.commands import Ran, puffin_fleet
from tests.acceptance.test_whole_path import hosts_yaml
from tests.lab.fixtures_database import Database
from tests.lab.sshd import Lab, SshHost


@dataclass
class Site:
    """A hosts.yaml that is right, to be made wrong."""

    file: Path
    content: dict[str, Any]
    good: SshHost
    home: Path

    def run(self, *words: object) -> Ran:
        self.file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return puffin_fleet(*words[:1], self.file, *words[1:], home=self.home)

    def add_host(self, name: str, **changes: Any) -> None:
        """A second host: the good one's entry, with changes."""
        entry = {**self.content["hosts"][self.good.name], **changes}
        self.content["hosts"][name] = entry


@pytest.fixture
def site(ssh_lab: Lab, database: Database, tmp_path: Path) -> Iterator[Site]:
    host = ssh_lab.host("good")
    home = tmp_path / "home"
    home.mkdir()
    # Without extras: what is installed on the hosts does not matter here.
    content = hosts_yaml((host,), database, extras=[])
    yield Site(tmp_path / "hosts.yaml", content, host, home)
    ssh_lab.remove(host)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda content: content["defaults"].update(wrokers=1),
            "defaults.wrokers: unknown key 'wrokers', did you mean",
        ),
        (lambda content: content["defaults"]["workers"].update(cores="two"), "workers.cores: must be a whole number"),
        (lambda content: content["hosts"].update({"goo[c-d]": {}}), "hosts.goo[c-d]: 'c-d' is no range"),
        (lambda content: content.pop("database"), "'database' is missing"),
    ],
)
def test_a_mistake_in_hosts_yaml(site: Site, change: Any, said: str) -> None:
    change(site.content)
    ran = site.run("deploy", "--yes")
    assert ran.code == 2
    assert said in ran.err
    assert f"{site.file}" in ran.err
    assert ran.out == ""


def test_all_mistakes_are_reported_at_once_with_their_lines(site: Site) -> None:
    site.file.write_text(
        "fleet: lab\n"
        "database: {uri: 'mongodb://localhost', names: [a]}\n"
        "defaults:\n"
        "  workers: {coers: 1}\n"
        "hosts:\n"
        "  a1: {ssh: {port: many}}\n"
        "  a[1-2]: {}\n"
        "  a1: {}\n"
    )
    ran = puffin_fleet("plan", site.file)
    lines = ran.err.splitlines()
    assert ran.code == 2
    assert any(line.startswith(f"{site.file}:4 defaults.workers.coers") for line in lines)
    assert any(line.startswith(f"{site.file}:6 hosts.a1.ssh.port") for line in lines)
    assert any("hosts.a1: given twice" in line for line in lines), lines


def test_there_is_no_hosts_yaml(site: Site) -> None:
    ran = puffin_fleet("deploy", site.file.parent / "none.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "no file" in ran.err
    assert "puffin-fleet init" in ran.err


def entry_with(site: Site, **ssh: Any) -> dict[str, Any]:
    return {"ssh": {**site.content["hosts"]["good"]["ssh"], **ssh}}


def test_hosts_that_cannot_be_deployed_leave_the_others_alone(site: Site, tmp_path: Path, closed_port: int) -> None:
    empty = tmp_path / "empty_known_hosts"
    empty.touch()
    site.add_host("refused", **entry_with(site, port=closed_port))
    site.add_host("nokey", **entry_with(site, key=str(tmp_path / "no_such_key")))
    site.add_host("stranger", **entry_with(site, known_hosts=str(empty)))
    site.add_host("nowhere", address="no-such-host.invalid", **entry_with(site))
    site.content["hosts"]["good"]["workers"] = {"cores": 1, "memory": 1, "count": 1, "disk": 0.1}

    ran = site.run("deploy", "--yes")

    assert ran.code == 1
    failures = {line.split()[0]: line for line in ran.err.splitlines() if " failed at " in line}
    assert set(failures) == {"refused", "nokey", "stranger", "nowhere"}
    assert "connection refused" in failures["refused"]
    assert "no_such_key" in ran.err
    assert "SHA256:" in ran.err
    assert "puffin-fleet trust" in ran.err
    assert "no-such-host.invalid" in ran.err
    rows = {line.split()[0]: line for line in ran.out.splitlines() if line.strip()}
    assert "1 healthy" in rows["good"]
    site.run("stop", "--yes", "--host", "good", "--supervisord").ok()


def test_a_host_without_python(site: Site) -> None:
    site.content["release"]["python"] = "/opt/none/python3"
    ran = site.run("deploy", "--yes")
    assert ran.code == 1
    assert "no Python >= 3.10 called '/opt/none/python3' on good" in ran.err
    assert "release.python" in ran.err


def test_the_database_is_down(site: Site, closed_port: int) -> None:
    site.content["database"] = {"uri": f"mongodb://127.0.0.1:{closed_port}", "names": ["lab"]}
    ran = site.run("deploy", "--yes")
    assert (ran.code, ran.out) == (1, "")
    assert f"cannot reach the database at 127.0.0.1:{closed_port}" in ran.err
    assert "Traceback" not in ran.err
    assert not Path(site.good.base_dir).exists()


def test_nobody_can_be_asked(site: Site) -> None:
    ran = site.run("deploy")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert not (Path(site.good.base_dir) / "acceptance" / "releases").exists()


def test_more_is_asked_for_than_the_host_has(site: Site) -> None:
    site.content["defaults"]["workers"] = {"cores": 4096, "memory": 1, "count": 1}
    ran = site.run("deploy", "--yes")
    assert ran.code == 1
    assert "good failed: workers ask for 4096 cores, the host has" in ran.err


def test_a_verb_that_does_not_exist() -> None:
    ran = puffin_fleet("deplyo")
    assert ran.code == 2
    assert "no verb 'deplyo', did you mean 'deploy'?" in ran.err


def test_the_keys_of_hosts_are_recorded_only_after_they_were_shown(site: Site, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    site.content["hosts"]["good"]["ssh"]["known_hosts"] = str(known)
    asked = site.run("trust")
    assert asked.code == 2
    assert "SHA256:" in asked.err
    assert not known.exists()
    site.run("trust", "--yes").ok()
    assert "its key is known" in site.run("trust").ok().err
    assert (known.stat().st_mode & 0o777) == 0o600
