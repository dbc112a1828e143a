"""Running a fleet by hand: stop, start, drain, resume, restart, exec and ps, also where some hosts are in trouble."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.acceptance.commands import BIN, Ran, on_terminal, puffin_fleet
from tests.acceptance.here import Here, until
from tests.lab.processes import has_ended
from tests.lab.sshd import SshHost, keygen


def make(here: Here, *names: str) -> None:
    """Hosts with a worker each."""
    here.content["defaults"]["workers"]["count"] = 1
    here.content["hosts"] = {name: {"connection": "local"} for name in names}
    here.run("deploy", "--yes").ok()


def root_of(here: Here, host: str) -> Path:
    return here.root.parent / host


@pytest.mark.soak
def test_an_operators_day(here: Here) -> None:
    make(here, "one", "two", "three")
    here.submit_held(count=3)
    until(lambda: here.all_are("pending"), "all to be taken")

    with here.meanwhile("stop", "--yes") as stop:
        until(lambda: "waiting for one-1: command " in stop.err, "it to say what still runs")
        assert here.all_are("pending")
    stop.ran.ok()
    assert here.all_are("complete"), "every running calculation was finished"
    assert here.running() == []
    # A single worker of a fleet that is stopped.
    assert "no worker matches 'tow-*'" in here.run("start", "--worker", "tow-*").err
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
    back = "new disk; 'puffin-fleet resume one' brings it back"
    assert back in here.run("deploy", "--yes").ok().err
    assert back in here.run("restart", "--host", "one").ok().err
    assert "new disk" in here.run("plan").ok().out
    assert "drained by" in here.run("check", "--host", "one").out
    assert sorted(here.running()) == ["three-1", "two-1"]
    run(here, ["resume", "one"]).ok()
    until(lambda: len(here.running()) == 3, "all of them")
    assert not (root_of(here, "one") / "orders" / "drain").exists()


@pytest.mark.soak
def test_a_host_that_is_drained_before_its_first_deploy_stays_down(here: Here) -> None:
    here.content["defaults"]["workers"]["count"] = 1
    here.content["hosts"] = {name: {"connection": "local"} for name in ("one", "two")}
    here.run("schema")  # writes the file
    assert "drained; nothing is deployed there" in run(here, ["drain", "one", "--why", "new disk"]).ok().out
    assert "new disk" in here.run("deploy", "--yes").ok().out + here.run("plan").ok().out
    assert here.running() == ["two-1"]
    run(here, ["resume", "one"]).ok()
    until(lambda: sorted(here.running()) == ["one-1", "two-1"], "both hosts to work")


@pytest.mark.soak
def test_restarts(here: Here) -> None:
    make(here, "one", "three")
    here.run("stop", "--yes", "--host", "three").ok()
    before = {name: record["pid"] for name, record in here.workers().items()}
    here.submit_held()
    until(lambda: here.all_are("pending"), "it to be taken")

    with here.meanwhile("restart") as restart:
        until(lambda: here.workers()["one-1"]["state"] == "draining", "the worker to be told")
        until(lambda: "one-1: until command " in restart.err, "it to say what it waits for")
        assert here.all_are("pending")
    assert "left alone: stopped" in restart.ran.ok().out
    assert here.all_are("complete")
    after = {name: record["pid"] for name, record in here.workers().items()}
    assert {name for name in before if after[name] != before[name]} == {"one-1"}
    assert here.running() == ["one-1"]

    here.submit(seconds=600)
    until(lambda: {item["status"] for item in here.calculations()} == {"pending", "complete"}, "them to be taken")
    assert "will restart when done: one-1" in here.run("restart", "--when-idle", "--host", "one").ok().out
    here.run("restart", "--now", "--yes").ok()
    until(
        lambda: {item["puffin"]["attempt"] for item in here.calculations()} == {1, 2},
        f"it to be taken again: {here.events()}",
    )
    assert here.running() == ["one-1"]
    assert {name: record["pid"] for name, record in here.workers().items()}["one-1"] != after["one-1"]

    processes = here.run("ps", "--json").ok().json()
    kinds = {(each["host"], each["kind"]) for each in processes}
    assert {("one", "supervisord"), ("one", "worker"), ("one", "helper"), ("three", "supervisord")} <= kinds
    assert ("three", "worker") not in kinds
    # What served the worker before may need a moment to notice that it has ended.
    until(lambda: not any(each["orphan"] for each in here.run("ps", "--json").ok().json()), "no orphans to be left")
    until(
        lambda: any(each["kind"] == "job" and each["calculation"] for each in here.run("ps", "--json").ok().json()),
        "a job to be seen with its calculation",
    )
    here.run("stop", "--yes", "--now").ok()
    assert {item["status"] for item in here.calculations()} == {"complete", "new"}


@pytest.mark.soak
def test_orphans_are_marked(here: Here) -> None:
    here.content["defaults"]["workers"]["count"] = 1
    here.run("deploy", "--yes").ok()
    daemon = psutil.Process(int((here.root / "run" / "supervisord.pid").read_text()))
    daemon.kill()
    until(lambda: has_ended(daemon), "supervisord to be gone")
    ran = here.run("ps").ok()
    assert "worker orphan" in ran.out
    assert "1 orphan: 'puffin-fleet stop' lets workers finish" in ran.err
    here.run("stop", "--yes").ok()
    # What served the worker may need a moment to notice that it has ended.
    until(lambda: "No process of this fleet runs there." in here.run("ps").ok().err, "all processes to be gone")


def pretend(here: Here, names: list[str]) -> None:
    """Hosts on which something was deployed, as far as a stop is concerned."""
    here.content["hosts"] = {name: {"connection": "local"} for name in names}
    for name in names:
        (root_of(here, name) / "etc" / "workers").mkdir(parents=True)


@pytest.mark.soak
def test_twenty_hosts_are_told_within_two_seconds(here: Here) -> None:
    names = [f"node{number:02}" for number in range(20)]
    pretend(here, names)

    def spread() -> float:
        here.run("stop", "--yes").ok()
        files = [root_of(here, name) / "orders" / "stop" for name in names]
        times = [file.stat().st_mtime for file in files]
        for file in files:
            file.unlink()
        return max(times) - min(times)

    spreads = [spread()]
    while spreads[-1] >= 2.0 and len(spreads) < 3:  # the machine may just have had other things to do
        spreads.append(spread())
    assert spreads[-1] < 2.0, spreads


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Where nobody takes a connection, as on a host that is down."""
    with socket.socket() as silent, contextlib.ExitStack() as fillers:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        yield silent.getsockname()[1]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without room for another file."""
    place = tmp_path / "full"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=64", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> None:
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (place / f"file{number}").touch()


@pytest.mark.soak
def test_troubles_are_named_and_the_rest_is_done(
    here: Here,
    silent_port: int,
    closed_port: int,
    full_disk: Path,
    ssh_hosts: Callable[..., SshHost],
    tmp_path: Path,
) -> None:
    """One is down, one refuses the key, one has no supervisord running, one has a full disk."""
    wrong_key = tmp_path / "wrong_key"
    keygen(wrong_key)
    refusing = ssh_hosts("refusing")
    known = {"known_hosts": str(refusing.known_hosts)}
    pretend(here, ["good", "full"])
    here.content["defaults"]["ssh"] = known
    there = {"address": refusing.address, "user": refusing.user}
    here.content["hosts"]["refusing"] = {**there, "ssh": {"port": refusing.port, "key": str(wrong_key), **known}}
    here.content["hosts"]["down"] = {"address": "127.0.0.1", "ssh": {"port": silent_port}}
    here.content["hosts"]["full"]["base_dir"] = str(full_disk)
    (full_disk / "day" / "hosts" / "full" / "etc").mkdir(parents=True)
    fill(full_disk)

    closed = {"address": "127.0.0.1", "ssh": {"port": closed_port}}
    silent = here.content["hosts"]["down"]

    def timed(words: list[str]) -> tuple[Ran, float]:
        began = time.monotonic()
        return run(here, words), time.monotonic() - began

    for words in (
        ["stop", "--yes", "--no-wait"],
        ["drain", "*", "--no-wait"],
        ["ps"],
        ["exec", "--", "echo", "here  I am"],
    ):
        here.content["hosts"]["down"] = silent if words[0] == "exec" else closed  # the other answers sooner
        ran, seconds = timed(words)
        assert ran.code == 1, words
        assert "down failed at connect" in ran.err
        assert "refusing failed at connect" in ran.err
        assert "good failed" not in ran.err
        if words[0] in {"stop", "drain"}:
            assert "full failed" in ran.err
            assert "No space left on device" in ran.err
        else:
            assert "full failed" not in ran.err
        # Once its connect timeout of 10 s, whatever is asked of it; now or when the machine has less to do.
        assert seconds < 19 or timed(words)[1] < 19
    assert "== good: exit code 0\nhere  I am\n" in ran.out
    assert "2 of 4 hosts: exit code 0; not so on refusing, down" in ran.err
    assert (root_of(here, "good") / "orders" / "stop").exists()
    assert (root_of(here, "good") / "orders" / "drain").exists()


@pytest.mark.soak
def test_words_arrive_as_they_are(here: Here) -> None:
    here.content["hosts"] = {name: {"connection": "local"} for name in ("one", "two")}
    said = run(
        here, ["exec", "--json", "--", sys.executable, "-c", "import sys; print(sys.argv[1:])", "$HOME;", "a  b", "*"]
    )
    assert [record["stdout"] for record in said.ok().json()] == ["['$HOME;', 'a  b', '*']\n"] * 2
    said = run(
        here, ["exec", "--prefix", "--host", "one", "--shell", "--", "cat; echo $((1 + 1)); echo bad >&2; exit 3"]
    )
    assert said.code == 1
    assert said.out == "one: 2\none: bad\n"
    assert "one: exit code 3" in said.err
    said = run(here, ["exec", "--timeout", "0.5", "--", "sleep", "600"])
    assert said.code == 1
    assert "one: ended after " in said.out
    said = run(here, ["exec", "--host", "one", "--", "no-such-command"])
    assert said.code == 1
    assert "no command 'no-such-command' here" in said.err


def test_a_command_ends_with_the_one_who_runs_it(here: Here) -> None:
    here.content["hosts"] = {"one": {"connection": "local"}}
    mark = f"{time.time_ns() % 10**9}.5"
    here.file.write_text(yaml.safe_dump(here.content))
    words = [str(BIN / "puffin-fleet"), "exec", "--file", str(here.file), "--", "sleep", mark]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: bool(sleeping(mark)), "the command to run")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        until(lambda: not sleeping(mark), "the command to be gone")
    finally:
        process.kill()
        process.wait()


def sleeping(mark: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", mark]]


@pytest.mark.soak
def test_a_host_out_of_reach_is_stopped_through_the_database(here: Here, silent_port: int) -> None:
    here.content["defaults"]["workers"]["count"] = 1
    here.run("deploy", "--yes").ok()
    here.submit_held()
    until(lambda: here.all_are("pending"), "it to be taken")
    # The way to it is gone; its worker goes on.
    here.content["hosts"]["here"] = {"address": "127.0.0.1", "ssh": {"port": silent_port}}
    with here.meanwhile("stop", "--yes") as stop:
        until(
            lambda: "told through the database, waiting for here-1: command " in stop.err, "it to say what still runs"
        )
        assert here.all_are("pending")
    ran = stop.ran.ok()
    assert "stopped; it cannot be reached, but was told through the database" in ran.out
    assert here.all_are("complete")
    assert not (here.root / "orders" / "stop").exists()


def test_a_pattern_is_refused_only_where_every_host_has_answered(here: Here, closed_port: int) -> None:
    pretend(here, ["good"])
    for verb in ("stop", "start", "restart"):
        ran = here.run(verb, "--worker", "nobody-*", *(["--yes"] if verb == "stop" else []))
        expected = (1, "nothing is deployed there") if verb != "stop" else (2, "no worker matches 'nobody-*'")
        assert (ran.code, expected[1] in ran.err) == (expected[0], True), ran
    here.content["hosts"]["down"] = {"address": "127.0.0.1", "ssh": {"port": closed_port}}
    for verb in ("stop", "start", "restart"):
        ran = here.run(verb, "--worker", "down-2", *(["--yes"] if verb == "stop" else []))
        assert (ran.code, "down failed at connect" in ran.err, "no worker matches" in ran.err) == (1, True, False)


@pytest.mark.parametrize(
    ("words", "asked", "nothing"),
    [
        (["stop"], "Stop all workers of one (lets running calculations finish)?", "stopped"),
        (["stop", "--now", "--worker", "one-1"], "Stop workers one-1 of one (gives running calculations", "stopped"),
        (["restart", "--now"], "Restart all workers of one (gives running calculations back)?", "restarted"),
        (["drain", "one", "--now"], "Drain all workers of one (gives running calculations back)?", "drained"),
        (["destroy"], "Destroy fleet 'day' on all 1 host (wait for running calculations)?", "removed"),
    ],
)
def test_what_ends_something_asks_before(here: Here, words: list[str], asked: str, nothing: str) -> None:
    pretend(here, ["one"])
    before = sorted(here.place.rglob("*"))
    refused = run(here, words)
    assert (refused.code, f"nothing was {nothing}: nobody can be asked here, so say --yes" in refused.err) == (2, True)
    verb, *rest = words
    place = 1 if verb == "drain" else 0
    shown, code = on_terminal(200, verb, *rest[:place], here.file, *rest[place:], answer="n")
    assert (code, asked in shown, f"nothing was {nothing}" in shown) == (130, True, True), shown
    assert sorted({*here.place.rglob("*")} - {here.file}) == before


def test_nothing_ends_supervisord_without_waiting(here: Here) -> None:
    pretend(here, ["one"])
    ran = here.run("stop", "--no-wait", "--supervisord", "--yes")
    assert (ran.code, "which --no-wait does not wait for" in ran.err) == (2, True)
    assert not (root_of(here, "one") / "orders").exists()


def test_ways_to_restart_exclude_each_other(here: Here) -> None:
    ran = here.run("restart", "--now", "--when-idle", "--yes")
    assert (ran.code, ran.err) == (2, "--when-idle and --now exclude each other\n")


@pytest.mark.soak
def test_a_restart_of_an_unknown_worker_is_refused(here: Here) -> None:
    make(here, "one")
    ran = here.run("restart", "--worker", "nobody-*")
    assert (ran.code, "no worker matches 'nobody-*'" in ran.err) == (2, True)


def test_the_line_to_change_is_shown_and_written(here: Here) -> None:
    here.run("schema")  # writes the file
    text = "# mine\n" + here.file.read_text()
    here.file.write_text(text)
    shown = puffin_fleet("scale", "here", 3, here.file).ok()
    assert here.file.read_text() == text
    line = text.splitlines().index("    count: 2") + 1
    assert "-    count: 2\n+    count: 3\n" in shown.out
    assert f"{here.file}:{line} to write it: the same with --write" in shown.err
    puffin_fleet("scale", "here", 3, here.file, "--write").ok()
    assert here.file.read_text() == text.replace("    count: 2\n", "    count: 3\n")
    assert "says so already" in puffin_fleet("scale", "here", 3, here.file, "--write").ok().err


def run(here: Here, words: list[str]) -> Ran:
    """A verb whose arguments are not the file first."""
    verb, *rest = words
    if verb == "exec":
        return here.run_words(verb, "--file", here.file, *rest)
    if verb in {"drain", "resume"}:
        return here.run_words(verb, rest[0], here.file, *rest[1:])
    return here.run(verb, *rest)
