"""Whether a host's workers can compute: the database as seen from there, and what a worker says of itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fleet.hosts.inventory import Fleet, Host
from fleet.watch.examination import Examined, WorkerFinding
from fleet.watch.findings import DEPLOY, Checked, fail, ok, warn
from puffin.severity import Severity

_BOOTSTRAP = "puffin bootstrap"
"""What a worker by itself advises; a fleet installs programs with the release."""
_EXTRAS = (
    "for SCINE's programs say 'release: {{{{extras: [scine]}}}}' in hosts.yaml and deploy; "
    "where none is wanted: 'puffin: {{{{programs: {{{{{0}: {{{{available: false}}}}}}}}}}}}'"
)
_SCINE = "scine"
_NO_SCINE = (
    "where no SCINE jobs are wanted nothing has to be done; "
    "else say 'release: {{extras: [scine]}}' in hosts.yaml and deploy"
)


def of_worker(fleet: Fleet, host: Host, found: Examined) -> Iterator[Checked]:
    """What a worker of the host finds, or would."""
    yield from _database(found)
    yield from _own_words(fleet, host, found)


def _members(found: Examined) -> Iterator[Checked]:
    """Where the replica set sends its clients: only the primary takes writes, but any of them may be it tomorrow."""
    said = {reached.address for reached in found.examination.reachable if reached.problem}
    for place, member in enumerate(found.examination.members):
        if not member.problem or member.address in said:
            continue
        what = f"the database's replica set sends its clients to {member.address}, which the host cannot reach"
        advice = (
            "have that name resolved and that port open for the host, or give the member another address in the set's "
            "own configuration (rs.conf()); for a set of one server 'directConnection=true' in database.uri does"
        )
        if place == 0:
            yield fail("database", f"{what}: {member.problem}", advice)
        else:
            yield warn("database", f"{what}: {member.problem}; workers stop when it becomes primary", advice)


def _database(found: Examined) -> Iterator[Checked]:
    seen = found.examination
    yield from _members(found)
    if seen.worker is None:
        bad = [reached for reached in seen.reachable if reached.problem]
        for reached in bad:
            advice = "check the section 'database', and firewalls between this host and the server"
            yield fail("database", f"{reached.address} cannot be reached from the host: {reached.problem}", advice)
        if seen.reachable and not bad:
            names = ", ".join(reached.address for reached in seen.reachable)
            yield ok("database", f"{names} can be reached; credentials were not tested: nothing is deployed yet")
        if not seen.reachable:
            yield ok("database", "cannot be tried from the host before something is deployed")
        return
    if seen.worker_problem:
        advice = (
            "correct base_dir first: that may be why" if seen.base.write else f"correct its settings, then {DEPLOY}"
        )
        yield fail("worker check", f"{seen.worker} cannot be asked: {seen.worker_problem}", advice)


def _own_words(fleet: Fleet, host: Host, found: Examined) -> Iterator[Checked]:
    """What a worker said of itself, when it was asked."""
    seen = found.examination
    lacking = _not_asked_for(fleet, host, seen.worker_findings)
    for finding in seen.worker_findings:
        if finding.check not in lacking:
            yield from _said(seen.worker or "", finding)
    if lacking:
        names = [subject.removeprefix("program ") for subject in lacking]
        what = f"{', '.join(names)} not installed: only jobs that need none of them are taken, such as sleep"
        yield warn("programs", what, _NO_SCINE)


def _not_asked_for(fleet: Fleet, host: Host, findings: Sequence[WorkerFinding]) -> list[str]:
    """Programs that are missing since the release has none of SCINE's, and that hosts.yaml does not name either."""
    if _SCINE in fleet.release.extras:
        return []
    named = {*(host.puffin.get("programs") or {}), *(name for shape in host.workers for name in shape.programs)}
    missing = [each.check for each in findings if each.severity is Severity.FAIL and _is_uninstalled(each)]
    return [subject for subject in missing if subject.removeprefix("program ") not in named]


def _is_uninstalled(finding: WorkerFinding) -> bool:
    return finding.check.startswith("program ") and _BOOTSTRAP in finding.what


def _said(worker: str, finding: WorkerFinding) -> Iterator[Checked]:
    """That it runs already is as it should be, and disk is taken while it does."""
    check, severity, detail = finding.check, finding.severity, finding.what
    if check in {"worker", "configuration"}:
        return
    said_by = f"this is what {worker} says of itself on the host"
    if severity is Severity.OK:
        yield ok(check, detail.splitlines()[0] if detail else "")
    elif severity is Severity.FAIL and _is_uninstalled(finding):
        what = detail.replace(f": run '{_BOOTSTRAP}'", "")
        yield fail(check, what, f"{_EXTRAS.format(check.removeprefix('program '))}; {said_by}")
    elif severity is Severity.FAIL and check != "disk":
        yield fail(check, detail, said_by)
    else:
        yield warn(check, detail, said_by)
