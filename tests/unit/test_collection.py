"""What is collected from hosts that are not to be trusted."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError, RemoteError, UsageError
from fleet.hostside import source
from fleet.reach.execute import new_marker
from fleet.reach.local import LocalRemote
from fleet.reach.packing import build_program
from fleet.reach.remote import CommandResult
from fleet.watch.blocks import Frames
from fleet.watch.collection import Listing, RemoteFile, parse_listing, safe_path
from fleet.watch.collection_folder import Collection, Fetch, HostFolder
from fleet.watch.collector import fetch


@given(
    st.text(alphabet=st.characters(), max_size=60)
    | st.lists(st.sampled_from(["..", ".", "", "a", "~", "\n"])).map("/".join)
)
def test_no_name_leads_out_of_its_directory(path: str) -> None:
    safe = safe_path(path)
    parts = PurePosixPath(safe).parts
    assert parts
    assert ".." not in parts
    assert not PurePosixPath(safe).is_absolute()
    assert all(len(part.encode()) < 255 for part in parts)
    assert safe.isprintable()
    assert safe_path(safe.replace("%", "")) == safe.replace("%", "")


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("error/6b02.tar.gz", "error/6b02.tar.gz"),
        ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/./b//c", "a/b/c"),
        ("a\nb\033[1m", "a%0Ab%1B[1m"),
        ("\udcff", "%FF"),
        ("", "unnamed"),
    ],
)
def test_names_from_hosts(path: str, safe: str) -> None:
    assert safe_path(path) == safe


def test_long_deep_and_colliding_names_stay_apart() -> None:
    assert safe_path("x" * 5000) != safe_path("x" * 5001)
    assert len(PurePosixPath(safe_path("a/" * 5000 + "b")).parts) == 12
    reply = {"files": [{"path": name, "at": "/", "size": 1, "mtime": 0, "file": [1, 2]} for name in ("A", "a", "a")]}
    locals_ = [file.local.casefold() for file in parse_listing("h", {**reply, "problems": []}).files]
    assert len(set(locals_)) == 3


class Hostile:
    """A host that sends whatever it likes."""

    name = "evil"
    python = "python3"
    round_trips = 0

    def __init__(self, archive: bytes, digests: Iterable[str] = ("",), blocks: int = 100) -> None:
        self._archive = archive
        self._reply = {"ok": True, "files": [{"size": 0, "sha256": digest, "problem": ""} for digest in digests]}
        self._block = blocks

    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        raise NotImplementedError

    def connect(self) -> None:
        pass

    def stream(self, program: str) -> Iterator[bytes]:
        found = re.search(r"puffin-[0-9a-f]{24}", program)
        assert found is not None
        framed = [self._archive[at : at + self._block] for at in range(0, len(self._archive), self._block)]
        yield b"Welcome!\n"
        yield f"\n{found[0]} {json.dumps({'begin': True})}\n".encode()
        yield b"".join(len(block).to_bytes(4, "big") + block for block in framed) + bytes(4)
        yield f"\n{found[0]} {json.dumps(self._reply)}\n".encode()

    def close(self) -> None: ...


def archive(*members: tuple[str, bytes, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as made:
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
            made.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def ask_for(remote: Hostile, place: HostFolder, size: int = 5) -> list[str]:
    file = RemoteFile("log/x", "/log/x", size, 0.0, (1, 1), "log/x")
    done = fetch(remote, Listing((file,), (), {}, {}), [Fetch(file, 0)], {}, place, lambda _: None)
    return done.problems


@pytest.fixture
def place(tmp_path: Path) -> HostFolder:
    return HostFolder(tmp_path / "evil", lambda: 1 << 30)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../../x", b"12345", tarfile.REGTYPE)], "cannot be unpacked"),
        ([("1:0", b"12345", tarfile.REGTYPE)], "sends what nobody asked for"),
        ([("0:0", b"", tarfile.SYMTYPE)], "sends what nobody asked for"),
        ([("0:0", b"", tarfile.CHRTYPE)], "sends what nobody asked for"),
        ([("0:0", b"123456", tarfile.REGTYPE)], "sends more of log/x than it said"),
        ([("0:3", b"12", tarfile.REGTYPE)], "sends more of log/x than it said"),
        ([("0:0", b"12345", tarfile.REGTYPE)] * 2, "sends what nobody asked for"),
    ],
)
def test_what_was_not_asked_for_is_refused(
    place: HostFolder, tmp_path: Path, members: list[tuple[str, bytes, bytes]], message: str
) -> None:
    with pytest.raises(RemoteError, match=message):
        ask_for(Hostile(archive(*members)), place)
    assert {path.name for path in tmp_path.rglob("*")} <= {"evil", "log", "x", "facts.json", "supervisord.json"}


def test_a_small_archive_that_holds_a_full_disk(place: HostFolder) -> None:
    bomb = gzip.compress(bytes(1 << 26))
    header = tarfile.TarInfo("name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 26
    with pytest.raises(RemoteError, match="cannot be unpacked: it is larger than it was said to be"):
        ask_for(Hostile(gzip.compress(header.tobuf()) + bomb, blocks=1 << 16), place)


def test_what_arrives_damaged_is_not_kept(place: HostFolder) -> None:
    remote = Hostile(archive(("0:0", b"12345", tarfile.REGTYPE)), ["0" * 64])
    assert ask_for(remote, place) == ["log/x: arrived damaged; run it again"]
    assert place.size("log/x") == 0


def test_a_host_that_reads_for_long_shows_life(tmp_path: Path) -> None:
    """What need not be sent again is read all the same, which takes long; here each look is taken for too long."""
    file = tmp_path / "large"
    file.write_bytes(content := os.urandom(1 << 20))
    status, digest = file.stat(), hashlib.sha256(content).hexdigest()
    asked = {"at": str(file), "file": [status.st_dev, status.st_ino], "size": len(content)}
    request = {"step": "send", "heartbeat": 0, "files": [{**asked, "offset": len(content), "sha256": digest}]}
    marker = new_marker()
    chunks = list(LocalRemote("slow").stream(build_program("collect", request, marker, source)))
    assert b"".join(chunks).count(b"\xff" * 4) >= 4
    stream = Frames(iter(chunks), marker, "slow")
    stream.begin()
    with tarfile.open(fileobj=gzip.GzipFile(fileobj=stream), mode="r|") as archive:  # type: ignore[call-overload]
        assert [(member.name, member.size) for member in archive] == [(f"0:{len(content)}", 0)]
    assert stream.reply()["files"] == [{"size": len(content), "sha256": digest, "problem": ""}]


def test_a_link_that_waits_here_is_not_followed(place: HostFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "log").symlink_to(outside)
    remote = Hostile(archive(("0:0", b"12345", tarfile.REGTYPE)))
    assert "log/x: cannot be written here" in ask_for(remote, place)[0]
    assert list(outside.iterdir()) == []


def test_it_stops_before_the_disk_is_full(tmp_path: Path) -> None:
    place = HostFolder(tmp_path / "evil", lambda: -1)
    remote = Hostile(archive(("0:0", os.urandom(1 << 24), tarfile.REGTYPE)), blocks=1 << 20)
    with pytest.raises(FleetError, match="the disk here is almost full"):
        ask_for(remote, place, 1 << 24)


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds something else: name a new or an empty directory"):
        Collection(tmp_path, "pool")
    Collection(tmp_path / "new", "pool")
    with pytest.raises(UsageError, match="is a collection of fleet 'pool'"):
        Collection(tmp_path / "new", "other")


def test_all_that_is_here_of_a_host_is_counted(place: HostFolder) -> None:
    packed = archive(("0:0", b"12345", tarfile.REGTYPE))
    remote = Hostile(packed, [hashlib.sha256(b"12345").hexdigest()])
    file = RemoteFile("log/x", "/log/x", 5, 0.0, (1, 1), "log/x")
    listing = Listing((file,), (), {"etc/workers/n-1.yaml": "password: x\udc80"}, {})
    done = fetch(remote, listing, [Fetch(file, 0)], {}, place, lambda _: None)
    there = [path for path in place.root.rglob("*") if path.is_file()]
    assert (done.count, done.size) == (len(there), sum(path.stat().st_size for path in there))
    assert done.count == 4
