"""Imported once by the process that forks the job processes, so that every job starts with all modules loaded."""

from __future__ import annotations

from puffin.jobs import registry

KINDS = registry.discover()
