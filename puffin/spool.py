"""Keeps results on disk that could not be written to the database, until they are."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from puffin.calculations import Claim, Status, Usage, Verdict

_SUFFIX = ".result.json"


@dataclass(frozen=True)
class Spooled:
    """A result that waits for the database."""

    path: Path
    claim: Claim
    verdict: Verdict
    writes_own_end: bool


class Spool:
    """The results in one directory.

    Parameters
    ----------
    directory
        The worker's job directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, claim: Claim, verdict: Verdict, writes_own_end: bool) -> None:
        """Keep a result; it is on the disk when this returns.

        Parameters
        ----------
        claim
            The attempt.
        verdict
            How it ended.
        writes_own_end
            Whether the job wrote status and comment itself.

        Raises
        ------
        OSError
            The disk does not take it.
        """
        content = {
            "claim": {**dataclasses.asdict(claim), "settings": {}},
            "verdict": dataclasses.asdict(verdict),
            "writes_own_end": writes_own_end,
        }
        temporary = self._path(claim).with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._path(claim))
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)  # the name, too
        finally:
            os.close(directory)

    def remove(self, claim: Claim) -> None:
        """Forget a result that has been written, or is nobody's any more.

        Parameters
        ----------
        claim
            The attempt.
        """
        self._path(claim).unlink(missing_ok=True)

    def set_aside(self, claim: Claim) -> Path:
        """Keep a result that the database refuses out of the way.

        Parameters
        ----------
        claim
            The attempt.

        Returns
        -------
        Path
            Where it is now.
        """
        aside = self._path(claim).with_suffix(".refused")
        self._path(claim).replace(aside)
        return aside

    def waiting(self, executor: str) -> Iterator[Spooled]:
        """What earlier incarnations of a worker left.

        Parameters
        ----------
        executor
            The worker's uuid: a directory may be shared, results are not.

        Yields
        ------
        Spooled
            One result each.
        """
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            spooled = _read(path)
            if spooled is not None and spooled.claim.executor == executor:
                yield spooled

    def unreadable(self) -> list[Path]:
        """Files that are called as results are and cannot be read as such; somebody may know what to do with them."""
        return [path for path in sorted(self._directory.glob(f"*{_SUFFIX}")) if _read(path) is None]

    def _path(self, claim: Claim) -> Path:
        return self._directory / f"{claim.database}.{claim.label}{_SUFFIX}"


def _read(path: Path) -> Spooled | None:
    """Read a result; None for what is none, or was written by a version that kept other things."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        claim, verdict = content["claim"], content["verdict"]
        return Spooled(
            path,
            Claim(**{**claim, "lost_on": tuple(claim["lost_on"])}),
            Verdict(Status(verdict["status"]), verdict["comment"], verdict["raw_output"], Usage(**verdict["usage"])),
            bool(content["writes_own_end"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
