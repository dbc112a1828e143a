"""The fan-out: every host's result, whatever happens to the others."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from fleet.errors import FleetError, RemoteError
from fleet.reach.execute import Happening, HostEvent, Interrupted, ask, fan_out, listen
from fleet.reach.local import LocalRemote
from fleet.reach.remote import ActionFailed, CommandResult, Upload
from fleet.reach.uploading import upload


def named(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def test_results_come_in_the_order_of_the_hosts() -> None:
    gates = {name: threading.Event() for name in ("a", "b", "c")}
    follower = {"b": "a", "c": "b"}

    def work(name: str) -> str:
        if name in follower.values():
            gates[name].wait(10)
        if name in follower:
            gates[follower[name]].set()  # so they end in the order c, b, a
        return name.upper()

    results = fan_out(named("a", "b", "c"), work, parallel=3)
    assert [(result.host, result.value, result.ok) for result in results] == [
        ("a", "A", True),
        ("b", "B", True),
        ("c", "C", True),
    ]


def test_no_hosts_no_results() -> None:
    assert fan_out({}, str, parallel=4) == []


def fail(name: str) -> str:
    if name == "refused":
        raise RemoteError(name, "connect", "refused")
    if name == "broken":
        raise ZeroDivisionError("by zero")
    if name == "exits":
        sys.exit(3)
    return name


def test_a_failed_host_disturbs_no_other() -> None:
    results = fan_out(named("one", "refused", "broken", "exits", "two"), fail, parallel=2)
    assert [result.value for result in results if result.ok] == ["one", "two"]
    assert str(results[1].error) == "refused: connect: refused"
    assert "broken: internal error: ZeroDivisionError: by zero" in str(results[2].error)
    assert "SystemExit: 3" in str(results[3].error)


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_hosts_at_a_time_than_allowed(parallel: int) -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(parallel)

    def work(name: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(10)
        with lock:
            running -= 1

    results = fan_out(named(*"abcdef"), work, parallel)
    assert all(result.ok for result in results)
    assert most == parallel


def test_events_tell_what_happens() -> None:
    seen: list[tuple[str, Happening]] = []
    fan_out(named("one", "refused"), fail, 1, lambda event: seen.append((event.host, event.what)))
    assert seen == [
        ("one", Happening.STARTED),
        ("one", Happening.FINISHED),
        ("refused", Happening.STARTED),
        ("refused", Happening.FINISHED),
    ]


def test_ctrl_c_starts_no_further_host_and_reports_all() -> None:
    release = threading.Event()
    calls: list[str] = []

    def work(name: str) -> str:
        calls.append(name)
        if name == "slow":
            release.wait(10)
        return name

    def on_event(event: HostEvent[str]) -> None:
        if event.host == "slow":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        fan_out(named("first", "slow", "third"), work, 1, on_event)
    release.set()
    first, slow, third = caught.value.results
    assert first.value == "first"
    assert "slow: interrupted: it was being worked on" in str(slow.error)
    assert "third: interrupted: not started" in str(third.error)


def test_an_interruption_while_hosts_are_begun_tells_of_every_host() -> None:
    release, names = threading.Event(), [f"node{number}" for number in range(400)]

    def work(name: str) -> str:
        if name == "node0":
            # Python's handler runs in the main thread, which is still starting the threads of the others.
            os.kill(os.getpid(), signal.SIGINT)
            return "done"
        release.wait(30)
        return name

    with pytest.raises(KeyboardInterrupt) as caught:
        fan_out(named(*names), work, len(names))
    release.set()
    assert isinstance(caught.value, Interrupted)
    said = {result.host: str(result.error) for result in caught.value.results}
    assert list(said) == names
    assert any("not started" in error for error in said.values()), "all had begun: this tests nothing"


class Recorder:
    """A remote that keeps what it is sent and answers nothing."""

    name = "node1"
    python = "python3"
    round_trips = 0

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        self.timeouts.append(timeout)
        return CommandResult(0, b"", b"")

    def connect(self) -> None:
        pass

    def stream(self, program: str) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        pass


def test_a_host_without_a_reply_is_an_error() -> None:
    remote = Recorder()
    with pytest.raises(ActionFailed, match="node1: fetch texts: the program on the host ended without a reply"):
        ask(remote, "fetch_texts", {"host_root": "/", "paths": []}, timeout=7)
    assert remote.timeouts == [7]


@pytest.fixture
def local() -> LocalRemote:
    return LocalRemote("here", sys.executable)


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[LocalRemote]:
    """This machine, with a Python that says nothing and does not end."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    python.chmod(0o755)
    remote = LocalRemote("hung", str(python))
    yield remote
    remote.close()


def test_whoever_listens_to_a_host_that_hangs_goes_on_without_it(hung: LocalRemote, tmp_path: Path) -> None:
    assert listen(hung, "tail", {"host_root": str(tmp_path), "lines": 5}, seconds=0.5) == ([], False)


def test_what_is_listened_to_ends_when_the_remote_is_closed(hung: LocalRemote, tmp_path: Path) -> None:
    """Else the log that `top` showed is followed on the host until its worker next writes."""
    ended = threading.Event()

    def read() -> None:
        assert list(hung.stream("")) == []
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().strip())
    hung.close()
    assert ended.wait(30)
    wait_until(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
    assert list(hung.stream("")) == [], "so does one that begins in the same moment"


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_host_says_is_heard_to_its_end(local: LocalRemote, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "n-1.log").write_text("said\n")
    entries, complete = listen(local, "tail", {"host_root": str(tmp_path), "lines": 5}, seconds=60)
    assert complete
    assert [text for entry in entries for _, _, text in entry.get("messages", ())] == ["said"]


def test_files_are_sent_in_one_round_trip(local: LocalRemote, tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("empty", "one byte", "larger")]
    for source, content in zip(sources, (b"", b"x", b"0123456789" * 100_000), strict=True):
        source.write_bytes(content)
    targets = [tmp_path / "new place" / "deep" / source.name for source in sources]
    progress: list[tuple[int, int]] = []
    files = [Upload(a, str(b), 0o640) for a, b in zip(sources, targets, strict=True)]
    upload(local, files, lambda sent, total: progress.append((sent, total)))
    assert [target.read_bytes() for target in targets] == [source.read_bytes() for source in sources]
    assert {target.stat().st_mode & 0o777 for target in targets} == {0o640}
    assert progress[-1] == (1_000_001, 1_000_001)
    assert local.round_trips == 1


@pytest.mark.parametrize(("mask", "left"), [(0o002, 0o755), (0o000, 0o755), (0o077, 0o700)])
def test_nobody_else_may_write_where_files_are_put(local: LocalRemote, tmp_path: Path, mask: int, left: int) -> None:
    """Also not in a group whose members have a umask of 002; and what uv makes follows the same umask."""
    source = tmp_path / "source"
    source.write_text("content")
    before = os.umask(mask)
    try:
        upload(local, [Upload(source, str(tmp_path / "fleet/wheels/abc/file"))])
    finally:
        os.umask(before)
    assert {(tmp_path / path).stat().st_mode & 0o777 for path in ("fleet", "fleet/wheels")} == {left}


def test_nothing_to_send_is_no_round_trip(local: LocalRemote) -> None:
    upload(local, [])
    assert local.round_trips == 0


def test_a_missing_file_is_named(local: LocalRemote, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"cannot read .*nothing: No such file"):
        upload(local, [Upload(tmp_path / "nothing", str(tmp_path / "there"))])


def test_where_a_file_cannot_go_is_named(local: LocalRemote, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 5_000_000)
    with pytest.raises(ActionFailed, match=r"here: making directories: .*source"):
        upload(local, [Upload(source, str(source / "below a file"))])
