"""Which files a submission is about."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fleet.queue.frames import FORMATS


@dataclass(frozen=True)
class Found:
    """Files to be read.

    Parameters
    ----------
    files
        Each once, in the order in which they were named; those of a directory sorted.
    repeated
        Files that were named more than once.
    problems
        Words that stand for no file.
    """

    files: tuple[Path, ...]
    repeated: tuple[Path, ...]
    problems: tuple[str, ...]


def find_files(words: Iterable[str]) -> Found:
    """Find the files that words on a command line stand for.

    Parameters
    ----------
    words
        Files, directories, which stand for all molecules below them, and patterns such as ``set/**/*.xyz``.
    """
    files: dict[Path, Path] = {}
    repeated: list[Path] = []
    problems: list[str] = []
    for word in words:
        meant = _meant_by(word)
        if not meant:
            problems.append(_nothing(word))
        for path in meant:
            place = path.resolve()
            if place in files:
                repeated.append(path)
            else:
                files[place] = path
    return Found(tuple(files.values()), tuple(repeated), tuple(problems))


def _meant_by(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower().lstrip(".") in FORMATS and file.is_file())
    if path.exists():
        return [path]
    # Whole paths are patterns here, absolute ones too.
    return sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207


def _nothing(word: str) -> str:
    if Path(word).expanduser().is_dir():
        return f"{word}: no {', '.join(f'.{name}' for name in FORMATS)} in this directory"
    return f"{word}: no such file"
