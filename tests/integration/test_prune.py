"""Removing what nothing needs, in real directories with real processes: what is needed must stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.hostside import destroy, lock, prune
from fleet.hostside.common import Failure
from fleet.hostside.installed import mark_of
from fleet.hostside.sizes import freed_by, freed_by_each
from fleet.reach.local import LocalRemote
from fleet.release.releases import HostRoots, carry_out, look, prune_host

KB = 1 << 10


class Home:
    """What hosts that share a home directory have of a fleet."""

    def __init__(self, fleet: Path) -> None:
        self.fleet = fleet
        self.count = 0

    def environment(self, name: str, *wheels: str, marked: bool = True) -> Path:
        path = self.fleet / name
        (path / "bin").mkdir(parents=True)
        (path / "bin" / "puffin").write_bytes(b"x" * 100 * KB)
        mark = path / ".complete"
        mark.write_bytes(mark_of([{"sha256": wheel} for wheel in wheels]) if marked else b"")
        self.count += 1
        os.utime(mark, (1000 + self.count, 1000 + self.count))
        for wheel in wheels:
            (self.fleet / "wheels" / wheel).mkdir(parents=True, exist_ok=True)
            (self.fleet / "wheels" / wheel / f"{wheel}.whl").write_bytes(b"w" * KB)
        return path

    def host(self, name: str = "h1", **links: str) -> Path:
        root = self.fleet / "hosts" / name
        for directory in ("etc", "good", "log", "error", "archive", "run"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        for link, release in links.items():
            if link == "good":
                (root / "good" / "release").write_text(release + "\n")
            else:
                (root / link).symlink_to(f"../../releases/{release}")
        return root

    def prune(self, keep: int = 1, used: tuple[str, ...] = (), **request: Any) -> dict[str, Any]:
        known = {"fleet_root": str(self.fleet), "keep": keep, "used": list(used), "carry_out": True}
        return prune.main({**known, **request})

    def there(self, kind: str = "releases") -> list[str]:
        return sorted(path.name for path in (self.fleet / kind).glob("[!.]*"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "f")


def test_everything_a_host_may_need_stays(home: Home) -> None:
    for number in range(1, 8):
        home.environment(f"releases/r{number}", f"w{number}")
    home.host("h1", current="r1", previous="r2", good="r3")
    home.host("h2", current="r4")
    reply = home.prune(keep=1, used=("r5",))
    assert home.there() == ["r1", "r2", "r3", "r4", "r5", "r7"]
    assert {entry["name"]: entry["why"] for entry in reply["kept"]} == {
        "r1": "current of h1",
        "r2": "previous of h1",
        "r3": "good of h1",
        "r4": "current of h2",
        "r5": "a worker runs it",
        "r7": "one of the newest",
    }
    assert [(entry["kind"], entry["name"]) for entry in reply["removals"]] == [("release", "r6"), ("wheel", "w6")]
    assert home.there("wheels") == ["w1", "w2", "w3", "w4", "w5", "w7"]
    assert home.prune(keep=1, used=("r5",))["removals"] == []


def test_what_another_host_was_just_prepared_for_stays(home: Home) -> None:
    """It has it, but names it only when its turn comes."""
    home.host("h1", current="mine")
    home.host("h2", current="theirs")
    for name in ("theirs", "theirs-new", "mine"):
        home.environment(f"releases/{name}", f"wheel-of-{name}")
    home.environment("supervisor/4.3.0-theirs", "wheel-of-supervisor")
    home.prune(used=("mine", "theirs-new", "4.3.0-theirs"))
    assert home.there() == ["mine", "theirs", "theirs-new"]
    assert home.there("supervisor") == ["4.3.0-theirs"]
    assert "wheel-of-supervisor" in home.there("wheels")


def test_the_newest_stay_by_when_they_were_installed(home: Home) -> None:
    for name in ("c", "a", "b"):
        home.environment(f"releases/{name}")
    home.host(current="c")
    home.prune(keep=2)
    assert home.there() == ["a", "b", "c"]
    home.prune(keep=1)
    assert home.there() == ["b", "c"]


@pytest.fixture
def sleeper(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose program is in a release, as a worker that has not changed to the new one yet."""
    place = home.environment("releases/old")
    shutil.copy("/bin/sleep", place / "bin" / "sleep")
    process = subprocess.Popen([place / "bin" / "sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_what_a_process_uses_stays_until_it_ends(home: Home, sleeper: subprocess.Popen[bytes]) -> None:
    home.environment("releases/new")
    home.host(current="new")
    reply = home.prune()
    assert reply["in_use"] == ["old"]
    assert home.there() == ["new", "old"]
    sleeper.kill()
    sleeper.wait()
    home.prune()
    assert home.there() == ["new"]


def test_an_old_environment_does_not_tell_its_wheels_so_all_stay(home: Home) -> None:
    home.environment("releases/r1", "w1", marked=False)
    home.environment("releases/r2", "w2")
    home.environment("releases/r3", "w3")
    home.host(current="r1")
    home.prune()
    assert home.there() == ["r1", "r3"]
    assert home.there("wheels") == ["w1", "w2", "w3"]


def test_supervisors_tools_and_what_was_left_unfinished(home: Home) -> None:
    home.environment("supervisor/4.2-aa", "s1")
    home.environment("supervisor/4.3-aa", "s2")
    root = home.host()
    (root / "etc" / "supervisor").write_text(f"{home.fleet}/supervisor/4.3-aa\n")
    for number, name in enumerate(("uv-0.8-aa", "uv-0.9-aa", "uv-0.8-bb")):
        (home.fleet / "tools" / name).mkdir(parents=True)
        os.utime(home.fleet / "tools" / name, (number, number))
    (home.fleet / "releases" / "half" / "bin").mkdir(parents=True)
    home.prune()
    assert home.there("supervisor") == ["4.3-aa"]
    assert home.there("tools") == ["uv-0.8-bb", "uv-0.9-aa"]
    assert home.there("wheels") == ["s2"]
    assert home.there() == []


def test_a_link_to_an_existing_environment_goes_and_the_environment_stays(home: Home, tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "precious").touch()
    (home.fleet / "releases").mkdir(parents=True)
    (home.fleet / "releases" / "path-1").symlink_to(tmp_path / "venv")
    os.utime(home.fleet / "releases" / "path-1", (1, 1), follow_symlinks=False)
    home.environment("releases/r1")
    home.host(current="r1")
    home.prune()
    assert home.there() == ["r1"]
    assert (tmp_path / "venv" / "precious").exists()


def test_only_what_was_shown_is_removed(home: Home) -> None:
    for name in ("r1", "r2", "r3"):
        home.environment(f"releases/{name}")
    home.prune(only=[str(home.fleet / "releases" / "r1")])
    assert home.there() == ["r2", "r3"]


def test_nothing_is_removed_while_a_host_that_shares_it_is_being_changed(home: Home) -> None:
    home.environment("releases/r1", "w1")
    home.environment("releases/r2")
    request = {"host_root": str(home.host("h2")), "step": "acquire", "token": "t", "id": "1", "limit": 900}
    lock.main({**request, "verb": "deploy", "who": "ann@desk"})
    with pytest.raises(Failure, match=r"h2 shares .* and is locked by ann@desk for 'deploy'"):
        home.prune()
    assert home.there() == ["r1", "r2"]
    home.prune(lock="t")
    assert home.there() == ["r2"]


def test_space_counts_once_and_only_where_it_comes_back(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for place in (first, second):
        place.mkdir()
    (first / "file").write_bytes(b"x" * 400 * KB)
    (second / "same").hardlink_to(first / "file")
    assert freed_by([first]) < 100 * KB <= 400 * KB <= freed_by([first, second]) < 500 * KB
    (first / "again").hardlink_to(first / "file")
    of_first, of_second = freed_by_each([first, second])
    assert of_first < 100 * KB <= 400 * KB <= of_second < 500 * KB
    assert of_first + of_second == freed_by([first, second])


def test_the_cache_goes_when_it_holds_what_no_environment_shares(home: Home) -> None:
    place = home.environment("releases/r1")
    home.host(current="r1")
    (home.fleet / "cache").mkdir()
    (place / "big").write_bytes(b"x" * 3000 * KB)
    (home.fleet / "cache" / "big").hardlink_to(place / "big")
    home.prune()
    assert (home.fleet / "cache").exists()
    (home.fleet / "cache" / "other").write_bytes(b"x" * 3000 * KB)
    [entry] = home.prune()["removals"]
    assert entry["kind"] == "cache"
    assert not (home.fleet / "cache").exists()
    assert (place / "big").exists()


def test_hosts_that_share_a_home_are_pruned_once(home: Home, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    other = Home(tmp_path / "other" / "f")
    for place in (home, other):
        for name in ("r1", "r2"):
            place.environment(f"releases/{name}", name)
    places = {name: HostRoots(str(home.fleet), str(home.host(name, current="r2"))) for name in ("h1", "h2")}
    places["h3"] = HostRoots(str(other.fleet), str(other.host("h3", current="r2")))
    remotes = {name: LocalRemote(name, sys.executable) for name in places}
    plans = {result.host: result.value for result in look(remotes, places, 1, frozenset(), 3)}
    assert sorted(plans) == ["h1", "h3"]
    first = plans["h1"]
    assert first is not None
    assert first.hosts == ("h1", "h2")
    assert {removal.name for removal in first.removals} == {"r1"}
    assert first.kept == {"old": "a process uses it", "r2": "current of h1"}
    assert home.there() == ["old", "r1", "r2"]
    found = [plan for plan in plans.values() if plan is not None]
    results = carry_out(remotes, places, found, 1, frozenset(), None, 3)
    assert [result.error for result in results] == [None, None]
    assert (home.there(), other.there()) == (["old", "r2"], ["r2"])
    assert prune_host(remotes["h1"], places["h1"], 1, frozenset(), None).removals == ()


def test_a_place_where_nothing_was_deployed(tmp_path: Path) -> None:
    assert Home(tmp_path / "nothing").prune()["removals"] == []
    assert list(tmp_path.iterdir()) == []


# destroy -----------------------------------------------------------------------------------------------


def destroyed(home: Home, root: Path, scratch: Path) -> dict[str, Any]:
    return destroy.main({"fleet_root": str(home.fleet), "host_root": str(root), "scratch": str(scratch)})


def test_what_calculations_left_stays_and_is_said(home: Home, tmp_path: Path) -> None:
    home.environment("releases/r1", "w1")
    root = home.host("h1", current="r1")
    (root / "error" / "abc.1").mkdir()
    (root / "error" / "abc.1" / "output").write_text("x")
    (root / "log" / "h1-1.log").write_text("x")
    (root / "audit.jsonl").write_text("{}\n")
    jobs = tmp_path / "scratch" / "f"
    for name in ("h1-1", "h1-2", "h10-1", "h1-x"):
        (jobs / name / "jobs" / "empty").mkdir(parents=True)
    (jobs / "h1-2" / "jobs" / "d.1.result.json").write_text("{}")
    reply = destroyed(home, root, tmp_path / "scratch")
    assert sorted(path.name for path in root.iterdir()) == ["audit.jsonl", "error", "log"]
    assert [(Path(entry["path"]).name, entry["what"], entry["files"]) for entry in reply["left"]] == [
        ("log", "logs", 1),
        ("error", "failed calculations", 1),
        ("audit.jsonl", "what was done to this host", 1),
        ("h1-2", "results that are not yet in the database", 1),
        (".destroy.lock", "lock file", 1),
    ]
    assert sorted(path.name for path in jobs.iterdir()) == ["h1-2", "h1-x", "h10-1"]
    assert sorted(path.name for path in home.fleet.iterdir() if not path.name.startswith(".")) == ["hosts"]
    again = destroyed(home, root, tmp_path / "scratch")
    assert (again["removed"], again["left"]) == ([], reply["left"])


def test_a_scratch_of_ours_goes_and_another_one_is_named(home: Home, tmp_path: Path) -> None:
    root, ours = home.host("h1", current="r1"), home.fleet.parent / "scratch"
    for scratch in (ours, tmp_path / "disk"):
        (scratch / "f" / "h1-1" / "jobs").mkdir(parents=True)
        (root / ".lock.mutex").touch()
        (home.fleet.parent / ".boot.lock").touch()
        reply = destroyed(home, root, scratch)
        there = [
            (entry["path"], entry["what"]) for entry in reply["left"] if entry["what"].startswith(("empty", "lock"))
        ]
        named = [] if scratch == ours else [(str(scratch), "empty; hosts.yaml names it as scratch")]
        locks = (root / ".lock.mutex", home.fleet / ".destroy.lock", home.fleet.parent / ".boot.lock")
        assert there == [*named, *((str(path), "lock file") for path in locks)]
    assert not ours.exists()


def test_installations_go_with_the_last_host_that_shares_them(home: Home, tmp_path: Path) -> None:
    home.environment("releases/r1", "w1")
    first, second = home.host("h1", current="r1"), home.host("h2", current="r1")
    assert destroyed(home, first, tmp_path)["shared"] == ["h2"]
    assert home.there() == ["r1"]
    assert destroyed(home, second, tmp_path)["shared"] == []
    assert home.there() == []


def test_a_run_directory_elsewhere_goes_as_well(home: Home, tmp_path: Path) -> None:
    root = home.host()
    (root / "run").rmdir()
    place = tmp_path / "var" / "0123456789"
    place.mkdir(parents=True)
    (place / "sv.sock").touch()
    (root / "run").symlink_to(place)
    destroyed(home, root, tmp_path)
    assert not place.exists()
    assert not (root / "run").is_symlink()


def test_of_a_run_directory_that_is_somebodys_only_ours_goes(home: Home, tmp_path: Path) -> None:
    root = home.host()
    (root / "run").rmdir()
    place = tmp_path / "own"
    place.mkdir()
    for name in ("sv.sock", "h1-1.pid", "recycle.h1-1", "thesis.tex"):
        (place / name).touch()
    (root / "run").symlink_to(place)
    destroyed(home, root, tmp_path)
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]


def test_installations_stay_while_somebody_else_installs_a_host_that_shares_them(home: Home, tmp_path: Path) -> None:
    home.environment("releases/r1", "w1")
    root = home.host("h1", current="r1")
    other = home.fleet / "hosts" / "h2"
    other.mkdir()
    request = {"token": "t", "id": "2", "verb": "deploy", "who": "bob@lab", "limit": 900}
    lock.main({"host_root": str(other), "step": "acquire", **request})
    assert destroyed(home, root, tmp_path)["shared"] == ["h2"]
    assert home.there() == ["r1"]


def test_a_file_among_releases_is_no_release(home: Home) -> None:
    home.environment("releases/r1")
    home.environment("releases/r2")
    (home.fleet / "releases" / "README").touch()
    home.prune(keep=1)
    assert home.there() == ["README", "r2"]


def test_nothing_is_removed_while_a_worker_runs(home: Home, tmp_path: Path) -> None:
    root = home.host(current="r1")
    pid_file = root / "run" / "h1-1.pid"
    code = "import fcntl, os, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
    code += "f.write(str(os.getpid())); f.flush(); time.sleep(600)"
    worker = subprocess.Popen([sys.executable, "-c", code, pid_file])
    try:
        deadline = time.monotonic() + 30
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(Failure, match=rf"still running: h1-1 \(pid {worker.pid}\)"):
            destroyed(home, root, tmp_path)
    finally:
        worker.kill()
        worker.wait()
    assert (root / "current").is_symlink()
    destroyed(home, root, tmp_path)
    assert not (root / "current").is_symlink()


def test_a_mark_is_json_that_names_the_wheels() -> None:
    assert json.loads(mark_of([{"sha256": "b"}, {"sha256": "a"}])) == {"wheels": ["a", "b"]}
