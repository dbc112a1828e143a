"""Brings one host to the state that hosts.yaml describes, and waits until its workers are healthy.

The steps are in an order in which every one may be the last: until the release is switched the old one works, and
what a step has done the next deploy finds and does not do again.
"""

from __future__ import annotations

import base64
import getpass
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fleet import health
from fleet.bundle import Supply
from fleet.errors import RemoteError
from fleet.execute import ask, upload
from fleet.facts import States, parse_states
from fleet.health import Health, WorkerHealth
from fleet.inventory import Fleet
from fleet.manifest import manifest_of, unfinished
from fleet.manifest import render as render_manifest
from fleet.plan import FileWrite
from fleet.remote import ConnectionLost, Remote, UnreachableError, Upload
from fleet.survey import HostWork, tool_directory
from puffin.errors import DatabaseUnavailable
from puffin.store import WorkerRecord

INSTALL_TIMEOUT_S = 900.0
POLL_S = 1.0
_LOG_LINES = 15
_MOST_STARTS = 3
_LONGEST_TROUBLE_S = 120.0

Say = Callable[[str], None]
"""Told in a few words what is being done on the host."""

ReadRecords = Callable[[], Sequence[WorkerRecord]]


@dataclass(frozen=True)
class Deployed:
    """A host that was deployed.

    Parameters
    ----------
    changed
        Whether anything had to be done.
    workers
        Its workers as they were at the end.
    seconds
        How long it took.
    """

    changed: bool
    workers: tuple[WorkerHealth, ...]
    seconds: float


class Deployment:
    """One host's part of a deploy.

    Parameters
    ----------
    fleet
        The fleet.
    work
        What is to be done.
    remote
        The host.
    read_records
        Reads what the workers of the fleet reported.
    say
        Told what is being done.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        work: HostWork,
        remote: Remote,
        read_records: ReadRecords,
        say: Say,
        slot: AbstractContextManager[Any],
    ) -> None:
        self._fleet = fleet
        self._work = work
        self._remote = remote
        self._read_records = read_records
        self._say = say
        self._slot = slot

    def carry_out(self) -> Deployed:
        """Do all steps, then wait for the workers.

        Raises
        ------
        RemoteError
            A step failed, or a worker did not become healthy.
        """
        started = time.monotonic()
        plan = self._work.plan
        if plan.empty:
            return Deployed(False, (), time.monotonic() - started)
        with self._slot:
            self._upload()
            self._install()
            held_back = self._sections_to_hold_back()
            self._write_files(
                [write for write in plan.files_to_write if write.file.path not in held_back], last=not held_back
            )
            self._say("starting workers")
            states = self._supervise()
            self._operate(self._operations())
        self._drain_what_must_end(states)
        if held_back:
            self._wait_until_healthy(
                [worker for worker in self._work.configurations if worker not in plan.workers_added]
            )
            self._write_files([write for write in plan.files_to_write if write.file.path in held_back], last=True)
            self._supervise()
        workers = self._wait_until_healthy(list(self._work.configurations))
        return Deployed(True, workers, time.monotonic() - started)

    def _ask(self, action: str, timeout: float = 120.0, **request: Any) -> dict[str, Any]:
        facts = self._work.facts
        known = {"fleet_root": facts.fleet_root, "host_root": facts.host_root}
        return ask(self._remote, action, {**known, **request}, timeout)

    def _upload(self) -> None:
        work, facts = self._work, self._work.facts
        if work.bundle is None or work.toolbox is None:
            return
        missing = set(work.plan.wheels_to_upload)
        wheels = [wheel for wheel in work.release_supply.brought if wheel.sha256 in missing]
        if work.plan.supervisor_to_install:
            there = {wheel.sha256 for wheel in facts.wheels}
            wheels += [wheel for wheel in work.supervisor_supply.brought if wheel.sha256 not in there]
        files = [
            Upload(wheel.path, f"{facts.fleet_root}/wheels/{wheel.sha256}/{wheel.filename}")
            for wheel in {wheel.sha256: wheel for wheel in wheels}.values()
        ]
        installs = work.plan.install_release or work.plan.supervisor_to_install
        if installs and self._uv_directory() not in facts.uv_versions:
            files.append(Upload(work.toolbox.uv, self._uv(), 0o755))
        if files:
            upload(self._remote, files, self._on_upload)

    def _on_upload(self, sent: int, total: int) -> None:
        self._say(f"uploading {sent / 1e6:.1f} of {total / 1e6:.1f} MB")

    def _uv(self) -> str:
        assert self._work.toolbox is not None  # noqa: S101 - only called where there is one
        return f"{self._work.facts.fleet_root}/tools/uv-{self._uv_directory()}/uv"

    def _uv_directory(self) -> str:
        assert self._work.toolbox is not None  # noqa: S101 - likewise
        return tool_directory(self._work.toolbox.uv_version, self._work.toolbox.platform)

    def _install(self) -> None:
        work = self._work
        if work.plan.supervisor_to_install and work.toolbox is not None:
            self._say("installing supervisor")
            target = f"supervisor/{work.plan.supervisor_to_install}"
            self._install_environment(target, work.supervisor_supply, ["bin/supervisord"])
        if not work.plan.install_release:
            return
        self._say(f"installing release {work.release}")
        if work.bundle is None:
            provides = ["bin/puffin", "bin/supervisord"]
            path = self._fleet.release.path
            self._ask("install_release", target=f"releases/{work.release}", path=path, provides=provides)
        else:
            self._install_environment(f"releases/{work.release}", work.release_supply, ["bin/puffin"])

    def _install_environment(self, target: str, supply: Supply, provides: list[str]) -> None:
        self._ask(
            "install_release",
            INSTALL_TIMEOUT_S,
            target=target,
            wheels=_named(supply.brought),
            requirements=supply.requirements or None,
            uv=self._uv(),
            python=None,
            provides=provides,
        )

    def _sections_to_hold_back(self) -> frozenset[str]:
        """The programs of new workers, while others still have to give up the cores and memory meant for them."""
        plan = self._work.plan
        if not (plan.workers_removed or plan.workers_changed):
            return frozenset()
        return frozenset(f"etc/conf.d/{worker}.conf" for worker in plan.workers_added)

    def _write_files(self, writes: Sequence[FileWrite], last: bool) -> None:
        work = self._work
        self._say("writing files")
        files = [
            {
                "path": write.file.path,
                "mode": write.file.mode,
                "content_b64": base64.b64encode(write.file.content).decode(),
            }
            for write in writes
        ]
        self._ask(
            "apply",
            run_dir=work.facts.run_dir,
            files=files,
            remove=list(work.plan.files_to_remove),
            current=work.release,
            directories=list(work.directories),
            manifest=self._manifest(last),
        )
        if work.plan.stop_files:
            self._operate([{"operation": "stop_file", "workers": list(work.plan.stop_files)}])
        stale = [name for name in work.plan.stale_stops if name not in work.plan.kept_stopped]
        if stale:
            self._operate([{"operation": "clear_stop_file", "workers": stale}])

    def _manifest(self, last: bool) -> dict[str, str | None]:
        """What was deployed, for telling later what was changed by hand; open until the last file is written."""
        work = self._work
        done = manifest_of(
            work.desired.files,
            deploy=secrets.token_hex(4),
            release=work.release,
            at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            by=f"{getpass.getuser()}@{socket.gethostname()}",
        )
        begun = unfinished(done, work.observed.manifest, work.observed.files)
        return {
            "begin": base64.b64encode(render_manifest(begun).content).decode(),
            "end": base64.b64encode(render_manifest(done).content).decode() if last else None,
        }

    def _supervise(self) -> States:
        # Programs that somebody else has put there are theirs to start.
        ours = [*self._work.desired.workers, *self._work.plan.workers_removed]
        reply = self._ask("supervise", supervisor=self._work.paths.supervisor, programs=ours)
        return parse_states(self._work.host.name, reply)

    def _operate(self, operations: list[dict[str, Any]]) -> None:
        if operations:
            self._ask("control", operations=operations)

    def _operations(self) -> list[dict[str, Any]]:
        plan = self._work.plan
        recycled = [change.name for change in plan.workers_changed if not change.restart]
        operations: list[dict[str, Any]] = []
        if recycled:
            operations.append({"operation": "recycle", "workers": recycled})
        if plan.workers_to_start:
            operations.append({"operation": "start", "workers": list(plan.workers_to_start)})
        return operations

    def _drain_what_must_end(self, states: States) -> None:
        """Let workers that are removed, or whose program changes, finish; then bring supervisord up to date."""
        plan = self._work.plan
        ending = [*plan.workers_removed, *(change.name for change in plan.workers_changed if change.restart)]
        ending = [name for name in ending if name in _running(states, ending)]
        if not ending:
            return
        # By signal, not by stop file: one left behind by a deploy that was cut off would keep them down for good.
        # And not by supervisord's own stop, which kills when a time is over.
        self._operate([{"operation": "signal", "workers": ending, "signal": "TERM"}])
        deadline = time.monotonic() + self._fleet.update.drain_timeout
        while running := _running(states, ending):
            if time.monotonic() > deadline:
                what = f"{', '.join(running)} did not finish within update.drain_timeout"
                raise RemoteError(self._work.host.name, "draining", what, "deploy again to go on waiting")
            self._say(f"waiting for {', '.join(running)} to finish")
            time.sleep(POLL_S)
            states = self._states()
            states = self._states()
        self._supervise()
        again = [change.name for change in plan.workers_changed if change.restart]
        if again:
            self._operate([{"operation": "start", "workers": again}])

    def _states(self) -> States:
        """The present states; a connection or a database that fails for a while is no reason to give up a wait."""
        give_up = time.monotonic() + _LONGEST_TROUBLE_S
        while True:
            try:
                return parse_states(self._work.host.name, self._ask("states"))
            except (ConnectionLost, UnreachableError) as error:
                if time.monotonic() > give_up:
                    raise
                self._say(f"connecting again: {error.what}")
                time.sleep(POLL_S)

    def _records(self) -> Sequence[WorkerRecord]:
        give_up = time.monotonic() + _LONGEST_TROUBLE_S
        while True:
            try:
                return self._read_records()
            except DatabaseUnavailable:
                if time.monotonic() > give_up:
                    raise
                self._say("waiting for the database")
                time.sleep(POLL_S)

    def _wait_until_healthy(self, wanted: Sequence[str]) -> tuple[WorkerHealth, ...]:
        begun = time.monotonic()
        since_drained = begun
        processes: dict[str, set[int]] = {}
        while True:
            workers = self._look(wanted, processes)
            failed = [worker for worker in workers if worker.health is Health.FAILED]
            if failed:
                raise self._unhealthy(failed)
            waiting = [worker for worker in workers if not worker.settled]
            if not waiting:
                return workers
            now = time.monotonic()
            if any(worker.health is Health.DRAINING for worker in waiting):
                since_drained = now
            if now - since_drained > self._fleet.update.healthy_deadline:
                raise self._unhealthy(waiting)
            if now - begun > self._fleet.update.drain_timeout:
                raise self._unhealthy(waiting)
            first = waiting[0]
            self._say(f"{len(workers) - len(waiting)} of {len(workers)} workers ready; {first.worker}: {first.detail}")
            time.sleep(POLL_S)

    def _look(self, wanted: Sequence[str], processes: dict[str, set[int]]) -> tuple[WorkerHealth, ...]:
        work = self._work
        states = self._states()
        mine = [record for record in self._records() if record.host == work.host.name]
        for program in states.supervisord.programs:
            if program.pid:
                processes.setdefault(program.name, set()).add(program.pid)
        # supervisord gives up only on those that end at once; one that dies after seconds is started for ever.
        looping = frozenset(name for name, seen in processes.items() if len(seen) > _MOST_STARTS)
        configurations = {worker: work.configurations[worker] for worker in wanted}
        found = health.judge(configurations, work.release, states, mine, looping)
        kept = frozenset(work.plan.kept_stopped)
        return tuple(_as_stopped(one) if one.worker in kept else one for one in found)

    def _unhealthy(self, workers: Sequence[WorkerHealth]) -> RemoteError:
        what = "; ".join(f"{worker.worker}: {worker.detail or worker.health.value}" for worker in workers)
        return RemoteError(self._work.host.name, "waiting for workers", what, self._last_lines(workers[0].worker))

    def _last_lines(self, worker: str) -> str:
        # What it said before it had a log comes last: it is the reason if there is one.
        files = [{"worker": worker, "path": f"log/{worker}.{suffix}"} for suffix in ("log", "out")]
        reply = self._ask("tail", files=files, lines=_LOG_LINES // 2, follow=False)
        lines = [str(entry["line"]) for entry in reply.get("entries", ())]
        if not lines:
            return f"its log is empty; see 'puffin-fleet logs --host {self._work.host.name}'"
        return "last lines of its log:\n    " + "\n    ".join(lines[-_LOG_LINES:])


def _as_stopped(worker: WorkerHealth) -> WorkerHealth:
    return WorkerHealth(worker.worker, Health.STOPPED, "stopped on purpose")


def _named(wheels: Sequence[Any]) -> list[dict[str, str]]:
    return [{"sha256": wheel.sha256, "name": wheel.filename} for wheel in wheels]


def _running(states: States, workers: Sequence[str]) -> list[str]:
    alive = {"STARTING", "RUNNING", "BACKOFF", "STOPPING"}
    return [
        program.name for program in states.supervisord.programs if program.name in workers and program.state in alive
    ]
