"""Takes, renews and gives back the locks of hosts.

Two commands can meet on some hosts while each holds others. Then the younger one gives back what it took, and the
older one goes on; so neither waits for the other for ever, and not both are refused.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.deployment.deed import Deed, DeedOutcome, Result, outcome_of
from fleet.deployment.refusals import ChangedMeanwhile, LockedError, describe
from fleet.errors import FleetError
from fleet.reach.execute import Say, ask, fan_out
from fleet.reach.facts import Holder
from fleet.reach.probing import read_holder
from fleet.reach.remote import ConnectionLost, HostResult, Remote, UnreachableError
from fleet.reach.reply import Reader

log = logging.getLogger(__name__)

ACTION = "lock"
_GRACE_S = 5.0
_PAUSE_S = (0.3, 0.7)
_LOOK_AGAIN_S = (1.5, 3.0)
_RELEASE_TIMEOUT_S = 10.0
_AT_THE_END = 64
"""Hosts at a time when locks are given back, for which whoever pressed Ctrl-C waits."""
_MOST_MISSING = 50


@dataclass(frozen=True)
class LockTarget:
    """A host to be locked.

    Parameters
    ----------
    host_root
        Its directory, as the probe reported it.
    serial
        `fleet.reach.facts.Lock.serial` as it was when the work was planned; None to lock it whatever happened since.
    """

    host_root: str
    serial: int | None = None


class Lock:
    """The lock of some hosts while it is held; made by `hold`.

    Parameters
    ----------
    token
        Proves to the hosts that a request comes from the holder.
    hosts
        The hosts that are locked.
    failed
        Why the others could not be locked; nothing may be changed on them.

    `kept` names, once it was given back, the hosts that could not be told so: there it ends with its time limit.
    `missing` has the hosts that were to be changed and cannot write that down themselves, and why.
    """

    def __init__(self, token: str, hosts: frozenset[str], failed: Mapping[str, FleetError]) -> None:
        self.token = token
        self.hosts = hosts
        self.failed = dict(failed)
        self.kept: list[str] = []
        self.missing: dict[str, str] = {host: outcome_of(error).error for host, error in failed.items()}
        self._mutex = threading.Lock()
        self._outcomes: dict[str, DeedOutcome] = {}

    def conclude(self, host: str, outcome: DeedOutcome) -> None:
        """Set what is written down on a host when the lock is given back; without it, that it was interrupted.

        Parameters
        ----------
        host
            Its name.
        outcome
            What came of it.
        """
        with self._mutex:
            self._outcomes[host] = outcome

    def outcome(self, host: str) -> DeedOutcome:
        """What was concluded for a host so far.

        Parameters
        ----------
        host
            Its name.
        """
        with self._mutex:
            return self._outcomes.get(host, DeedOutcome(Result.INTERRUPTED))


def wait_until_free(
    remotes: Mapping[str, Remote],
    roots: Mapping[str, str],
    timeout_s: float,
    parallel: int,
    say: Say = lambda what: None,
) -> None:
    """Wait until nobody holds the lock of any host; takes none.

    What is planned while somebody else changes a host is wrong when that ends, so wait before planning.

    Parameters
    ----------
    remotes
        Connections to the hosts.
    roots
        Directories of the hosts, as their probes reported them.
    timeout_s
        For how long, in seconds.
    parallel
        Hosts at a time.
    say
        Told whom it waits for.

    Raises
    ------
    LockedError
        Somebody still holds one of them.
    """

    def look(host: str) -> Holder | None:
        request = {"host_root": roots[host], "step": "look"}
        reader = Reader(host, "", ask(remotes[host], ACTION, request))
        return reader.optional("holder", lambda key: read_holder(reader.inner(key)))

    deadline = time.monotonic() + timeout_s
    while True:
        looks = fan_out({host: host for host in roots}, look, parallel)
        # A time limit that is over is in nobody's way, and a host that fails is reported by what follows.
        holders = {one.host: one.value for one in looks if one.value is not None and not one.value.expired}
        if not holders:
            return
        if time.monotonic() >= deadline:
            raise LockedError(holders)
        host = min(holders)
        say(f"waiting: {host} is {describe(holders[host])}")
        time.sleep(min(random.uniform(*_LOOK_AGAIN_S), max(0.0, deadline - time.monotonic())))  # noqa: S311 - no secret


@dataclass(frozen=True)
class _Answer:
    """What a host said to an attempt to lock it."""

    held: bool
    reentrant: bool
    holder: Holder | None
    changed_by: tuple[str, str] | None


@dataclass(frozen=True)
class _Attempt:
    """What all hosts said."""

    answers: Mapping[str, _Answer]
    failed: Mapping[str, FleetError]

    @property
    def taken(self) -> list[str]:
        return [host for host, answer in self.answers.items() if answer.held and not answer.reentrant]

    @property
    def uncertain(self) -> list[str]:
        """One whose answer was lost may be locked; one that could not be reached is not."""
        return [host for host, error in self.failed.items() if isinstance(error, ConnectionLost)]

    @property
    def holders(self) -> dict[str, Holder]:
        return {host: answer.holder for host, answer in self.answers.items() if answer.holder is not None}

    @property
    def changed(self) -> dict[str, tuple[str, str]]:
        return {host: answer.changed_by for host, answer in self.answers.items() if answer.changed_by is not None}


class Keeper:
    """Takes, renews and gives back the locks of one `fleet.deployment.lock.hold`.

    Parameters
    ----------
    remotes
        Connections to the hosts.
    targets
        The hosts.
    deed
        What for.
    parallel
        Hosts at a time.
    limit_s
        For how long a lock holds without being renewed, in seconds.
    token
        Proves to the hosts who it is.
    """

    def __init__(
        self,
        remotes: Mapping[str, Remote],
        targets: Mapping[str, LockTarget],
        deed: Deed,
        parallel: int,
        limit_s: float,
        token: str,
    ) -> None:
        self._remotes = remotes
        self._targets = targets
        self._deed = deed
        self._parallel = parallel
        self._limit_s = limit_s
        self._token = token
        self._reentrant: set[str] = set()
        self._mine: set[str] = set()
        self._uncertain: set[str] = set()
        self._perhaps: set[str] = set()
        self._lock: Lock | None = None
        self._mutex = threading.Lock()
        self._under_way: set[str] = set()
        self._closed = False
        self._since = time.time()

    def take(self, timeout_s: float, say: Say) -> Lock:
        """Lock all hosts that can be reached, or raise why not; see `fleet.deployment.lock.hold`.

        However it ends, `give_back` has to follow.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            attempt = self._attempt()
            if not attempt.holders and not attempt.changed:
                self._lock = self._locked(attempt)
                return self._lock
            self._perhaps = set(self._abandon([*attempt.taken, *attempt.uncertain]))
            if attempt.changed:
                raise ChangedMeanwhile(attempt.changed)
            if time.monotonic() >= deadline:
                raise LockedError(attempt.holders)
            # Only look at what is in the way: trying would keep others from the rest meanwhile.
            roots = {host: self._targets[host].host_root for host in attempt.holders}
            wait_until_free(self._remotes, roots, deadline - time.monotonic(), self._parallel, say)

    def _locked(self, attempt: _Attempt) -> Lock:
        self._mine = set(attempt.taken)
        self._reentrant = {host for host, answer in attempt.answers.items() if answer.reentrant}
        self._uncertain = set(attempt.uncertain)
        self._since = time.time()
        return Lock(self._token, frozenset(attempt.answers), attempt.failed)

    def _attempt(self) -> _Attempt:
        """Ask all hosts; where younger commands are in the way of this one, give them time to withdraw."""
        answers: dict[str, _Answer] = {}
        failed: dict[str, FleetError] = {}
        missing = list(self._targets)
        grace = time.monotonic() + _GRACE_S
        while True:
            for result in self._fan(missing, self._acquire):
                failed.pop(result.host, None)
                if result.value is not None:
                    answers[result.host] = result.value
                elif result.error is not None:
                    failed[result.host] = result.error
            attempt = _Attempt(answers, failed)
            missing = list(attempt.holders)
            withdraw = [holder.id > self._deed.id and holder.age < _GRACE_S for holder in attempt.holders.values()]
            if not missing or attempt.changed or not all(withdraw) or time.monotonic() >= grace:
                return attempt
            time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - not a secret

    def _let_attempts_end(self) -> None:
        """One that is under way when Ctrl-C comes would lock its host after that had been given back."""
        with self._mutex:
            self._closed = True
        deadline = time.monotonic() + _GRACE_S
        while self._under_way and time.monotonic() < deadline:
            time.sleep(0.05)

    def _acquire(self, host: str) -> _Answer:
        with self._mutex:
            if self._closed:
                raise FleetError(f"{host}: interrupted")
            self._under_way.add(host)
            self._perhaps.add(host)
        try:
            answer = self._try(host)
        except UnreachableError:
            self._perhaps.discard(host)
            raise
        finally:
            self._under_way.discard(host)
        if not answer.held:
            self._perhaps.discard(host)
        return answer

    def _try(self, host: str) -> _Answer:
        request = {
            "step": "acquire",
            "token": self._token,
            "id": self._deed.id,
            "verb": self._deed.verb,
            "who": self._deed.who,
            "limit": self._limit_s,
            "expected_serial": self._targets[host].serial,
        }
        reader = Reader(host, "", self._ask(host, request))
        changed = reader.optional("changed_by", reader.inner)
        return _Answer(
            held=reader.flag("held"),
            reentrant=reader.flag("reentrant"),
            holder=reader.optional("holder", lambda key: read_holder(reader.inner(key))),
            changed_by=(changed.text("who"), changed.text("verb")) if changed else None,
        )

    def renew_until(self, stop: threading.Event) -> None:
        """Renew, each host by itself: one that cannot be reached for a while is tried again in time.

        That a lock was taken away the host says itself, to the next request that carries its token.
        """
        while not stop.wait(self._limit_s / 4):
            for result in self._fan(sorted(self._mine), self._renew):
                if result.error is not None:
                    log.debug("renewing the lock of %s: %s", result.host, result.error)
                elif result.value is False:
                    log.debug("the lock of %s is no longer ours", result.host)

    def _renew(self, host: str) -> bool:
        reply = self._ask(host, {"step": "renew", "token": self._token}, self._limit_s / 4)
        return Reader(host, "", reply).flag("held")

    @property
    def kept(self) -> Sequence[str]:
        """Hosts that could not be told that the lock is given back."""
        return self._lock.kept if self._lock is not None else sorted(self._perhaps)

    def give_back(self) -> None:
        """Give back and write down, for a bounded time: a host that is gone has its time limit."""
        if self._lock is not None:
            self._release(self._lock)
        else:
            self._let_attempts_end()
            self._perhaps = set(self._abandon(sorted(self._perhaps)))

    def _release(self, lock: Lock) -> None:
        def release(host: str) -> dict[str, Any]:
            outcome = lock.outcome(host)
            missing = dict(sorted(lock.missing.items())[:_MOST_MISSING])
            said = {"outcome": outcome.result.value, "error": outcome.error, "release": outcome.release}
            deed = {"id": self._deed.id, "verb": self._deed.verb, "who": self._deed.who, "since": self._since}
            step = "record" if host in self._reentrant else "release"
            return self._ask(
                host, {"step": step, "token": self._token, **deed, **said, "missing": missing}, _RELEASE_TIMEOUT_S
            )

        results = self._fan(sorted(self._mine | self._reentrant), release, _AT_THE_END)
        # Only the answer may have been lost, or a connection that is there again; to be told twice does no harm.
        lost = [result.host for result in results if isinstance(result.error, ConnectionLost)]
        again = self._fan(lost, release, _AT_THE_END)
        for result in [*(result for result in results if result.host not in lost), *again]:
            if result.error is not None:
                log.debug("giving back the lock of %s: %s", result.host, result.error)
                if result.host in self._mine:  # else it is that of the command under which this one runs
                    lock.kept.append(result.host)
        self._abandon(sorted(self._uncertain))

    def _abandon(self, hosts: list[str]) -> list[str]:
        """Give back what was not used; return the hosts where that cannot be done, which have their time limit."""
        request = {"step": "abandon", "token": self._token, "id": self._deed.id}
        results = self._fan(hosts, lambda host: self._ask(host, request, _RELEASE_TIMEOUT_S), _AT_THE_END)
        return [result.host for result in results if result.error is not None]

    def _fan(self, hosts: list[str], step: Callable[[str], Any], parallel: int = 0) -> list[HostResult[Any]]:
        return fan_out({host: host for host in hosts}, step, max(parallel, self._parallel))

    def _ask(self, host: str, request: Mapping[str, object], timeout_s: float = 60.0) -> dict[str, Any]:
        content = {"host_root": self._targets[host].host_root, **request}
        return ask(self._remotes[host], ACTION, content, timeout_s)
