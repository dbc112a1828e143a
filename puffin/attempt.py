"""One attempt of one calculation, from the claim to its end.

Every way in which it can end is here:

============================================  ============================================================
what happens                                  what becomes of the calculation
============================================  ============================================================
the job ends                                  its result is written, if the calculation is still this attempt's
the job crashes or exceeds a limit            failed, with the reason as its comment
the calculation is taken or cancelled         the job is killed, nothing is written
the worker is told to stop at once            the job is killed, the calculation is given back
the database is away                          the job is frozen; the result waits on disk until it can be written
the job or its keeper is killed from outside  given back, or failed when that happens too often
every process is told to end, and the job     likewise: so it is where a machine is switched off
fails of that
============================================  ============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from multiprocessing.connection import wait
from pathlib import Path

from puffin import archive, lease, verdicts
from puffin.calculations import Claim, Status, Verdict, reason_of
from puffin.clock import boot_time
from puffin.job_process import output_of
from puffin.jobs.base import Cause, Ended, JobContext, JobKind
from puffin.lease import Hold
from puffin.leftovers import end_leftovers
from puffin.limits import Limits
from puffin.losses import Loss
from puffin.output import read_shortened
from puffin.renewal import Released, Renewal
from puffin.reporter import Reporter
from puffin.results import Results
from puffin.runner import KEEPER_KILLED, Runner, RunningJob
from puffin.settings import Settings
from puffin.stopping import Orders, Signals, Stop, StopOrder
from puffin.store import Store
from puffin.worklog import Log, Ping

LOOK_FOR_STOP_FILES_S = 1.0


class Fate(Enum):
    """What became of an attempt, for who counts what succeeds here and what does not."""

    COMPLETE = "complete"
    FAILED = "failed"
    LOST = "lost"
    """It told nothing of its calculation, as where its processes were killed."""

    NONE = "none"
    """It was taken away or given back, which says nothing of this worker."""


@dataclass(frozen=True)
class Workbench:
    """What a worker's attempts share; made once by the worker.

    Parameters
    ----------
    settings
        The worker's settings.
    host
        Where it runs.
    store
        The database.
    runner
        What starts the jobs.
    kinds
        The accepted jobs, by order.
    results
        The way of results into the database.
    reporter, worklog, ping
        Where to say what happens.
    orders, signals
        When to stop.
    uris
        By database, how jobs reach it, credentials included: a secret.
    """

    settings: Settings
    host: str
    store: Store
    runner: Runner
    kinds: Mapping[str, JobKind]
    results: Results
    reporter: Reporter
    worklog: Log
    ping: Ping
    orders: Orders
    signals: Signals
    uris: Mapping[str, str] = field(repr=False)

    def loss(self, reason: str) -> Loss:
        """How an attempt was lost here."""
        return Loss(self.host, reason, self.settings.daemon.max_attempts)


class Attempt:
    """One attempt.

    Parameters
    ----------
    bench
        What it shares with others.
    claim
        What was claimed.
    directory
        An empty directory for the job.
    """

    def __init__(self, bench: Workbench, claim: Claim, directory: Path) -> None:
        self._bench = bench
        self._claim = claim
        self._directory = directory
        self._kind = bench.kinds[claim.order]
        self._draining = False

    def run(self, renewal: Renewal, sent: float) -> Fate:
        """Run the job and write what became of it.

        Parameters
        ----------
        renewal
            Keeps the lease meanwhile.
        sent
            When the claim was sent, in seconds of :func:`~puffin.clock.boot_time`.

        Returns
        -------
        Fate
            What became of it.

        Raises
        ------
        Abandoned
            The worker is to stop at once, and the database is away.
        DatabaseError
            The database refuses the result.
        """
        job = self._start(renewal, sent)
        with job:
            # Inside: where no process can be forked any more, the job must not be left behind.
            self._bench.runner.warm_up()
            told_to_stop = self._wait_for_end(job)
            ended = job.ended()
        return self._settle(ended, renewal.release(), told_to_stop)

    def on_hold_change(self, hold: Hold) -> None:
        """Tell that the job was frozen, or goes on; called from the thread that renews the lease."""
        reporter, worklog, calculation = self._bench.reporter, self._bench.worklog, self._claim.id
        if hold is Hold.FROZEN:
            worklog.warning("frozen: the database does not answer, and the lease is running out", calculation)
            reporter.update(state="frozen")
            reporter.event("frozen", calculation)
        elif hold is Hold.RUNNING:
            worklog.info("thawed: the lease is renewed", calculation)
            reporter.update(state="draining" if self._draining else "running")
            reporter.event("thawed", calculation)

    def _start(self, renewal: Renewal, sent: float) -> RunningJob:
        bench, claim, settings = self._bench, self._claim, self._bench.settings
        held = lease.claimed(settings.daemon.lease_in_s, sent, settings.daemon.touch_time_in_s)
        context = JobContext(claim, self._kind, self._directory, settings, bench.uris[claim.database])
        job = bench.runner.start(context, Limits.of(claim, settings), held.freeze_at)
        calculations = bench.store.calculations(claim.database)
        renewal.hold(claim, calculations, job, held, self._kind.writes_own_end, self.on_hold_change)
        return job

    def _wait_for_end(self, job: RunningJob) -> str:
        """Wait until the job has ended or been killed; return why it was killed, if it was told to stop at once."""
        bench = self._bench
        while True:
            ready = wait([job.connection, bench.signals.wake], LOOK_FOR_STOP_FILES_S)
            if bench.signals.wake in ready:
                bench.signals.clear()
            if job.connection in ready:
                if job.hear():
                    return ""
                bench.reporter.note(memory_used=job.memory_gb)
            bench.ping.maybe(boot_time(), f"running {self._claim.order}", self._claim.id)
            order = bench.orders.current
            if order.stop is Stop.NOW:
                job.kill()
                return order.reason
            if (order.stop is not Stop.NO) is not self._draining:
                self._note_drain(order)

    def _note_drain(self, order: StopOrder) -> None:
        """Say that the worker is to stop after this job; or that it no longer is, since the order was taken back."""
        bench = self._bench
        self._draining = order.stop is not Stop.NO
        if self._draining:
            bench.worklog.info(f"will stop after this job: {order.reason}", self._claim.id)
            bench.reporter.update(state="draining")
            return
        bench.worklog.info("goes on after this job: the order to stop was taken back", self._claim.id)
        if bench.reporter.record.state == "draining":
            bench.reporter.update(state="running")

    def _settle(self, ended: Ended, released: Released, told_to_stop: str) -> Fate:
        bench, claim, loss = self._bench, self._claim, verdicts.loss(ended)
        if ended.detail == KEEPER_KILLED:
            end_leftovers(bench.settings.daemon.pid)
        if not released.ours:
            bench.worklog.warning("discarded: the calculation was taken or changed by somebody else", claim.id)
            bench.reporter.event("discarded", claim.id)
            return Fate.NONE
        if not loss:
            return self._conclude(ended, released)
        if self._kind.writes_own_end:
            status = bench.results.complete_own_end(claim, ended.usage)
            if status is Status.FAILED and verdicts.was_swept_away(ended):
                return self._retract(ended, bench.loss(loss))
            if status is not None:
                return self._tell(status, ended, "")
        if told_to_stop and ended.cause is Cause.KILLED:
            bench.results.give_back(claim, told_to_stop)
            return Fate.NONE
        return self._lose(bench.loss(loss))

    def _lose(self, loss: Loss) -> Fate:
        if self._bench.results.lose(self._claim, loss) is Status.FAILED:
            self._archive(Status.FAILED)
        return Fate.LOST

    def _conclude(self, ended: Ended, released: Released) -> Fate:
        bench, claim = self._bench, self._claim
        stdout, stderr = (read_shortened(path) for path in output_of(self._directory))
        verdict = verdicts.judge(ended, stdout, stderr)
        if ended.cause is not Cause.LIMIT and self._failed_for_want_of_the_database(verdict, released):
            return self._excuse(ended)
        status = bench.results.write(claim, verdict, self._kind.writes_own_end)
        if status is None:
            bench.worklog.warning("not written: the calculation is no longer ours", claim.id)
            bench.reporter.event("discarded", claim.id)
            return Fate.NONE
        return self._tell(status, ended, verdict.comment if status is Status.FAILED else "")

    def _failed_for_want_of_the_database(self, verdict: Verdict, released: Released) -> bool:
        if not self._kind.writes_own_end or verdict.status is not Status.FAILED:
            return False
        return released.outage or verdicts.lost_its_database(verdict) or not self._bench.results.database_is_there()

    def _excuse(self, ended: Ended) -> Fate:
        """Give back what failed while it could not reach the database that it writes to."""
        bench, claim = self._bench, self._claim
        loss = bench.loss("the database was away while it ran")
        status = bench.results.complete_own_end(claim, ended.usage)
        if status is Status.FAILED:
            return self._retract(ended, loss)
        if status is not None:
            return self._tell(status, ended, "")
        self._lose(loss)
        return Fate.NONE  # an outage says nothing of this host

    def _retract(self, ended: Ended, loss: Loss) -> Fate:
        """Give back what the job itself has called failed; that of the last attempt stays so, and is told."""
        if self._bench.results.retract(self._claim, loss):
            return Fate.NONE
        return self._tell(Status.FAILED, ended, "")

    def _tell(self, status: Status, ended: Ended, comment: str) -> Fate:
        bench, claim = self._bench, self._claim
        reason = reason_of(comment)
        summary = f"{status.value} after {ended.usage.wall_s:.2f} s"
        say = bench.worklog.warning if status is Status.FAILED else bench.worklog.info
        say(f"{summary}{': ' if reason else ''}{reason}", claim.id)
        bench.reporter.event("failed" if status is Status.FAILED else "finished", claim.id, reason)
        self._archive(status)
        return Fate.FAILED if status is Status.FAILED else Fate.COMPLETE

    def _archive(self, status: Status) -> None:
        daemon = self._bench.settings.daemon
        target = daemon.error_dir if status is Status.FAILED else daemon.archive_dir
        if not target:
            return
        try:
            archive.archive(self._directory, self._claim.id, Path(target))
        except OSError as error:
            self._bench.worklog.error(f"its directory could not be archived in {target}: {error}", self._claim.id)
