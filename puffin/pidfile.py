"""The file with a worker's process id; a lock on it proves that the worker lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from puffin.errors import DaemonError


class PidFile:
    """Held by one worker for as long as it lives.

    The lock, not the file, is the proof: it ends with the process however that dies, so that a file left over never
    passes for a live worker, and its number, perhaps a stranger's by now, is never signalled.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock and write the process id.

        Raises
        ------
        DaemonError
            Another worker holds it, or the file cannot be written.
        """
        descriptor = self._open_and_lock()
        while not self._is_at_path(descriptor):
            # Its last owner removed it after we had opened it: the next to come would lock another file.
            os.close(descriptor)
            descriptor = self._open_and_lock()
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def _open_and_lock(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DaemonError(f"daemon.pid: cannot write {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise DaemonError(
                f"a worker with this uuid runs already (process {self.owner()}, {self._path}): "
                "stop it first, or give this one another daemon.uuid"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise DaemonError(
                f"daemon.pid: cannot lock {self._path}: {error.strerror}; name a file on a file system with locks"
            ) from error
        return descriptor

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Remove the file and let the lock go."""
        if self._descriptor >= 0:
            if self._is_at_path(self._descriptor):
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def owner(self) -> int | None:
        """Process id of the worker that holds the lock; None if nobody does.

        Raises
        ------
        DaemonError
            The file is there, but does not tell.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DaemonError(f"daemon.pid: cannot read {self._path}: {error.strerror}") from error
        try:
            # Shared, since NFS locks exclusively only what is open for writing.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            content = os.read(descriptor, 32).strip()
            return int(content) if content.isdigit() else None
        except OSError as error:
            raise DaemonError(f"daemon.pid: cannot lock {self._path}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        return None
