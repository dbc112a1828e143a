"""Bare hosts are prepared by real playbooks, take a deploy without root, and their workers survive a power cut."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.acceptance.commands import Ran, puffin_fleet
from tests.acceptance.playing import Ansible, ansible, changed_tasks, recap
from tests.lab.fixtures_database import Database, initialise
from tests.lab.fixtures_lab import ReachableServer
from tests.lab.laboratory import START_S, Laboratory, hosts_yaml
from tests.lab.requirements import missing
from tests.lab.worker import Queue, until

__all__ = ["ansible"]  # a fixture

HOST, BEHIND = "iota", "kappa"
ADMINISTRATOR, WORKING = "root", "chem"
# What Ansible itself and daemons write while they look.
_NOT_OURS = ("root/.ansible", "var/log", "var/tmp", "tmp", "run")
_LET_IN = f"""
sed -i 's/^AllowUsers.*/AllowUsers {ADMINISTRATOR} {WORKING}/' /etc/ssh/sshd_config
mkdir -m 700 /root/.ssh
cat /home/chemist/.ssh/authorized_keys > /root/.ssh/authorized_keys
kill -HUP 1
"""


@dataclass(frozen=True)
class Site:
    """A laboratory with a host that has never been prepared, and one that is reached through it."""

    laboratory: Laboratory
    ansible: Ansible
    file: Path
    database: Database

    def prepare(self, *words: str) -> Ran:
        administrator = ("-e", f"ansible_user={ADMINISTRATOR}", "--limit", HOST)
        return self.ansible.play("puffin.fleet.prepare", self.file, *administrator, *words)

    def contents(self) -> dict[str, tuple[int, ...]]:
        """Every file of the host that is not as it was installed."""
        root = self.laboratory.file(HOST, "/")
        found = {}
        for place, directories, files in os.walk(root):
            inside = Path(place).relative_to(root)
            directories[:] = [name for name in directories if str(inside / name) not in _NOT_OURS]
            for name in (*directories, *files):
                status = (Path(place) / name).lstat()
                found[str(inside / name)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)
        found.pop("root", None)  # .ansible is made in it
        return found

    def worker(self) -> psutil.Process | None:
        """The worker, as this machine sees it."""
        found = [each for each in self.laboratory.processes(HOST) if "container" in _words(each)]
        with contextlib.suppress(psutil.NoSuchProcess):  # those of its jobs come and go
            return min(found, key=lambda each: each.create_time(), default=None)
        return None


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def site(
    laboratory: Laboratory,
    laboratory_database: ReachableServer,
    bare_lower: Path,
    ansible: Ansible,
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    for machine in laboratory.up([HOST, BEHIND], lower=bare_lower, sshd="/usr/sbin/sshd"):
        done = laboratory.as_root(machine.name, "/bin/sh", "-euc", _LET_IN)
        assert done.returncode == 0, done.stderr
    initialise(laboratory_database, "prepared")
    content: dict[str, Any] = hosts_yaml(
        laboratory, "prepared", {"uri": laboratory_database.uri, "names": ["prepared"]}
    )
    content["defaults"] |= {
        "user": WORKING,
        "boot": "auto",
        "scratch": "/scratch/chem",
        "reserve": {"cores": 0, "memory": 0},
        "workers": {"cores": 1, "memory": 1, "disk": 0.1, "count": 1},
        "puffin": {"daemon": {"cycle_time_in_s": 0.5, "lease_in_s": 4, "jobs": ["sleep"]}},
    }
    content["groups"] = {"far-away": {"ssh": {"jump": f"{ADMINISTRATOR}@{laboratory[HOST].address}:22"}}}
    content["hosts"][BEHIND]["groups"] = ["far-away"]
    file = tmp_path_factory.mktemp("a site") / "hosts.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return Site(laboratory, ansible, file, Database(laboratory_database, "prepared"))


@dataclass(frozen=True)
class Prepared:
    """What the first runs of prepare.yml said, and what the host held around the one in check mode."""

    checked: Ran
    first: Ran
    before: dict[str, tuple[int, ...]]
    between: dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def prepared(site: Site) -> Prepared:
    before = site.contents()
    checked = site.prepare("--check", "--diff").ok()
    between = site.contents()
    return Prepared(checked, site.prepare().ok(), before, between)


@pytest.fixture(scope="module")
def deployed(site: Site, prepared: Prepared) -> Ran:
    return puffin_fleet("deploy", site.file, "--yes", "--host", HOST).ok()


def test_one_hosts_yaml_serves_both(site: Site) -> None:
    printed = json.loads(puffin_fleet("inventory", "--ansible", site.file).ok().out)
    text = site.ansible.run("ansible-inventory", "-i", site.file, "--list").ok().out
    # Ansible marks what it will not take for a template.
    listed = json.loads(text, object_hook=lambda found: found.get("__ansible_unsafe", found))
    assert listed["_meta"]["hostvars"] == printed["_meta"]["hostvars"]
    assert listed["puffin_fleet"]["hosts"] == [HOST, BEHIND]
    assert listed["far_away"]["hosts"] == [BEHIND]


def test_a_host_behind_a_jump_host_is_reached_and_its_key_is_verified(site: Site) -> None:
    words = ["-e", f"ansible_user={ADMINISTRATOR}", "-m", "ansible.builtin.raw", "-a", "echo came from $SSH_CONNECTION"]
    said = site.ansible.run("ansible", BEHIND, "-i", site.file, *words).ok().out
    assert f"came from {site.laboratory[HOST].address} " in said

    content = yaml.safe_load(site.file.read_text())
    (site.file.parent / "nobody known").touch()
    content["defaults"]["ssh"]["known_hosts"] = "nobody known"
    other = site.file.with_name("strangers.yaml")
    other.write_text(yaml.safe_dump(content))
    refused = site.ansible.run("ansible", "all", "-i", other, *words)
    assert refused.out.count("Host key verification failed") == 2, refused.out


def test_check_mode_changes_nothing_and_predicts_right(prepared: Prepared) -> None:
    assert prepared.between == prepared.before
    assert "+ssh-ed25519 " in prepared.checked.out
    assert len(changed_tasks(prepared.first)) >= 5
    assert changed_tasks(prepared.checked) == changed_tasks(prepared.first)
    assert recap(prepared.checked) == recap(prepared.first)


def test_a_prepared_host_takes_a_deploy_without_root_and_its_workers_survive_a_power_cut(
    site: Site, deployed: Ran
) -> None:
    queue = Queue(site.database)
    try:
        site.laboratory.kill(HOST)
        calculation = queue.sleep(0.1, memory=0.1, disk=0.1)
        site.laboratory.revive(HOST)
        assert queue.wait(calculation, patience_s=START_S)["puffin"]["host"] == HOST
    finally:
        queue.close()
    worker = until(site.worker, "the worker's process")
    number = site.laboratory.file(HOST, "/home/chem").stat().st_uid
    assert number != 0
    assert set(worker.uids()) == {number}
    # Started by cron, to which pam_limits applies.
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    assert re.search(r"^Max processes +65536 +65536 ", limits, re.MULTILINE), limits
    scratch = site.laboratory.file(HOST, "/scratch/chem").stat()
    assert (scratch.st_uid, scratch.st_mode & 0o7777) == (number, 0o700)


def test_prepared_again_nothing_changes_also_after_a_deploy(site: Site, deployed: Ran) -> None:
    assert recap(site.prepare().ok()) == {HOST: (0, 0, 0)}
    (plan,) = puffin_fleet("plan", site.file, "--json", "--host", HOST).ok().json()
    assert plan["empty"] is True


@pytest.mark.soak
def test_the_directory_of_somebody_else_is_not_taken_away(site: Site, prepared: Prepared) -> None:
    refused = site.prepare("-e", "puffin_host_scratch=/var/mail")
    assert recap(refused)[HOST] == (0, 0, 1)
    assert "/var/mail belongs to root" in refused.out + refused.err


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_what_is_missing_is_installed(site: Site, bare_lower: Path, tmp_path: Path) -> None:
    name = "without-cron"
    site.laboratory.up([name], lower=bare_lower, sshd="/usr/sbin/sshd")
    known = site.laboratory.as_root(name, "dpkg-query", "-Wf", r"${db:Status-Status} ${Package}\n", "*python3*").stdout
    python = [line.split()[1] for line in known.splitlines() if line.startswith("installed ")]
    packages = ["cron", "cron-daemon-common", "distro-info-data", "python-apt-common", "python3-apt", *python]
    repository = site.laboratory.file(name, "/srv")  # seen by the host once it is started again
    site.laboratory.as_root(name, "/bin/sh", "-euc", _LET_IN + "dpkg --purge cron")
    site.laboratory.kill(name)
    make_repository(tmp_path, packages)
    shutil.copytree(tmp_path, repository, dirs_exist_ok=True)
    site.laboratory.revive(name)
    site.laboratory.as_root(name, "/bin/sh", "-c", "echo 'deb [trusted=yes] file:/srv ./' > /etc/apt/sources.list")
    content = yaml.safe_load(site.file.read_text())
    content["hosts"] = {name: {"address": site.laboratory[name].address}}
    file = site.file.with_name("without-cron.yaml")
    file.write_text(yaml.safe_dump(content))

    words = ("-e", f"ansible_user={ADMINISTRATOR}")
    checked = site.ansible.play("puffin.fleet.prepare", file, *words, "--check").ok()
    first = site.ansible.play("puffin.fleet.prepare", file, *words).ok()
    assert recap(checked) == recap(first)
    running = site.laboratory.as_root(name, "pidof", "cron")
    assert running.returncode == 0
    assert recap(site.ansible.play("puffin.fleet.prepare", file, *words).ok()) == {name: (0, 0, 0)}

    site.laboratory.as_root(name, "dpkg", "--purge", "--force-depends", "python3-apt", *python)
    assert site.laboratory.as_root(name, "python3", "--version").returncode != 0
    third = site.ansible.play("puffin.fleet.prepare", file, *words).ok()
    assert changed_tasks(third) == {"puffin.fleet.puffin_host : Install Python where it is missing"}


def make_repository(place: Path, names: Sequence[str]) -> None:
    """Make a package index of some packages of this machine's own."""
    done = subprocess.run(["apt-get", "download", *names], cwd=place, capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"packages cannot be downloaded; apt-get update may help: {done.stderr[-300:]}")
    stanzas = []
    for file in sorted(place.glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "-f", file], capture_output=True, text=True, check=True).stdout
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        stanzas.append(f"{fields}Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n")
    (place / "Packages").write_text("\n".join(stanzas))


@pytest.mark.soak
def test_the_unit_of_the_systems_own_is_one_that_systemd_understands(site: Site, prepared: Prepared) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed: apt-get install systemd")
    site.prepare("-e", "puffin_host_boot=system").ok()
    name = f"puffin-fleet-prepared-{HOST}.service"
    unit = site.file.with_name(name)
    unit.write_text(site.laboratory.file(HOST, f"/etc/systemd/system/{name}").read_text())
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"/home/{WORKING}/.puffin-fleet/prepared/hosts/{HOST}/bin/boot" in unit.read_text()
