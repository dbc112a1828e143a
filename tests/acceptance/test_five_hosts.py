"""Verbs that look, on five hosts of which one is down, one refuses the key, one has no supervisord, one a full disk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.acceptance.commands import Ran
from tests.acceptance.five import Five, five

__all__ = ["five"]

ASK_HOSTS = {
    "status --deep": ["status", "--deep"],
    "ps": ["ps", "--json"],
    "exec": ["exec", "--", "echo", "here  I am"],
    "logs": ["logs"],
    "collect": ["collect", "-o", "collected"],
    "check": ["check", "--json"],
    "history": ["history"],
    "plan": ["plan", "--json"],
}
ASK_NO_HOST = {
    "status": ["status"],
    "events": ["events", "--kind", "deployed"],
    "scale": ["scale", "all", "2"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("looks")


@pytest.fixture(scope="module")
def looks(five: Five, place: Path) -> dict[str, Ran]:
    """What all of them said; the host that is down was tried once by each that asks hosts, and by no other."""
    commands = {**ASK_HOSTS, **ASK_NO_HOST}
    with five.knocks() as knocks:
        ran = five.together(list(commands.values()), place)
        assert knocks.count == len(ASK_HOSTS)
    return dict(zip(commands, ran, strict=True))


@pytest.mark.parametrize("verb", ASK_HOSTS)
def test_the_troubles_are_named_and_the_rest_is_done(looks: dict[str, Ran], verb: str) -> None:
    ran = looks[verb]
    assert ran.code == 1
    text = ran.out + ran.err
    assert text.count("port 22 does not answer within 10 s") >= 1
    assert text.count("refuses user chemist") >= 1
    if verb != "check":  # which tells findings
        assert ran.err.count("down failed at connect") == ran.err.count("refusing failed at connect") == 1
    for host in ("good", "idle", "full"):
        assert f"{host} failed" not in ran.err
    assert "defect" not in text
    assert "Traceback" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("verb", ASK_NO_HOST)
def test_what_needs_no_host_waits_for_none(looks: dict[str, Ran], verb: str) -> None:
    looks[verb].ok()
    assert "failed" not in looks[verb].err


def test_each_trouble_in_the_words_of_status(looks: dict[str, Ran]) -> None:
    rows = {line.split()[0]: line for line in looks["status --deep"].out.split("\n\n")[0].splitlines()}
    assert "not reached: " in rows["down"]
    assert "not reached: " in rows["refusing"]
    assert "supervisord: does not run" in rows["idle"]
    assert "disk full: 0.0 MB free" in rows["full"]
    assert "good" not in rows
    assert "RUNNING" in next(line for line in looks["status --deep"].out.splitlines() if line.startswith("good-1"))
    assert "5 workers on 5 hosts" in looks["status"].err


def test_each_trouble_as_check_finds_it(looks: dict[str, Ran]) -> None:
    failed = [each for each in looks["check"].json() if each["severity"] == "fail"]
    assert {(each["host"], each["check"]) for each in failed} == {
        ("down", "ssh"),
        ("refusing", "ssh"),
        ("idle", "supervisord"),
        ("full", "base_dir"),
        ("full", "scratch"),
        ("full", "worker check"),
    }
    (full,) = (each for each in failed if each["check"] == "base_dir")
    assert "No space left on device" in full["what"]
    assert "puffin-fleet prune --host full" in full["next"]


def test_what_the_others_have_is_shown(looks: dict[str, Ran]) -> None:
    daemons = {each["host"] for each in looks["ps"].json() if each["kind"] == "supervisord"}
    assert daemons == {"good", "full"}
    for host in ("good", "idle", "full"):
        assert f"== {host}: exit code 0\nhere  I am\n" in looks["exec"].out
        assert f" {host}-1 - started" in looks["logs"].out
    assert "3 of 5 hosts: exit code 0; not so on down, refusing" in looks["exec"].err
    plans = {plan["host"]: plan for plan in looks["plan"].json()}
    assert {host for host, plan in plans.items() if not plan["empty"]} == {"idle"}
    assert "3 done" in looks["history"].out
    assert looks["events"].out.count("deployed") == 5
    assert re.search(r"^\+ +count: 2$", looks["scale"].out, re.MULTILINE)


def test_what_could_not_be_collected_is_in_the_manifest(looks: dict[str, Ran], place: Path) -> None:
    assert looks["collect"].code == 1
    hosts = json.loads((place / "collected" / "manifest.json").read_text())["hosts"]
    assert {host for host, found in hosts.items() if found.get("error")} == {"down", "refusing"}
    for host in ("good", "idle", "full"):
        assert (place / "collected" / host / "log" / f"{host}-1.log").stat().st_size > 0
