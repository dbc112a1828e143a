"""Files to a host: all in one round trip, each there complete and checked, or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fleet.errors import FleetError
from fleet.hostside import source
from fleet.reach.answers import parse_reply
from fleet.reach.execute import naming_step, new_marker
from fleet.reach.packing import build_program
from fleet.reach.remote import Progress, Remote, Upload

Found = TypeVar("Found")

_BLOCK = 1 << 16
_SILENCE_S = 600.0
"""An upload may take as long as it likes while the host goes on taking blocks; many hosts may share a slow line.

A line takes some two megabytes more than have arrived, and of the last of these nothing is heard until all are there.
"""


def upload(remote: Remote, files: Sequence[Upload], progress: Progress | None = None) -> None:
    """Send files.

    What arrived before an error stays, so that another try need only send the rest.

    Parameters
    ----------
    remote
        The host.
    files
        The files.
    progress
        Told how many bytes are sent, of how many.

    Raises
    ------
    RemoteError
        The host cannot be reached, or cannot write them.
    FleetError
        A file cannot be read here.
    """
    if not files:
        return
    measures = [_measures.of(file.source) for file in files]
    request = {
        "files": [
            {
                "path": file.target,
                "mode": file.mode,
                "size": measure.size,
                "sha256": measure.sha256,
                "packed": file.packed,
            }
            for file, measure in zip(files, measures, strict=True)
        ]
    }
    total = sum(measure.size for measure in measures)
    marker = new_marker()
    program = build_program("receive", request, marker, source)
    data = _blocks(files, total, progress)
    with naming_step("upload"):
        result = remote.call(program, _SILENCE_S, data)
    parse_reply(remote.name, "receive", result, marker, remote.python)


@dataclass(frozen=True)
class _Measure:
    size: int
    sha256: str


class _Measures:
    """Sizes and digests of files, each read once: the same ones go to all hosts of a fleet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int, int, int], _Measure] = {}

    def of(self, path: Path) -> _Measure:
        """What a file measures as it is now; one that changes while it is sent is refused by the host."""
        # Under the lock, since all hosts ask for the same files in the same moment.
        with self._lock:
            status = _or_explain(path, path.stat)
            version = (os.fspath(path), status.st_ino, status.st_size, status.st_mtime_ns)
            if version not in self._known:
                self._known[version] = _measured(path)
            return self._known[version]


_measures = _Measures()


def _measured(path: Path) -> _Measure:
    found, size = hashlib.sha256(), 0
    for block in _read(path):
        found.update(block)
        size += len(block)
    return _Measure(size, found.hexdigest())


def _read(path: Path) -> Iterator[bytes]:
    stream = _or_explain(path, lambda: path.open("rb"))
    with stream:
        while block := _or_explain(path, lambda: stream.read(_BLOCK)):
            yield block


def _or_explain(path: Path, read: Callable[[], Found]) -> Found:
    try:
        return read()
    except OSError as error:
        raise FleetError(f"cannot read {path}: {error.strerror}") from error


def _blocks(files: Sequence[Upload], total: int, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    for file in files:
        for block in _read(file.source):
            yield block
            sent += len(block)
            if progress is not None:
                progress(sent, total)
