"""Writes what became of a calculation, however long the database is away; never over somebody else's result."""

from __future__ import annotations

import random
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import TypeVar

from puffin import verdicts
from puffin.calculations import Claim, Status, Usage, Verdict, reason_of
from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.losses import Loss
from puffin.reporter import Reporter
from puffin.spool import Spool
from puffin.stopping import Orders, Signals, Stop
from puffin.store import Calculations, Store
from puffin.worklog import Log

_Answer = TypeVar("_Answer")


class Abandoned(Exception):
    """The worker was told to stop at once while the database was away."""


class Results:
    """The way of a worker's results into the database.

    Parameters
    ----------
    store
        The database.
    spool
        Where results wait for it.
    log, reporter
        Where to say what happened.
    orders, signals
        Whether to go on waiting.
    """

    def __init__(
        self, store: Store, spool: Spool, log: Log, reporter: Reporter, orders: Orders, signals: Signals
    ) -> None:
        self._store = store
        self._spool = spool
        self._log = log
        self._reporter = reporter
        self._orders = orders
        self._signals = signals

    def write(self, claim: Claim, verdict: Verdict, writes_own_end: bool) -> Status | None:
        """Write how an attempt ended.

        Parameters
        ----------
        claim
            The attempt.
        verdict
            How it ended.
        writes_own_end
            Whether the job writes status and comment itself.

        Returns
        -------
        Status | None
            What the calculation's status is now; None if it is no longer ours.

        Raises
        ------
        Abandoned
            The result waits on disk for the next incarnation of the worker.
        DatabaseError
            The database refuses any result; it waits on disk.
        """
        try:
            return self._put(claim, verdict, writes_own_end)
        except DatabaseError as error:
            self._keep(claim, verdict, writes_own_end, error)
            if not isinstance(error, DatabaseUnavailable):
                raise
        status = self._patiently(lambda: self._put(claim, verdict, writes_own_end))
        self._spool.remove(claim)
        return status

    def database_is_there(self) -> bool:
        """Whether the database answers just now."""
        try:
            self._store.check()
        except DatabaseError:
            return False
        return True

    def complete_own_end(self, claim: Claim, usage: Usage) -> Status | None:
        """Complete what a job wrote itself before it was killed.

        Parameters
        ----------
        claim
            The attempt.
        usage
            What it used.

        Returns
        -------
        Status | None
            The calculation's status; None if the job had not written its end.
        """
        collection = self._calculations(claim)
        return self._patiently(lambda: collection.complete(claim, usage, None))

    def give_back(self, claim: Claim, reason: str) -> None:
        """Give a calculation back that nobody is to blame for.

        Parameters
        ----------
        claim
            The attempt.
        reason
            Why, in words.
        """
        if self._patiently(lambda: self._calculations(claim).requeue(claim)):
            self._log.warning(f"given back: {reason}", claim.id)
            self._reporter.event("given_back", claim.id, reason)

    def lose(self, claim: Claim, loss: Loss) -> Status | None:
        """Give a lost calculation back, or let it fail after too many losses.

        Parameters
        ----------
        claim
            The attempt.
        loss
            How it was lost.

        Returns
        -------
        Status | None
            NEW or FAILED; None if it was no longer ours.
        """
        status = self._patiently(lambda: self._calculations(claim).lose(claim, loss))
        if status is not None:
            self._log.warning(f"lost: {loss.reason}", claim.id)
            self._reporter.lost("lost", claim.id, loss, status)
        return status

    def retract(self, claim: Claim, loss: Loss) -> bool:
        """Give back a calculation that failed through no fault of its own.

        Parameters
        ----------
        claim
            The attempt that failed.
        loss
            Why it does not count as a failure.

        Returns
        -------
        bool
            Whether it stays failed no more; if it does, it was lost too often.
        """
        calculations = self._calculations(claim)
        if self._patiently(lambda: calculations.retract_failure(claim, loss)):
            self._log.warning(f"given back: {loss.reason}", claim.id)
            self._reporter.event("given_back", claim.id, loss.reason)
            return True
        # The answer to an earlier try may have been lost on its way, or somebody else was quicker.
        return self._patiently(lambda: calculations.status_of(claim)) is not Status.FAILED

    def write_spooled(self, executor: str) -> None:
        """Write what earlier incarnations of a worker kept on disk.

        Parameters
        ----------
        executor
            The worker's uuid.
        """
        for spooled in self._spool.waiting(executor):
            try:
                status = self._put(spooled.claim, spooled.verdict, spooled.writes_own_end)
            except DatabaseUnavailable:
                raise
            except DatabaseError as error:
                # One result that the database will never take must not keep the worker from its work.
                aside = self._spool.set_aside(spooled.claim)
                self._log.error(f"a result from an earlier run is refused, kept as {aside}: {error}", spooled.claim.id)
                continue
            self._spool.remove(spooled.claim)
            if status is not None:
                self._log.info("written: a result that an earlier run kept on disk", spooled.claim.id)
                if status is Status.FAILED:
                    self._reporter.event("failed", spooled.claim.id, reason_of(spooled.verdict.comment))
                else:
                    self._reporter.event("finished", spooled.claim.id, "kept on disk until now")
        for path in self._spool.unreadable():
            self._log.warning(f"{path} is no result that can be read here: it stays where it is, written nowhere")

    def _put(self, claim: Claim, verdict: Verdict, writes_own_end: bool) -> Status | None:
        refusal = DatabaseError("nothing was tried")
        for smaller in verdicts.ever_smaller(verdict):
            try:
                return self._put_once(claim, smaller, writes_own_end)
            except DatabaseUnavailable:
                raise
            except DatabaseError as error:
                self._log.error(f"the result is refused: {error}", claim.id)
                refusal = error
        raise refusal

    def _put_once(self, claim: Claim, verdict: Verdict, writes_own_end: bool) -> Status | None:
        collection = self._calculations(claim)
        if writes_own_end:
            status = collection.complete(claim, verdict.usage, verdict.raw_output)
            if status is not None:
                return status
            verdict = verdicts.unfinished(verdict)
        if collection.finish(claim, verdict):
            return verdict.status
        # The answer to an earlier try may have been lost on its way.
        return collection.status_of(claim)

    def _keep(self, claim: Claim, verdict: Verdict, writes_own_end: bool, error: DatabaseError) -> None:
        try:
            self._spool.put(claim, verdict, writes_own_end)
        except OSError as full:
            self._log.error(f"the result cannot be kept on disk ({full.strerror}), only in memory: {error}", claim.id)
        else:
            self._log.warning(f"the result is kept until the database takes it: {error}", claim.id)

    def _patiently(self, ask: Callable[[], _Answer]) -> _Answer:
        """Ask until the database answers.

        Raises
        ------
        Abandoned
            The worker is to stop at once.
        """
        while True:
            try:
                return ask()
            except DatabaseUnavailable as error:
                unavailable = error
            # Whoever lost the database together must not come back together.
            wait([self._signals.wake], random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            self._signals.clear()
            if self._orders.current.stop is Stop.NOW:
                raise Abandoned from unavailable

    def _calculations(self, claim: Claim) -> Calculations:
        return self._store.calculations(claim.database)
