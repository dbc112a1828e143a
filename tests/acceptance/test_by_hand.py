"""Running a fleet by hand: stop, start, drain, resume, restart, exec and ps, also where some hosts are in trouble."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import psutil

from tests.acceptance.here import Here, until


def make_three(here: Here) -> None:
    """Three hosts with a worker each."""
    here.content["defaults"]["workers"]["count"] = 1
    here.content["hosts"] = {name: {"connection": "local"} for name in ("one", "two", "three")}
    here.run("deploy", "--yes").ok()


def root_of(here: Here, host: str) -> Path:
    return here.root.parent / host


def test_an_operators_day(here: Here) -> None:
    make_three(here)
    here.submit(seconds=7, count=3)
    until(lambda: here.all_are("pending"), "all to be taken")

    ran = here.run("stop").ok()
    assert here.all_are("complete"), "every running calculation was finished"
    assert here.running() == []
    assert "waiting for one-1: sleep " in ran.err, "it says what still runs"
    # A single worker of a fleet that is stopped.
    here.run("start", "--worker", "two-*").ok()
    until(lambda: here.running() == ["two-1"], "the one worker")

    drained = run(here, ["drain", "one", "--why", "new disk"]).ok()
    assert "stopped" in drained.out
    ran = here.run("start").ok()
    assert "one    drained by " in ran.out
    assert "new disk; 'puffin-fleet resume one' brings it back" in ran.out
    until(lambda: sorted(here.running()) == ["three-1", "two-1"], "the others")
    assert here.run("start", "--host", "one").code == 1
    # Neither a deploy nor a new supervisord brings it back.
    assert "new disk" in here.run("deploy", "--yes").ok().out + here.run("plan").ok().out
    assert "drained by" in here.run("check", "--host", "one").out
    assert sorted(here.running()) == ["three-1", "two-1"]
    run(here, ["resume", "one"]).ok()
    until(lambda: len(here.running()) == 3, "all of them")
    assert not (root_of(here, "one") / "orders" / "drain").exists()


def test_restarts(here: Here) -> None:
    make_three(here)
    here.run("stop", "--host", "three").ok()
    before = {name: record["pid"] for name, record in here.workers().items()}
    here.submit(seconds=3, count=1)
    until(lambda: here.all_are("pending"), "it to be taken")

    ran = here.run("restart").ok()
    assert here.all_are("complete")
    assert "stopped, left alone" in ran.out
    after = {name: record["pid"] for name, record in here.workers().items()}
    assert {name for name in before if after[name] != before[name]} == {"one-1", "two-1"}
    assert sorted(here.running()) == ["one-1", "two-1"]

    here.submit(seconds=600, count=2)
    until(lambda: {item["status"] for item in here.calculations()} == {"pending", "complete"}, "them to be taken")
    assert "will restart when done: two-1" in here.run("restart", "--when-idle", "--host", "two").ok().out
    here.run("restart", "--now").ok()
    attempts = [item["puffin"]["attempt"] for item in here.calculations() if item["status"] != "complete"]
    assert all(attempt >= 1 for attempt in attempts)
    until(lambda: sorted(here.running()) == ["one-1", "two-1"], "both again")
    assert {name: record["pid"] for name, record in here.workers().items()}["one-1"] != after["one-1"]

    processes = here.run("ps", "--json").ok().json()
    kinds = {(each["host"], each["kind"]) for each in processes}
    assert {("one", "supervisord"), ("one", "worker"), ("one", "helper"), ("three", "supervisord")} <= kinds
    assert ("three", "worker") not in kinds
    assert not any(each["orphan"] for each in processes)
    until(
        lambda: any(each["kind"] == "job" and each["calculation"] for each in here.run("ps", "--json").ok().json()),
        "a job to be seen with its calculation",
    )
    here.run("stop", "--now").ok()
    assert {item["status"] for item in here.calculations()} == {"complete", "new"}


def test_orphans_are_marked(here: Here) -> None:
    here.content["defaults"]["workers"]["count"] = 1
    here.run("deploy", "--yes").ok()
    daemon = psutil.Process(int((here.root / "run" / "supervisord.pid").read_text()))
    daemon.kill()
    until(lambda: not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE, "supervisord to be gone")
    ran = here.run("ps").ok()
    assert "worker orphan" in ran.out
    assert "1 orphan: 'puffin-fleet stop' lets workers finish" in ran.err
    here.run("stop").ok()
    assert "No process of this fleet runs there." in here.run("ps").ok().err


def pretend(here: Here, names: list[str]) -> None:
    """Hosts on which something was deployed, as far as a stop is concerned."""
    here.content["hosts"] = {name: {"connection": "local"} for name in names}
    for name in names:
        (root_of(here, name) / "etc" / "workers").mkdir(parents=True)


def test_twenty_hosts_are_told_within_two_seconds(here: Here) -> None:
    names = [f"node{number:02}" for number in range(20)]
    pretend(here, names)
    here.run("stop").ok()
    times = sorted((root_of(here, name) / "orders" / "stop").stat().st_mtime for name in names)
    assert times[-1] - times[0] < 2.0


def test_troubles_are_named_and_the_rest_is_done(here: Here, tmp_path: Path, ssh_hosts) -> None:  # type: ignore[no-untyped-def]
    pretend(here, ["good", "gone"])
    with socket.socket() as silent:  # takes no connection: a host that is down
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        port = silent.getsockname()[1]
        here.content["hosts"]["gone"] = {"address": "127.0.0.1", "ssh": {"port": port}}
        for words in (["stop", "--no-wait"], ["drain", "*", "--no-wait"], ["ps"], ["exec", "--", "true"]):
            began = time.monotonic()
            ran = run(here, words)
            assert ran.code == 1, words
            assert "gone failed at connect" in ran.err
            assert "good failed" not in ran.err
            assert time.monotonic() - began < 30
        for filler in fillers:
            filler.close()
    assert (root_of(here, "good") / "orders" / "stop").exists()


def run(here: Here, words: list[str]):  # type: ignore[no-untyped-def]
    """A verb whose arguments are not the file first."""
    verb, *rest = words
    if verb == "exec":
        return here.run_words(verb, "--file", here.file, *rest)
    if verb in {"drain", "resume"}:
        return here.run_words(verb, rest[0], here.file, *rest[1:])
    return here.run(verb, *rest)
