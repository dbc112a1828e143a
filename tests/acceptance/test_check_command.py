"""`check` on a good host and on hosts that are broken in ways of their own, with a database that wants a password."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
import yaml

from fleet.embedded import EmbeddedDatabaseError, program
from puffin.config import Configuration
from tests.acceptance.commands import Ran, puffin_fleet
from tests.lab.requirements import missing
from tests.lab.servers import add_user, serve_on_free_port, wait_for
from tests.lab.sshd import Lab, SshHost
from tests.lab.worker import until

PASSWORD = "s3cret-of-chem"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server that asks for a password."""
    try:
        program()
    except EmbeddedDatabaseError as error:
        missing(str(error))
    directory = tmp_path_factory.mktemp("secured")
    add_user(directory, "chem", PASSWORD)
    with serve_on_free_port(directory, "--auth") as port:
        with pymongo.MongoClient(f"mongodb://127.0.0.1:{port}", serverSelectionTimeoutMS=500) as client:
            wait_for(client)
        yield port


@dataclass
class Site:
    """A fleet of one good host, and what is changed on it and in its hosts.yaml."""

    place: Path
    host: SshHost
    content: dict[str, Any]

    @property
    def root(self) -> Path:
        return Path(self.host.base_dir) / "doctored/hosts/good"

    def run(self, verb: str, *words: object) -> Ran:
        file = self.place / "hosts.yaml"
        file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return puffin_fleet(verb, file, *words)

    def check(self) -> tuple[int, dict[tuple[str | None, str], dict[str, Any]]]:
        ran = self.run("check", "--json")
        return ran.code, {(found["host"], found["check"]): found for found in ran.json()}

    def wrong(self) -> dict[tuple[str | None, str], dict[str, Any]]:
        return {key: found for key, found in self.check()[1].items() if found["severity"] != "ok"}


@pytest.fixture(scope="module")
def site(ssh_lab: Lab, secured: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    host, place = ssh_lab.host("good"), tmp_path_factory.mktemp("site")
    (place / "password").write_text(PASSWORD + "\n")
    (place / "password").chmod(0o600)
    ssh = {"port": host.port, "key": str(host.key), "known_hosts": str(host.known_hosts)}
    content = {
        "fleet": "doctored",
        "database": {
            "uri": f"mongodb://127.0.0.1:{secured}",
            "names": ["doctored"],
            "username": "chem",
            "password_file": str(place / "password"),
        },
        "release": {"extras": [], "python": "/usr/bin/python3"},
        "defaults": {
            "boot": "none",  # this machine stays as it is
            "user": host.user,
            "base_dir": "~/my pool",
            "reserve": {"cores": 0, "memory": 0},
            "workers": {"cores": 1, "memory": 1, "disk": 0.1, "count": 1},
            "puffin": {"programs": {name: {"available": False} for name in Configuration()["programs"]}},
        },
        "hosts": {"good": {"address": host.address, "ssh": ssh}},
    }
    yield Site(place, host, content)
    ssh_lab.remove(host)


def test_before_the_first_deploy_only_the_way_to_the_database_can_be_tried(site: Site) -> None:
    code, found = site.check()
    assert code == 0, found
    assert "credentials were not tested" in found["good", "database"]["what"]
    assert found["good", "release"]["what"] == "nothing is deployed yet"
    assert not Path(site.host.base_dir).exists()


def test_a_password_that_others_can_read_is_a_warning(site: Site) -> None:
    file = site.place / "password"
    file.chmod(0o644)
    try:
        code, found = site.check()
    finally:
        file.chmod(0o600)
    assert (code, found[None, "password"]["severity"]) == (0, "warn")
    assert f"chmod 600 '{file}'" in found[None, "password"]["next"]


def test_a_good_host(site: Site) -> None:
    site.run("deploy", "--yes").ok()
    assert site.wrong() == {}
    ran = site.run("check", "-v").ok()
    assert "ok    good  database: 127.0.0.1" in ran.out
    assert "ok    fleet  database: 127.0.0.1" in ran.out
    assert "ok    good  workers: 1 of 1 run" in ran.out
    assert "\x1b" not in ran.out + ran.err
    assert site.run("check").out == ""


def test_hosts_that_are_broken_in_ways_of_their_own(site: Site, tmp_path: Path, closed_port: int) -> None:
    full = site.host.home.parent / "full"  # where its user may go
    full.mkdir()
    if os.getuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "tmpfs", full], check=True)
        (full / "taken").write_bytes(b"x" * (64 << 10))
    good = site.content["hosts"]["good"]
    try:
        site.content["hosts"] |= {
            "sealed": {**good, "base_dir": "/usr/puffin"},
            "gone": {**good, "ssh": {**good["ssh"], "port": closed_port}},
            "stranger": {**good, "ssh": {**good["ssh"], "known_hosts": "/dev/null"}},
            "full": {**good, "base_dir": str(full)},
            "hidden": {**good, "base_dir": str(tmp_path / "below")},
        }
        code, found = site.check()
        ran = site.run("check")
    finally:
        site.content["hosts"] = {"good": good}
        if os.getuid() == 0:
            subprocess.run(["umount", "-l", full], check=True)
    assert (code, ran.code) == (1, 1)
    failed = {host: found[host, check] for host, check in found if found[host, check]["severity"] == "fail"}
    assert set(failed) == {"sealed", "gone", "stranger"} | ({"full", "hidden"} if os.getuid() == 0 else set())
    assert found["sealed", "base_dir"]["what"] == "nothing can be written in /usr: Permission denied"
    assert found["gone", "ssh"]["what"].endswith("connection refused")
    assert f"trust {site.place / 'hosts.yaml'} --host stranger" in found["stranger", "ssh"]["next"]
    if os.getuid() == 0:
        assert found["full", "base_dir"]["what"].startswith(
            f"nothing can be written in {full}: No space left on device; 0.0 GB"
        )
        assert "Permission denied" in failed["hidden"]["what"]
    assert "fail  gone  ssh\n      127.0.0.1 port " in ran.out
    assert ran.out.index("fail") == 0


def test_a_password_that_is_wrong_on_the_host_alone(site: Site) -> None:
    file = site.root / "etc/database.password"
    file.write_text("another")
    try:
        code, found = site.check()
    finally:
        file.write_text(PASSWORD)
    assert code == 1
    assert found[None, "database"]["severity"] == "ok"
    assert found["good", "database"]["severity"] == "fail"
    assert "refused the login" in found["good", "database"]["what"]
    assert PASSWORD not in str(found)


@pytest.mark.soak
def test_a_worker_that_cannot_start_is_shown_with_its_last_words(site: Site) -> None:
    site.run("deploy", "--yes").ok()  # unless an earlier test has
    settings = site.root / "etc/workers/good-1.yaml"
    text = settings.read_text()
    settings.write_text(text + "nonsense: {}\n")
    control = [(site.root / "etc/supervisor").read_text().strip() + "/bin/supervisorctl"]
    control += ["-c", str(site.root / "etc/supervisord.conf")]
    subprocess.run([*control, "restart", "good-1"], check=False, capture_output=True, timeout=60)
    try:
        found: dict[str, Any] = {}  # of one look: supervisord tries several times, and between them it runs

        def down() -> bool:
            found.update(site.wrong().get(("good", "good-1"), {}))
            return "nonsense" in str(found.get("what"))

        until(down, "the worker to be found down")
    finally:
        settings.write_text(text)
    assert "puffin-fleet logs --host good" in found["next"]
    site.run("start").ok()
    until(lambda: site.wrong() == {}, "all to be well again")


def test_a_release_that_was_damaged(site: Site) -> None:
    command = site.root / "current/bin/puffin"
    command.rename(command.with_name("elsewhere"))
    try:
        code, found = site.check()
    finally:
        command.with_name("elsewhere").rename(command)
    assert code == 1
    assert found["good", "release"]["severity"] == "fail"
    assert "cannot be run: No such file or directory" in found["good", "release"]["what"]
