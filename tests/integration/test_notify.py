"""The notifier with a real database, a real web server and real programs: nothing untold, whatever is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fleet.errors import InventoryError
from fleet.hosts.inventory import parse_inventory
from fleet.notify.notices import Kind, Notice
from fleet.notify.telling import CommandHook, NotTold, Webhook, hooks_on_events
from puffin.documents import Model, Request
from puffin.records import WorkerRecord
from puffin.store import Event, Store, new_event_id
from tests.acceptance.commands import BIN, puffin_fleet
from tests.lab.fixtures_database import Database
from tests.lab.processes import has_ended
from tests.lab.receiver import Receiver, receiver
from tests.lab.worker import until

SECRET = "T0PS3CRET"
NOTICE = Notice(Kind.FAILED, "id1", datetime(2026, 11, 22), "lab", "<!channel> & all")


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receiver() as opened:
        yield opened


def script(place: Path, name: str, text: str) -> Path:
    path = place / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def write_fleet(place: Path, database: Database, **hooks: Any) -> Path:
    file = place / "hosts.yaml"
    content = {
        "fleet": "lab",
        "database": {"uri": database.uri, "names": [database.name]},
        "defaults": {"workers": {"cores": 1}},
        "hosts": {"node1": {}, "node2": {}},
        "hooks": hooks,
    }
    file.write_text(yaml.safe_dump(content))
    return file


def note(store: Store, *details: str, kind: str = "failed") -> list[str]:
    ids = [new_event_id() for _ in details]
    events = [Event(kind, "node1-1", "node1", "lab", "c0ffee", each, id) for id, each in zip(ids, details, strict=True)]
    store.events.write([(time.time(), each) for each in events])
    return ids


@contextmanager
def notifier(file: Path) -> Iterator[subprocess.Popen[str]]:
    """One that has begun to follow, killed in the end if need be."""
    process = subprocess.Popen(
        [str(BIN / "puffin-fleet"), "notify", str(file), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "until Ctrl-C" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def forget_the_lease(database: Database) -> None:
    """As if the time had passed after which the place of a notifier that was killed is free."""
    with database.server.client() as client:
        found = client[database.name]["puffin_control"].update_one(
            {"_id": "lab notifier"}, {"$set": {"renewed": datetime(2020, 1, 1)}}
        )
        assert found.matched_count == 1


def memory(database: Database) -> dict[str, Any]:
    with database.server.client() as client:
        document = client[database.name]["puffin_control"].find_one({"_id": "lab notifier"})
    return json.loads((document or {}).get("memory") or "{}")


def test_a_command_and_a_webhook_are_told_of_a_failure_and_no_secret_shows(
    tmp_path: Path, database: Database, store: Store, web: Receiver
) -> None:
    script(tmp_path, "tell", 'cat > told.json; echo "$PUFFIN_EVENT|$PUFFIN_EVENT_HOST|$PUFFIN_FLEET" > told.txt')
    (tmp_path / "url").write_text(f"{web.url}/file/{SECRET}\n")
    targets = ["./tell", f"{web.url}/{SECRET}", {"url_file": "url"}]
    file = write_fleet(tmp_path, database, failed=targets)
    with notifier(file) as running:
        until(lambda: memory(database).get("position"), "it follows")
        (told,) = note(store, "<!channel> no & sense")
        lines = [running.stdout.readline() for _ in targets] if running.stdout else []
        running.terminate()
        rest, errors = running.communicate(timeout=20)
    assert running.returncode == 130
    assert {json.loads(line)["id"] for line in lines} == {told}
    assert all(json.loads(line)["told"] for line in lines)
    assert SECRET not in "".join([*lines, rest, errors])
    assert (tmp_path / "told.txt").read_text() == f"failed|node1|{file}\n"
    body = json.loads((tmp_path / "told.json").read_text())
    assert body["text"] == "lab: calculation c0ffee failed on node1-1: <!channel> no & sense"
    assert (body["event"], body["id"], body["calculation"], body["count"]) == ("failed", told, "c0ffee", 1)
    for path in (f"/{SECRET}", f"/file/{SECRET}"):
        (posted,) = web.bodies(path)
        # A chat service must not take it for a command.
        assert posted == {**body, "text": body["text"].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


def test_one_that_is_killed_while_it_tells_tells_it_again_and_what_came_meanwhile(
    tmp_path: Path, database: Database, store: Store, web: Receiver
) -> None:
    file = write_fleet(tmp_path, database, failed=f"{web.url}/hook")
    with notifier(file) as running:
        until(lambda: memory(database).get("position"), "it follows")
        before = note(store, "told")
        # In this order: before it is told it may not yet stand in the outbox.
        until(lambda: web.ids("/hook") == before and not memory(database)["outbox"], "it is crossed out")
        web.answers["/hook"] = deque([0])
        during = note(store, "being told")
        until(lambda: web.ids("/hook") == before + during, "it is told")
        running.kill()
    meanwhile = note(store, "while nobody looked")
    refused = puffin_fleet("notify", file, "--once")
    assert refused.code == 4
    assert "one notifier is enough" in refused.err
    forget_the_lease(database)
    puffin_fleet("notify", file, "--once").ok()
    assert web.ids("/hook") == before + during + during + meanwhile
    puffin_fleet("notify", file, "--once").ok()
    assert web.ids("/hook") == before + during + during + meanwhile


def test_of_two_one_goes_and_one_whose_place_was_taken_goes(
    tmp_path: Path, database: Database, store: Store, web: Receiver
) -> None:
    file = write_fleet(tmp_path, database, failed=f"{web.url}/hook")
    with notifier(file) as running:
        second = puffin_fleet("notify", file)  # waits to see whether the first lives, which it shows
        assert second.code == 4
        assert f"process {running.pid}" in second.err
        # As if its machine had slept: else it may renew the lease before the other one has taken its place.
        running.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(running.pid).status() == psutil.STATUS_STOPPED, "it stands still")
        forget_the_lease(database)
        puffin_fleet("notify", file, "--once").ok()
        told = note(store, "to be told by somebody else")
        running.send_signal(signal.SIGCONT)
        _, errors = running.communicate(timeout=30)
        assert running.returncode == 4
        assert "one notifier is enough" in errors
    assert web.came == []
    puffin_fleet("notify", file, "--once").ok()
    assert web.ids("/hook") == told


def test_a_hook_that_fails_is_tried_again_and_holds_up_no_other(
    tmp_path: Path, database: Database, store: Store, web: Receiver
) -> None:
    script(tmp_path, "hangs", "exec sleep 600")
    web.answers["/weak"] = deque([503, 200])
    file = write_fleet(tmp_path, database, failed=["./hangs", f"{web.url}/weak", f"{web.url}/well"])
    with notifier(file) as running:
        until(lambda: memory(database).get("position"), "it follows")
        first, second = note(store, "1", "2")
        until(lambda: web.ids("/well") == [first, second], "the one that is well")
        until(lambda: web.ids("/weak") == [first, first, second], "the one that was not")
        hanging = until(
            lambda: [each.pid for each in psutil.Process(running.pid).children() if "600" in each.cmdline()], "it hangs"
        )
        running.terminate()
        out, _ = running.communicate(timeout=20)
    until(lambda: all(map(has_ended, hanging)), "their end")
    failed = [line for line in map(json.loads, out.splitlines()) if not line["told"]]
    assert [(line["error"], line["tries"]) for line in failed] == [("it answered 503 Service Unavailable", 1)]
    assert failed[0]["again_at"]


def test_a_lost_host_and_an_empty_queue_are_told_once_each(
    tmp_path: Path, database: Database, store: Store, web: Receiver
) -> None:
    hook = f"{web.url}/hook"
    file = write_fleet(tmp_path, database, host_lost=hook, queue_empty=hook, host_lost_after="1s")
    for host in ("node1", "node2"):
        store.registry.report(
            WorkerRecord(f"{host}-1", "lab", host, f"{host}-1", "r", "c", 1, 1, 1.0, 1.0, (), (), "running")
        )
    silence(database, "node1-1", "node2-1")
    store.control.note_drained("lab", "node2", "me", "")
    store.submit(database.name, [(None, Request("sleep", Model("any")))])
    puffin_fleet("notify", file, "--once").ok()
    assert web.came == []
    with database.server.client() as client:
        client[database.name]["calculations"].update_many({}, {"$set": {"status": "complete"}})
    time.sleep(1.1)  # the time for which a host must be known to be silent
    puffin_fleet("notify", file, "--once").ok()
    assert sorted((each["event"], each["host"]) for each in web.bodies("/hook")) == [
        ("host_lost", "node1"),
        ("queue_empty", ""),
    ]
    puffin_fleet("notify", file, "--once").ok()
    assert len(web.came) == 2


def silence(database: Database, *uuids: str) -> None:
    with database.server.client() as client:
        for uuid in uuids:
            document = client[database.name]["puffin_workers"].find_one({"_id": uuid})
            assert document is not None
            client[database.name]["puffin_workers"].update_one(
                {"_id": uuid}, {"$set": {"seen": document["seen"] - timedelta(hours=1)}}
            )


def test_cron_is_told_of_failures_and_tries_again(
    tmp_path: Path, database: Database, store: Store, web: Receiver
) -> None:
    web.answers["/hook"] = deque([500] * 9)  # who is slow finds at once that it is time for the next try
    file = write_fleet(tmp_path, database, quarantined=f"{web.url}/hook")
    puffin_fleet("notify", file, "--once").ok()
    (told,) = note(store, "crashed 5 times in 10 min", kind="quarantined")
    failed = puffin_fleet("notify", file, "--once")
    assert failed.code == 1
    assert "not told http://127.0.0.1" in failed.out
    assert re.search(r", try 1, again in [0-2] s: ", failed.out)  # what is left of the first pause
    tries = failed.out.count("not told")
    web.answers["/hook"].clear()
    done = until(lambda: puffin_fleet("notify", file, "--once").ok().out, "the time of the next try")
    assert "lab: worker node1-1 is quarantined: crashed 5 times in 10 min" in done
    assert web.ids("/hook") == [told] * (tries + 1)


def test_hooks_can_be_tried_and_what_is_wrong_with_them_is_said_at_once(
    tmp_path: Path, database: Database, web: Receiver
) -> None:
    file = write_fleet(tmp_path, database)
    none = puffin_fleet("notify", file)
    assert none.code == 2
    assert "names no hook on events" in none.err
    script(tmp_path, "bad", "echo not today >&2; exit 7")
    file = write_fleet(tmp_path, database, failed=f"{web.url}/hook", queue_empty="./bad")
    tried = puffin_fleet("notify", file, "--try", "--json")
    assert tried.code == 1
    assert [(line["event"], line["told"], line["error"]) for line in tried.json()] == [
        ("failed", True, ""),
        ("queue_empty", False, "it ended with status 7; its last line: not today"),
    ]
    (tmp_path / "bad").chmod(0o644)
    file = write_fleet(tmp_path, database, failed=["./none", {"url_file": "none"}], queue_empty="./bad")
    with pytest.raises(InventoryError) as refused:
        hooks_on_events(parse_inventory(file.read_text(), str(file)))
    assert [problem.path for problem in refused.value.problems] == ["hooks.failed", "hooks.failed", "hooks.queue_empty"]
    assert {problem.line is not None for problem in refused.value.problems} == {True}
    checked = {(found["check"], found["severity"]): found for found in puffin_fleet("check", file, "--json").json()}
    assert "hooks.queue_empty" in checked["hooks", "fail"]["what"]


def test_a_command_has_its_time_and_what_it_leaves_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    slow = script(tmp_path, "slow", "sleep 600 & echo $! > child; wait")
    said = tmp_path / "child"
    said.touch()
    for timeout_s in (1.0, 5.0, 25.0):  # where the machine is busy a short time is over before it has begun
        with pytest.raises(NotTold, match=f"did not end within {timeout_s:g} s"):
            CommandHook(slow, file, timeout_s=timeout_s).tell(NOTICE)
        if said.read_text():
            break
    child = int(said.read_text())
    until(lambda: has_ended(child), "its end")
    with pytest.raises(NotTold, match="cannot be started"):
        CommandHook(tmp_path / "none", file).tell(NOTICE)


def test_what_webhooks_answer_is_told_without_their_address(tmp_path: Path, web: Receiver) -> None:
    web.answers |= {f"/{SECRET}": deque([302, 0])}
    errors = []
    closed = "http://127.0.0.1:9"
    for url, timeout_s in (
        (f"{web.url}/{SECRET}", 30.0),
        (f"{web.url}/{SECRET}", 0.5),
        (f"{closed}/{SECRET}", 30.0),
        (f"{web.url}:99999999/{SECRET}", 30.0),
    ):
        with pytest.raises(NotTold) as refused:
            Webhook(url, timeout_s=timeout_s).tell(NOTICE)
        errors.append(str(refused.value))
        assert refused.value.__cause__ is None
    assert errors[:3] == [
        "it answered 302 Found",
        "it did not answer within 0.5 s",
        "it cannot be reached: Connection refused",
    ]
    assert SECRET not in "".join(errors)
    assert web.bodies("/elsewhere") == []
    (tmp_path / "url").write_text(f"not a url {SECRET}")
    with pytest.raises(NotTold) as refused:
        Webhook("", tmp_path / "url").tell(NOTICE)
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(Webhook(f"https://h/{SECRET}"))
    assert os.environ.get("PUFFIN_EVENT") is None
