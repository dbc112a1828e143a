"""The directories in which jobs run: one for each attempt, none left behind."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from puffin import archive
from puffin.calculations import Claim
from puffin.errors import DaemonError


class Workplace:
    """The job directory of a worker; several workers may share it.

    Parameters
    ----------
    directory
        The setting ``daemon.job_dir``.
    executor
        The worker's uuid.
    """

    def __init__(self, directory: str, executor: str) -> None:
        # Jobs change their working directory: a relative path would mean something else to them.
        self.directory = Path(directory).absolute()
        # Names the directory of the attempt that runs, for the next incarnation of a worker that was killed.
        self._note = self.directory / f".{quote(executor, safe='')}.attempt"

    def prepare(self) -> None:
        """Make the job directory, and remove what an earlier incarnation of the worker left there.

        Raises
        ------
        DaemonError
            It cannot be made.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            left = self._note.read_text(encoding="utf-8") if self._note.exists() else ""
        except OSError as error:
            raise DaemonError(f"daemon.job_dir: cannot use {error.filename}: {error.strerror}") from error
        if left and "/" not in left:
            archive.remove(self.directory / left)
        self._note.unlink(missing_ok=True)

    def make(self, claim: Claim) -> Path:
        """Make an empty directory.

        Parameters
        ----------
        claim
            The attempt.

        Raises
        ------
        OSError
            The disk does not take it.
        """
        path = self.directory / claim.label
        self._note.write_text(claim.label, encoding="utf-8")
        archive.remove(path)
        path.mkdir(parents=True)
        return path

    def remove(self, path: Path) -> None:
        """Remove an attempt's directory.

        Parameters
        ----------
        path
            The directory.
        """
        archive.remove(path)
        self._note.unlink(missing_ok=True)
