"""`top` against real hosts: what it does to workers from inside, and their logs, at both ends of its sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import yaml

from fleet.cli import options
from fleet.hosts.access import open_store
from tests.acceptance.commands import puffin_fleet
from tests.integration.test_top import SIZES, Play, Watched
from tests.lab.fixtures_database import Database, initialise
from tests.lab.fixtures_lab import ReachableServer
from tests.lab.laboratory import Laboratory, hosts_yaml

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def real(
    laboratory: Laboratory, laboratory_database: ReachableServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    laboratory.up(["alpha", "beta"])
    initialise(laboratory_database, "top")
    database = Database(laboratory_database, "top")
    content = hosts_yaml(laboratory, "top", {"uri": database.uri, "names": [database.name]})
    content["defaults"] |= {
        "reserve": {"cores": 0, "memory": 0},
        "workers": {"cores": 1, "memory": 1, "disk": 0.1, "count": 2},
        "puffin": {"daemon": {"cycle_time_in_s": 0.5, "jobs": ["sleep"]}},
    }
    file = tmp_path_factory.mktemp("top") / "hosts.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    puffin_fleet("deploy", file, "--yes").ok()
    chosen = options.choose(str(file), ())
    with contextlib.closing(open_store(chosen.fleet)) as store:
        yield Watched(chosen, store)


def said(play: Play) -> str:
    return "\n".join(note.message for note in play.app._notifications)


def states(watched: Watched) -> dict[str, tuple[str, int]]:
    return {one.worker: (one.state, one.pid) for one in watched.store.registry.workers("top")}


@pytest.mark.parametrize("size", SIZES)
def test_a_worker_is_stopped_started_restarted_and_read(real: Watched, size: tuple[int, int]) -> None:
    async def script(play: Play) -> None:
        await play.sees("4 idle", "alpha", "beta", "Quit")
        await play.press("tab", "home")
        assert play.keys == ["alpha-1", "alpha-2", "beta-1", "beta-2"]
        await play.press("d")
        await play.sees("Stop alpha-1?")
        await play.press("y")
        await play.until(lambda: "alpha-1: told to stop" in said(play), "the answer")
        await play.sees("1 stopped")
        assert states(real)["alpha-1"][0] == "stopped"

        await play.press("home", *["down"] * play.keys.index("alpha-1"), "u")
        await play.sees("Start alpha-1?")
        await play.press("y")
        await play.sees("4 idle")
        before = states(real)
        await play.press("home", *["down"] * play.keys.index("beta-2"), "x")
        await play.sees("Restart beta-2?")
        await play.press("y")
        await play.until(lambda: "beta-2: told to restart" in said(play), "the answer")
        await play.until(lambda: states(real)["beta-2"] != before["beta-2"], "another process")
        await play.until(lambda: states(real)["beta-2"][0] == "idle", "its return")
        assert {name for name in before if states(real)[name] != before[name]} == {"beta-2"}

        await play.press("l")
        await play.sees("log of beta-2", "started: 1 kinds of jobs", "Back")
        assert max(map(len, play.screen)) <= size[0]
        await play.press("escape")
        await play.sees("4 idle")
        # All of a host, from the table of hosts; a line for each of its workers.
        await play.press("tab", "home", "l")
        await play.sees("log of all workers of alpha", " alpha-1 ", " alpha-2 ")
        await play.press("q")
        await play.sees("4 idle")

    real.play(script, size)


def test_a_whole_host_is_stopped_and_started(real: Watched) -> None:
    async def script(play: Play) -> None:
        await play.sees("4 idle")
        await play.press("home", "d")
        await play.sees("Stop all workers of alpha?")
        await play.press("y")
        await play.sees("2 stopped")
        assert {name for name, (state, _) in states(real).items() if state == "stopped"} == {"alpha-1", "alpha-2"}
        await play.press("home", *["down"] * play.keys.index("alpha"), "u", "y")
        await play.sees("4 idle")

    real.play(script)


def test_a_host_that_is_gone_is_told_and_holds_up_nothing(real: Watched, laboratory: Laboratory) -> None:
    async def script(play: Play) -> None:
        await play.sees("4 idle")
        laboratory.cut("beta")
        await play.press("tab", "end", "x", "y")
        await play.press("home", "l")
        await play.sees("log of alpha-1", "started")
        await play.press("escape")
        await play.until(lambda: "beta failed at connect" in said(play) or "beta: connect" in said(play), "its failure")

    try:
        real.play(script)
    finally:
        laboratory.heal("beta")
