"""The jobs a worker can run."""

from __future__ import annotations

from puffin import __version__
from puffin.jobs.base import JobKind


def native_jobs() -> list[JobKind]:
    """The jobs that come with this project and need no SCINE module."""
    provider = f"puffin-fleet {__version__}"
    return [
        JobKind("command", provider, (), "puffin.jobs.command:run", needs_setting="commands"),
        JobKind("sleep", provider, (), "puffin.jobs.sleep:run"),
    ]
