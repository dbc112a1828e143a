"""status, events and what `top` does to workers, as an operator uses them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml

from fleet.cli import options
from fleet.hosts.access import open_remotes, open_store
from fleet.operation.touching import Target, Verb, give, lines_of
from puffin.records import WorkerRecord
from puffin.store import Event
from tests.acceptance.commands import BIN, Ran, puffin_fleet
from tests.acceptance.here import Here, until
from tests.lab.fixtures_database import Database
from tests.lab.processes import has_ended


class Large:
    """A fleet of three hosts, the records of whose workers are in the database; nothing runs."""

    def __init__(self, place: Path, database: Database) -> None:
        self.file = place / "hosts.yaml"
        content = {
            "fleet": "large",
            "database": {"uri": database.uri, "names": [database.name]},
            "release": {"install": "path", "path": "/opt/puffin"},
            "defaults": {"base_dir": str(place), "workers": {"cores": 1, "memory": 1, "disk": 1, "count": 8}},
            "hosts": {
                "node[1-2]": {"connection": "local"},
                "node3": {"address": "127.0.0.1", "ssh": {"port": 9}},
            },
        }
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))
        self.store = open_store(options.choose(str(self.file), ()).fleet)
        self.store.events.prepare()
        for host in ("node1", "node2", "node3"):
            for number in range(1, 9):
                self.report(host, number, "running" if number < 8 else "idle")

    def report(self, host: str, number: int, state: str) -> None:
        runs = state in {"running", "frozen"}
        record = WorkerRecord(
            uuid=f"puffin-large@{host}-{number}",
            fleet="large",
            host=host,
            worker=f"{host}-{number}",
            release="r1",
            configuration="c",
            pid=1,
            cores=1,
            memory=1.0,
            disk=1.0,
            programs=("sparrow",),
            jobs=("sleep",),
            state=state,
            calculation="65f0c1a2b3c4d5e6f7a8b9c0" if runs else "",
            order="sleep" if runs else "",
            done=2,
            lasting_s=580.0,  # 10 min in words, and so for 50 s more
            reports_within_s=3600.0,
        )
        self.store.registry.report(record)

    def note(self, kind: str, worker: str) -> None:
        self.store.events.write([(time.time(), Event(kind, worker, worker[:5], "large", detail=f"{kind} it"))])

    def run(self, verb: str, *words: object) -> Ran:
        return puffin_fleet(verb, self.file, *words)


@pytest.fixture
def large(tmp_path: Path, database: Database) -> Iterator[Large]:
    found = Large(tmp_path, database)
    with closing(found.store):
        yield found


def test_a_large_fleet_is_shown_host_by_host_and_trouble_worker_by_worker(large: Large) -> None:
    large.report("node2", 5, "quarantined")
    ran = large.run("status").ok()
    hosts, workers = (part.splitlines() for part in ran.out.rstrip().split("\n\n"))
    assert [line.split()[0] for line in hosts] == ["HOST", "node2", "node1", "node3"]
    assert "1 quarantined, 6 running, 1 idle  sleep x6  10 min" in hosts[1]
    assert [line.split()[0] for line in workers] == ["WORKER", "node2-5"]
    assert "24 workers on 3 hosts: 1 quarantined, 20 running, 3 idle" in ran.err
    assert len(large.run("status", "--workers").ok().out.splitlines()) == 25
    assert len(large.run("status", "--host", "node1").ok().out.splitlines()) == 9
    assert "\x1b" not in ran.out + ran.err


def test_hosts_that_cannot_be_asked_do_not_keep_the_others_from_being_shown(large: Large) -> None:
    ran = large.run("status", "--deep")
    assert ran.code == 1
    rows = {line.split()[0]: line for line in ran.out.split("\n\n")[0].splitlines()}
    assert "not reached" in rows["node3"]
    assert "supervisord: does not run; 8 not running" in rows["node1"]
    assert "node3 failed" in ran.err


def test_status_is_drawn_again_and_again_until_ctrl_c(large: Large) -> None:
    command = [str(BIN / "puffin-fleet"), "status", str(large.file), "--watch", "0.2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        shown = process.stdout
        assert shown is not None
        seen = [shown.readline() for _ in range(24)]
        large.report("node1", 1, "frozen")
        # A whole picture at a time: one line at a time would fall behind.
        until(lambda: '"frozen"' in "".join(shown.readline() for _ in range(24)), "the change")
        process.send_signal(signal.SIGINT)
        shown.read()
    assert (process.returncode, '"frozen"' in "".join(seen)) == (130, False)


def test_events_are_chosen_and_followed(large: Large) -> None:
    for kind, worker in (
        ("claimed", "node1-1"),
        ("failed", "node1-1"),
        ("finished", "node2-1"),
        ("claimed", "node2-2"),
    ):
        large.note(kind, worker)
    assert [event["kind"] for event in large.run("events", "--host", "node1", "--json").ok().json()] == [
        "claimed",
        "failed",
    ]
    assert large.run("events", "--failed", "--since", "1h").ok().out.split()[3:] == [
        "node1-1",
        "failed",
        "failed",
        "it",
    ]
    assert large.run("events", "--worker", "node2-*", "--kind", "claimed").ok().out.count("\n") == 1
    wrong = large.run("events", "--calculation", "65f0")
    assert (wrong.code, "'65f0' is no id" in wrong.err) == (2, True)
    command = [str(BIN / "puffin-fleet"), "events", str(large.file), "-f"]
    with subprocess.Popen([*command, "-n", "1"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "node2-2" in process.stdout.readline()
        large.note("thawed", "node3-1")
        assert "node3-1  thawed" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
    assert process.returncode == 130
    with subprocess.Popen([*command, "--since", "2h"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline().split()[4] for _ in range(5)] == [
            "claimed",
            "failed",
            "finished",
            "claimed",
            "thawed",
        ]
        process.kill()


def test_only_hosts_that_claimed_a_calculation_are_asked_for_its_logs(large: Large) -> None:
    calculation = "65f0c1a2b3c4d5e6f7a8b9c0"
    for kind, worker, host in (("requeued", "me@laptop", "laptop"), ("claimed", "old-1", "old"), ("reset", "b-1", "b")):
        large.store.events.write([(time.time(), Event(kind, worker, host, "large", calculation))])
    ran = large.run("logs", "--calculation", calculation, "--host", "node1").ok()
    assert "It ran on old, which is not asked" in ran.err


def test_top_needs_a_terminal(large: Large) -> None:
    ran = large.run("top")
    assert (ran.code, "needs a terminal" in ran.err) == (2, True)


def test_what_the_host_knows_beside_the_database_and_orders_to_single_workers(here: Here) -> None:
    here.run("deploy", "--yes").ok()
    fleet = options.choose(str(here.file), ()).fleet
    with closing(open_store(fleet)) as store:

        def records() -> dict[str, WorkerRecord]:
            return {record.worker: record for record in store.registry.workers(fleet.name)}

        (calculation,) = here.submit(600)
        until(lambda: {record.state for record in records().values()} == {"idle", "running"}, "the calculation")
        told = {record["worker"]: record for record in here.run("status", "--deep", "--json").ok().json()}
        assert {(each["supervisord"], each["alive"], each["orphan"]) for each in told.values()} == {
            ("RUNNING", True, False)
        }
        (busy,) = (each for each in told.values() if each["calculation"] == calculation)
        (idle,) = (name for name, each in told.items() if not each["calculation"])
        assert (busy["job"], 0 <= busy["age_s"] < 60, busy["troubles"]) == ("sleep", True, [])

        one = Target(fleet.hosts[0], idle)
        assert give(fleet, one, Verb.STOP, store.control) == f"{idle}: told to stop"
        until(lambda: records()[idle].state == "stopped", "the worker's end")
        until(lambda: here.running() == [busy["worker"]], "the end of its process")
        assert "told to stop" in here.run("status", "--deep").ok().out
        give(fleet, one, Verb.START, store.control)
        until(lambda: records()[idle].state == "idle", "the worker's return")
        before = records()[idle].pid
        assert give(fleet, one, Verb.RESTART, store.control) == f"{idle}: told to restart"
        until(lambda: (records()[idle].pid != before, records()[idle].state) == (True, "idle"), "another process")
    with open_remotes(fleet, fleet.hosts) as remotes:
        lines = lines_of(fleet, Target(fleet.hosts[0], busy["worker"]), [], remotes, 50)
        assert any(f"{calculation} claimed sleep" in line for _, line in lines)

    supervisord = psutil.Process(busy["pid"]).parent()
    assert supervisord is not None
    os.kill(supervisord.pid, signal.SIGKILL)
    until(lambda: has_ended(supervisord), "its end")
    ran = here.run("status", "--deep").ok()
    assert "supervisord: does not run; 2 without supervisord" in ran.out
    assert ran.out.count("runs without supervisord") == 2
