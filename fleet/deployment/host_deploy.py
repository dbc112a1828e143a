"""Brings one host to the state that hosts.yaml describes, and waits until its workers are healthy.

The steps are in an order in which every one may be the last: until the release is switched the old one works, and
what a step has done the next deploy finds and does not do again.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

from fleet.deployment.deed import Deed
from fleet.deployment.gate import Look
from fleet.deployment.health import Health, WorkerHealth
from fleet.deployment.kits import tool_directory
from fleet.deployment.manifest import manifest_of, unfinished
from fleet.deployment.manifest import render as render_manifest
from fleet.deployment.manner import Manner
from fleet.deployment.plan import FileWrite, HostPlan, WriteReason
from fleet.deployment.survey import HostWork
from fleet.deployment.waiting import Expected, Watch, running
from fleet.hosts.inventory import Fleet
from fleet.reach.execute import Say
from fleet.reach.facts import States
from fleet.reach.remote import Remote, Upload
from fleet.reach.uploading import upload
from fleet.release.bundle import Supply

INSTALL_TIMEOUT_S = 900.0
WORKER = "puffin.daemon"
"""The module that imports all that a worker needs before its first job."""


class Signs(Protocol):
    """What a host tells while it is changed."""

    def changing(self) -> None:
        """From now on it may differ from what it was."""

    def looked(self, look: Look) -> None:
        """Its workers were looked at."""

    def progressed(self) -> None:
        """It has come further."""


@dataclass(frozen=True)
class Deployed:
    """A host that was deployed.

    Parameters
    ----------
    changed
        Whether anything had to be changed.
    workers
        Its workers as they were at the end; none where they were not waited for, or where there are none.
    pending
        Workers that change by themselves once their calculation has ended.
    later
        Workers that the next deploy has to see to, where this one did not wait: to put them in, to put them in anew,
        or to take them out.
    awaited
        Whether its workers were waited for.
    seconds
        How long it took.
    """

    changed: bool
    workers: tuple[WorkerHealth, ...] = ()
    pending: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    awaited: bool = True
    seconds: float = 0.0

    @property
    def proven(self) -> bool:
        """Whether it shows that the release runs.

        Where all workers are stopped on purpose, or there are none, it does not. Where nobody waited it does not
        either, but then nobody asked for that.
        """
        return not self.awaited or any(worker.health is Health.HEALTHY for worker in self.workers)


class Deployment:
    """One host's part of a deploy.

    Parameters
    ----------
    fleet
        The fleet.
    work
        What is to be done.
    remote
        The connection to the host.
    watch
        Looks at its workers, and asks it to do things.
    manner
        What becomes of the calculations that run.
    deed
        The command that deploys.
    switched
        Called when the host's workers are to run the release from now on.
    say
        Told what is being done.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        work: HostWork,
        remote: Remote,
        watch: Watch,
        say: Say,
        deed: Deed,
        manner: Manner = Manner.ROLLING,
        switched: Callable[[], None] = lambda: None,
    ) -> None:
        self._fleet = fleet
        self._work = work
        self._remote = remote
        self._watch = watch
        self._say = say
        self._deed = deed
        self._manner = manner
        self._switched = switched

    def prepare(self) -> None:
        """Upload and install what is missing; nothing that runs notices.

        Raises
        ------
        RemoteError
            It cannot be reached, or cannot do it.
        """
        self._upload()
        self._install()

    def carry_out(self, signs: Signs) -> Deployed:
        """Do the rest: write, switch, and wait for the workers as far as that is wanted.

        Parameters
        ----------
        signs
            Told how far it has come.

        Raises
        ------
        RemoteError
            A step failed, or a worker did not become healthy.
        """
        started = time.monotonic()
        plan = self._work.plan
        held_back = self._held_back()
        sections = {_section(name) for name in held_back}
        self._keep_what_is_good()
        signs.changing()
        if not self._only_looks:
            self._write_files(
                [write for write in plan.files_to_write if write.file.path not in sections], last=not held_back
            )
        self._switched()
        self._say("looking at its workers" if self._only_looks else "starting workers")
        states = self._supervise()
        told = operations(plan, self._to_restart(), held_back, states)
        self._operate(told)
        signs.progressed()
        if self._manner is Manner.WHEN_IDLE:
            pending, later = left_behind(plan, self._to_restart(), held_back, states)
            self._leave_behind(running(states, plan.workers_removed))
            return Deployed(True, pending=pending, later=later, awaited=False, seconds=time.monotonic() - started)
        overtaken = self._end_what_must_end(states, signs, held_back) or bool(told or held_back)
        if held_back:
            # By then the workers that make room have changed; the new ones would have had no place before.
            self._wait([worker for worker in self._work.configurations if worker not in held_back], signs)
            self._write_files([write for write in plan.files_to_write if write.file.path in sections], last=True)
            self._supervise()
        workers = self._wait(list(self._work.configurations), signs, None if overtaken else states)
        return Deployed(not plan.empty, workers, seconds=time.monotonic() - started)

    @property
    def _only_looks(self) -> bool:
        """Whether all was written by an earlier deploy, of which the state then stays.

        Under the name of this one its own good state would be passed over when it puts hosts back.
        """
        manifest = self._work.observed.manifest
        return self._work.plan.empty and manifest is not None and manifest.before is None

    def _keep_what_is_good(self) -> None:
        """Keep the present state if it works, where a deploy that did not wait, or was cut off, has not done so."""
        if self._work.worth_keeping:
            self._watch.ask("good", operation="keep")

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
            files.append(Upload(work.toolbox.uv, self._uv(), 0o755, packed=True))
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
            self._install_environment(target, work.supervisor_supply, ["bin/supervisord"], [])
        if not work.plan.install_release:
            return
        self._say(f"installing release {work.release}")
        if work.bundle is None:
            provides = ["bin/puffin", "bin/supervisord"]
            path = self._fleet.release.path
            self._watch.ask("install_release", target=f"releases/{work.release}", path=path, provides=provides)
        else:
            self._install_environment(f"releases/{work.release}", work.release_supply, ["bin/puffin"], [WORKER])

    def _install_environment(self, target: str, supply: Supply, provides: list[str], imports: list[str]) -> None:
        self._watch.ask(
            "install_release",
            INSTALL_TIMEOUT_S,
            target=target,
            wheels=_named(supply.brought),
            requirements=supply.requirements or None,
            uv=self._uv(),
            python=None,
            provides=provides,
            imports=imports,
            limit=INSTALL_TIMEOUT_S - 30,  # so that the host itself says what took too long
        )

    def _held_back(self) -> list[str]:
        """New workers, while others still have to give up the cores and memory meant for them.

        Their programs are not written before that. So they are told by their missing sections, also where an earlier
        deploy was cut off while it held them back.
        """
        plan = self._work.plan
        if not (plan.workers_removed or plan.workers_changed):
            return []
        new = {write.file.path for write in plan.files_to_write if write.reason is WriteReason.NEW}
        # One that was to be removed and is wanted again has its place still.
        there = {change.name for change in plan.workers_changed}
        return [name for name in self._work.configurations if _section(name) in new and name not in there]

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
        self._watch.ask(
            "apply",
            run_dir=work.facts.run_dir,
            files=files,
            remove=list(work.plan.files_to_remove),
            current=work.release,
            scratch=work.paths.scratch,
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
            deploy=self._deed.id,
            release=work.release,
            at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            by=self._deed.who,
        )
        begun = unfinished(done, work.observed.manifest, work.observed.files)
        return {
            "begin": base64.b64encode(render_manifest(begun).content).decode(),
            "end": base64.b64encode(render_manifest(done).content).decode() if last else None,
        }

    def _supervise(self) -> States:
        boot = True if self._work.host.boot == "auto" else False if self._work.plan.disable_boot else None
        # Programs that somebody else has put there are theirs to start.
        ours = [*self._work.desired.workers, *self._work.plan.workers_removed]
        return self._watch.supervise(supervisor=self._work.paths.supervisor, boot=boot, programs=ours).states

    def _operate(self, operations: list[dict[str, Any]]) -> None:
        if operations:
            self._watch.ask("control", operations=operations)

    def _to_restart(self) -> list[str]:
        """Changed workers that supervisord has to start again: a recycle file is not enough, or not quick enough."""
        changes = self._work.plan.workers_changed
        return [change.name for change in changes if change.restart or self._manner is Manner.NOW]

    def _end_what_must_end(self, states: States, signs: Signs, held_back: Sequence[str]) -> bool:
        """Let workers that are removed, or whose program changes, end; then bring supervisord up to date.

        That may take days. The others run the release by then, which is what the hosts behind a canary wait for.
        Returns whether there were any.
        """
        again = self._to_restart()
        ending = running(states, [*self._work.plan.workers_removed, *again])
        if not ending:
            return False
        others = [worker for worker in self._work.configurations if worker not in {*ending, *again, *held_back}]
        now = self._manner is Manner.NOW
        self._watch.end(ending, now=now, beside=self._wanted(others), on_look=signs.looked)
        self._supervise()
        if again:
            self._operate([{"operation": "start", "workers": again}])
        return True

    def _leave_behind(self, removed: Sequence[str]) -> None:
        """Let workers that are removed end by themselves."""
        if removed:
            self._operate([{"operation": "end", "workers": list(removed)}])

    def _wait(self, workers: Sequence[str], signs: Signs, states: States | None = None) -> tuple[WorkerHealth, ...]:
        return self._watch.wait_until_healthy(self._wanted(workers), signs.looked, states)

    def _wanted(self, workers: Sequence[str]) -> Expected:
        work = self._work
        configurations = {worker: work.configurations[worker] for worker in workers}
        return Expected(work.release, configurations, frozenset(work.plan.kept_stopped))


def operations(
    plan: HostPlan, to_restart: Sequence[str], held_back: Sequence[str], states: States
) -> list[dict[str, Any]]:
    """What to tell the workers of a host once its files are written.

    Parameters
    ----------
    plan
        What has to be done.
    to_restart
        Changed workers that supervisord has to start again once they have ended.
    held_back
        Workers that have to wait for others.
    states
        What the host says by now: who ran when the plan was made may have ended by itself since.
    """
    stopped = set(_changed(plan)) if states.stop else states.stopped
    gone = [name for name in _changed(plan) if not running(states, [name]) and name not in stopped]
    recycled = [name for name in _changed(plan) if name not in {*to_restart, *gone}]
    down = [name for name in (*plan.workers_to_start, *gone) if name not in held_back]
    orders = (("recycle", recycled), ("start", down))
    return [{"operation": operation, "workers": workers} for operation, workers in orders if workers]


def left_behind(
    plan: HostPlan, to_restart: Sequence[str], held_back: Sequence[str], states: States
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who changes by himself where nobody waits for it, and who does not.

    Parameters
    ----------
    plan, to_restart, held_back, states
        As for :func:`operations`.

    Returns
    -------
    pending, later
        Workers that were told to recycle; workers that wait for the next deploy.
    """
    pending = [name for name in running(states, _changed(plan)) if name not in to_restart]
    later = (*held_back, *running(states, to_restart), *running(states, plan.workers_removed))
    return tuple(pending), later


def _section(worker: str) -> str:
    return f"etc/conf.d/{worker}.conf"


def _changed(plan: HostPlan) -> list[str]:
    return [change.name for change in plan.workers_changed]


def _named(wheels: Sequence[Any]) -> list[dict[str, str]]:
    return [{"sha256": wheel.sha256, "name": wheel.filename} for wheel in wheels]
