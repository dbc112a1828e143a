"""Hosts behind a real sshd on which workers have left logs, and the commands that look at them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.acceptance.commands import BIN, Ran, puffin_fleet
from tests.lab.sshd import SshHost


class LoggingFleet:
    """Hosts with logs, and a hosts.yaml that names them."""

    def __init__(self, hosts: list[SshHost], place: Path) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.place = place
        self.content: dict[str, Any] = {
            "fleet": "pool",
            "database": {"uri": "mongodb://127.0.0.1:1", "names": ["none"]},
            "release": {"python": "/usr/bin/python3"},
            "defaults": {"workers": {"cores": 1}},
            "hosts": {host.name: self._host(host) for host in hosts},
        }

    @staticmethod
    def _host(host: SshHost) -> dict[str, Any]:
        ssh = {"port": host.port, "key": str(host.key), "known_hosts": str(host.known_hosts)}
        return {"address": host.address, "user": host.user, "base_dir": host.base_dir, "ssh": ssh}

    def add_dead(self, name: str, closed_port: int) -> None:
        """Name a host at a port on which nobody listens."""
        some = next(iter(self.content["hosts"].values()))
        self.content["hosts"][name] = {**some, "ssh": {**some["ssh"], "port": closed_port}}

    @property
    def file(self) -> Path:
        path = self.place / "hosts.yaml"
        path.write_text(yaml.safe_dump(self.content))
        return path

    def directory(self, host: str, name: str = "log") -> Path:
        path = Path(self.hosts[host].base_dir) / "pool" / "hosts" / host / name
        path.mkdir(parents=True, exist_ok=True)
        for directory in [path, *path.parents[:4]]:
            directory.chmod(0o755)
        return path

    def write(self, host: str, name: str, *lines: str) -> None:
        with (self.directory(host) / name).open("a") as stream:
            stream.writelines(f"{line}\n" for line in lines)

    def run(self, *words: object, verb: str = "logs") -> Ran:
        return puffin_fleet(verb, self.file, *words, home=self.place)

    def start(self, *words: object, verb: str = "logs") -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(BIN / "puffin-fleet"), verb, str(self.file), *map(str, words)],
            stdout=(self.place / "out").open("wb"),
            stderr=(self.place / "err").open("wb"),
            env={**os.environ, "HOME": str(self.place)},
        )

    @property
    def out(self) -> str:
        return (self.place / "out").read_text()

    @property
    def err(self) -> str:
        return (self.place / "err").read_text()
