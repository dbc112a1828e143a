"""The worker's log: one line per message, with time (UTC), level, worker and calculation."""

from __future__ import annotations

import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from puffin.errors import ConfigurationError

_BYTES = 20 * 1024 * 1024
_FILES = 5


class Log:
    """Writes lines such as ``2026-11-22T11:40:00.123Z INFO    node1-1 6b02d5829fc92b7451414cc0 claimed``.

    Parameters
    ----------
    logger
        Where they go.
    worker
        The worker's name.
    """

    def __init__(self, logger: logging.Logger, worker: str) -> None:
        self._logger = logger
        self._worker = worker

    def info(self, message: str, calculation: str = "") -> None:
        """Log what is as it should be."""
        self._write(logging.INFO, message, calculation)

    def warning(self, message: str, calculation: str = "") -> None:
        """Log what somebody may want to look at."""
        self._write(logging.WARNING, message, calculation)

    def error(self, message: str, calculation: str = "") -> None:
        """Log what somebody has to look at."""
        self._write(logging.ERROR, message, calculation)

    def _write(self, level: int, message: str, calculation: str) -> None:
        # A line is one message, which can be read back exactly: what reads logs counts on that.
        text = message.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        self._logger.log(level, "%s", text, extra={"worker": self._worker, "calculation": calculation or "-"})


class Ping:
    """Says from time to time that the worker lives.

    Parameters
    ----------
    log
        Where.
    now
        The present, in seconds of a clock that does not jump.
    interval_s
        Seconds between two pings.
    """

    def __init__(self, log: Log, now: float, interval_s: float = 900.0) -> None:
        self._log = log
        self._interval_s = interval_s
        self._next = now + interval_s

    def maybe(self, now: float, doing: str, calculation: str = "") -> None:
        """Ping if it is time to.

        Parameters
        ----------
        now
            The present.
        doing
            What the worker does.
        calculation
            With which calculation.
        """
        if now >= self._next:
            self._next = now + self._interval_s
            self._log.info(f"alive, {doing}", calculation)


def open_log(path: str, worker: str, also_stderr: bool) -> Log:
    """Open a worker's log.

    Parameters
    ----------
    path
        The file; it is rotated at 20 MB, and five old ones are kept. Empty: standard error.
    worker
        The worker's name.
    also_stderr
        Whether to write to standard error as well.

    Raises
    ------
    ConfigurationError
        The file cannot be opened.
    """
    logger = logging.Logger("puffin")
    handlers: list[logging.Handler] = [_file_handler(path)] if path else []
    if also_stderr or not path:
        handlers.append(logging.StreamHandler(sys.stderr))
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(worker)s %(calculation)s %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    return Log(logger, worker)


def _file_handler(path: str) -> logging.Handler:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return RotatingFileHandler(
            path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        raise ConfigurationError(f"daemon.log: cannot open {path}: {error.strerror}") from error
