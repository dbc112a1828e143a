"""What is collected from hosts: which files, under which names here, and the manifest that says so. Pure.

Names come from the hosts and are not trusted: no name leads out of the host's directory here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.reach.reply import Reader

MANIFEST = "manifest.json"
SCHEMA = 1
_LONGEST_NAME = 180
_DEEPEST = 12
OWN = ("facts.json", "supervisord.json")
"""Files that are written here and not on the host."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a host.

    Parameters
    ----------
    path
        Its name in the collection as the host has it.
    at
        Its absolute path there.
    size
        Bytes.
    mtime
        When it was last written to, in seconds since 1970 by the host's clock.
    file
        Device and inode: what stays when it is renamed.
    local
        Its path here, below the host's directory.
    """

    path: str
    at: str
    size: int
    mtime: float
    file: tuple[int, int]
    local: str


@dataclass(frozen=True)
class Listing:
    """What a host has; `texts` are configuration files with whatever secrets they hold."""

    files: tuple[RemoteFile, ...]
    problems: tuple[str, ...]
    texts: Mapping[str, str] = field(repr=False)
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        """Leave the texts out."""
        return f"Listing({len(self.files)} files)"


@dataclass(frozen=True)
class LocalFile:
    """A file that was collected.

    Parameters
    ----------
    origin
        Its absolute path on the host.
    size, sha256
        Of what is here.
    mtime, file
        As in `RemoteFile`.
    """

    origin: str
    size: int
    sha256: str
    mtime: float
    file: tuple[int, int]

    def is_still(self, remote: RemoteFile, size: int) -> bool:
        """Whether the host's file is the same and unchanged, and `size` bytes of it are here."""
        return (self.file, self.size, self.mtime) == (remote.file, remote.size, remote.mtime) and size == self.size


def parse_listing(host: str, reply: Mapping[str, Any]) -> Listing:
    """Read the reply of the action `collect`.

    Raises
    ------
    RemoteError
        It is not what is replied.
    """
    reader = Reader(host, "", reply)
    taken = {name.casefold() for name in OWN}
    texts = {safe_path(str(path)): str(text) for path, text in dict(reply.get("texts", {})).items()}
    taken |= {path.casefold() for path in texts}
    files = []
    for item in reader.items("files"):
        device, inode = (*item.wholes("file"), 0, 0)[:2]
        path = item.text("path")
        local = safe_path(path, taken)
        taken.add(local.casefold())
        size = max(0, item.whole("size"))
        files.append(RemoteFile(path, item.text("at"), size, item.number("mtime"), (device, inode), local))
    problems = [f"{printable(item.text('path'))}: {printable(item.text('what'))}" for item in reader.items("problems")]
    return Listing(tuple(files), tuple(problems), texts, dict(reply.get("facts", {})))


def safe_path(path: str, taken: Iterable[str] = ()) -> str:
    """Make a path that stays below the directory it is joined to, and that no other file has.

    Parameters
    ----------
    path
        A path from a host, which may be anything.
    taken
        Paths that are in use, in lower case.
    """
    parts = [_safe_name(part) for part in path.split("/") if part not in ("", ".")] or ["unnamed"]
    if len(parts) > _DEEPEST:
        parts = [*parts[: _DEEPEST - 1], _digest(path)]
    found = "/".join(parts)
    # Some file systems do not tell upper case from lower; on a host that does, both may be there.
    number = 0
    while found.casefold() in taken:
        number += 1
        found = f"{'/'.join(parts)}~{_digest(f'{number} {path}')}"
    return found


def _safe_name(name: str) -> str:
    safe = "".join(sign if _is_plain(sign) else _encoded(sign) for sign in name)
    if set(safe) <= {"."}:
        safe = safe.replace(".", "%2E")
    if len(safe.encode()) > _LONGEST_NAME:
        cut = safe.encode()[: _LONGEST_NAME - 20].decode("utf-8", "ignore")
        safe = f"{cut}~{_digest(name)}"
    return safe


def _is_plain(sign: str) -> bool:
    return sign.isprintable() and sign not in '\\:*?"<>|%'


def _encoded(sign: str) -> str:
    return "".join(
        f"%{byte:02X}"
        for byte in sign.encode("utf-8", "surrogateescape" if "\udc80" <= sign <= "\udcff" else "surrogatepass")
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def printable(text: str) -> str:
    """The same for people and terminals."""
    return "".join(sign if sign.isprintable() else _encoded(sign) for sign in text)


def parse_manifest(content: object) -> dict[str, dict[str, LocalFile]]:
    """Read which files an earlier collection has, by host and path; what is not understood is collected again."""
    found: dict[str, dict[str, LocalFile]] = {}
    hosts = content.get("hosts") if isinstance(content, Mapping) else None
    for host, entry in (hosts if isinstance(hosts, Mapping) else {}).items():
        files = entry.get("files") if isinstance(entry, Mapping) else None
        for local, item in (files if isinstance(files, Mapping) else {}).items():
            try:
                file = (int(item["file"][0]), int(item["file"][1]))
                known = LocalFile(str(item["from"]), int(item["size"]), str(item["sha256"]), float(item["mtime"]), file)
            except (KeyError, TypeError, ValueError, IndexError):
                continue
            if safe_path(local) == local:
                found.setdefault(str(host), {})[local] = known
    return found


def file_record(file: LocalFile) -> dict[str, Any]:
    """One file as it stands in the manifest."""
    return {
        "from": printable(file.origin),
        "size": file.size,
        "sha256": file.sha256,
        "mtime": file.mtime,
        "file": list(file.file),
    }
