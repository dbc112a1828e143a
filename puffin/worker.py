"""The worker: takes one calculation after the other until it is told to stop.

It runs in the main thread and waits for the end of the job or for a signal. Two threads help it: one renews the
lease, one reports. Every way in which an attempt can end is here:

======================================  ==================================================================
what happens                            what becomes of the calculation
======================================  ==================================================================
the job ends                            its result is written, if the calculation is still this attempt's
the job crashes or exceeds a limit      failed, with the reason as its comment
the calculation is taken or cancelled   the job is killed, nothing is written
the worker is told to stop at once      the job is killed, the calculation is given back
the database is away                    the job is frozen; the result waits on disk until it can be written
the keeper of the job is killed         the calculation is given back
======================================  ==================================================================
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from puffin import archive, keeper, lease, verdicts
from puffin.calculations import Claim, Claimant, Status, Verdict, program_names
from puffin.errors import DaemonError, DatabaseError, DatabaseUnavailable, ExitCode
from puffin.jobs.base import Cause, Ended, JobContext, JobKind
from puffin.keeper import boot_time
from puffin.lease import Hold
from puffin.limits import Limits
from puffin.output import read_shortened
from puffin.renewal import Renewal
from puffin.reporter import Reporter
from puffin.runner import Runner, RunningJob
from puffin.settings import Settings
from puffin.spool import Spool, Spooled
from puffin.stopping import Orders, Signals, Stop
from puffin.store import Store, WorkerRecord, connection_uri
from puffin.worklog import Log

_LOOK_FOR_STOP_FILES_S = 1.0
_FIRST_IDLE_WAIT_S = 0.05
_REPORT_INTERVAL_S = 20.0


@dataclass(frozen=True)
class Identity:
    """What a worker is besides its settings.

    Parameters
    ----------
    release
        The release it runs.
    configuration
        Hash of its configuration file.
    pid
        Its process id.
    host
        Where it runs.
    """

    release: str
    configuration: str
    pid: int
    host: str


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
        self._kinds = kinds
        self._signals = signals
        self._log = log
        self._claimant = _claimant(settings, identity)
        self._programs = program_names(settings.available_programs)
        self._spool = Spool(Path(settings.daemon.job_dir))
        record = _record(settings, identity, tuple(kinds))
        self._reporter = Reporter(store, record, log, signals.nudge, _REPORT_INTERVAL_S)
        self._renewal = Renewal(log, self._on_hold_change)
        self._orders = Orders(settings.daemon, signals, lambda: self._reporter.fleet_stopped, boot_time)
        self._failures: list[Claim] = []

    def run(self) -> ExitCode:
        """Work until told to stop.

        Returns
        -------
        ExitCode
            How to leave: DONE, RECYCLE or QUARANTINED.

        Raises
        ------
        DatabaseError
            The database does not let the worker in.
        DaemonError
            The worker cannot make its directories.
        """
        self._prepare()
        self._reporter.event("started")
        try:
            code = self._work()
        finally:
            self._renewal.stop()
            self._runner.close()
        state = "quarantined" if code is ExitCode.QUARANTINED else "stopped"
        self._reporter.event(state)
        self._reporter.stop(state=state, calculation="", order="")
        return code

    def _prepare(self) -> None:
        try:
            Path(self._settings.daemon.job_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DaemonError(f"daemon.job_dir: cannot make {error.filename}: {error.strerror}") from error
        self._reporter.start()
        self._write_spooled()
        self._give_back_what_was_left()
        self._renewal.start()

    def _give_back_what_was_left(self) -> None:
        for name in self._store.names:
            for calculation in self._store.calculations(name).requeue_left_behind(self._claimant.executor):
                self._log.warning("given back: an earlier run of this worker left it", calculation)
                self._reporter.event("requeued", calculation, "left behind by an earlier run of the worker")

    def _work(self) -> ExitCode:
        self._log.info(f"started: {len(self._kinds)} kinds of jobs, database {self._store.where}")
        self._reporter.update(state="idle")
        pause = _FIRST_IDLE_WAIT_S
        while True:
            order = self._orders.idle()
            if order.stop is not Stop.NO:
                self._log.info(f"stopping: {order.reason}")
                self._orders.obeyed()
                return ExitCode.RECYCLE if order.stop is Stop.RECYCLE else ExitCode.DONE
            sent = boot_time()
            claim = self._claim()
            if claim is not None:
                self._attempt(claim, sent)
                pause = _FIRST_IDLE_WAIT_S
                if self._should_be_quarantined():
                    return ExitCode.QUARANTINED
                continue
            self._wait_for_work(pause)
            pause = min(2 * pause, self._settings.daemon.cycle_time_in_s)

    def _claim(self) -> Claim | None:
        for name in self._store.names:
            try:
                claim = self._store.calculations(name).claim(
                    self._claimant, self._settings.resources, tuple(self._kinds), self._programs
                )
            except DatabaseUnavailable as error:
                self._log.warning(f"no work to be had: {error}")
                return None
            if claim is not None:
                return claim
        return None

    def _wait_for_work(self, pause: float) -> None:
        self._runner.warm_up()
        # Workers that went idle together must not ask together for ever.
        end = boot_time() + pause * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        while (left := end - boot_time()) > 0:
            if wait([self._signals.wake], min(left, _LOOK_FOR_STOP_FILES_S)):
                self._signals.clear()
            if self._orders.idle().stop is not Stop.NO:
                return

    def _attempt(self, claim: Claim, sent: float) -> None:
        directory = Path(self._settings.daemon.job_dir) / claim.label
        self._log.info(f"claimed {claim.order}, attempt {claim.attempt}", claim.id)
        self._reporter.update(state="running", calculation=claim.id, order=claim.order)
        self._reporter.event("claimed", claim.id, claim.order)
        try:
            archive.remove(directory)
            directory.mkdir(parents=True)
        except OSError as error:
            self._store.calculations(claim.database).requeue(claim)
            raise DaemonError(f"cannot make the job directory {directory}: {error.strerror}") from error
        job = self._start(claim, directory, sent)
        told_to_stop = self._wait_for_end(job)
        ended = job.ended()
        ours = self._renewal.release()
        self._settle(claim, directory, ended, ours, told_to_stop)
        archive.remove(directory)
        self._orders.job_ended()
        self._reporter.update(state="idle", calculation="", order="")

    def _start(self, claim: Claim, directory: Path, sent: float) -> RunningJob:
        kind = self._kinds[claim.order]
        held = lease.claimed(self._claimant.lease_s, sent)
        uri = connection_uri(self._settings.database, claim.database)
        context = JobContext(claim, kind, directory, self._settings, uri)
        job = self._runner.start(context, Limits.of(claim, self._settings), held.freeze_at)
        self._renewal.hold(claim, self._store.calculations(claim.database), job, held, kind.writes_own_end)
        self._runner.warm_up()
        return job

    def _wait_for_end(self, job: RunningJob) -> str:
        """Wait until the job has ended or been killed; return why it was killed, if it was told to stop at once."""
        draining = False
        while True:
            ready = wait([job.connection, self._signals.wake], _LOOK_FOR_STOP_FILES_S)
            if self._signals.wake in ready:
                self._signals.clear()
            if job.connection in ready:
                return ""
            order = self._orders.current
            if order.stop is Stop.NOW:
                job.kill()
                return order.reason
            if order.stop is not Stop.NO and not draining:
                draining = True
                self._log.info(f"will stop after this job: {order.reason}", job.context.claim.id)
                self._reporter.update(state="draining")

    def _settle(self, claim: Claim, directory: Path, ended: Ended, ours: bool, told_to_stop: str) -> None:
        if not ours:
            self._log.warning("discarded: the calculation was taken or changed by somebody else", claim.id)
            self._reporter.event("discarded", claim.id)
        elif told_to_stop and ended.cause is Cause.KILLED:
            self._give_back(claim, told_to_stop)
        elif ended.cause is Cause.KILLED:
            self._give_back(claim, ended.detail or "its processes were killed", lost_on=self._claimant.host)
        else:
            stdout, stderr = (read_shortened(path) for path in keeper.output_of(directory))
            self._conclude(claim, directory, verdicts.judge(ended, stdout, stderr))

    def _give_back(self, claim: Claim, reason: str, lost_on: str | None = None) -> None:
        try:
            given = self._store.calculations(claim.database).requeue(claim, lost_on)
        except DatabaseError as error:
            # The lease runs out, and the next incarnation of this worker looks for what was left behind.
            self._log.error(f"could not be given back now: {error}", claim.id)
            return
        if given:
            self._log.warning(f"given back: {reason}", claim.id)
            self._reporter.event("requeued", claim.id, reason)

    def _conclude(self, claim: Claim, directory: Path, verdict: Verdict) -> None:
        writes_own_end = self._kinds[claim.order].writes_own_end
        written = self._write(claim, verdict, writes_own_end)
        failed = verdict.status is Status.FAILED
        self._count(claim, failed)
        if not written:
            return
        summary = f"{verdict.status.value} after {verdict.usage.wall_s:.2f} s"
        reason = verdict.comment.splitlines()[0] if verdict.comment else ""
        self._log.info(f"{summary}{': ' if reason else ''}{reason}", claim.id)
        self._reporter.event("failed" if failed else "finished", claim.id, reason)
        self._archive(claim, directory, failed)

    def _write(self, claim: Claim, verdict: Verdict, writes_own_end: bool) -> bool:
        """Write a result, however long that takes; return whether the calculation was still ours."""
        try:
            return self._store_result(claim, verdict, writes_own_end)
        except DatabaseUnavailable as error:
            self._log.warning(f"the result is kept on disk until the database answers: {error}", claim.id)
        self._spool.put(claim, verdict, writes_own_end)
        while True:
            wait([self._signals.wake], random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            self._signals.clear()
            if self._orders.current.stop is Stop.NOW:
                self._log.warning("leaving with a result on disk; the next start writes it", claim.id)
                return False
            try:
                written = self._store_result(claim, verdict, writes_own_end)
            except DatabaseUnavailable:
                continue
            self._spool.remove(claim)
            return written

    def _store_result(self, claim: Claim, verdict: Verdict, writes_own_end: bool) -> bool:
        collection = self._store.calculations(claim.database)
        if writes_own_end and collection.complete(claim, verdict):
            return True
        # The job wrote no end itself, or died before it could.
        if writes_own_end and verdict.status is Status.COMPLETE:
            comment = "the job said that it was done, but left its calculation pending"
            verdict = dataclasses.replace(verdict, status=Status.FAILED, comment=comment)
        written = collection.finish(claim, verdict)
        if not written:
            self._log.warning("not written: the calculation is no longer ours", claim.id)
            self._reporter.event("discarded", claim.id)
        return written

    def _write_spooled(self) -> None:
        for spooled in self._spooled():
            written = self._store_result(spooled.claim, spooled.verdict, spooled.writes_own_end)
            self._spool.remove(spooled.claim)
            if written:
                self._log.info("written: a result that an earlier run kept on disk", spooled.claim.id)
                self._reporter.event("finished", spooled.claim.id, "kept on disk until now")

    def _spooled(self) -> Iterator[Spooled]:
        return self._spool.waiting(self._claimant.executor)

    def _archive(self, claim: Claim, directory: Path, failed: bool) -> None:
        daemon = self._settings.daemon
        target = daemon.error_dir if failed else daemon.archive_dir
        if not target:
            return
        try:
            archive.archive(directory, claim.id, Path(target))
        except OSError as error:
            self._log.error(f"its directory could not be archived in {target}: {error.strerror}", claim.id)

    def _count(self, claim: Claim, failed: bool) -> None:
        self._failures = [*self._failures, claim] if failed else []
        record = self._reporter.record
        self._reporter.update(done=record.done + (not failed), failed=record.failed + failed)

    def _should_be_quarantined(self) -> bool:
        """After too many failures in a row the fault is here: give the failed calculations back and stop."""
        if len(self._failures) < self._settings.daemon.repeated_failure_stop:
            return False
        for claim in self._failures:
            if self._store.calculations(claim.database).retract_failure(claim, self._claimant.host):
                self._reporter.event("requeued", claim.id, "the worker was quarantined")
        self._log.error(f"quarantined after {len(self._failures)} failures in a row, which were given back")
        return True

    def _on_hold_change(self, hold: Hold) -> None:
        calculation = self._reporter.record.calculation
        if hold is Hold.FROZEN:
            self._log.warning("frozen: the database does not answer, and the lease is running out", calculation)
            self._reporter.update(state="frozen")
            self._reporter.event("frozen", calculation)
        elif hold is Hold.RUNNING:
            self._log.info("thawed: the lease is renewed", calculation)
            self._reporter.update(state="running")
            self._reporter.event("thawed", calculation)


def _claimant(settings: Settings, identity: Identity) -> Claimant:
    fleet = settings.fleet
    return Claimant(
        executor=settings.daemon.uuid,
        lease_s=settings.daemon.lease_in_s,
        host=identity.host,
        worker=fleet.worker or settings.daemon.uuid,
        fleet=fleet.name,
    )


def _record(settings: Settings, identity: Identity, orders: tuple[str, ...]) -> WorkerRecord:
    resources = settings.resources
    return WorkerRecord(
        uuid=settings.daemon.uuid,
        fleet=settings.fleet.name,
        host=identity.host,
        worker=settings.fleet.worker,
        release=identity.release,
        configuration=identity.configuration,
        pid=identity.pid,
        cores=resources.cores,
        memory=resources.memory,
        disk=resources.disk,
        programs=settings.available_programs,
        jobs=orders,
        state="starting",
    )
