"""hosts.yaml and the files it includes, laid over one another with every line's place kept.

Pure: whoever calls says how a file is read.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import Problem
from fleet.hosts.variables import ONLY_THERE
from fleet.hosts.yamlmap import Document, Path, read

ReadFile = Callable[[str], str]
"""Gives the text of a file; raises OSError or UnicodeDecodeError where it cannot."""

_DEEPEST = 20
_MOST_FILES = 500


def no_files(path: str) -> str:
    """Stand in where only one text is looked at: there is no other file."""
    raise FileNotFoundError(path)


def gather(text: str, source: str, read_file: ReadFile) -> Document:
    """Read a file and all that it includes, as one document.

    What a file says wins over what it includes, and a later included file over an earlier one. Mappings merge
    key by key; `workers` and all other lists are replaced. A host may stand in one file only.

    Parameters
    ----------
    text
        Content of the file.
    source
        Its name, from which the names of included files start.
    read_file
        Reads one of these.

    Returns
    -------
    Document
        With the problems of all files; its value is no mapping where the file itself is none.
    """
    document = read(text, source)
    if not isinstance(document.value, dict):
        return document
    gathering = _Gathering(read_file, [source])
    whole = gathering.completed(document, (posixpath.normpath(source),))
    files = tuple(dict.fromkeys(gathering.files))
    return dataclasses.replace(whole, source=source, files=files, complete=gathering.complete)


class _CannotBeIncluded(Exception):
    """The message says why, to be shown where the file is named."""


@dataclass
class _Gathering:
    read_file: ReadFile
    files: list[str] = field(default_factory=list)
    complete: bool = True

    def completed(self, document: Document, chain: tuple[str, ...]) -> Document:
        """A document laid over what it includes; `chain` is how it was reached, itself at the end."""
        names, problems = _names(document)
        below = Document(document.source, {}, {}, ())
        for index, name in names:
            place = ("include", index)
            try:
                below = overlay(below, self._included(beside(document.source, name), chain))
            except _CannotBeIncluded as error:
                problems.append(document.problem(place, str(error)))
                self.complete = False
        own = {key: value for key, value in document.value.items() if key != "include"}
        own_problems = (*document.problems, *problems)
        return overlay(below, dataclasses.replace(document, value=own, problems=own_problems))

    def _included(self, path: str, chain: tuple[str, ...]) -> Document:
        """The document at a path, with all that it includes."""
        if path in chain:
            raise _CannotBeIncluded(f"includes itself: {' > '.join([*chain[chain.index(path) :], path])}")
        if len(chain) > _DEEPEST or len(self.files) >= _MOST_FILES:
            raise _CannotBeIncluded(f"more than {_DEEPEST} files within one another, or {_MOST_FILES} in all")
        text = self._text(path)
        self.files.append(path)
        document = read(text, path)
        if isinstance(document.value, dict):
            return self.completed(document, (*chain, path))
        problems = list(document.problems)
        self.complete = self.complete and document.value is None and not problems
        if document.value is not None:
            problems.append(document.problem((), "must be a mapping with keys such as defaults, groups and hosts"))
        return Document(path, {}, {}, tuple(problems))

    def _text(self, path: str) -> str:
        try:
            return self.read_file(path)
        except FileNotFoundError as error:
            hint = "names start from the directory of the file they stand in"
            raise _CannotBeIncluded(f"there is no file {path}; {hint}") from error
        except OSError as error:
            raise _CannotBeIncluded(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise _CannotBeIncluded(f"cannot read {path}: it is not text") from error


def beside(source: str, name: str) -> str:
    """Path of a file that is named in another one."""
    if name.startswith(("/", "~")):
        return posixpath.normpath(name)
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), name))


def _names(document: Document) -> tuple[list[tuple[int, str]], list[Problem]]:
    """Names of included files with their positions, and what is wrong with them."""
    given = document.value.get("include")
    if given is None:
        return [], []
    if not isinstance(given, list):
        return [], [document.problem(("include",), "must be a list of files")]
    good, problems = [], []
    for index, name in enumerate(given):
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            problems.append(document.problem(("include", index), "must be the name of a file"))
        elif "${" in name:
            problems.append(document.problem(("include", index), ONLY_THERE))
        else:
            good.append((index, name))
    return good, problems


def overlay(below: Document, above: Document) -> Document:
    """Lay one document over another; what is wrong with either, or between the two, becomes its problems.

    Parameters
    ----------
    below, above
        Documents whose values are mappings.
    """
    taken: set[Path] = set()
    value = _merged(below.value, above.value, (), taken)
    kept = {
        path: line
        for path, line in below.lines.items()
        if not any(path[:length] in taken for length in range(1, len(path) + 1))
    }
    sources = {path: below.source_of(path) for path in kept} | {path: above.source_of(path) for path in above.lines}
    problems = (*below.problems, *above.problems, *_doubles(below, above))
    return Document(above.source, value, {**kept, **above.lines}, problems, sources)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], path: Path, taken: set[Path]) -> dict[str, Any]:
    """As `fleet.hosts.inventory.deep_merge`, and note at which paths what is above replaces what is below."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        here = (*path, key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and key != "workers":
            merged[key] = _merged(old, value, here, taken)
        elif value is not None or old is None:
            merged[key] = value
            taken.add(here)
    return merged


def _doubles(below: Document, above: Document) -> list[Problem]:
    """Hosts in both; the same file may be reached in two ways."""
    hosts = [document.value.get("hosts") for document in (below, above)]
    first, second = (each if isinstance(each, Mapping) else {} for each in hosts)
    problems = []
    for key in second:
        path = ("hosts", key)
        if key in first and below.place(path) != above.place(path):
            file, line = below.place(path)
            problems.append(above.problem(path, f"host '{key}' is already given in {file}:{line}: keep one"))
    return problems
