"""What a deploy costs where only settings differ, or nothing: over a real connection, whose bytes are counted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.commands import Ran, puffin_fleet
from tests.acceptance.test_whole_path import hosts_yaml
from tests.lab.fixtures_database import Database
from tests.lab.meter import Meter
from tests.lab.sshd import Lab, SshHost

Tree = dict[str, tuple[int, int, int, int]]


@dataclass
class Site:
    """A fleet of one host behind a line that is measured."""

    file: Path
    content: dict[str, Any]
    host: SshHost
    meter: Meter

    def run(self, verb: str, *words: object) -> Ran:
        self.file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return puffin_fleet(verb, self.file, *words)

    def deploy(self) -> tuple[Ran, int, int]:
        """What it said, bytes that went to the host, and programs that sshd ran for it."""
        before, log = self.meter.sent, (self.host.home.parent / "sshd.log").read_text()
        ran = self.run("deploy", "--yes").ok()
        told = (self.host.home.parent / "sshd.log").read_text()[len(log) :]
        return ran, self.meter.sent - before, told.count("Starting session: command")

    def pids(self) -> set[int]:
        root = Path(self.host.base_dir) / "acceptance/hosts/alpha"
        files = [root / "run/supervisord.pid", *(root / "run").glob("alpha-*.pid")]
        return {int(file.read_text()) for file in files}

    def tree(self, below: str = "") -> Tree:
        """Everything on the host but what its workers say: identity, kind and permissions, size, time of change."""
        found: Tree = {}
        for place, directories, files in os.walk(Path(self.host.base_dir) / "acceptance" / below):
            directories[:] = [name for name in directories if name != "log"]
            for path in (Path(place) / name for name in (*directories, *files)):
                status = path.lstat()
                size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
                found[str(path)] = (status.st_ino, status.st_mode, size, status.st_mtime_ns)
        return found


@pytest.fixture
def site(ssh_lab: Lab, database: Database, tmp_path: Path) -> Iterator[Site]:
    host = ssh_lab.host("alpha")
    meter = Meter(host.port)
    known = tmp_path / "known_hosts"
    known.write_text(host.known_hosts.read_text().replace(f"]:{host.port} ", f"]:{meter.port} "))
    content = hosts_yaml((host,), database, extras=[])
    content["defaults"]["workers"] = {"cores": 1, "memory": 1, "disk": 0.1, "count": 1}
    content["hosts"]["alpha"]["ssh"] |= {"port": meter.port, "known_hosts": str(known)}
    yield Site(tmp_path / "hosts.yaml", content, host, meter)
    ssh_lab.remove(host)
    meter.close()


def test_settings_alone_are_kilobytes_and_nothing_is_next_to_nothing(site: Site) -> None:
    _, everything, _ = site.deploy()
    assert everything > 5_000_000
    release, wheels, tools = (site.tree(name) for name in ("releases", "wheels", "tools"))
    assert len(release) > 100
    assert wheels
    assert tools

    site.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.6
    before = site.pids()
    ran, settings, programs = site.deploy()
    assert "recycle  alpha-1  settings" in ran.out
    assert len(site.pids() & before) == 1, "supervisord stays, the worker is a new one"
    # While it waits for the worker it looks each second.
    assert settings < 40_000 * programs < everything / 5, (settings, programs)
    assert [site.tree(name) for name in ("releases", "wheels", "tools")] == [release, wheels, tools]

    tree, pids = site.tree(), site.pids()
    ran, nothing, programs = site.deploy()
    assert "Nothing to do" in ran.err
    assert 1 <= programs <= 2
    assert nothing < 60_000
    assert site.tree() == tree
    assert site.pids() == pids
