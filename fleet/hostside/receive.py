"""Action `receive`: write the files whose bytes follow this program on its standard input.

Request: files [{path (absolute), mode, size, sha256, packed}], in the order of their bytes. Size and sha256 are of what
is sent; what is packed, by zlib, is unpacked here.
Reply: received (paths). A file appears complete, checked, and with its mode, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

from fleet.hostside.common import Failure, Json, os_failure
from fleet.hostside.files import UNFINISHED, directory

STEP = "receiving files"
BLOCK = 1 << 18


def main(request: Json) -> Json:
    """Receive all files.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        A file arrived damaged, or cannot be written.
    """
    return {"received": [receive(sys.stdin.buffer, entry) for entry in request["files"]]}


def receive(stream: BinaryIO, entry: Json) -> str:
    """Read one file from the stream into its place.

    Parameters
    ----------
    stream
        Where its bytes come from.
    entry
        The file, as in the request.

    Returns
    -------
    str
        Its path.

    Raises
    ------
    Failure
        It arrived damaged, or cannot be written.
    """
    path = Path(entry["path"])
    if not path.is_absolute():
        raise Failure(f"{str(path)!r} is not absolute", STEP)
    directory(path.parent, 0o755)
    temporary = path.with_name(f".{path.name}{UNFINISHED}.{os.getpid()}")
    try:
        complete, found = _write(stream, temporary, entry)
        if not complete or found != entry["sha256"]:
            raise Failure(f"{path} arrived damaged", STEP, "try again")
        temporary.replace(path)
    except zlib.error as error:
        raise Failure(f"{path} arrived damaged: {error}", STEP, "try again") from error
    except OSError as error:
        raise os_failure(error, STEP, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return str(path)


def _write(stream: BinaryIO, path: Path, entry: Json) -> tuple[bool, str]:
    """Whether there was an end to what is packed, and the digest of what was sent."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    found, size, mode = hashlib.sha256(), int(entry["size"]), int(entry["mode"])
    unpacker = zlib.decompressobj() if entry.get("packed") else None
    with os.fdopen(os.open(path, flags, mode & 0o700), "wb") as target:
        while size:
            block = stream.read(min(BLOCK, size))
            if not block:
                raise Failure(f"the connection ended before {path} was complete", STEP, "try again")
            found.update(block)
            target.write(block if unpacker is None else unpacker.decompress(block))
            size -= len(block)
        target.flush()
        os.fchmod(target.fileno(), mode)
        os.fsync(target.fileno())
    complete = unpacker is None or (unpacker.eof and not unpacker.unused_data)
    return complete, found.hexdigest()
