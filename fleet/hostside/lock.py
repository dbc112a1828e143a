"""Action `lock`: take, renew, give back or break the lock of this host.

Request: host_root, step, and for all steps but `look` id; the steps are
    look      reply: holder (or null)
    acquire   token, verb, who, limit (s), expected_serial (or null); reply: held, holder (who holds it instead),
              changed_by (who changed this host since that serial), reentrant (the token holds it already)
    renew     token; reply: held
    release   token, verb, who, since, outcome, error, release, missing {host: why}; reply: held (until now),
               audited
    record    likewise, where the lock is another command's; reply: audited
    abandon   token; gives back what was never used; reply: held (until now)
    break     who; removes anybody's; reply: held (until now), holder (who held it), audited

The lock is the directory `lock`, made complete under another name and renamed into place: it is there whole or not
at all. All of it happens under a mutex that the kernel releases when this program ends. What giving it back
will need is in the directory from the start, so that a full disk cannot keep anybody from it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from fleet.hostside.audit import AUDIT, append
from fleet.hostside.common import Failure, Json, locked, os_failure, plain_name, tail_of
from fleet.hostside.files import directory, write
from fleet.hostside.guard import HOLDER, LOCK, SERIAL, holder_of, last_release, read_holder, serial_of
from fleet.hostside.places import ORDERS, host_root

STEP = "locking"
MUTEX = ".lock.mutex"
_MUTEX_S = 30.0
WRITING = ".lock"
"""Held by the actions that write files below the host's own directory."""
_WRITING_S = 5.0
_UNFINISHED = ".lock-"


def main(request: Json) -> Json:
    """Take the step.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        There is no such step, or the lock's files cannot be written.
    """
    root = host_root(request)
    if request["step"] == "look":
        return {"holder": holder_of(root)}
    step = STEPS.get(request["step"])
    if step is None:
        raise Failure(f"no step {request['step']!r}", STEP)
    if step is _acquire:
        _refuse_strange(root)
        directory(root, 0o755)  # nothing was ever deployed here
    elif not root.is_dir():
        return {"held": False, "audited": False, "holder": None}
    with locked(root / MUTEX, _MUTEX_S, STEP):
        return step(root, request)


def _refuse_strange(root: Path) -> None:
    """Refuse to move in with somebody: `prune` and `destroy` would take his `releases`, `tools` or `cache` for ours."""
    fleet = root.parents[1]
    if root.exists() or root.parent.name != "hosts" or not fleet.exists():
        return
    found = sorted(path.name for path in fleet.iterdir() if not path.name.startswith("."))
    if found == ["hosts"] and not any((fleet / "hosts").glob("*/*")):
        return  # another host with the same home directory is about to make its first lock
    # One that is drained before its first deploy has its orders and nothing else.
    ours = (f"*/{MUTEX}", "*/etc/supervisord.conf", f"*/{ORDERS}/drain")
    if found and not any(any((fleet / "hosts").glob(pattern)) for pattern in ours):
        what = f"{fleet} holds {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}, but no fleet"
        raise Failure(what, STEP, "choose another base_dir or another name for the fleet, or empty that directory")


def _acquire(root: Path, request: Json) -> Json:
    token = plain_name(request["token"])
    present = read_holder(root)
    if present is not None and present["token"] == token:
        # Its own command asks again where the first answer was lost, and has to give it back.
        return {"held": True, "holder": None, "changed_by": None, "reentrant": present["id"] != str(request["id"])}
    now = time.time()
    if present is not None and present["until"] >= now:
        return {"held": False, "holder": holder_of(root), "changed_by": None, "reentrant": False}
    expected = request.get("expected_serial")
    if expected is not None and int(expected) != serial_of(root):
        return {"held": False, "holder": None, "changed_by": _last(root, present), "reentrant": False}
    if present is not None:
        _end(root, present, {"outcome": "interrupted", "error": "it was never ended: the time limit ran out"})
    _make(root, token, request, now)
    return {"held": True, "holder": None, "changed_by": None, "reentrant": False}


def _last(root: Path, present: Json | None) -> Json:
    if present is not None:
        return {"who": present["who"], "verb": present["verb"]}
    _, who, verb = last_release(root)
    return {"who": who, "verb": verb}


def _make(root: Path, token: str, request: Json, now: float) -> None:
    """Make the lock under another name, then rename it: renaming to a directory with files in it would fail."""
    limit = float(request["limit"])
    holder = {key: str(request[key]) for key in ("id", "verb", "who")}
    serial = {"serial": last_release(root)[0] + 1, "who": holder["who"], "verb": holder["verb"]}
    made = root / f"{_UNFINISHED}{token}"
    try:
        _sweep(root)
        made.mkdir(mode=0o700)
        write(made / SERIAL, json.dumps(serial).encode(), 0o644)
        times = {"token": token, "since": now, "until": now + limit, "limit": limit}
        write(made / HOLDER, json.dumps({**holder, **times}).encode(), 0o600)
        made.rename(root / LOCK)
    except OSError as error:
        raise os_failure(error, STEP, root / LOCK) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove what was left by one that was killed while it held the mutex."""
    for left in root.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _renew(root: Path, request: Json) -> Json:
    """Also one that ran out: it is still ours until somebody takes it."""
    present = read_holder(root)
    if present is None or present["token"] != request["token"]:
        return {"held": False, "audited": False}
    present["until"] = time.time() + float(present["limit"])
    write(root / LOCK / HOLDER, json.dumps(present).encode(), 0o600)
    return {"held": True, "audited": False}


def _release(root: Path, request: Json) -> Json:
    """What came of it is written down even where the lock was lost meanwhile."""
    present = read_holder(root)
    outcome = _outcome_of(request)
    if present is not None and _is_of(present, request):
        return {"held": True, "audited": _end(root, present, outcome)}
    return _record(root, request)


def _is_written_down(root: Path, request: Json) -> bool:
    """Whether this is said once more, since the first answer was lost."""
    try:
        last = json.loads(*tail_of(root / AUDIT, 1))
    except (TypeError, ValueError):
        return False
    return bool(last.get("id") == request["id"] and last.get("outcome") == request.get("outcome"))


def _record(root: Path, request: Json) -> Json:
    if _is_written_down(root, request):
        return {"held": False, "audited": True}
    return {"held": False, "audited": _write_down(root, request, _outcome_of(request))}


def _outcome_of(request: Json) -> Json:
    missing = {"missing": request["missing"]} if request.get("missing") else {}
    return {**{key: request.get(key) for key in ("outcome", "error", "release")}, **missing}


def _is_of(present: Json, request: Json) -> bool:
    """A command under another's lock has the same token, but must not give it back."""
    return bool(present["token"] == request["token"] and present["id"] == request["id"])


def _abandon(root: Path, request: Json) -> Json:
    """Nothing changed, so nothing is counted or written down."""
    present = read_holder(root)
    held = present is not None and _is_of(present, request)
    if held:
        _remove(root, str(request["token"]))
    return {"held": held, "audited": False}


def _break(root: Path, request: Json) -> Json:
    """Remove the lock of somebody who is gone, and write down who did that."""
    present, shown = read_holder(root), holder_of(root)
    if present is None:
        return {"held": False, "audited": False, "holder": None}
    error = f"its lock was removed by {request['who']}"
    audited = _end(root, present, {"outcome": "interrupted", "error": error})
    deed = {"id": request["id"], "verb": "unlock", "who": request["who"], "since": time.time()}
    what = f"removed the lock of {present['who']} for '{present['verb']}'"
    audited = _write_down(root, deed, {"outcome": "done", "error": what}) and audited
    return {"held": True, "audited": audited, "holder": shown}


def _end(root: Path, present: Json, outcome: Json) -> bool:
    """Count, remove, write down, in this order: one that is killed in between has at least counted."""
    with _nobody_writing(root):
        with contextlib.suppress(OSError):
            (root / LOCK / SERIAL).replace(root / SERIAL)
        _remove(root, present["token"])
    return _write_down(root, present, outcome)


@contextlib.contextmanager
def _nobody_writing(root: Path) -> Iterator[None]:
    """Let who is putting files in their places come to an end; whoever comes later looks for the lock again.

    Not for long, and not where that cannot be had: nothing may keep a lock from being given back.
    """
    with contextlib.ExitStack() as stack:
        if (root / WRITING).exists():
            with contextlib.suppress(Failure):
                # Unsigned: where nothing was changed, not even this file is.
                stack.enter_context(locked(root / WRITING, _WRITING_S, STEP, sign=False))
        yield


def _remove(root: Path, token: str) -> None:
    gone = root / f"{_UNFINISHED}{token or 'unknown'}.gone"
    try:
        (root / LOCK).rename(gone)
    except OSError as error:
        raise os_failure(error, STEP, root / LOCK) from error
    shutil.rmtree(gone, ignore_errors=True)


def _write_down(root: Path, deed: Json, outcome: Json) -> bool:
    entry = {
        "id": deed.get("id"),
        "verb": deed.get("verb"),
        "who": deed.get("who"),
        "began": deed.get("since"),
        "ended": time.time(),
        **outcome,
    }
    try:
        append(root, entry)
    except Failure:
        return False  # a full disk must not keep a lock from being given back
    return True


STEPS = {
    "acquire": _acquire,
    "renew": _renew,
    "release": _release,
    "record": _record,
    "abandon": _abandon,
    "break": _break,
}
