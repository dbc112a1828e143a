"""A deployed fleet of five hosts: a good one, and four that are each in a trouble of their own."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from puffin.records import WorkerRecord
from tests.acceptance.commands import BIN, Ran, puffin_fleet
from tests.acceptance.here import until
from tests.lab.fixtures_database import Database, initialise
from tests.lab.fixtures_lab import ReachableServer
from tests.lab.laboratory import Laboratory, hosts_yaml
from tests.lab.machine import USER
from tests.lab.worker import Queue

NAMES = ("good", "down", "refusing", "idle", "full")
_NOT_THERE = ("core", "utils", "database", "molassembler", "kinetx", "sparrow", "readuct")
_EVERY_PROTOCOL = 0x0003
_TCP, _SYN, _ACK = 6, 0x02, 0x10


class Knocks:
    """Counts attempts to connect to an address, by what goes over the wire.

    Parameters
    ----------
    interface
        Where it would go.
    address
        Whose.
    """

    def __init__(self, interface: str, address: str) -> None:
        self._address = socket.inet_aton(address)
        self._ports: set[int] = set()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))
        self._socket.bind((interface, 0))
        self._end, self._told = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many connections were tried; a packet that is sent again counts once."""
        return len(self._ports)

    def close(self) -> None:
        self._end.close()
        self._thread.join()
        self._socket.close()
        self._told.close()

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._told, selectors.EVENT_READ)
            while all(key.fileobj is self._socket for key, _ in selector.select()):
                self._look(self._socket.recv(65536))

    def _look(self, packet: bytes) -> None:
        header = (packet[0] & 0x0F) * 4
        if packet[9] == _TCP and packet[16:20] == self._address:
            flags = packet[header + 13]
            if flags & _SYN and not flags & _ACK:
                self._ports.add(int.from_bytes(packet[header : header + 2], "big"))


@dataclass(frozen=True)
class Five:
    """The fleet, once it is in its troubles."""

    laboratory: Laboratory
    file: Path
    database: Database

    def knocks(self) -> contextlib.closing[Knocks]:
        """Count the attempts to connect to the host that is down."""
        return contextlib.closing(Knocks(self.laboratory.subnet.interface, self.laboratory["down"].address))

    def words(self, verb: str, *words: object) -> list[str]:
        """A command line; where the file stands in it depends on the verb."""
        if verb == "exec":
            return ["exec", "--file", str(self.file), *map(str, words)]
        first = {"drain": 1, "resume": 1, "scale": 2}.get(verb, 0)
        return [str(word) for word in (verb, *words[:first], self.file, *words[first:])]

    def run(self, verb: str, *words: object) -> Ran:
        return puffin_fleet(*self.words(verb, *words))

    def together(self, commands: Sequence[Sequence[str]], place: Path) -> list[Ran]:
        """Run commands that change nothing side by side, so that they wait for the dead host at the same time."""
        running = []
        for number, command in enumerate(commands):
            with (place / f"{number}.out").open("wb") as out, (place / f"{number}.err").open("wb") as err:
                words = [str(BIN / "puffin-fleet"), *self.words(*command)]
                environment = {**os.environ, "COLUMNS": "160"}
                running.append(
                    subprocess.Popen(
                        words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, cwd=place
                    )
                )
        codes = [process.wait(timeout=200) for process in running]
        texts = [[(place / f"{number}.{kind}").read_text() for kind in ("out", "err")] for number in range(len(codes))]
        return [Ran(code, out, err) for code, (out, err) in zip(codes, texts, strict=True)]

    def records(self) -> dict[str, WorkerRecord]:
        with contextlib.closing(Queue(self.database)) as queue:
            return {record.worker: record for record in queue.store.registry.workers("five")}

    def pids(self) -> dict[str, int]:
        return {name: record.pid for name, record in self.records().items()}

    def is_up(self, *hosts: str) -> bool:
        """Whether the workers of these hosts run and say so."""
        return all(self.records()[f"{host}-1"].state in {"idle", "running"} and self.runs(host) for host in hosts)

    def runs(self, host: str) -> bool:
        """Whether the host's worker runs, whatever it says."""
        return self.laboratory.as_root(host, "pgrep", "-u", USER, "-f", "container$").returncode == 0

    @contextlib.contextmanager
    def trusted(self, host: str) -> Iterator[None]:
        """Let a host accept our key for a while."""
        keys = f"/home/{USER}/.ssh/authorized_keys"
        self.laboratory.as_root(host, "mv", f"{keys}.away", keys).check_returncode()
        yield
        self.laboratory.as_root(host, "mv", keys, f"{keys}.away").check_returncode()

    def quench(self) -> None:
        """End supervisord and all of its own on `idle`, as a restart of the machine would that nobody arranged for."""
        self.laboratory.as_root("idle", "pkill", "-u", USER)
        until(lambda: self.laboratory.as_root("idle", "pgrep", "-u", USER).returncode == 1, "its processes to end")


def describe(laboratory: Laboratory, database: Database) -> dict[str, Any]:
    content: dict[str, Any] = hosts_yaml(laboratory, "five", {"uri": database.uri, "names": [database.name]})
    content["defaults"] |= {
        "reserve": {"cores": 0, "memory": 0},
        "puffin": {
            "daemon": {"cycle_time_in_s": 0.5, "jobs": ["sleep"]},
            "programs": {name: {"available": False} for name in _NOT_THERE},
        },
    }
    content["groups"] = {"all": {"workers": {"cores": 1, "memory": 1, "disk": 0.1, "count": 1}}}
    content["hosts"] = {name: {**entry, "groups": ["all"]} for name, entry in content["hosts"].items()}
    return content


@pytest.fixture(scope="module")
def five(
    laboratory: Laboratory, laboratory_database: ReachableServer, tmp_path_factory: pytest.TempPathFactory
) -> Five:
    """All five are deployed in good health; then one is switched off, one takes our key away, one loses supervisord
    and the disk of one is full. Only the worker of the second goes on and cannot be told by SSH."""
    place = tmp_path_factory.mktemp("five")
    machines = laboratory.up(NAMES, disk_size=1 << 30)
    initialise(laboratory_database, "five")
    database = Database(laboratory_database, "five")
    file = place / "hosts.yaml"
    file.write_text(yaml.safe_dump(describe(laboratory, database), sort_keys=False))
    puffin_fleet("deploy", file, "--yes").ok()
    fleet = Five(laboratory, file, database)
    down = next(machine for machine in machines if machine.name == "down")
    laboratory.kill("down")
    # As behind a router: nobody says that it is gone, and only a timeout tells.
    neighbour = ["lladdr", down.hardware, "dev", laboratory.subnet.interface, "nud", "permanent"]
    subprocess.run(["ip", "neigh", "replace", down.address, *neighbour], check=True)
    keys = f"/home/{USER}/.ssh/authorized_keys"
    laboratory.as_root("refusing", "mv", keys, f"{keys}.away").check_returncode()
    fleet.quench()
    laboratory.fill("full")
    return fleet
