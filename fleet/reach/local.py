"""The machine we are on as a host: the same programs, run by a Python of this machine, without a shell."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from fleet.reach.answers import no_python
from fleet.reach.packing import PYTHON_ARGUMENTS, frame
from fleet.reach.remote import DEFAULT_PYTHON, CommandResult, ConnectionLost
from fleet.reach.sending import SENDER_S, Receiver, Sender

_BLOCK = 1 << 16
_LONGEST_END_S = 5.0


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
        self._streams: dict[subprocess.Popen[bytes], bool] = {}
        """Whether they have been sent all of their program."""
        self._closed = False

    def connect(self) -> None:
        """See `fleet.reach.remote.Remote`; there is nothing to connect to."""

    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        """See `fleet.reach.remote.Remote`; a program that takes too long is killed."""
        patience = _Patience(timeout)
        process = self._start(subprocess.PIPE)
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        sender = Sender(process.stdin.write, process.stdin.close, frame(program), data, patience.renew)
        receivers = [self._receiver(process, pipe) for pipe in (process.stdout, process.stderr) if pipe is not None]
        process.stdin = process.stdout = process.stderr = None  # they are closed by who uses them
        threads = [sender, *receivers]
        try:
            for thread in threads:
                thread.start()
            late = not (all(map(patience.outlasts, receivers)) and _ended(process, patience.left))
        finally:
            _end(process)
            sender.join(SENDER_S)
        if late:
            raise ConnectionLost(self.name, "run", f"no answer within {timeout:g} s")
        sender.check()
        stdout, stderr = (receiver.result() for receiver in receivers)
        return CommandResult(process.returncode, stdout, stderr)

    def _receiver(self, process: subprocess.Popen[bytes], pipe: IO[bytes]) -> Receiver:
        return Receiver(self.name, lambda: os.read(pipe.fileno(), _BLOCK), lambda: _kill(process), pipe.close)

    def stream(self, program: str) -> Iterator[bytes]:
        """See `fleet.reach.remote.Remote`."""
        process = self._start(subprocess.DEVNULL)
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        assert process.stdout is not None  # noqa: S101 - likewise
        self._streams[process] = False
        try:
            if self._closed:
                return  # meanwhile, by another thread, which did not know of this one
            with contextlib.suppress(BrokenPipeError):  # it is closed just now, or the program says why it ended
                process.stdin.write(frame(program))
                process.stdin.flush()
            self._streams[process] = True
            while chunk := os.read(process.stdout.fileno(), 1 << 16):
                yield chunk
        finally:
            process.stdout.close()  # who has more to say than is heard notices, too
            _dismiss(process)
            self._streams.pop(process, None)
            _end(process)

    def close(self) -> None:
        """End what is still listened to; whoever listens is told that there is no more."""
        self._closed = True
        for process, complete in list(self._streams.items()):
            if complete:
                _dismiss(process)
            _kill(process)

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


class _Patience:
    """How long to wait for a program; it begins anew with each sign of life."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        self._deadline = time.monotonic() + self._seconds

    @property
    def left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def outlasts(self, thread: Receiver) -> bool:
        while thread.is_alive() and self.left:
            thread.join(self.left)
        return not thread.is_alive()


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _dismiss(process: subprocess.Popen[bytes]) -> None:
    """Say that nobody listens any more, as a connection that ends does, and let it end what it runs for us."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    _ended(process, _LONGEST_END_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: uv and others would go on with what nobody waits for any more."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads its session


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
