"""Imported once by the process that forks the job processes, so that every job starts with all modules loaded."""

from __future__ import annotations

import gc
import os

from puffin.jobs import registry, sleep

__all__ = ["KINDS", "WANTED", "sleep"]

WANTED = "_PUFFIN_JOBS"
"""Environment variable: names of the only jobs that matter, separated by spaces; empty for all."""

KINDS = registry.discover(os.environ.get(WANTED, "").split())

# What is loaded stays: a collection in a forked process would otherwise copy all of it.
gc.collect()
gc.freeze()
