"""The lock of hosts: many real processes that race for it, holders that die, hosts behind a real sshd."""

from __future__ import annotations

import base64
import contextlib
import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fleet.deployment.lock import (
    ChangedMeanwhile,
    Deed,
    DeedOutcome,
    LockedError,
    LockTarget,
    Result,
    hold,
    new_deed,
)
from fleet.deployment.lock_keeper import Keeper
from fleet.deployment.refusals import still_locked
from fleet.errors import ExitCode
from fleet.hostside import audit, guard, lock, probe, states
from fleet.hostside.common import Failure, locked
from fleet.reach import facts, probing
from fleet.reach.execute import Interrupted, ask
from fleet.reach.local import LocalRemote
from fleet.reach.remote import ActionFailed, ConnectionLost, Remote, UnreachableError
from fleet.reach.ssh import SshRemote
from tests.lab.requirements import missing
from tests.lab.sshd import SshHost
from tests.lab.worker import until

Hosts = Callable[..., SshHost]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a host may need longer than the time for which giving back its lock is waited for."""
    monkeypatch.setattr("fleet.deployment.lock_keeper._RELEASE_TIMEOUT_S", 60.0)


# One host's directory ----------------------------------------------------------------------------------


def take(root: Path, token: str, **request: Any) -> dict[str, Any]:
    known = {"id": f"id-{token}", "verb": "deploy", "who": f"{token}@here", "limit": 900, "expected_serial": None}
    return lock.main({"host_root": str(root), "step": "acquire", "token": token, **known, **request})


def step(root: Path, name: str, token: str, **request: Any) -> dict[str, Any]:
    known = {"id": f"id-{token}", "verb": "deploy", "who": f"{token}@here"}
    return lock.main({"host_root": str(root), "step": name, "token": token, **known, **request})


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "audit.jsonl").read_text().splitlines()]


def left_behind(root: Path) -> list[str]:
    return sorted(
        path.name for path in root.iterdir() if path.name not in {".lock.mutex", "lock.serial", "audit.jsonl"}
    )


def test_one_holds_it_and_another_is_told_who(tmp_path: Path) -> None:
    root = tmp_path / "never" / "deployed"
    assert take(root, "ann")["held"]
    refused = take(root, "bob")
    assert (refused["held"], refused["holder"]["who"], refused["holder"]["verb"]) == (False, "ann@here", "deploy")
    assert "token" not in refused["holder"]
    assert step(root, "release", "ann", outcome="done", release="r1") == {"held": True, "audited": True}
    assert take(root, "bob")["held"]
    assert (root / "lock" / "holder.json").stat().st_mode & 0o777 == 0o600
    assert (root / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    [line] = lines(root)
    assert (line["id"], line["who"], line["outcome"], line["release"]) == ("id-ann", "ann@here", "done", "r1")
    assert line["began"] <= line["ended"]


def test_a_host_that_somebody_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    take(tmp_path, "ann", expected_serial=0)
    seen_while_held = guard.serial_of(tmp_path)
    step(tmp_path, "release", "ann", outcome="done")
    refused = take(tmp_path, "bob", expected_serial=seen_while_held)
    assert refused == {
        "held": False,
        "holder": None,
        "changed_by": {"who": "ann@here", "verb": "deploy"},
        "reentrant": False,
    }
    assert take(tmp_path, "bob", expected_serial=guard.serial_of(tmp_path))["held"]


def test_what_was_abandoned_changed_nothing(tmp_path: Path) -> None:
    take(tmp_path, "ann", expected_serial=0)
    step(tmp_path, "abandon", "ann")
    assert left_behind(tmp_path) == []
    assert not (tmp_path / "audit.jsonl").exists()
    assert take(tmp_path, "bob", expected_serial=0)["held"]


def test_a_command_under_the_lock_uses_it_and_leaves_it(tmp_path: Path) -> None:
    take(tmp_path, "ann")
    assert take(tmp_path, "ann", id="inner")["reentrant"]
    step(tmp_path, "record", "ann", id="inner", outcome="done", since=1.0)
    step(tmp_path, "abandon", "ann", id="inner")
    assert guard.read_holder(tmp_path)
    step(tmp_path, "release", "ann", outcome="done")
    assert [line["id"] for line in lines(tmp_path)] == ["inner", "id-ann"]


def test_one_whose_answer_was_lost_is_taken_again_and_given_back(tmp_path: Path) -> None:
    take(tmp_path, "ann")
    again = take(tmp_path, "ann")
    assert again["held"]
    assert not again["reentrant"]


def test_a_directory_of_somebody_elses_is_no_place_for_a_fleet(tmp_path: Path) -> None:
    project = tmp_path / "reactions"
    (project / "tools").mkdir(parents=True)
    with pytest.raises(Failure, match=r"reactions holds tools, but no fleet"):
        take(project / "hosts" / "n1", "ann")
    assert [path.name for path in project.iterdir()] == ["tools"]
    (project / "tools").rmdir()
    assert take(project / "hosts" / "n1", "ann")["held"]
    (project / "tools").mkdir()
    assert take(project / "hosts" / "n2", "ann")["held"]


def test_hosts_that_share_a_home_directory_make_their_first_locks_at_once(tmp_path: Path) -> None:
    hosts = tmp_path / "reactions" / "hosts"
    (hosts / "n1").mkdir(parents=True)  # which is as far as the other one has come
    assert take(hosts / "n2", "ann")["held"]
    shutil.rmtree(hosts / "n2")
    (hosts / "n1" / "orders").mkdir()
    (hosts / "n1" / "orders" / "drain").touch()  # drained before its first deploy
    assert take(hosts / "n2", "ann")["held"]
    shutil.rmtree(hosts / "n1")
    (hosts / "n3").mkdir()
    (hosts / "n3" / "notes").touch()
    shutil.rmtree(hosts / "n2")
    with pytest.raises(Failure, match=r"reactions holds hosts, but no fleet"):
        take(hosts / "n4", "ann")


def test_one_that_ran_out_is_taken_over_and_its_holder_finds_out(tmp_path: Path) -> None:
    take(tmp_path, "ann", limit=-1)
    seen = guard.serial_of(tmp_path)
    assert take(tmp_path, "bob", expected_serial=seen)["held"]
    assert not step(tmp_path, "renew", "ann")["held"]
    assert step(tmp_path, "release", "ann", outcome="failed", error="lost", since=1.0) == {
        "held": False,
        "audited": True,
    }
    with pytest.raises(Failure, match="bob@here took the lock of this host over, for 'deploy'"):
        guard.require_lock({"host_root": str(tmp_path), "lock": "ann"})
    guard.require_lock({"host_root": str(tmp_path), "lock": "bob"})
    assert [(line["who"], line["outcome"]) for line in lines(tmp_path)] == [
        ("ann@here", "interrupted"),
        ("ann@here", "failed"),
    ]


def test_one_that_ran_out_is_still_its_holders_until_somebody_takes_it(tmp_path: Path) -> None:
    take(tmp_path, "ann", limit=-1)
    guard.require_lock({"host_root": str(tmp_path), "lock": "ann"})
    assert step(tmp_path, "renew", "ann")["held"]


def test_unlock_removes_it_and_says_so(tmp_path: Path) -> None:
    assert not step(tmp_path, "break", "", id="u", who="eve@here")["held"]
    take(tmp_path, "ann")
    broken = lock.main({"host_root": str(tmp_path), "step": "break", "id": "u", "who": "eve@here"})
    assert (broken["held"], broken["holder"]["who"]) == (True, "ann@here")
    with pytest.raises(Failure, match="is gone: it ran out, or was removed with 'unlock'"):
        guard.require_lock({"host_root": str(tmp_path), "lock": "ann"})
    assert [(line["verb"], line["who"], line["outcome"], line["error"]) for line in lines(tmp_path)] == [
        ("deploy", "ann@here", "interrupted", "its lock was removed by eve@here"),
        ("unlock", "eve@here", "done", "removed the lock of ann@here for 'deploy'"),
    ]


def wanted_by(path: Path) -> int:
    """How many in this process hold a lock file or wait for it."""
    opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return opened.count(str(path.resolve()))


@pytest.mark.parametrize("action", ["apply", "good", "install_release", "supervise", "prune"])
def test_who_lost_it_while_he_waited_for_something_else_changes_nothing(tmp_path: Path, action: str) -> None:
    fleet = tmp_path / "f"
    root = fleet / "hosts" / "n"
    content = base64.b64encode(b"old").decode()
    request = {
        "fleet_root": str(fleet),
        "host_root": str(root),
        "lock": "ann",
        "run_dir": str(root / "run"),
        "files": [{"path": "etc/x", "mode": 0o600, "content_b64": content}],
        "operation": "keep",
        "target": "releases/r1",
        "wheels": [],
        "direct": True,
        "keep": 1,
        "used": [],
        "carry_out": True,
    }
    take(root, "ann")
    (root / "etc").mkdir()
    (root / "etc/supervisord.conf").touch()
    for place in ("releases/r0", "supervisor", "hosts/n/run"):
        (fleet / place).mkdir(parents=True)
    awaited = {
        "supervise": "hosts/n/run/.supervise.lock",
        "install_release": "releases/.lock",
        "prune": "releases/.lock",
    }
    awaiting = fleet / awaited.get(action, "hosts/n/.lock")
    main = importlib.import_module(f"fleet.hostside.{action}").main
    with ThreadPoolExecutor(1) as aside:
        with locked(awaiting, 1, "testing"):
            asked = aside.submit(main, request)
            until(lambda: wanted_by(awaiting) == 2, "the action to wait")
            assert step(root, "release", "ann", outcome="interrupted")["held"]
            assert take(root, "bob")["held"]
        with pytest.raises(Failure, match="bob@here took the lock of this host over, for 'deploy'"):
            asked.result()
    assert not (root / "etc/x").exists()
    assert (fleet / "releases/r0").exists()


def test_it_is_given_back_when_what_is_being_written_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_WRITING_S", 60.0)  # or it is given back all the same, before anybody has looked
    root = tmp_path / "f" / "hosts" / "n"
    take(root, "ann")
    with ThreadPoolExecutor(1) as aside:
        with locked(root / lock.WRITING, 1, "testing"):
            before = (root / lock.WRITING).stat().st_mtime_ns
            given_back = aside.submit(step, root, "release", "ann", outcome="interrupted")
            until(lambda: wanted_by(root / lock.WRITING) == 2, "it to be given back")
            assert guard.holder_of(root) is not None
        assert given_back.result()["held"]
    assert guard.holder_of(root) is None
    assert (root / lock.WRITING).stat().st_mtime_ns == before


def test_a_holder_that_cannot_be_read_still_holds_it(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "holder.json").write_text("")
    assert take(tmp_path, "ann")["holder"]["who"] == "somebody"
    assert lock.main({"host_root": str(tmp_path), "step": "break", "id": "u", "who": "eve"})["held"]
    assert take(tmp_path, "ann")["held"]


def test_a_probe_reports_it(tmp_path: Path) -> None:
    request = probing.probe_request("f", "h", str(tmp_path))
    assert probing.parse("h", probe.main(request)).lock == facts.Lock(0, None)
    root = tmp_path / "f" / "hosts" / "h"
    take(root, "ann")
    found = probing.parse("h", probe.main(request)).lock
    assert found.serial == 0
    assert found.holder is not None
    assert (found.holder.who, found.holder.verb, found.holder.expired) == ("ann@here", "deploy", False)
    assert found.holder.age >= 0
    assert 800 < found.holder.left <= 900


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"no file system can be mounted here: {done.stderr}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> Path:
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as stream:
        while True:
            stream.write(b"x" * 512)
    return filler


def test_a_full_disk_leaves_no_half_lock_and_keeps_nobody_from_giving_it_back(full_disk: Path) -> None:
    root = full_disk / "host"
    root.mkdir()
    filler = fill(full_disk)
    with pytest.raises(Failure, match=os.strerror(errno.ENOSPC)) as failed:
        take(root, "ann")
    assert "free some space" in failed.value.hint
    assert left_behind(root) == []
    filler.unlink()
    take(root, "ann")
    fill(full_disk)
    assert step(root, "release", "ann", outcome="done")["held"]
    assert left_behind(root) == []
    assert guard.serial_of(root) == 1


# Processes ---------------------------------------------------------------------------------------------

RACER = """
import json, os, sys, time
from fleet.hostside import lock
root, token, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
time.sleep(max(0, start - time.time()))
request = {"host_root": root, "token": token, "id": token, "verb": "deploy", "who": token, "limit": 900,
           "expected_serial": None}
print(json.dumps(lock.main({**request, "step": "acquire"})), flush=True)
"""


def race(root: Path, count: int) -> list[dict[str, Any]]:
    start = str(time.time() + 1.5)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(root), f"t{n}", start], stdout=subprocess.PIPE, text=True)
        for n in range(count)
    ]
    return [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]


def test_of_many_processes_one_wins(tmp_path: Path) -> None:
    answers = race(tmp_path / "host", 16)
    [winner] = [f"t{n}" for n, answer in enumerate(answers) if answer["held"]]
    assert {answer["holder"]["who"] for answer in answers if not answer["held"]} == {winner}
    assert left_behind(tmp_path / "host") == ["lock"]


def test_of_many_that_take_over_one_wins(tmp_path: Path) -> None:
    take(tmp_path, "dead", limit=-1)
    answers = race(tmp_path, 12)
    assert sum(answer["held"] for answer in answers) == 1
    assert [line["who"] for line in lines(tmp_path)] == ["dead@here"]


KILLED = """
import os, signal, sys
from fleet.hostside import files, lock
from pathlib import Path
written = files.stage
def stage(path, content, mode):
    staged = written(path, content, mode)
    if path.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return staged
files.stage = stage
rename = Path.rename
def renamed(self, target):
    if Path(target).name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = renamed
request = {"host_root": sys.argv[1], "token": "t", "id": "t", "verb": "deploy", "who": "t", "limit": 900}
lock.main({**request, "step": "acquire"})
"""


@pytest.mark.parametrize("moment", ["lock.serial", "holder.json", "lock"])
def test_one_that_is_killed_while_it_takes_it_leaves_nothing_in_the_way(tmp_path: Path, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert guard.read_holder(tmp_path) is None
    assert take(tmp_path, "ann")["held"]
    assert left_behind(tmp_path) == ["lock"]


# Many hosts --------------------------------------------------------------------------------------------


def targets(places: dict[str, Path], serial: int | None = None) -> dict[str, LockTarget]:
    return {name: LockTarget(str(place), serial) for name, place in places.items()}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / name for name in ("a", "b", "c")}


@pytest.fixture
def local(places: dict[str, Path]) -> dict[str, Remote]:
    return {name: LocalRemote(name, sys.executable) for name in places}


def test_all_are_held_and_given_back(places: dict[str, Path], local: dict[str, Remote]) -> None:
    deed = new_deed("deploy")
    with hold(local, targets(places, 0), deed, 0, 3) as held:
        assert held.hosts == frozenset(places)
        assert {guard.read_holder(place)["token"] for place in places.values()} == {held.token}
        held.conclude("a", DeedOutcome(Result.DONE, release="r1"))
        held.conclude("b", DeedOutcome(Result.FAILED, "disk full"))
    assert [guard.read_holder(place) for place in places.values()] == [None] * 3
    found = [(line["id"], line["outcome"], line["error"]) for place in places.values() for line in lines(place)]
    assert found == [(deed.id, "done", ""), (deed.id, "failed", "disk full"), (deed.id, "interrupted", "")]


def test_they_are_given_back_on_every_way_out(places: dict[str, Path], local: dict[str, Remote]) -> None:
    with pytest.raises(KeyboardInterrupt), hold(local, targets(places), new_deed("deploy"), 0, 3):
        raise KeyboardInterrupt
    assert [guard.read_holder(place) for place in places.values()] == [None] * 3
    assert [line["outcome"] for place in places.values() for line in lines(place)] == ["interrupted"] * 3


def test_a_host_that_changed_since_is_refused_for_all(places: dict[str, Path], local: dict[str, Remote]) -> None:
    take(places["b"], "ann")
    step(places["b"], "release", "ann", outcome="done")
    with (
        pytest.raises(ChangedMeanwhile, match="b: ann@here changed this host since it was looked at") as refused,
        hold(local, targets(places, 0), new_deed("deploy"), 0, 3),
    ):
        pytest.fail("held")
    assert refused.value.exit_code == ExitCode.LOCKED
    assert [guard.read_holder(place) for place in places.values()] == [None] * 3


def test_waiting_for_one_that_is_given_back(places: dict[str, Path], local: dict[str, Remote]) -> None:
    take(places["b"], "ann", id="0")
    said: list[str] = []

    def say(what: str) -> None:
        if not said:
            assert guard.read_holder(places["a"]) is None  # whoever waits is in nobody's way
            step(places["b"], "release", "ann", id="0", outcome="done")
        said.append(what)

    with hold(local, targets(places), new_deed("deploy"), 60, 3, say):
        pass
    assert guard.serial_of(places["b"]) == 2
    assert said[0].startswith("waiting: b is locked by ann@here for 'deploy' since ")


def test_of_two_that_overlap_one_goes_on(places: dict[str, Path], local: dict[str, Remote]) -> None:
    """However they meet; whoever is refused has changed nothing, and the hosts of one are never the other's."""
    outcomes: list[str] = []
    inside = threading.Lock()
    meeting = threading.Barrier(2)
    pairs = [("a", "b"), ("b", "c")]

    def work(number: int) -> None:
        names = pairs[number]
        mine = {name: places[name] for name in names}
        meeting.wait(timeout=60)
        try:
            with hold(local, targets(mine), Deed(f"2026-{number}", "deploy", f"w{number}"), 0, 2):
                assert inside.acquire(blocking=False), "both hold the lock of b"
                time.sleep(0.2)
                inside.release()
                outcomes.append("done")
        except LockedError:
            outcomes.append("refused")

    for _ in range(4):
        outcomes.clear()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(2)))
        assert "done" in outcomes
        assert len(outcomes) == 2
        assert [guard.read_holder(place) for place in places.values()] == [None] * 3


def test_it_is_renewed_while_the_work_goes_on_and_who_lost_it_is_told(
    places: dict[str, Path], local: dict[str, Remote]
) -> None:
    # Each renewal may take a quarter of the limit, in which three programs have to start on a busy machine.
    with hold(local, targets(places), new_deed("deploy"), 0, 3, limit_s=8.0) as held:
        first = guard.read_holder(places["a"])
        wait_for(lambda: guard.read_holder(places["a"])["until"] > first["until"] + 1)
        look = {"host_root": str(places["a"]), "lock": held.token}
        states.main(look)
        lock.main({"host_root": str(places["a"]), "step": "break", "id": "u", "who": "eve@here"})
        # Not only what changes a host is refused then, but waiting for its workers as well.
        with pytest.raises(Failure, match="was removed with 'unlock'"):
            states.main(look)
        take(places["a"], "eve")
        with pytest.raises(Failure, match="eve@here took the lock of this host over, for 'deploy'"):
            states.main(look)
        states.main({**look, "host_root": str(places["b"])})


def test_a_command_that_a_hook_runs_uses_the_lock_it_runs_under(
    places: dict[str, Path], local: dict[str, Remote]
) -> None:
    with hold(local, targets({"a": places["a"]}), new_deed("deploy"), 0, 3) as outer:
        with hold(local, targets(places), new_deed("deploy"), 0, 3, inherited=outer.token) as inner:
            assert inner.token == outer.token
            assert inner.hosts == frozenset(places)
            inner.conclude("a", DeedOutcome(Result.DONE))
        assert guard.read_holder(places["a"]) is not None
        assert guard.read_holder(places["b"]) is None
    assert guard.read_holder(places["a"]) is None
    assert [line["outcome"] for line in lines(places["a"])] == ["done", "interrupted"]


HOLDER = """
import sys, time
from fleet.deployment import lock_keeper
from fleet.reach.local import LocalRemote
from fleet.deployment.lock import LockTarget, hold, new_deed
# On a busy machine what is under way when Ctrl-C comes may need longer than anybody would wait.
lock_keeper._GRACE_S, lock_keeper._RELEASE_TIMEOUT_S = 60.0, 60.0
roots = sys.argv[2:]
remotes = {root: LocalRemote(root, sys.executable) for root in roots}
print("begins", flush=True)
targets = {root: LockTarget(root) for root in roots}
with hold(remotes, targets, new_deed("deploy"), 0, 3, limit_s=float(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(places: dict[str, Path], limit_s: float) -> subprocess.Popen[str]:
    roots = [str(place) for place in places.values()]
    words = [sys.executable, "-c", HOLDER, str(limit_s), *roots]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process


def test_a_holder_that_is_killed_is_followed_when_its_time_limit_is_over(
    places: dict[str, Path], local: dict[str, Remote]
) -> None:
    process = holder(places, limit_s=3)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    with hold(local, targets(places), new_deed("deploy"), 60, 3) as held:
        assert held.hosts == frozenset(places)
        held.conclude("a", DeedOutcome(Result.DONE))
    assert [line["outcome"] for line in lines(places["a"])] == ["interrupted", "done"]


@pytest.mark.parametrize("after", [0.0, 0.1, 0.2, 0.4, 1.0])
def test_whenever_ctrl_c_comes_no_lock_is_left(places: dict[str, Path], after: float) -> None:
    process = holder(places, limit_s=900)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=150) != 0
    wait_for(lambda: all(guard.read_holder(place) is None for place in places.values()))


class Interrupting(LocalRemote):
    """A host over which Ctrl-C is pressed while its lock is given back."""

    armed = False

    def call(self, *arguments: Any, **options: Any) -> Any:
        if self.armed:
            os.kill(os.getpid(), signal.SIGINT)
        return super().call(*arguments, **options)


def test_ctrl_c_while_locks_are_given_back_ends_the_command_afterwards(places: dict[str, Path]) -> None:
    remotes = {name: Interrupting(name) for name in places}
    lock = hold(remotes, targets(places), new_deed("deploy"), 0, 3)
    lock.__enter__()
    for remote in remotes.values():
        remote.armed = True
    with pytest.raises(KeyboardInterrupt):
        lock.__exit__(None, None, None)
    assert [guard.read_holder(place) for place in places.values()] == [None] * len(places)


@pytest.mark.parametrize("moment", ["as they are taken", "before they are renewed"])
def test_ctrl_c_in_the_moment_after_the_locks_were_taken_leaves_none(
    places: dict[str, Path], local: dict[str, Remote], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupt(*_: object) -> None:
        assert all(guard.read_holder(place) for place in places.values()), "all are held"
        raise KeyboardInterrupt

    start = threading.Thread.start
    if moment == "as they are taken":
        monkeypatch.setattr(Keeper, "_locked", interrupt)
    else:
        monkeypatch.setattr(
            threading.Thread, "start", lambda self: (interrupt if self.name == "lock renewal" else start)(self)
        )
    with pytest.raises(KeyboardInterrupt), hold(local, targets(places), new_deed("deploy"), 0, 3):
        pytest.fail("held")
    monkeypatch.undo()
    assert [guard.read_holder(place) for place in places.values()] == [None] * len(places)


class Forgetful(LocalRemote):
    """A host whose first answer is lost on its way, though it has done what it was told."""

    armed = False
    lasts = False

    def call(self, *arguments: Any, **options: Any) -> Any:
        answer = super().call(*arguments, **options)
        if self.armed:
            self.armed = self.lasts
            raise ConnectionLost(self.name, "run", "the connection was lost")
        return answer


def test_a_lock_whose_return_was_not_heard_of_is_given_back_again(places: dict[str, Path]) -> None:
    remotes = {name: Forgetful(name) for name in places}
    with hold(remotes, targets(places), new_deed("deploy"), 0, 3) as lock:
        for remote in remotes.values():
            remote.armed = True
        lock.conclude("a", DeedOutcome(Result.DONE))
    assert lock.kept == []
    assert [guard.read_holder(place) for place in places.values()] == [None] * len(places)
    assert [line["outcome"] for line in lines(places["a"])] == ["done"], "written down once"


def test_who_is_interrupted_hears_which_hosts_could_not_be_told(places: dict[str, Path]) -> None:
    remotes = {name: Forgetful(name) for name in places}

    def work() -> None:
        with hold(remotes, targets(places), new_deed("deploy"), 0, 3):
            remotes["b"].armed = remotes["b"].lasts = True
            raise Interrupted([])

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.still_locked == ("b",)
    assert "unlock --host b'" in still_locked(caught.value.still_locked)


def test_a_lock_that_nobody_heard_of_is_given_back_where_another_is_refused(
    places: dict[str, Path], local: dict[str, Remote]
) -> None:
    remotes: dict[str, Remote] = {**local, "a": (forgetful := Forgetful("a"))}
    with hold(local, {"b": targets(places)["b"]}, new_deed("deploy"), 0, 3):
        forgetful.armed = True
        with pytest.raises(LockedError, match="b: locked by"), hold(remotes, targets(places), new_deed("stop"), 0, 3):
            pytest.fail("held")
        assert guard.read_holder(places["a"]) is None


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_three_hosts_of_which_one_is_locked_by_another_over_ssh(ssh_hosts: Hosts, closed_port: int) -> None:
    """And a fourth that cannot be reached, which is nobody's reason to stop."""
    hosts = {name: ssh_hosts(name) for name in ("one", "two", "three")}
    remotes: dict[str, Remote] = {name: SshRemote(name, host.options) for name, host in hosts.items()}
    remotes["gone"] = SshRemote("gone", hosts["one"].changed(port=closed_port))
    places = {name: Path(host.base_dir) / "f" / "hosts" / name for name, host in hosts.items()}
    places["gone"] = Path("/nowhere")
    known = {"host_root": str(places["two"]), "token": "ann", "id": "ann", "verb": "deploy", "who": "ann@here"}
    ask(remotes["two"], "lock", {**known, "step": "acquire", "limit": 900})
    try:
        with (
            pytest.raises(LockedError, match=r"two: locked by ann@here for 'deploy' since .* ago; time limit in") as no,
            hold(remotes, targets(places), new_deed("deploy"), 0, 4),
        ):
            pytest.fail("held")
        assert no.value.exit_code == 4
        assert "'puffin-fleet unlock --host two'" in str(no.value)
        assert "--lock-timeout" in str(no.value)
        assert [guard.read_holder(places[name]) for name in ("one", "three")] == [None, None]
        ask(remotes["two"], "lock", {**known, "step": "release", "outcome": "done"})
        with hold(remotes, targets(places), new_deed("deploy"), 0, 4) as held:
            assert held.hosts == {"one", "two", "three"}
            assert isinstance(held.failed["gone"], UnreachableError)
            request = {"host_root": str(places["one"]), "operations": [], "lock": "another"}
            with pytest.raises(ActionFailed, match=r"checking the lock: .* took the lock of this host over"):
                ask(remotes["one"], "control", request)
        assert all(guard.read_holder(place) is None for place in places.values())
    finally:
        for remote in remotes.values():
            remote.close()


# Audit -------------------------------------------------------------------------------------------------


def test_the_audit_is_bounded_and_read_across_its_two_files(tmp_path: Path) -> None:
    root = tmp_path / "f" / "hosts" / "h"
    root.mkdir(parents=True)
    for number in range(2200):
        audit.append(root, {"id": str(number), "error": "x" * 2000})
    sizes = [(root / name).stat().st_size for name in ("audit.jsonl", "audit.jsonl.1")]
    assert all(size < 1_100_000 for size in sizes)
    count = len(lines(root)) + 5
    reply = audit.main({"base_dir": str(tmp_path), "fleet": "f", "host": "h", "limit": count})
    found = [int(json.loads(line)["id"]) for line in reply["lines"]]
    assert found == list(range(2200 - count, 2200))


def test_a_line_cut_off_by_a_power_cut_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text('{"id": "1"}\n{"id": "2')
    audit.append(tmp_path, {"id": "3"})
    assert (tmp_path / "audit.jsonl").read_text().splitlines()[-1] == '{"id": "3"}'
