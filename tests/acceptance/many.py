"""Fleets of several hosts that are all this machine: cheap, and each with its own base_dir, supervisord and workers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from puffin.documents import Model, Request
from puffin.settings import DatabaseSettings
from puffin.store import Store
from tests.acceptance.commands import BIN, Ran
from tests.acceptance.here import Here, until

__all__ = ["Many", "many_hosts", "until"]


@dataclass
class Many(Here):
    """Hosts with one worker each, which runs the environment that runs the tests."""

    _variants: list[Path] = field(default_factory=list)
    _occupying: dict[str, int] = field(default_factory=dict)

    def host_root(self, host: str) -> Path:
        return self.place / host / "day" / "hosts" / host

    def variant(self, **release: Any) -> Path:
        """A second hosts.yaml, with another section `release`."""
        content = copy.deepcopy(self.content)
        content["release"] |= release
        return self.write(content)

    def write(self, content: dict[str, Any]) -> Path:
        file = self.place / f"hosts-{len(self._variants)}.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        self._variants.append(file)
        return file

    def start(self, verb: str, file: Path, *words: object) -> subprocess.Popen[str]:
        """Run a command in the background."""
        return subprocess.Popen(
            [str(BIN / "puffin-fleet"), verb, str(file), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "160"},
        )

    def plans(self) -> dict[str, dict[str, Any]]:
        return {plan["host"]: plan for plan in self.run("plan", "--json").ok().json()}

    def end_of(self, command: subprocess.Popen[str], seconds: float = 90) -> Ran:
        """Wait for a command in the background."""
        try:
            out, err = command.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            command.kill()
            raise AssertionError(f"still at work after {seconds:g} s\n{command.communicate()[1]}") from None
        return Ran(command.returncode, out, err)

    def occupy(self) -> dict[str, Path]:
        """Have each worker compute until its host's file appears; the files by host."""
        count = len(self.workers())
        files = [self.place / f"go-{number}-{time.monotonic_ns()}" for number in range(count)]
        loops = [["-c", f"until test -e {file}; do sleep 0.2; done"] for file in files]
        submitted = self._submit([_request("command", {"program": "sh", "arguments": words}) for words in loops])
        until(lambda: all(each["status"] == "pending" for each in self._found(submitted)), "all workers to be busy")
        go: dict[str, Path] = {}
        for each, file in zip(self._found(submitted), files, strict=True):
            self._occupying[str(each["_id"])] = each["puffin"]["attempt"]
            first = go.setdefault(each["puffin"]["host"], file)
            if first != file:
                file.symlink_to(first)
        return go

    def each_computes(self, hosts: Iterable[str]) -> None:
        """Whatever else, every host finishes calculations."""
        wanted = set(hosts)
        computed: set[str] = set()

        def more() -> bool:
            submitted = self._submit([_request("sleep", {"time": 0.3})] * len(wanted - computed))
            until(lambda: all(each["status"] == "complete" for each in self._found(submitted)), "calculations")
            computed.update(each["puffin"]["host"] for each in self._found(submitted))
            return computed >= wanted

        until(more, f"calculations of all of {', '.join(sorted(wanted))}", 90)

    def none_was_disturbed(self) -> None:
        """All calculations end well, and those that occupied workers were begun once."""
        until(lambda: self.all_are("complete"), "all calculations")
        found = {str(item["_id"]): item["puffin"]["attempt"] for item in self.calculations()}
        again = {each for each, attempt in self._occupying.items() if found[each] != attempt}
        assert not again, [event for event in self.events() if any(each in event for each in again)]

    def _submit(self, requests: Sequence[Request]) -> list[str]:
        store = Store(DatabaseSettings(uri=self.database.uri, name=self.database.name))
        try:
            return store.submit(self.database.name, [(None, request) for request in requests])
        finally:
            store.close()

    def _found(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        found = {str(item["_id"]): item for item in self.calculations()}
        return [found[each] for each in ids]


def _request(kind: str, settings: dict[str, Any]) -> Request:
    return Request(kind, Model(), settings=settings, memory=0.1, disk=0.1)


def many_hosts(database: Any, place: Path, names: Sequence[str]) -> Many:
    """Describe hosts; nothing is deployed."""
    content: dict[str, Any] = {
        "fleet": "day",
        "database": {"uri": database.uri, "names": [database.name]},
        "release": {"install": "path", "path": sys.prefix, "python": sys.executable},
        "defaults": {
            "connection": "local",
            "boot": "none",  # this machine stays as it is
            "scratch": str(place / "scratch"),
            "reserve": {"cores": 0, "memory": 0},
            "workers": {"cores": 1, "memory": 1, "disk": 0.1, "count": 1},
            "puffin": {"daemon": {"cycle_time_in_s": 0.3, "commands": ["/bin/sh"], "jobs": ["command", "sleep"]}},
        },
        "update": {"min_healthy_time": "0s", "max_parallel": "100%", "canary": 0, "failure_budget": "100%"},
        "hosts": {name: {"base_dir": str(place / name)} for name in names},
    }
    return Many(place, content, database)
