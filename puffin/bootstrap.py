"""Prepares a host for a worker."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from puffin.config import Configuration
from puffin.errors import ConfigurationError


def bootstrap(config: Configuration) -> None:
    """Make the worker's directories and write ``puffin.sh``, to be sourced before the worker is started.

    Parameters
    ----------
    config
        The configuration.

    Raises
    ------
    ConfigurationError
        A directory or the file cannot be written.
    """
    daemon = config["daemon"]
    directories = [daemon[key] for key in ("job_dir", "software_dir", "error_dir", "archive_dir", "pid_dir")]
    try:
        for directory in filter(None, directories):
            Path(directory).mkdir(parents=True, exist_ok=True)
        _write_atomically(Path("puffin.sh"), _script(config["resources"]["cores"]))
    except OSError as error:
        raise ConfigurationError(f"cannot write {error.filename}: {error.strerror}") from error


def _script(cores: int) -> str:
    variables = {"OMP_NUM_THREADS": str(cores)}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
