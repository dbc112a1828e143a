"""Action `audit`: what was done to this host, as it wrote it down itself; changes nothing.

Request: base_dir, fleet, host, limit (lines). Reply: lines (the newest last), holder (or null), clock.

One line of `audit.jsonl` is one deed: id, verb, who, began, ended (seconds since 1970 by the host's clock), outcome,
error, release, and where there were any, missing: {host: why it could not take part}. It is written when the lock is
released, or by whoever takes the lock of one that died: until then the lock itself is the record.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from fleet.hostside.common import Json, os_failure, tail_of
from fleet.hostside.guard import holder_of
from fleet.hostside.places import Places

AUDIT = "audit.jsonl"
OLDER = "audit.jsonl.1"
STEP = "writing the audit"
_LARGEST = 1 << 20
_LONGEST_TEXT = 600


def main(request: Json) -> Json:
    """Read the newest lines, also of the file before this one.

    Parameters
    ----------
    request
        As this module says; so is the reply.
    """
    places = Places.of(request)
    limit = int(request.get("limit", 100))
    lines = tail_of(places.host / AUDIT, limit, _LARGEST)
    if len(lines) < limit:
        lines = tail_of(places.host / OLDER, limit - len(lines), _LARGEST) + lines
    return {"lines": lines, "holder": holder_of(places.host)}


def append(root: Path, entry: Json) -> None:
    """Add one line, whole and on disk, or nothing. Call it under the lock's mutex.

    Raises
    ------
    Failure
        It cannot be written, for example since the disk is full.
    """
    path = root / AUDIT
    line = json.dumps({key: _bounded(value) for key, value in entry.items()}).encode() + b"\n"
    try:
        _rotate(path, root / OLDER)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise os_failure(error, STEP, path) from error
    try:
        _append(descriptor, line)
    except OSError as error:
        raise os_failure(error, STEP, path) from error
    finally:
        os.close(descriptor)


def _append(descriptor: int, line: bytes) -> None:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # what a power cut left unfinished must not swallow this line
    try:
        while line:
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _rotate(path: Path, older: Path) -> None:
    if path.exists() and path.stat().st_size > _LARGEST:
        path.replace(older)


def _bounded(value: object) -> object:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else value
