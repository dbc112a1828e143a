"""Starts and stops the worker's process."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from puffin.config import Configuration
from puffin.errors import ConfigurationError, DaemonError, ExitCode, PuffinError
from puffin.jobloop import check_setup, loop
from puffin.pidfile import PidFile

_STARTED = b"started\n"


def start_daemon(config: Configuration, detach: bool = True) -> ExitCode:
    """Start a worker.

    Parameters
    ----------
    config
        The configuration.
    detach
        Whether to let it run in the background; the call then returns when it has started. Otherwise the call
        returns when the worker ends.

    Returns
    -------
    ExitCode
        How the worker ended; DONE if it was detached and has started.

    Raises
    ------
    PuffinError
        It cannot start.
    """
    check_environment(config)
    if detach and config["daemon"]["mode"] != "debug":
        return _start_detached(config)
    return _run(config)


class _Waiting:
    """The process that waits for the worker's start; it is told once, and what comes after stands in the log.

    Parameters
    ----------
    writer
        The end of a pipe from which it reads.
    """

    def __init__(self, writer: int) -> None:
        self._writer: int | None = writer

    def tell(self, message: bytes) -> None:
        """Say how the start went, unless that has been said: the number is another file's by then."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(writer, message)
            os.close(writer)


def _run(config: Configuration, waiting: _Waiting | None = None) -> ExitCode:
    pid_file = PidFile(config["daemon"]["pid"])
    pid_file.acquire()
    try:
        _forget_old_stop_file(config)
        available = check_setup(config)
        return loop(config, available, lambda: waiting.tell(_STARTED) if waiting else None)
    finally:
        pid_file.release()


def _forget_old_stop_file(config: Configuration) -> None:
    """A stop file from the past was meant for the past, if it is this worker's own."""
    daemon = config["daemon"]
    if daemon["remove_stop_file"] and daemon["stop"]:
        with contextlib.suppress(OSError):
            Path(daemon["stop"]).unlink()


def _start_detached(config: Configuration) -> ExitCode:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.setsid()
        if os.fork() == 0:
            _be_detached(config, _Waiting(writer))
        os._exit(0)
    os.close(writer)
    os.wait()
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    if not said.endswith(_STARTED):
        raise DaemonError(f"the worker did not start: {said.decode('utf-8', 'replace').strip() or 'it died at once'}")
    return ExitCode.DONE


def _be_detached(config: Configuration, waiting: _Waiting) -> NoReturn:
    code = ExitCode.FAILED
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        code = _run(config, waiting)
    except PuffinError as error:
        code = error.exit_code
        waiting.tell(str(error).encode())
    # This is where the process ends: whatever it was, the one who started it is told.
    except Exception as error:  # noqa: BLE001
        waiting.tell(f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def stop_daemon(config: Configuration) -> None:
    """Let the worker finish its job and stop, by writing its stop file.

    Parameters
    ----------
    config
        The configuration of that worker.

    Raises
    ------
    ConfigurationError
        The file cannot be written.
    """
    path = config["daemon"]["stop"]
    if not path:
        raise ConfigurationError("daemon.stop: names no file; without one, stop the worker with a SIGTERM")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    except OSError as error:
        raise ConfigurationError(f"daemon.stop: cannot write {path}: {error.strerror}") from error


def check_environment(config: Configuration) -> list[str]:
    """Look for what may disturb jobs later, and warn about it on standard error.

    Parameters
    ----------
    config
        The configuration.

    Returns
    -------
    list[str]
        The warnings.
    """
    cores = config["resources"]["cores"]
    warnings = []
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads and threads != str(cores):
        warnings.append(f"OMP_NUM_THREADS is {threads}, resources.cores is {cores}: jobs will use {cores} threads")
    usable = len(config["resources"]["cpus"] or os.sched_getaffinity(0))
    if cores > usable:
        warnings.append(f"resources.cores is {cores}, but this process may use only {usable} processors")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201 - printing is this function's task
    return warnings


def shutdown(_signum: int, _frame: FrameType | None) -> NoReturn:
    """End this process; has the form of a signal handler.

    Parameters
    ----------
    _signum, _frame
        Not used.
    """
    sys.exit(ExitCode.DONE)
