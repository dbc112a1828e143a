"""The worker: takes one calculation after the other until it is told to stop.

It runs in the main thread and waits for the end of the job or for a signal. Threads help it: one renews the
lease, one reports, one looks after the calculations of dead workers, and one for each database listens for new work.
What happens in one attempt is in :mod:`puffin.attempt`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from multiprocessing.connection import wait

from puffin.attempt import LOOK_FOR_STOP_FILES_S, Attempt, Fate, Workbench
from puffin.calculations import Claim
from puffin.claims import Claims
from puffin.clock import boot_time
from puffin.errors import DatabaseError, DatabaseUnavailable, ExitCode
from puffin.identity import Identity, claimant_of, record_of
from puffin.jobs.base import JobKind
from puffin.judge import Judge
from puffin.leftovers import end_leftovers
from puffin.renewal import Renewal
from puffin.reporter import Reporter
from puffin.results import Abandoned, Results
from puffin.runner import Runner
from puffin.settings import Settings
from puffin.spool import Spool
from puffin.stopping import Orders, Signals, Stop, StopOrder
from puffin.store import Store, connection_uri
from puffin.watcher import Proof, Watcher
from puffin.worklog import Log, Ping
from puffin.workplace import Workplace

_FIRST_IDLE_WAIT_S = 0.05
# The manager takes a worker for lost after 90 s of silence.
_REPORT_INTERVAL_S = 75.0
_LOOK_ALL_THE_SAME_S = 240.0
_CONNECT_TRIES = 30
_WAIT_AFTER_FULL_DISK_S = 30.0
_LONGEST_REST_S = 60.0


class Worker:
    """One worker.

    Parameters
    ----------
    settings
        Its settings.
    identity
        Who it is.
    store
        The database.
    runner
        What starts the jobs.
    kinds
        The jobs it accepts, by order.
    signals
        Its signals.
    log
        Its log.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        identity: Identity,
        store: Store,
        runner: Runner,
        kinds: dict[str, JobKind],
        signals: Signals,
        log: Log,
    ) -> None:
        self._settings = settings
        self._store = store
        self._runner = runner
        self._signals = signals
        self._log = log
        self._claimant = claimant_of(settings, identity)
        self._workplace = Workplace(settings.daemon.job_dir, self._claimant.executor)
        spool = Spool(self._workplace.directory)
        self._bench = _workbench(settings, identity, store, runner, kinds, signals, log, spool)
        self._reporter = self._bench.reporter
        self._orders = self._bench.orders
        self._results = self._bench.results
        self._ping = self._bench.ping
        self._claims = Claims(self._bench, self._claimant)
        self._renewal = Renewal(log)
        proof = Proof(store.registry, self._claimant.executor)
        self._watchers = [Watcher(store.calculations(name), proof, log, signals.nudge) for name in store.names]
        self._judge = Judge(store, settings.daemon, self._claimant, log, self._reporter)
        self._failures: list[Claim] = []
        self._losses = 0
        self._why_at_rest = ""

    def run(self) -> ExitCode:
        """Work until told to stop.

        Returns
        -------
        ExitCode
            How to leave: DONE, RECYCLE or QUARANTINED.

        Raises
        ------
        DatabaseError
            The database cannot be reached for long, or does not let the worker in.
        DaemonError
            The worker cannot make its directories.
        """
        strays = end_leftovers(self._settings.daemon.pid)
        self._workplace.prepare()
        if strays:
            self._log.warning(f"ended {strays} processes that jobs of an earlier run had left")
        given_up = self._connect()
        if given_up is not None:
            return given_up
        self._reporter.event("started")
        self._reporter.start()
        self._renewal.start()
        self._judge.start()
        for watcher in self._watchers:
            watcher.start()
        try:
            code = self._work()
        finally:
            for watcher in self._watchers:
                watcher.stop()
            self._judge.stop()
            self._renewal.stop()
        state = "quarantined" if code is ExitCode.QUARANTINED else "stopped"
        self._reporter.event(state, detail=self._why_at_rest)
        returns = code is ExitCode.RECYCLE or (code is ExitCode.DONE and self._orders_were_taken_back)
        self._reporter.stop(
            state=state, calculation="", order="", returns=self._reporter.record.pid if returns else None
        )
        if code is ExitCode.DONE and self._orders_were_taken_back:
            self._log.info("starting again: the order to stop was taken back while it was ending")
            return ExitCode.RECYCLE
        return code

    @property
    def _orders_were_taken_back(self) -> bool:
        """Whether whoever told it to stop wants it to go on by now, and somebody would start it again."""
        if self._reporter.fleet_stopped:
            self._reporter.is_fleet_still_stopped()
        return bool(self._settings.daemon.recycle) and self._orders.taken_back

    def rest(self, crashes: int, said: Sequence[str]) -> ExitCode:
        """Work no more after too many crashes: give back what the last one left behind, and say so.

        Parameters
        ----------
        crashes
            How many there were.
        said
            The last lines of the log before this start.

        Returns
        -------
        ExitCode
            QUARANTINED.
        """
        minutes = self._settings.daemon.crash_window_in_min
        reason = f"crashed {crashes} times in {minutes:g} min (daemon.crash_limit)"
        self._log.error(f"quarantined: {reason}")
        end_leftovers(self._settings.daemon.pid)
        self._workplace.prepare()
        try:
            self._reporter.announce()
            self._results.write_spooled(self._claimant.executor)
            self._claims.give_back_what_is_not_run()
        except DatabaseError as error:
            self._log.error(f"what it ran is given back when its lease has run out: {error}")
        self._reporter.event("quarantined", detail="\n".join([reason, *said]))
        self._reporter.start()
        self._reporter.stop(state="quarantined", calculation="", order="")
        return ExitCode.QUARANTINED

    def _connect(self) -> ExitCode | None:
        """Wait for the database, but not for ever; return how to leave if an order to stop came first."""
        announced = False
        for tries_left in reversed(range(_CONNECT_TRIES)):
            try:
                if not announced:
                    self._reporter.announce()
                    announced = True  # a second time would count as a crash
                self._results.write_spooled(self._claimant.executor)
                return None
            except DatabaseUnavailable as error:
                if tries_left == 0:
                    raise
                self._log.warning(f"waiting for the database: {error}")
            # Workers that are started together must not come all at once.
            self._pause(1.0 + random.uniform(0.0, 1.0))  # noqa: S311 - no secret
            order = self._orders.idle()
            if order.stop is not Stop.NO:
                return self._obey(order)
        raise AssertionError("unreachable: the last try returns or raises")

    def _work(self) -> ExitCode:
        self._log.info(f"started: {len(self._bench.kinds)} kinds of jobs, database {self._store.where}")
        self._reporter.update(state="idle")
        pause = _FIRST_IDLE_WAIT_S
        while True:
            if self._reporter.fleet_stopped:
                # It may have been lifted since: whoever did that does not start this worker again.
                self._reporter.is_fleet_still_stopped()
            order = self._orders.idle()
            if order.stop is not Stop.NO:
                return self._obey(order)
            sent = boot_time()
            claim = self._claims.take()
            if claim is None:
                self._wait_for_work(pause)
                pause = min(2 * pause, self._settings.daemon.cycle_time_in_s)
                continue
            self._attempt(claim, sent)
            pause = _FIRST_IDLE_WAIT_S
            if self._is_to_be_quarantined():
                return ExitCode.QUARANTINED
            if self._losses > 1:
                # What kills the jobs here would soon have killed those of the whole queue.
                self._pause(min(_LONGEST_REST_S, 2.0 ** (self._losses - 2)), heed_news=False)

    def _obey(self, order: StopOrder) -> ExitCode:
        self._log.info(f"stopping: {order.reason}")
        self._orders.obeyed()
        return ExitCode.RECYCLE if order.stop is Stop.RECYCLE else ExitCode.DONE

    def _wait_for_work(self, pause: float) -> None:
        self._runner.warm_up()
        for watcher in self._watchers:
            watcher.want(True)
        # Also where the server tells of new work: a connection can be dead without anybody noticing. What a claim
        # without an answer may have taken is not new, so nothing tells of it.
        watched = not self._claims.in_doubt and all(watcher.is_trusted for watcher in self._watchers)
        longest = _LOOK_ALL_THE_SAME_S if watched else pause
        self._pause(longest * random.uniform(0.75, 1.25))  # noqa: S311 - no secret

    def _pause(self, seconds: float, *, heed_news: bool = True) -> None:
        """Wait, but not beyond a signal or a stop file, nor, where they are heeded, beyond news of work."""
        end = boot_time() + seconds
        while (left := end - boot_time()) > 0:
            if wait([self._signals.wake], min(left, LOOK_FOR_STOP_FILES_S)):
                self._signals.clear()
            self._ping.maybe(boot_time(), "waiting for work")
            if self._orders.idle().stop is not Stop.NO:
                return
            if heed_news and [watcher for watcher in self._watchers if watcher.has_news()]:
                return

    def _attempt(self, claim: Claim, sent: float) -> None:
        self._log.info(f"claimed {claim.order}, attempt {claim.attempt}", claim.id)
        self._reporter.update(state="running", calculation=claim.id, order=claim.order)
        self._reporter.event("claimed", claim.id, claim.order)
        for watcher in self._watchers:
            watcher.want(False)
        try:
            directory = self._workplace.make(claim)
        except OSError as error:
            self._do_without_disk(claim, error)
            return
        try:
            self._count(claim, Attempt(self._bench, claim, directory).run(self._renewal, sent))
        except Abandoned:
            self._log.warning("leaving while the database is away; the next start writes what there is", claim.id)
            self._claims.in_doubt = True
        self._workplace.remove(directory)
        self._orders.job_ended()
        self._reporter.update(state="idle", calculation="", order="")

    def _do_without_disk(self, claim: Claim, error: OSError) -> None:
        self._log.error(f"no directory for it can be made in {self._workplace.directory}: {error.strerror}", claim.id)
        try:
            self._results.give_back(claim, f"no directory could be made for it: {error.strerror}")
        except Abandoned:
            self._claims.in_doubt = True
            return
        self._reporter.update(state="idle", calculation="", order="")
        self._pause(_WAIT_AFTER_FULL_DISK_S, heed_news=False)

    def _count(self, claim: Claim, fate: Fate) -> None:
        if fate is Fate.NONE:
            return
        self._losses = self._losses + 1 if fate is Fate.LOST else 0
        if fate is Fate.LOST:
            return
        failed = fate is Fate.FAILED
        self._failures = [*self._failures, claim] if failed else []
        record = self._reporter.record
        self._reporter.update(done=record.done + (not failed), failed=record.failed + failed)

    def _is_to_be_quarantined(self) -> bool:
        """After too many failures or losses in a row the fault is here: give the failed calculations back and stop."""
        if 0 < self._settings.daemon.crash_limit <= self._losses:
            self._why_at_rest = f"{self._losses} jobs in a row were lost here (daemon.crash_limit)"
            self._log.error(f"quarantined: {self._why_at_rest}")
            return True
        if len(self._failures) < self._settings.daemon.repeated_failure_stop:
            return False
        self._why_at_rest = f"{len(self._failures)} failures in a row, which are given back"
        self._log.error(f"quarantined after {self._why_at_rest}")
        loss = self._bench.loss("its worker was quarantined")
        try:
            for claim in self._failures:
                if not self._results.retract(claim, loss):
                    self._log.warning("stays failed: it was lost too often before", claim.id)
        except (Abandoned, DatabaseError) as error:
            self._log.error(f"some failed calculations could not be given back: {error}")
        return True


def _workbench(
    settings: Settings,
    identity: Identity,
    store: Store,
    runner: Runner,
    kinds: dict[str, JobKind],
    signals: Signals,
    log: Log,
    spool: Spool,
) -> Workbench:
    """What the worker shares with its attempts, itself included."""
    record = record_of(settings, identity, tuple(kinds))
    reporter = Reporter(store, record, log, signals.nudge, _REPORT_INTERVAL_S)
    orders = Orders(settings.daemon, signals, lambda: reporter.fleet_stopped, boot_time)
    return Workbench(
        settings=settings,
        host=identity.host,
        store=store,
        runner=runner,
        kinds=kinds,
        results=Results(store, spool, log, reporter, orders, signals),
        reporter=reporter,
        worklog=log,
        ping=Ping(log, boot_time()),
        orders=orders,
        signals=signals,
        # Read once: where a home directory is away for a moment, that is no reason to end.
        uris={name: connection_uri(settings.database, name) for name in store.names},
    )
