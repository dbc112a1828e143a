"""The lock of a host as others see it: who holds it, and whether it is still ours.

The lock is the directory `lock` with `holder.json` in it; `fleet.hostside.lock` makes and removes it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from fleet.hostside.common import Failure, Json, locked, read_text

LOCK = "lock"
HOLDER = "holder.json"
SERIAL = "lock.serial"
STEP = "checking the lock"
_KEYS = {"token", "id", "who", "verb", "since", "until", "limit"}
_EVER = 1e9
_HINT = "nothing more was changed here; run the command again"


def require_lock(request: Json) -> None:
    """Refuse to change a host whose lock is no longer the one that the request names.

    Without a token in the request (`lock`), or without `host_root`, nothing is asked.

    Raises
    ------
    Failure
        Somebody else holds the lock, or nobody does: it ran out, or was removed with `unlock`.
    """
    token, root = request.get("lock"), request.get("host_root")
    if not token or not root:
        return
    holder = read_holder(Path(root))
    if holder is None:
        raise Failure("the lock of this host is gone: it ran out, or was removed with 'unlock'", STEP, _HINT)
    if holder["token"] != token:
        raise Failure(f"{holder['who']} took the lock of this host over, for '{holder['verb']}'", STEP, _HINT)


@contextlib.contextmanager
def still_locked(request: Json, path: Path, seconds: float, step: str) -> Iterator[None]:
    """Hold a lock file as `locked` does; the lock of the host may have been lost while that was waited for.

    Raises
    ------
    Failure
        As `locked` and `require_lock`.
    """
    with locked(path, seconds, step):
        require_lock(request)
        yield


def read_holder(root: Path) -> Json | None:
    """Who holds the lock, token included; None where nobody does.

    Parameters
    ----------
    root
        The host's own directory.

    Returns
    -------
    Json | None
        token, id, who, verb; since, until (seconds since 1970), limit (seconds).
    """
    path = root / LOCK / HOLDER
    text = read_text(path)
    try:
        found = json.loads(text)
    except ValueError:
        return _nobody_knows(path)
    return found if isinstance(found, dict) and set(found) >= _KEYS else _nobody_knows(path)


def _nobody_knows(path: Path) -> Json | None:
    """A lock that cannot be read is one all the same; it never runs out by itself."""
    try:
        since = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None
    unknown = {"token": "", "id": "", "who": "somebody", "verb": "unknown"}
    return {**unknown, "since": since, "until": since + _EVER, "limit": _EVER}


def holder_of(root: Path) -> Json | None:
    """Who holds the lock, without the token; `age` and `left` (of the time limit) are seconds of this host's clock.

    Parameters
    ----------
    root
        The host's own directory.
    """
    holder = read_holder(root)
    if holder is None:
        return None
    now = time.time()
    shown = {key: holder.get(key) for key in ("id", "who", "verb", "since")}
    return {**shown, "age": now - holder["since"], "left": holder["until"] - now}


def serial_of(root: Path) -> int:
    """How often the lock has been given back; a time limit that is over counts as such.

    Whoever looks at a host remembers it, and refuses to change the host when it is another by then.

    Parameters
    ----------
    root
        The host's own directory.
    """
    holder = read_holder(root)
    expired = holder is not None and holder["until"] < time.time()
    return last_release(root)[0] + int(expired)


def last_release(root: Path) -> tuple[int, str, str]:
    """The serial as it was last written, and by whom and for which verb.

    Parameters
    ----------
    root
        The host's own directory.
    """
    try:
        found = json.loads(read_text(root / SERIAL, "{}"))
        return int(found.get("serial", 0)), str(found.get("who", "somebody")), str(found.get("verb", ""))
    except (ValueError, TypeError, AttributeError):
        return 0, "somebody", ""
