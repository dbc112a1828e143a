"""Reads what jobs printed: of any size, in any encoding."""

from __future__ import annotations

import os
from pathlib import Path

from puffin.calculations import MAX_TEXT_BYTES


def read_shortened(path: str | os.PathLike[str], limit: int = MAX_TEXT_BYTES // 2) -> str:
    r"""The first and last part of a file as text.

    Parameters
    ----------
    path
        The file; one that is missing, or is no plain file, counts as empty.
    limit
        How much to read at most, in bytes. The file may be larger than memory.

    Returns
    -------
    str
        Its text. Bytes that are not UTF-8 appear as ``\xNN``; of a file that cannot be read it says so.
    """
    file = Path(path)
    if not file.is_file():
        # A job may have put anything there; opening a named pipe would wait for ever.
        return ""
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size <= limit:
                return _decode(stream.read(limit))
            head = stream.read(limit // 2)
            stream.seek(size - limit // 2)
            tail = stream.read(limit // 2)
    except OSError as error:
        return f"[{file.name} cannot be read: {error.strerror}]\n"
    return f"{_decode(head)}\n[... {size - len(head) - len(tail)} bytes left out ...]\n{_decode(tail)}"


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
