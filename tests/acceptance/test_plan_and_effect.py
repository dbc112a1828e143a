"""What a plan says is what a deploy does, file by file; what was done by hand is told of, and undone with consent."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from puffin.settings import DatabaseSettings
from puffin.store import Store
from tests.acceptance.commands import BIN
from tests.acceptance.here import Here, until

# What a deploy and its workers write beside the files of the plan: locks, sockets and process ids, logs, what was
# done and by whom, and the copy for a revert.
EXCEPTED = frozenset(
    {
        ".lock",
        ".lock.mutex",
        "lock.serial",
        ".supervise.lock",
        "lock",
        "run",
        "sv.sock",
        "log",
        "audit.jsonl",
        "manifest.json",
        "good",
        "good-before",
        "archive",
        "error",
    }
)

Tree = dict[str, tuple[str, int, str | bytes]]


def snapshot(root: Path) -> Tree:
    """Everything below a directory: kind, permissions, content or target."""
    found: Tree = {}
    for place, directories, files in os.walk(root):
        directories[:] = [name for name in directories if name not in EXCEPTED]
        for path in (Path(place) / name for name in (*directories, *files)):
            name = path.relative_to(root).as_posix()
            mode = path.lstat().st_mode
            if path.name in EXCEPTED or path.suffix == ".pid" or stat.S_ISSOCK(mode):
                continue
            if stat.S_ISLNK(mode):
                found[name] = ("link", 0, str(path.readlink()))
            elif stat.S_ISDIR(mode):
                found[name] = ("directory", stat.S_IMODE(mode), "")
            else:
                found[name] = ("file", stat.S_IMODE(mode), path.read_bytes())
    return found


def without_directories(tree: Tree) -> Tree:
    return {name: entry for name, entry in tree.items() if entry[0] != "directory"}


@pytest.fixture
def site(here: Here) -> Here:
    here.content["defaults"]["workers"] = {"cores": 1, "memory": 1, "disk": 0.1, "count": 1}
    here.content["defaults"]["environment"] = {"API_TOKEN": "geheim"}
    return here


def planned(site: Here, *words: str) -> dict[str, Any]:
    (plan,) = site.run("plan", "--json", *words).ok().json()
    return plan


def processes(site: Here) -> dict[str, int]:
    """The workers as they have reported themselves; those that were removed are forgotten."""
    store = Store(DatabaseSettings(uri=site.database.uri, name=site.database.name))
    try:
        return {record.worker: record.pid for record in store.registry.workers("day")}
    finally:
        store.close()


def deploy_as_planned(site: Here, *words: str) -> dict[str, Any]:
    """Deploy, and hold everything that is then different on the disk against the plan."""
    plan = planned(site, *words)
    pids = processes(site)
    base = site.root.parents[1]
    before = snapshot(base)
    site.run("deploy", "--yes", *words).ok()
    after = snapshot(base)

    own = PurePosixPath("hosts/here")
    written = {str(own / write["path"]): write for write in plan["files_to_write"]}
    appear, change, vanish = expected(plan, written, before)
    old, new = without_directories(before), without_directories(after)
    assert set(new) - set(old) == appear
    assert set(old) - set(new) == vanish
    assert {name for name in set(old) & set(new) if old[name] != new[name]} == change
    for name, write in written.items():
        assert f"{new[name][1]:04o}" == write["mode"]
        if write["reason"] == "mode":
            assert new[name][2] == old[name][2]
    if before:
        assert {name for name in set(after) ^ set(before) if "directory" in (after | before)[name][0]} == set()
    now = processes(site)
    assert {name for name in now if name not in pids} == set(plan["workers_added"])
    assert {name for name in pids if name not in now} == set(plan["workers_removed"])
    changed = {change["worker"] for change in plan["workers_changed"]} | set(plan["workers_to_start"])
    assert {name for name in pids if name in now and now[name] != pids[name]} == changed
    return plan


def expected(plan: dict[str, Any], written: dict[str, Any], before: Tree) -> tuple[set[str], set[str], set[str]]:
    """What a plan says will appear, change and vanish."""
    own = PurePosixPath("hosts/here")
    appear = {name for name, write in written.items() if write["reason"] == "new"}
    change = set(written) - appear
    vanish = {str(own / path) for path in plan["files_to_remove"]}
    vanish |= {str(own / f"orders/stop.{name}") for name in plan["stale_stops"]}
    appear |= {str(own / f"orders/stop.{name}") for name in plan["stop_files"]}
    if plan["install_release"]:
        appear.add(f"releases/{plan['install_release']}")
    if switch := plan["switch_release"]:
        for link in ("current", "previous") if switch["from"] else ("current",):
            (change if str(own / link) in before else appear).add(str(own / link))
    return appear, change, vanish


@pytest.mark.soak
def test_a_deploy_does_what_its_plan_says_and_nothing_else(site: Here, tmp_path: Path) -> None:
    first = deploy_as_planned(site)
    assert first["workers_added"] == ["here-1"]
    assert {write["reason"] for write in first["files_to_write"]} == {"new"}

    nothing = deploy_as_planned(site)
    assert nothing["empty"]

    site.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4
    settings = deploy_as_planned(site)
    assert [write["path"] for write in settings["files_to_write"]] == ["etc/workers/here-1.yaml"]
    assert settings["workers_changed"] == [{"worker": "here-1", "how": "recycle", "reasons": ["settings"]}]

    site.content["defaults"]["workers"]["count"] = 2
    assert deploy_as_planned(site)["workers_added"] == ["here-2"]

    other = tmp_path / "environment"
    other.symlink_to(BIN.parent)
    site.content["release"]["path"] = str(other)
    release = deploy_as_planned(site)
    assert release["switch_release"]["from"] != release["switch_release"]["to"] == release["install_release"]
    assert [change["worker"] for change in release["workers_changed"]] == ["here-1", "here-2"]

    site.content["defaults"]["workers"]["count"] = 1
    removed = deploy_as_planned(site)
    assert removed["workers_removed"] == ["here-2"]
    assert len(removed["files_to_remove"]) == 3

    (site.root / "etc/workers/here-1.yaml").chmod(0o644)
    (site.root / "etc/supervisor").unlink()
    by_hand = deploy_as_planned(site, "--repair")
    assert {write["path"]: write["reason"] for write in by_hand["files_to_write"]} == {
        "etc/workers/here-1.yaml": "mode",
        "etc/supervisor": "new",
    }
    assert by_hand["workers_changed"] == []

    (site.root / "orders/stop.here-2").touch()  # left by an earlier worker of that name
    site.content["defaults"]["workers"]["count"] = 2
    added = deploy_as_planned(site)
    assert (added["workers_added"], added["stale_stops"], added["stop_files"]) == (["here-2"], ["here-2"], [])

    # As for hosts that SSH does not reach: in the database alone, so that nothing on the host says so yet.
    store = Store(DatabaseSettings(uri=site.database.uri, name=site.database.name))
    store.control.order_stop("day", "test")
    store.close()
    site.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.5
    kept = deploy_as_planned(site)
    assert (kept["kept_stopped"], kept["stale_stops"]) == (["here-1", "here-2"], [])
    assert kept["stop_files"] == ["here-1", "here-2"]
    until(lambda: set(programs(site).values()) == {"EXITED"}, "the workers to end")


def supervisorctl(site: Here, *words: str) -> None:
    command = [str(BIN / "supervisorctl"), "-c", str(site.root / "etc/supervisord.conf"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


STRANGER = "[program:web]\ncommand=/bin/sleep 1000\nautostart=true\n"


@pytest.mark.soak
def test_what_was_done_by_hand_is_shown_and_undone_only_with_consent(site: Here) -> None:
    site.content["defaults"]["workers"]["count"] = 2
    site.run("deploy", "--yes").ok()
    assert not any(planned(site)["drift"].values())

    wrapper = site.root / "bin" / "worker"
    wrapper.write_text(wrapper.read_text() + "# by hand\n")
    (site.root / "etc/conf.d/web.conf").write_text(STRANGER)
    supervisorctl(site, "reread")
    supervisorctl(site, "add", "web")
    supervisorctl(site, "stop", "here-1")
    (site.root / "etc/conf.d/idle.conf").write_text(STRANGER.replace("web", "idle"))

    plan = planned(site, "--diff")
    assert plan["drift"] == {
        "files_changed": ["bin/worker"],
        "files_missing": [],
        "files_strange": ["etc/conf.d/idle.conf", "etc/conf.d/web.conf"],
        "workers_stopped": ["here-1"],
    }
    assert (plan["needs_consent"], plan["strangers"], plan["workers_to_start"]) == (True, ["web"], [])
    assert "-# by hand\n" in plan["diffs"]["bin/worker"]

    refused = site.run("deploy", "--yes")
    assert refused.code == 1
    assert "here failed at looking for drift: changed by hand: bin/worker" in refused.err
    assert wrapper.read_text().endswith("# by hand\n")

    # Without that file a deploy goes through, and leaves stopped what was stopped.
    wrapper.write_text(wrapper.read_text().removesuffix("# by hand\n"))
    site.content["defaults"]["puffin"]["daemon"]["cycle_time_in_s"] = 0.4
    site.content["defaults"]["environment"]["API_TOKEN"] = "neu-geheim"
    shown = site.run("plan", "--diff").ok()
    assert "-  cycle_time_in_s: 0.3" in shown.out
    assert "+  cycle_time_in_s: 0.4" in shown.out
    assert "+export API_TOKEN= (hidden, changed)" in shown.out
    assert "geheim" not in shown.out + shown.err
    site.run("deploy", "--yes").ok()
    assert programs(site) == {"here-1": "STOPPED", "here-2": "RUNNING", "web": "RUNNING"}

    repaired = site.run("deploy", "--yes", "--repair").ok()
    assert "stopped by hand; started" in repaired.out
    assert programs(site) == {"here-1": "RUNNING", "here-2": "RUNNING", "web": "RUNNING"}
    assert (site.root / "etc/conf.d/web.conf").read_text() == STRANGER


def programs(site: Here) -> dict[str, str]:
    command = [str(BIN / "supervisorctl"), "-c", str(site.root / "etc/supervisord.conf"), "status"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}
