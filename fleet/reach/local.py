"""The machine we are on as a host: the same programs, run by a Python of this machine, without a shell."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from fleet.reach.remote import DEFAULT_PYTHON, PYTHON_ARGUMENTS, CommandResult, ConnectionLost, frame, no_python
from fleet.reach.sending import Sender


class LocalRemote:
    """A `fleet.reach.remote.Remote` without a network.

    Parameters
    ----------
    name
        Name of the host in hosts.yaml.
    python
        The Python to run programs with: a name for PATH, or a path.
    """

    def __init__(self, name: str, python: str = DEFAULT_PYTHON) -> None:
        self.name = name
        self.python = python
        self.round_trips = 0
        self._streams: set[subprocess.Popen[bytes]] = set()

    def connect(self) -> None:
        """See `fleet.reach.remote.Remote`; there is nothing to connect to."""

    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        """See `fleet.reach.remote.Remote`; a program that takes too long is killed."""
        process = self._start(subprocess.PIPE)
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        sender = Sender(process.stdin.write, process.stdin.close, frame(program), data)
        process.stdin = None  # so that communicate leaves it to the sender
        try:
            sender.start()
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise ConnectionLost(self.name, "run", f"no answer within {timeout:g} s") from error
        finally:
            _end(process)
            sender.join()
        sender.check()
        return CommandResult(process.returncode, stdout, stderr)

    def stream(self, program: str) -> Iterator[bytes]:
        """See `fleet.reach.remote.Remote`."""
        process = self._start(subprocess.DEVNULL)
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        assert process.stdout is not None  # noqa: S101 - likewise
        self._streams.add(process)
        try:
            process.stdin.write(frame(program))
            process.stdin.flush()
            while chunk := os.read(process.stdout.fileno(), 1 << 16):
                yield chunk
        finally:
            self._streams.discard(process)
            _end(process)

    def close(self) -> None:
        """End what is still listened to; whoever listens is told that there is no more."""
        for process in list(self._streams):
            process.kill()

    def _start(self, stderr: int) -> subprocess.Popen[bytes]:
        executable = shutil.which(Path(self.python).expanduser())
        if executable is None:
            raise no_python(self.name, "run", self.python)
        self.round_trips += 1
        # A session of its own: Ctrl-C at the terminal is for the manager, which decides what becomes of this.
        return subprocess.Popen(
            [executable, *PYTHON_ARGUMENTS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=Path.home(),
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
