"""A database server of our own, as a child process: for the demo and for tests, not for production.

The server is SecantusDB (the `embedded` extra). Its license differs from ours, so it is run, never imported.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from fleet.errors import FleetError

_PROGRAM = "secantusd-py"
_LOOPBACK = "127.0.0.1"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_RETRY_S = 0.05
_ATTEMPTS = 3


class EmbeddedDatabaseError(FleetError):
    """The embedded database server is not installed, or does not start."""


@dataclass(frozen=True)
class RunningServer:
    """A server process, told apart from a later process with the same id by its start time."""

    pid: int
    started: float
    port: int

    @property
    def uri(self) -> str:
        """Connection string."""
        return f"mongodb://{_LOOPBACK}:{self.port}"

    def process(self) -> psutil.Process | None:
        """Return the process, or None if it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


class EmbeddedDatabase:
    """A database server in a directory; a context manager that stops it at the end.

    Parameters
    ----------
    directory
        Holds the data, the log and a note of the running process; made when missing. A server started again
        in the same directory has the same data.
    port
        TCP port on the loopback interface; 0 chooses a free one, which a restart keeps.
    """

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.port = port
        self.server: RunningServer | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.directory / "server.log"

    @property
    def uri(self) -> str:
        """Connection string.

        Raises
        ------
        EmbeddedDatabaseError
            The server was never started.
        """
        if self.port == 0:
            raise EmbeddedDatabaseError(f"The database server in {self.directory} was not started yet.")
        return f"mongodb://{_LOOPBACK}:{self.port}"

    def __enter__(self) -> EmbeddedDatabase:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> RunningServer:
        """Start the server and wait until it answers.

        Raises
        ------
        EmbeddedDatabaseError
            The `embedded` extra is not installed, the port is in use, a server already runs in this
            directory, or the server ended at once; the message ends with what it printed.
        """
        running = recorded(self.directory)
        if running is not None:
            raise EmbeddedDatabaseError(
                f"A database server (process {running.pid}) already runs in {self.directory}: stop it first."
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        chosen_here = self.port == 0
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = free_port() if chosen_here else self.port
            try:
                return self._launch(program())
            except _PortTaken as error:
                if not chosen_here or attempt == _ATTEMPTS:
                    raise EmbeddedDatabaseError(
                        f"Port {self.port} of {_LOOPBACK} is in use: choose another."
                    ) from error
        raise AssertionError("unreachable: the loop returns or raises")

    def _launch(self, executable: Path) -> RunningServer:
        if _answers(self.port):
            raise _PortTaken
        self._child = self._spawn(executable)
        try:
            self._wait_until_ready(self._child)
            self.server = RunningServer(self._child.pid, psutil.Process(self._child.pid).create_time(), self.port)
        except BaseException:  # Ctrl-C included: nothing may be left running
            self._child.kill()
            self._child.wait()
            raise
        _note(self.directory).write_text(json.dumps(vars(self.server)), encoding="utf-8")
        return self.server

    def _spawn(self, executable: Path) -> subprocess.Popen[bytes]:
        settings = self.directory / "secantusd.toml"
        settings.touch()  # an empty file of our own keeps the server from looking for the user's
        command = [str(executable), "--config", str(settings), "--host", _LOOPBACK, "--port", str(self.port)]
        command += ["--storage-path", str(self.directory / "data"), "--sync-on-commit"]
        command += ["--log-level", "WARNING"]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle: workers stop before their database
            )

    def _wait_until_ready(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(self.port):
            if child.poll() is not None:
                raise self._failure(f"ended at once with status {child.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {_START_TIMEOUT_S:.0f} s")
            time.sleep(_RETRY_S)
        if child.poll() is not None:
            raise self._failure(f"ended at once with status {child.returncode}")

    def _failure(self, what: str) -> Exception:
        printed = self.log.read_text(encoding="utf-8", errors="replace")
        if "already in use" in printed:
            return _PortTaken()
        tail = "\n".join(f"    {line}" for line in printed.splitlines()[-20:])
        return EmbeddedDatabaseError(f"The database server in {self.directory} {what}.\n{tail}".rstrip())

    def stop(self) -> None:
        """Stop the server, by force if it does not end when asked; a server that is gone is fine."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._forget()

    def kill(self) -> None:
        """End the server without warning, as a crash would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._forget()

    def _forget(self) -> None:
        self._child = None
        self.server = None
        _note(self.directory).unlink(missing_ok=True)


class _PortTaken(Exception):
    """Somebody else listens on the port."""


def program() -> Path:
    """Return the path of the server's program.

    Raises
    ------
    EmbeddedDatabaseError
        The `embedded` extra is not installed.
    """
    beside = Path(sys.executable).parent / _PROGRAM
    if beside.is_file():
        return beside
    found = shutil.which(_PROGRAM)
    if found is None:
        raise EmbeddedDatabaseError(
            "No embedded database server is installed: run `pip install 'puffin-fleet[embedded]'`, "
            "or use a database server of your own."
        )
    return Path(found)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def recorded(directory: Path) -> RunningServer | None:
    """Return the server that runs in a directory, started by whichever process, or None."""
    try:
        server = RunningServer(**json.loads(_note(directory).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return server if server.process() else None


def _note(directory: Path) -> Path:
    return directory / "server.json"


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False
