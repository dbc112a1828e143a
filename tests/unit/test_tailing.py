"""Reading the logs of hosts that are programs of this machine, through connections that break."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fleet.errors import FleetError
from fleet.hosts.access import Remotes
from fleet.hosts.inventory import Host, parse_inventory
from fleet.reach.local import LocalRemote
from fleet.reach.logs import LogLine
from fleet.reach.remote import ConnectionLost, Remote
from fleet.watch.tailing import Tailing, TailNotice

HOSTS = """
fleet: pool
database: {uri: "mongodb://127.0.0.1:1", names: [none]}
hosts: {here: {connection: local, workers: {cores: 1, memory: 1}}}
"""


class Breaking(LocalRemote):
    """A connection that ends with what was just given, when somebody says so."""

    def __init__(self, ending: Callable[[bytes], None]) -> None:
        super().__init__("here")
        self._ending = ending

    def stream(self, program: str) -> Iterator[bytes]:
        for chunk in super().stream(program):
            yield chunk
            self._ending(chunk)


class Prepared(Remotes):
    """The connections of a fleet, but for those that are given."""

    def __init__(self, remotes: dict[str, Remote]) -> None:
        self._open = remotes

    def renew(self, host: Host) -> Remote:
        return self._open[host.name]


def read(directory: Path, ending: Callable[[bytes], None], **wanted: object) -> list[LogLine | TailNotice]:
    request = {"fleet": "pool", "host": "here", "base_dir": str(directory), **wanted}
    hosts = parse_inventory(HOSTS, "hosts.yaml").hosts
    return list(Tailing(Prepared({"here": Breaking(ending)}), hosts, lambda _: request, follow=True).lines())


def test_what_is_written_while_the_connection_is_lost_is_shown_also_of_a_host_that_had_no_logs(tmp_path: Path) -> None:
    log = tmp_path / "pool/hosts/here/log/here-1.log"

    def ending(chunk: bytes) -> None:
        if b'"caught_up"' in chunk and not log.exists():
            log.parent.mkdir(parents=True)
            log.write_text("".join(f"2026-11-22T12:00:{n:02d}.000Z INFO here-1 - {n}\n" for n in range(30)))
            raise ConnectionLost("here", "run", "the connection was lost")
        if b"- 29" in chunk:
            raise FleetError("enough")

    found = read(tmp_path, ending, lines=20, follow=True)
    assert [line.message for line in found if isinstance(line, LogLine)] == [str(number) for number in range(30)]


class Slow(LocalRemote):
    """A host that says so much, and then nothing for long."""

    def __init__(self, name: str, says: str, goes_on: threading.Event) -> None:
        super().__init__(name)
        self._says = says
        self._goes_on = goes_on

    def stream(self, program: str) -> Iterator[bytes]:
        found = re.search(r"puffin-[0-9a-f]{24}", program)
        assert found is not None
        if self._says:
            yield f"\n{found[0]} {self._says}\n".encode()
        self._goes_on.wait()


def test_a_host_that_answers_and_reads_for_long_is_told_from_one_that_does_not_answer() -> None:
    goes_on = threading.Event()
    remotes = {"reading": Slow("reading", '{"positions": {}}', goes_on), "silent": Slow("silent", "", goes_on)}
    text = HOSTS.replace("{here:", "{reading: {connection: local, workers: {cores: 1, memory: 1}}, silent:")
    hosts = parse_inventory(text, "hosts.yaml").hosts
    said: dict[str, str] = {}
    for found in Tailing(Prepared(dict(remotes)), hosts, lambda _: {}, follow=False, patience=1.0).lines():
        assert isinstance(found, TailNotice)
        said.setdefault(found.host, found.what.partition(";")[0])
        if len(said) == 2:
            goes_on.set()
    assert said == {"reading": "is still reading its logs", "silent": "has not answered yet"}
