"""Whether what is deployed on a host is whole and runs, and is there after a reboot. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleet.deployment import manifest
from fleet.deployment.drift import changed_by_hand
from fleet.deployment.manifest import FileState
from fleet.deployment.refusals import describe, silent_s
from fleet.deployment.sides import ProgramState
from fleet.deployment.workerfiles import named_like_ours
from fleet.hosts.inventory import Host
from fleet.reach.facts import Facts, Holder, Program
from fleet.watch.examination import Examined
from fleet.watch.findings import DEPLOY, Checked, fail, literal, ok, warn
from fleet.words import duration
from puffin.errors import ExitCode

_LOGS = "see 'puffin-fleet logs --host {host}'"
_EXIT_CODES = {2: "its settings are refused", 3: "quarantined after many failures in a row"}


def of_deployment(host: Host, found: Examined) -> Iterator[Checked]:
    """What deploys left on the host."""
    yield from _release(found)
    yield from _supervisord(found.facts)
    yield from _workers(found)
    yield from _orphans(found.facts)
    yield from _drift(host, found.facts)
    yield from _boot(host, found.facts)
    yield from _leftovers(found)


def _release(found: Examined) -> Iterator[Checked]:
    if found.examination.release_problem:
        advice = f"remove {literal(found.facts.fleet_root)}/releases/{found.facts.current or '<release>'}; {DEPLOY}"
        yield fail("release", f"damaged: {found.examination.release_problem}", advice)
    elif found.facts.current is None:
        yield ok("release", "nothing is deployed yet")
    else:
        yield ok("release", f"{found.facts.current} runs")


def _supervisord(facts: Facts) -> Iterator[Checked]:
    daemon = facts.supervisord
    if facts.drained:
        yield warn("drained", str(facts.drained), "to bring it back: puffin-fleet resume {host}")
    if facts.current is None and not daemon.running:
        return
    if not daemon.running:
        start = "puffin-fleet resume {host}" if facts.drained else "puffin-fleet start --host {host}"
        advice = f"run: {start}" if facts.stop else DEPLOY
        how = warn if facts.stop else fail
        yield how("supervisord", "does not run" + (", and the host is stopped" if facts.stop else ""), advice)
    elif not daemon.reachable:
        what = f"runs (pid {daemon.pid}) but does not answer: {daemon.problem or 'no reason given'}"
        yield fail("supervisord", what, f"see {literal(facts.host_root)}/log/supervisord.log on the host")
    elif _is_another(daemon.version or "", facts.supervisors):
        installed = ", ".join(facts.supervisors)
        what = f"{daemon.version} runs, installed is {installed}"
        advice = "to change it: puffin-fleet stop --supervisord --host {host}, then start"
        yield warn("supervisord", what, advice)
    else:
        yield ok("supervisord", f"{daemon.version}, pid {daemon.pid}")


def _is_another(version: str, installed: tuple[str, ...]) -> bool:
    """Directories are named by version and, behind a hyphen, by platform."""
    return bool(installed) and not any(re.match(rf"{re.escape(version)}(-|\Z)", name) for name in installed)


def _workers(found: Examined) -> Iterator[Checked]:
    facts = found.facts
    running = 0
    for program in facts.supervisord.programs:
        meant_to_rest = facts.stop or program.name in facts.stopped
        problem = _problem_of(program)
        running += program.state == "RUNNING"
        if program.state == "EXITED" and not program.exitstatus and not meant_to_rest:
            yield warn(program.name, "it ended by itself, and nobody stopped it", f"{_LOGS}; to start it, {DEPLOY}")
        if problem:
            lines = found.examination.logs.get(program.name, ())
            said = "\n".join(["", *(f"  {line}" for line in lines)]) if lines else ""
            yield fail(
                program.name,
                f"{problem}{said}",
                f"{_LOGS}; if its settings are why, correct them and deploy, else: puffin-fleet start --host {{host}}",
            )
    if facts.supervisord.programs:
        rest = ["all"] if facts.stop else sorted(facts.stopped)
        stopped = f"; stopped on purpose: {', '.join(rest)}" if rest else ""
        yield ok("workers", f"{running} of {len(facts.supervisord.programs)} run{stopped}")


def _problem_of(program: Program) -> str:
    if program.state == "FATAL":
        return f"supervisord gave up: {program.spawnerr or 'it ended again and again'}"
    if program.state == "BACKOFF":
        return f"it ends as soon as it is started: {program.spawnerr or program.description}"
    # Who ended to start again does, within a second.
    if program.state == "EXITED" and program.exitstatus not in {0, ExitCode.RECYCLE}:
        meaning = _EXIT_CODES.get(program.exitstatus)
        return f"it ended with exit code {program.exitstatus}" + (f": {meaning}" if meaning else "")
    return ""


def _orphans(facts: Facts) -> Iterator[Checked]:
    lost = [f"{orphan.worker} (pid {orphan.pid})" for orphan in facts.orphans if orphan.worker]
    strays = [f"{orphan.command[:60]} (pid {orphan.pid})" for orphan in facts.orphans if not orphan.worker]
    if lost:
        advice = "'puffin-fleet stop --host {host}' lets them finish, with --now gives their jobs back; then 'start'"
        yield fail("orphans", f"workers of an earlier supervisord still run: {', '.join(lost)}", advice)
    if strays:
        yield warn("orphans", f"left behind by calculations: {', '.join(strays)}", "end them if they do nothing useful")
    if not facts.orphans:
        yield ok("orphans", "none")


def _drift(host: Host, facts: Facts) -> Iterator[Checked]:
    """What differs from what the last deploy left."""
    by_hand = changed_by_hand(
        manifest.parse(facts.manifest), {file.path: FileState(file.sha256, file.mode) for file in facts.files}
    )
    if by_hand:
        advice = "see it with 'puffin-fleet plan --diff --host {host}'; 'puffin-fleet deploy --repair' undoes it"
        yield warn("drift", f"changed by hand: {', '.join(by_hand)}", advice)
    names = sorted(facts.drifted)
    if names:
        yield warn("drift", f"supervisord does not run what stands in the files of {', '.join(names)}", DEPLOY)
    stopped = [
        program.name
        for program in facts.supervisord.programs
        if ProgramState(program.state).stopped_by_hand and not facts.stop and program.name not in facts.stopped
    ]
    if stopped:
        yield warn(
            "drift",
            f"stopped by hand: {', '.join(stopped)}",
            "'puffin-fleet start --host {host}' starts them; a deploy leaves them stopped",
        )
    known = {file.path for file in facts.files}
    strangers = [
        program.name
        for program in facts.supervisord.programs
        if f"etc/workers/{program.name}.yaml" not in known and not named_like_ours(program.name, host.name)
    ]
    if strangers:
        yield warn("drift", f"programs that are not from here: {', '.join(strangers)}", "they are left alone")


def _boot(host: Host, facts: Facts) -> Iterator[Checked]:
    boot = facts.boot
    if host.boot == "none":
        yield ok("boot", "not wanted: hosts.yaml says 'boot: none'")
    elif boot.current and boot.why:
        yield warn("boot", boot.why, "have the cron daemon started, or workers are not back after a reboot")
    elif boot.current:
        yield ok("boot", f"by {boot.kind}")
    elif boot.available == "none":
        what, _, advice = boot.why.partition(". ")
        yield warn("boot", f"workers are not back after a reboot: {what}", literal(advice))
    elif facts.current is None:
        yield ok("boot", f"will be by {boot.available}")
    else:
        state = "not arranged" if boot.kind == "none" else f"not as it should be ({boot.kind})"
        yield warn("boot", f"the start at boot is {state}", DEPLOY)


def _lock(holder: Holder) -> Checked:
    """Whoever was killed leaves one behind; so does nobody who only works."""
    silent = silent_s(holder)
    if holder.expired:
        advice = "nobody renews it: the next command takes it over, or: puffin-fleet unlock --host {host}"
        return warn("lock", describe(holder), advice)
    if silent is not None or not holder.id:
        since = f"; not renewed for {duration(silent)}" if silent is not None else ""
        advice = "if that command has ended or was killed: puffin-fleet unlock --host {host}"
        return warn("lock", f"{describe(holder)}{since}", advice)
    return ok("lock", describe(holder))


def _leftovers(found: Examined) -> Iterator[Checked]:
    if found.facts.lock.holder is not None:
        yield _lock(found.facts.lock.holder)
    if found.examination.unfinished:
        names = ", ".join(found.examination.unfinished)
        yield warn("leftovers", f"something was cut off while it wrote {names}", DEPLOY)
