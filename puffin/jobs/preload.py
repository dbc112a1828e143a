"""Imported once by the process that forks the job processes, so that every job starts with all modules loaded."""

from __future__ import annotations

import gc

from puffin.jobs import registry, sleep

__all__ = ["KINDS", "sleep"]

KINDS = registry.discover()

# What is loaded stays: a collection in a forked process would otherwise copy all of it.
gc.collect()
gc.freeze()
