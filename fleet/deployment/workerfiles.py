"""Which files and programs on a host are the workers', by their names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

WORKER_FILE = re.compile(r"etc/(?:conf\.d/([^/]+)\.conf|workers/([^/]+)\.(?:yaml|env))\Z")


def workers_of(files: Iterable[str]) -> frozenset[str]:
    """Names of the workers that have one of these files, paths relative to the host's own directory."""
    matches = (WORKER_FILE.match(path) for path in files)
    return frozenset(match.group(1) or match.group(2) for match in matches if match)


def named_like_ours(program: str, host: str) -> bool:
    """Whether a program whose file is gone was once a worker: removal was cut off half-way."""
    return re.fullmatch(rf"{re.escape(host)}-[0-9]+", program) is not None
