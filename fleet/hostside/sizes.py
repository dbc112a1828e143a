"""How much space directories take, and how much removing them gives back."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

_BLOCK = 512  # what st_blocks counts


def size_of(path: Path) -> int:
    """Bytes on disk below a path; what has several names there counts once."""
    sizes = {(status.st_dev, status.st_ino): status.st_blocks for status in _statuses(path)}
    return sum(sizes.values()) * _BLOCK


def freed_by(paths: Iterable[Path]) -> int:
    """Bytes that removing all of these gives back: a file with a name elsewhere stays on the disk."""
    names: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for path in paths:
        for status in _statuses(path):
            key = (status.st_dev, status.st_ino)
            names[key] += 1
            links = 1 if stat.S_ISDIR(status.st_mode) else status.st_nlink
            sizes[key] = (links, status.st_blocks)
    return sum(blocks for key, (links, blocks) in sizes.items() if names[key] >= links) * _BLOCK


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """Of a path and everything below it, links not followed; what vanishes meanwhile is left out."""
    waiting = [path]
    while waiting:
        place = waiting.pop()
        try:
            yield place.lstat()
            if place.is_dir() and not place.is_symlink():
                waiting += [Path(entry.path) for entry in os.scandir(place)]
        except OSError:
            continue
