"""The lock of hosts that are about to be changed: all of them or none, for as long as the work takes."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TypeVar

from fleet.deployment.deed import Deed, DeedOutcome, Result, outcome_of
from fleet.deployment.lock_keeper import Keeper, Lock, LockTarget, wait_until_free
from fleet.deployment.refusals import LIMIT_S, ChangedMeanwhile, LockedError, describe
from fleet.interruption import undisturbed
from fleet.reach.execute import Interrupted, Say
from fleet.reach.remote import Remote

__all__ = [
    "ChangedMeanwhile",
    "Deed",
    "DeedOutcome",
    "Lock",
    "LockTarget",
    "LockedError",
    "Result",
    "again_when_changed",
    "describe",
    "hold",
    "new_deed",
    "outcome_of",
    "wait_until_free",
]

TOKEN_VARIABLE = "PUFFIN_FLEET_LOCK"  # noqa: S105 - the name of a variable
"""Where a hook finds the token of the lock it runs under."""

Done = TypeVar("Done")


def new_deed(verb: str) -> Deed:
    """A deed that begins now.

    Parameters
    ----------
    verb
        The command.
    """
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return Deed(f"{now}-{secrets.token_hex(2)}", verb, _who())


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())  # no entry in the user database
    return f"{user}@{socket.gethostname()}"


def again_when_changed(attempt: Callable[[float], Done], timeout_s: float, say: Say) -> Done:
    """Look at hosts and change them under their lock; anew where somebody else changed them in between.

    Whoever waited for another command has looked at what was there before it.

    Parameters
    ----------
    attempt
        Looks and changes; is told for how many seconds it may wait for somebody else's lock.
    timeout_s
        For how long to wait for others in all, in seconds; 0 not to.
    say
        Told who changed what.

    Raises
    ------
    ChangedMeanwhile
        Somebody has changed a host again, and the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return attempt(max(0.0, deadline - time.monotonic()))
        except ChangedMeanwhile as changed:
            if time.monotonic() >= deadline:
                raise
            say(f"{', '.join(sorted(changed.by))} changed while this command waited: looking again.")


@contextmanager
def hold(
    remotes: Mapping[str, Remote],
    targets: Mapping[str, LockTarget],
    deed: Deed,
    timeout_s: float,
    parallel: int,
    say: Say = lambda what: None,
    *,
    limit_s: float = LIMIT_S,
    inherited: str | None = None,
) -> Iterator[Lock]:
    """Lock hosts while the body runs: all that can be reached, or none.

    Parameters
    ----------
    remotes
        Connections to the hosts.
    targets
        The hosts.
    deed
        What for.
    timeout_s
        How long to wait for somebody else's lock, in seconds; 0 not to.
    parallel
        Hosts at a time.
    say
        Told whom it waits for.
    limit_s
        For how long, in seconds, the lock holds if this machine falls silent; it is renewed well before that.
    inherited
        The token of the lock that this command runs under, as a hook gets it: hosts which that token has locked
        are taken as they are, and stay locked afterwards. By default that of the environment.

    Raises
    ------
    LockedError
        Somebody else holds one of them, for longer than the time to wait.
    ChangedMeanwhile
        One of them has another serial than it had when it was looked at.
    """
    if inherited is None:
        inherited = os.environ.get(TOKEN_VARIABLE)
    keeper = Keeper(remotes, targets, deed, parallel, limit_s, inherited or secrets.token_hex(16))
    stop = threading.Event()
    # A daemon: a host that hangs must not keep the command from ending.
    renewal = threading.Thread(target=keeper.renew_until, args=(stop,), name="lock renewal", daemon=True)
    try:
        with _given_back(keeper, stop):
            # Ctrl-C may come at any moment, also when all are taken and nobody knows yet.
            lock = keeper.take(timeout_s, say)
            renewal.start()
            yield lock
    except KeyboardInterrupt as error:
        if not keeper.kept:
            raise
        interrupted = error if isinstance(error, Interrupted) else Interrupted([])
        interrupted.still_locked += tuple(keeper.kept)
        if interrupted is error:
            raise
        raise interrupted from error


@contextmanager
def _given_back(keeper: Keeper, stop: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        with undisturbed():
            stop.set()
            keeper.give_back()
