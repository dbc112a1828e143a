"""Action `fetch_texts`: the text of files as they are on the host, for showing differences.

Request: host_root, paths (relative to it; files with secrets are never asked for).
Reply: texts {path: text, or null where there is none}.
"""

from __future__ import annotations

from pathlib import Path

from fleet.hostside.common import Failure, Json, inside, os_failure
from fleet.hostside.places import host_root

LARGEST = 1 << 20


def main(request: Json) -> Json:
    """Read the files.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        A path leads out of the directory, or a file cannot be read.
    """
    root = host_root(request)
    return {"texts": {path: _text(inside(root, path)) for path in request["paths"]}}


def _text(path: Path) -> str | None:
    try:
        if path.stat().st_size > LARGEST:
            raise Failure(f"{path} is too large to be one of ours", "reading files", "look at it on the host")
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_failure(error, "reading files", path) from error
