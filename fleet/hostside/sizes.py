"""How much space removing directories gives back."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

_BLOCK = 512  # what st_blocks counts


def freed_by(paths: Iterable[Path]) -> int:
    """Bytes that removing all of these gives back: a file with a name elsewhere stays on the disk.

    Parameters
    ----------
    paths
        Files and directories.
    """
    return sum(freed_by_each(paths))


def freed_by_each(paths: Iterable[Path]) -> list[int]:
    """Bytes that removing each of these gives back once those before it are gone.

    Parameters
    ----------
    paths
        Files and directories.
    """
    names: Counter[tuple[int, int]] = Counter()
    freed = []
    for path in paths:
        blocks = 0
        for status in _statuses(path):
            key = (status.st_dev, status.st_ino)
            names[key] += 1
            if names[key] == (1 if stat.S_ISDIR(status.st_mode) else status.st_nlink):
                blocks += status.st_blocks
        freed.append(blocks * _BLOCK)
    return freed


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """Of a path and everything below it, links not followed; what vanishes meanwhile or cannot be read is left out."""
    waiting = [path]
    while waiting:
        place = waiting.pop()
        try:
            yield place.lstat()
            if place.is_dir() and not place.is_symlink():
                waiting += [Path(entry.path) for entry in os.scandir(place)]
        except OSError:
            continue
