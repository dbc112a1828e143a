"""Whether a worker started now would work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from puffin.config import Configuration
from puffin.errors import PuffinError
from puffin.jobloop import accepted_kinds, installed_kinds
from puffin.settings import Settings
from puffin.store import Store

_GB = 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    subject
        What.
    good
        Whether a worker can live with it.
    detail
        What was found, and what to do about it.
    """

    subject: str
    good: bool
    detail: str


def examine(config: Configuration) -> list[Finding]:
    """Look at everything a worker needs.

    Parameters
    ----------
    config
        The configuration.

    Returns
    -------
    list[Finding]
        The findings; a worker would work if all of them are good.
    """
    settings = config.settings
    looks: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
        ("database", _database),
        ("directories", _directories),
        ("resources", _resources),
        ("jobs", _jobs),
    )
    findings = [Finding("configuration", True, config.source or "defaults and environment")]
    for subject, look in looks:
        try:
            findings += look(settings)
        except PuffinError as error:
            findings.append(Finding(subject, False, str(error)))
    return findings


def _database(settings: Settings) -> Iterator[Finding]:
    store = Store(settings.database, timeout_s=5.0)
    try:
        store.check()
        yield Finding("database", True, f"{store.where}, {', '.join(store.names)}")
        streams = store.calculations(store.names[0]).offers_change_streams()
        yield Finding("waiting", True, "the server has change streams" if streams else "the server has to be polled")
    finally:
        store.close()


def _directories(settings: Settings) -> Iterator[Finding]:
    daemon = settings.daemon
    paths = [daemon.job_dir, daemon.error_dir, daemon.archive_dir, daemon.pid_dir]
    paths += [str(Path(file).parent) for file in (daemon.log, daemon.stop) if file]
    for path in dict.fromkeys(path for path in paths if path):
        existing = next(parent for parent in (Path(path), *Path(path).parents) if parent.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
        detail = path if writable else f"{path}: {existing} cannot be written by {_user()}"
        yield Finding("directory", writable, detail)
    existing = next(parent for parent in (Path(daemon.job_dir), *Path(daemon.job_dir).parents) if parent.exists())
    free = shutil.disk_usage(existing).free / _GB
    yield Finding(
        "disk",
        free >= settings.resources.disk,
        f"{free:.1f} GB free at {daemon.job_dir}, {settings.resources.disk:g} GB promised",
    )


def _resources(settings: Settings) -> Iterator[Finding]:
    wanted, usable = settings.resources.cores, len(os.sched_getaffinity(0))
    yield Finding("cores", wanted <= usable, f"{wanted} promised, {usable} usable")
    memory = psutil.virtual_memory().total / _GB
    yield Finding(
        "memory",
        settings.resources.memory <= memory,
        f"{settings.resources.memory:g} GB promised, {memory:.1f} GB there",
    )


def _jobs(settings: Settings) -> Iterator[Finding]:
    kinds = installed_kinds(settings)
    accepted = accepted_kinds(settings, kinds)
    yield Finding("jobs", bool(accepted), f"{len(accepted)} of {len(kinds)} installed jobs accepted; see 'puffin jobs'")
    for kind in kinds:
        if kind.problem:
            yield Finding("job", False, f"{kind.order}: {kind.problem}")


def _user() -> str:
    return f"user {os.getuid()}"
