"""What the last deploy wrote on a host: the measure of what was changed there by hand. Pure.

A deploy can be cut off at any point, and what it leaves must not look like the work of a hand. So `apply`
writes the manifest twice, around everything else:

1. At the beginning, with `files` as they shall be and `before`, the state of every file that was there and
   was known. From then on each file may be as it was, as it shall be, or, where it was not there, missing.
2. At the end, without `before`: every file must be as it shall be.

Cut before 1, the old manifest describes the old files. Between 1 and 2, each file was renamed or not, and either
is accepted; a file that is to be removed stands in `before` and is ours whether it is gone or not. After 2, all is
new. None of this depends on hosts.yaml, which may have been changed since. A file changed by hand is never taken
into `before`: until it is really replaced it is still told of.

It holds digests, one of them of a password, which could be guessed from it: nobody else may read it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.hosts.render import RenderedFile

PATH = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True)
class FileState:
    """A file on the host: hexadecimal SHA-256 of its content, and its permissions."""

    sha256: str
    mode: int


@dataclass(frozen=True)
class Manifest:
    """What a deploy wrote.

    Parameters
    ----------
    deploy
        Id of the deploy.
    release
        Id of the release that it switched to.
    at
        When, in ISO 8601.
    by
        Who, as in ``user@machine``.
    files
        Every file of the manager, by path relative to the host's own directory.
    before
        While files are being written: those that were there before. None once all are written.
    schema
        Version of this format.
    """

    deploy: str
    release: str
    at: str
    by: str
    files: Mapping[str, FileState]
    before: Mapping[str, FileState] | None = None
    schema: int = SCHEMA

    def knows(self, path: str) -> bool:
        """Whether a deploy put a file there."""
        return path in self.files or path in (self.before or {})

    def accepts(self, path: str, state: FileState | None) -> bool:
        """Whether a deploy left a file like this, or left none where there is none.

        Parameters
        ----------
        path
            Relative to the host's own directory.
        state
            What is there; None for nothing.
        """
        if self.before is None:
            return state == self.files.get(path)
        return state in {self.files.get(path), self.before.get(path)}


def manifest_of(files: Iterable[RenderedFile], *, deploy: str, release: str, at: str, by: str) -> Manifest:
    """The manifest of a host on which all is written.

    Parameters
    ----------
    files
        Every file that the host shall have, whether it has to be written or not.
    deploy, release, at, by
        As in `Manifest`.
    """
    states = {file.path: FileState(file.sha256, file.mode) for file in files}
    return Manifest(deploy, release, at, by, states)


def unfinished(manifest: Manifest, last: Manifest | None, there: Mapping[str, FileState]) -> Manifest:
    """The same manifest for the time during which its files are written.

    Parameters
    ----------
    manifest
        From `manifest_of`.
    last
        What the host has; None where it has none, and all that is there is taken as an earlier deploy's.
    there
        The files that are on the host.
    """
    known = {path: state for path, state in there.items() if last is None or _left_by_us(last, path, state)}
    return dataclasses.replace(manifest, before=known)


def _left_by_us(last: Manifest, path: str, state: FileState) -> bool:
    return last.knows(path) and last.accepts(path, state)


def render(manifest: Manifest) -> RenderedFile:
    """The manifest as a file of the host."""
    content: dict[str, Any] = {
        "schema": manifest.schema,
        "deploy": manifest.deploy,
        "release": manifest.release,
        "at": manifest.at,
        "by": manifest.by,
        "files": _plain(manifest.files),
    }
    if manifest.before is not None:
        content["before"] = _plain(manifest.before)
    return RenderedFile(PATH, 0o600, (json.dumps(content, indent=1) + "\n").encode())


def parse(text: str | None) -> Manifest | None:
    """Read a manifest.

    Parameters
    ----------
    text
        Content of the file; None where there is none.

    Returns
    -------
    Manifest | None
        None where there is none, where it is damaged, or where another version wrote it in a way unknown here:
        such a host is treated like one that was deployed before there were manifests.
    """
    try:
        content = json.loads(text or "")
        if content["schema"] != SCHEMA:
            return None
        before = content.get("before")
        return Manifest(
            deploy=str(content["deploy"]),
            release=str(content["release"]),
            at=str(content["at"]),
            by=str(content["by"]),
            files=_states(content["files"]),
            before=None if before is None else _states(before),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _plain(files: Mapping[str, FileState]) -> dict[str, dict[str, str]]:
    return {path: {"sha256": state.sha256, "mode": f"{state.mode:04o}"} for path, state in sorted(files.items())}


def _states(entries: Mapping[str, Mapping[str, str]]) -> dict[str, FileState]:
    return {path: FileState(str(entry["sha256"]), int(entry["mode"], 8)) for path, entry in entries.items()}
