"""Secrets of a fleet stay in files of their owner: a deploy is watched while it goes on, and searched afterwards."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest

from fleet.embedded import EmbeddedDatabaseError, program
from tests.acceptance.many import Many, many_hosts
from tests.lab.requirements import missing
from tests.lab.servers import Anywhere, add_user, serve_on_free_port
from tests.lab.sshd import end_processes
from tests.lab.trap import TrapPython

PASSWORD = "p@ss/wort-4711"
TOKEN, NEXT_TOKEN = "token-0815-alt", "token-0815-neu"
SECRET = re.compile(rb"wort-4711|token-0815")
PROCESSES = Path("/proc")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Many]:
    """A fleet on a database that asks for a password, with a secret in its workers' environment."""
    try:
        program()
    except EmbeddedDatabaseError as error:
        missing(str(error))
    (tmp_path / "db").mkdir()
    add_user(tmp_path / "db", "chem", PASSWORD)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "password").chmod(0o600)
    with serve_on_free_port(tmp_path / "db", "--auth") as port:
        made = many_hosts(Anywhere(f"mongodb://127.0.0.1:{port}/?authSource=admin", "secured"), tmp_path, ["a"])
        made.content["database"] |= {"username": "chem", "password_file": str(tmp_path / "password")}
        made.content["defaults"]["environment"] = {"API_TOKEN": TOKEN}
        try:
            yield made
        finally:
            end_processes(tmp_path)


class Watch:
    """Looks at all processes again and again; what is seen of secrets, by command line."""

    def __init__(self) -> None:
        self.looks = 0
        self.in_arguments: set[bytes] = set()
        self.in_environments: dict[bytes, set[bytes]] = {}

    def look(self) -> None:
        self.looks += 1
        for place in PROCESSES.glob("[0-9]*"):
            try:
                arguments = (place / "cmdline").read_bytes()
                found = SECRET.findall((place / "environ").read_bytes())
            except OSError:
                continue
            if SECRET.search(arguments):
                self.in_arguments.add(arguments)
            if found and int(place.name) != os.getpid():
                self.in_environments.setdefault(arguments, set()).update(found)


@contextmanager
def watched() -> Iterator[Watch]:
    watch, end = Watch(), threading.Event()

    def go_on() -> None:
        while not end.is_set():
            watch.look()
            time.sleep(0.1)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield watch
    finally:
        end.set()
        thread.join()


@pytest.mark.soak
def test_no_secret_is_seen_while_deploying_or_found_where_others_can_read(fleet: Many) -> None:
    python = TrapPython.make(fleet.place / "trap", ["a"])
    fleet.content["release"]["python"] = str(python.path)
    said = []
    with watched() as watch:
        for words in (
            ("plan", "--diff"),
            ("plan", "--json", "--diff"),
            ("deploy", "--yes", "--diff"),
            ("deploy", "--yes", "--diff"),  # another token
            ("deploy", "--yes", "--json"),  # workers that die
            ("history",),
            ("status", "--json"),
            ("check",),
            ("plan", "--json"),  # another password
        ):
            said.append(fleet.run(*words))
            if len(said) == 3:
                fleet.content["defaults"]["environment"]["API_TOKEN"] = NEXT_TOKEN
            if len(said) == 4:
                fleet.content["defaults"]["environment"]["PYTHONHOME"] = "/nonexistent"
            if len(said) == 8:
                (fleet.place / "password").write_text(PASSWORD + "0\n")
    assert [ran.code for ran in said[:5]] == [0, 0, 0, 0, 1], said
    assert "(hidden)" in said[3].out
    assert "refused" in said[8].out + said[8].err

    for ran in said:
        assert not SECRET.search((ran.out + ran.err).encode()), ran
    seen_nowhere(watch, python)
    found_only_where_others_cannot_read(fleet)


def seen_nowhere(watch: Watch, python: TrapPython) -> None:
    assert watch.looks > 20
    assert watch.in_arguments == set()
    # The environment of workers is where the token belongs, and their programs get it from there.
    for arguments, found in watch.in_environments.items():
        assert not any(word in arguments for word in (b"/puffin-fleet\0", b"/supervisord\0", b"/trap/python\0")), (
            arguments
        )
        assert found == {b"token-0815"}, arguments
    calls = python.calls()
    assert {"probe", "apply", "supervise", "good keep", "lock acquire"} <= {str(call["step"]) for call in calls}
    for call in calls:
        assert not SECRET.search(f"{call['argv']} {call['environ']}".encode()), call["step"]


def found_only_where_others_cannot_read(fleet: Many) -> None:
    root = fleet.host_root("a")
    with_secrets = [path for path in files_below(fleet.place / "a") if SECRET.search(path.read_bytes())]
    names = {path.relative_to(root).as_posix() for path in with_secrets}
    assert "etc/workers/a-1.env" in names
    assert any(b"wort-4711" in path.read_bytes() for path in with_secrets)
    kept = ("etc/", "good/etc/", "good-before/etc/")
    assert {name for name in names if not name.startswith(kept)} == set()
    assert [oct(path.stat().st_mode) for path in with_secrets if path.stat().st_mode & 0o077] == []
    for name in ("manifest.json", "audit.jsonl", "good/manifest.json"):
        assert (root / name).stat().st_mode & 0o077 == 0
    with pymongo.MongoClient(fleet.database.uri, username="chem", password=PASSWORD) as client:
        database: Any = client["secured"]
        for collection in database.list_collection_names():
            assert not SECRET.search(str(list(database[collection].find())).encode()), collection


def files_below(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
