"""The live view, driven by Textual's own pilot against a real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from textual.pilot import Pilot
from textual.widgets import Static

from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.top.app import Top
from fleet.cli.top.listing import Listing
from fleet.hosts.access import open_store
from puffin.documents import Model, Request
from puffin.store import Event, Store
from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database
from tests.unit.test_health import RECORD

SIZES = [(80, 24), (200, 60)]
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Watched:
    """A fleet of two hosts that nothing was ever deployed to, and its database."""

    chosen: Chosen
    store: Store

    def report(self, worker: str, **changes: Any) -> None:
        host = worker.rpartition("-")[0]
        record = replace(RECORD, uuid=f"puffin-lab@{worker}", fleet="lab", host=host, worker=worker, **changes)
        self.store.registry.report(record)

    def note(self, kind: str, worker: str, detail: str = "") -> None:
        event = Event(kind, worker, worker.rpartition("-")[0], "lab", detail=detail)
        self.store.events.write([(time.time(), event)])

    def play(
        self, script: Callable[[Play], Awaitable[None]], size: tuple[int, int] = (80, 24), timeout_s: float = 10.0
    ) -> None:
        async def run() -> None:
            app = Top(self.chosen, open_store(self.chosen.fleet, timeout_s=timeout_s), every=0.2)
            async with app.run_test(size=size) as pilot:
                await script(Play(app, pilot))

        asyncio.run(run())


@dataclass(frozen=True)
class Play:
    """What a user sees and does."""

    app: Top
    pilot: Pilot[None]

    @property
    def screen(self) -> list[str]:
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    @property
    def table(self) -> list[str]:
        return [line for line in self.app.query_one(Listing).texts if line]

    @property
    def keys(self) -> list[str]:
        return [line.split()[0] for line in self.table[1:]]

    async def sees(self, *words: str) -> None:
        await self.until(lambda: all(word in "\n".join(self.screen) for word in words), f"{words}")

    async def lists(self, *keys: str) -> None:
        """Wait until the table has these lines: what a key does may be seen a moment later."""
        await self.until(lambda: self.keys == list(keys), f"the lines {keys}")

    async def has_chosen(self, key: str) -> None:
        def look() -> bool:
            row = self.app.query_one(Listing).chosen
            return row is not None and row.key == key

        await self.until(look, f"{key} to be chosen")

    async def until(self, look: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not look():
            assert time.monotonic() < deadline, "\n".join([f"waited for {what}", *self.screen])
            await self.pilot.pause(0.05)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()


def watched(uri: str, name: str, place: Path) -> Watched:
    content = {
        "fleet": "lab",
        "database": {"uri": uri, "names": [name]},
        "release": {"install": "path", "path": "/opt/puffin"},
        "defaults": {"base_dir": str(place / "base"), "workers": {"cores": 1, "memory": 1, "disk": 1}},
        "hosts": {"node1": {"connection": "local"}, "node2": {"connection": "local"}},
    }
    file = place / "hosts.yaml"
    file.write_text(yaml.safe_dump(content))
    chosen = options.choose(str(file), ())
    store = open_store(chosen.fleet)
    store.events.prepare()
    return Watched(chosen, store)


@pytest.fixture
def lab(database: Database, tmp_path: Path) -> Iterator[Watched]:
    found = watched(database.uri, database.name, tmp_path)
    yield found
    found.store.close()


@pytest.fixture
def busy(lab: Watched) -> Watched:
    lab.report("node1-1", state="running", calculation="65f0c1a2b3c4d5e6f7a8b9c0", order="opt", lasting_s=120.0, done=3)
    lab.report("node1-2", state="idle", done=8)
    lab.report("node2-1", state="quarantined", failed=10)
    lab.note("failed", "node2-1", "no convergence")
    lab.note("finished", "node1-1")
    lab.store.submit(lab.store.names[0], [(None, Request("sleep", Model()))] * 7)
    return lab


@pytest.mark.parametrize("size", SIZES)
def test_it_shows_totals_hosts_and_events_and_what_is_wrong_first(busy: Watched, size: tuple[int, int]) -> None:
    async def script(play: Play) -> None:
        await play.sees(
            "1 quarantined  1 running  1 idle", "7 new", "finished", "no convergence", "⏎ See", "Quit", "Fails"
        )
        await play.lists("node2", "node1")
        assert max(map(len, play.screen)) <= size[0]

    busy.play(script, size)


def test_without_colours_none_is_sent_and_failures_are_bold(busy: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(play: Play) -> None:
        await play.sees("1 quarantined", "no convergence")
        segments = [each for strip in play.app.screen._compositor.render_strips() for each in strip if each.style]
        colours = {colour.name for each in segments for colour in (each.style.color, each.style.bgcolor) if colour}
        assert colours <= {"default"}
        assert {bool(each.style.bold) for each in segments if each.text == "1 quarantined"} == {True}

    busy.play(script)


def test_it_follows_what_changes_and_keeps_the_chosen_line(busy: Watched) -> None:
    async def script(play: Play) -> None:
        await play.sees("7 new")
        await play.press("tab")
        await play.lists("node2-1", "node1-1", "node1-2")
        await play.press("end")
        await play.has_chosen("node1-2")
        busy.report("node2-2", state="running", calculation="c", order="hessian")
        busy.note("requeued", "node2-2", "just now")
        await play.sees("hessian", "just now")
        await play.lists("node2-1", "node1-1", "node1-2", "node2-2")
        await play.has_chosen("node1-2")

    busy.play(script)


def test_lines_are_sorted_filtered_and_opened_by_keys(busy: Watched) -> None:
    async def script(play: Play) -> None:
        await play.sees("7 new")
        await play.press("s")
        await play.lists("node1", "node2")
        await play.press("r")
        await play.lists("node2", "node1")
        await play.press("slash", *"opt", "enter")
        await play.lists("node1")
        await play.until(lambda: "filter: opt (Esc: none)" in play.screen[0], "the filter in the title")
        await play.press("escape")
        await play.lists("node2", "node1")
        await play.press("home", "down", "enter")
        await play.until(lambda: "workers of node1 (Esc: back)" in play.screen[0], "the host in the title")
        await play.lists("node1-1", "node1-2")
        # That was the other host.
        await play.until(lambda: not any("no convergence" in line for line in play.screen), "the events of node1 alone")
        await play.press("escape", "f")
        await play.sees("no convergence")
        await play.until(lambda: "finished" not in "\n".join(play.screen[-8:]), "the failures alone")
        assert any("no convergence" in line for line in play.screen)

    busy.play(script)


def test_hundreds_of_workers_can_be_scrolled(lab: Watched) -> None:
    for number in range(1, 301):
        lab.report(f"node1-{number}", state="idle")

    async def script(play: Play) -> None:
        await play.sees("300 idle")
        await play.press("tab", "end")
        await play.until(lambda: play.keys[-1] == "node1-300", "the last line")
        await play.press("home", "pagedown")
        assert play.keys[0] != "node1-300"
        await play.press("home")
        await play.until(lambda: play.keys[0] == "node1-1", "the first line")

    lab.play(script)


def test_an_order_is_given_only_when_it_is_confirmed_and_its_failure_is_told(busy: Watched) -> None:
    async def script(play: Play) -> None:
        await play.sees("7 new")
        await play.press("d")
        await play.sees("Stop all workers of node2?", "finish their calculations first")
        await play.press("n")
        await play.until(lambda: len(play.app.screen_stack) == 1, "the question to go")
        assert not play.app._notifications
        await play.press("tab", "x")
        await play.sees("Restart node2-1?")
        await play.press("y")
        await play.until(lambda: any("nothing is deployed" in note.message for note in play.app._notifications), "why")

    busy.play(script)


def test_a_host_is_drained_and_only_a_resume_brings_it_back(busy: Watched) -> None:
    note = busy.chosen.hosts[1].base_dir + "/lab/hosts/node2/orders/drain"

    async def script(play: Play) -> None:
        async def answered(*words: str) -> None:
            await play.until(lambda: any(all(word in said for word in words) for said in told(play)), f"{words}")

        await play.sees("7 new", "Drain")
        await play.press("m")
        await play.sees("Drain all workers of node2?", "until resumed")
        await play.press("y")
        await answered("told to drain")
        assert Path(note).exists()
        assert list(busy.store.control.drained("lab")) == ["node2"]

        await play.press("u")
        await play.sees("Start all workers of node2?")
        await play.press("y")
        await answered("node2: starting: drained by ")
        assert Path(note).exists()

        busy.store.control.order_stop("lab", "me")
        await play.until(lambda: bool(play.app._feed.drained), "it to be known")
        await play.press("tab", "home")
        await play.has_chosen("node2-1")
        await play.press("m")
        await play.sees("Resume all workers of node2?")
        await play.press("y")
        await answered("told to resume", "the whole fleet is stopped")
        assert not Path(note).exists()
        assert busy.store.control.drained("lab") == {}

    busy.play(script)


def told(play: Play) -> list[str]:
    return [note.message for note in play.app._notifications]


def test_an_outage_of_the_database_is_told_and_ends(own_database_server: DatabaseServer, tmp_path: Path) -> None:
    lab = watched(own_database_server.uri, "outage", tmp_path)
    lab.report("node1-1", state="running")
    lab.note("claimed", "node1-1", "before")

    async def script(play: Play) -> None:
        await play.sees("1 running", "before")
        await asyncio.to_thread(own_database_server.kill)
        await play.sees("this is from", "cannot reach the database", "1 running")
        await play.press("tab")
        await play.lists("node1-1")
        await asyncio.to_thread(own_database_server.start)
        lab.note("claimed", "node1-1", "afterwards")
        lab.report("node1-2", state="frozen")
        await play.sees("1 frozen", "afterwards")
        # What was seen is told first, and then that there is no trouble any more.
        title = play.app.query_one("#title", Static)
        await play.until(lambda: "cannot reach" not in str(title.render()), "the trouble to be over")

    lab.play(script, timeout_s=1.0)  # as long as it takes to see that it is away
    lab.store.close()


def test_a_database_that_is_away_from_the_beginning_is_told(tmp_path: Path) -> None:
    lab_file = tmp_path / "hosts.yaml"
    lab_file.write_text(
        "fleet: lab\ndatabase: {uri: 'mongodb://127.0.0.1:9', names: [x]}\n"
        "release: {install: path, path: /opt/puffin}\ndefaults: {workers: {cores: 1, memory: 1}}\n"
        "hosts: {node1: {connection: local}}\n"
    )
    chosen = options.choose(str(lab_file), ())

    async def script(play: Play) -> None:
        await play.sees("cannot reach the database at 127.0.0.1:9")

    Watched(chosen, open_store(chosen.fleet)).play(script, timeout_s=1.0)
