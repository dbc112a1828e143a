"""Fixtures: hosts behind a real sshd, and what is needed to have a real supervisord on them."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.reach.local import LocalRemote
from fleet.reach.remote import Remote
from fleet.reach.ssh import SshRemote
from tests.lab.requirements import missing
from tests.lab.sshd import Lab, SshHost, closed_port, find_sshd

HostFactory = Callable[..., SshHost]


@pytest.fixture(scope="session")
def ssh_lab() -> Iterator[Lab]:
    """A directory for hosts; whatever still runs in it at the end is ended."""
    lab = Lab(find_sshd())
    yield lab
    lab.close()


@pytest.fixture
def ssh_hosts(ssh_lab: Lab) -> Iterator[HostFactory]:
    """Make hosts: `ssh_hosts("node1", base="my pool")`. They are gone after the test."""
    made: list[SshHost] = []

    def make(name: str = "node1", base: str = "my pool") -> SshHost:
        made.append(ssh_lab.host(name, base))
        return made[-1]

    yield make
    for host in made:
        ssh_lab.remove(host)


@pytest.fixture
def node(ssh_hosts: HostFactory) -> SshHost:
    """A host behind sshd."""
    return ssh_hosts("node1")


@pytest.fixture(params=["ssh", "local"])
def remote(request: pytest.FixtureRequest) -> Iterator[Remote]:
    """What any remote must do is tested with every kind."""
    if request.param == "local":
        made: Remote = LocalRemote("node1", sys.executable)
    else:
        made = SshRemote("node1", request.getfixturevalue("node").options)
    yield made
    made.close()


@pytest.fixture(name="closed_port")
def _closed_port() -> Iterator[int]:
    with closed_port() as port:
        yield port


@pytest.fixture(scope="session")
def supervisor_wheel() -> tuple[Path, str]:
    """The wheel of supervisor, kept between sessions, and its SHA-256."""
    cache = Path.home() / ".cache" / "puffin-fleet-tests"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "supervisor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes run tests: none may find what another has half written
        if not list(cache.glob("supervisor-4.3*.whl")):
            words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
            done = subprocess.run([*words, "-d", str(cache), "supervisor==4.3.*"], capture_output=True, text=True)
            if done.returncode != 0:
                missing(f"supervisor cannot be downloaded: {done.stderr[-300:]}")
    wheel = sorted(cache.glob("supervisor-4.3*.whl"))[-1]
    return wheel, hashlib.sha256(wheel.read_bytes()).hexdigest()
