"""A plan for people: lines that say what is done, and what is odd. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleet.deployment.plan import HostPlan, WriteReason


@dataclass(frozen=True)
class PlanLine:
    """One line for people: what is done, to what, and what there is to know about it."""

    action: str
    subject: str
    detail: str = ""


def summary(plan: HostPlan) -> tuple[PlanLine, ...]:
    """Say in lines what a plan does, in the order in which it is done.

    Parameters
    ----------
    plan
        The plan of one host.

    Returns
    -------
    tuple[PlanLine, ...]
        One line for each thing done, then what stays as it is though one might expect otherwise; no line at
        all where nothing is done and nothing is odd.
    """
    return (*_installation_lines(plan), *_file_lines(plan), *_worker_lines(plan), *_proof_lines(plan), *_remarks(plan))


def why_consent(plan: HostPlan) -> str:
    """Say what was changed by hand that a plan would undo.

    Parameters
    ----------
    plan
        The plan of one host.

    Returns
    -------
    str
        For one line; empty where no consent is needed.
    """
    if not plan.needs_consent:
        return ""
    found = {"changed": plan.drift.files_changed, "removed": plan.drift.files_missing}
    return "; ".join(f"{how} by hand: {', '.join(paths)}" for how, paths in found.items() if paths)


def grouped(plans: Sequence[HostPlan]) -> list[tuple[tuple[str, ...], tuple[PlanLine, ...]]]:
    """Say once what is done on several hosts alike.

    Parameters
    ----------
    plans
        Plans of hosts.

    Returns
    -------
    list
        Pairs of hosts and lines, where there are lines. Where there are several hosts, each is called ``<host>`` in
        the lines.
    """
    alike: dict[tuple[PlanLine, ...], list[HostPlan]] = {}
    for plan in plans:
        alike.setdefault(tuple(_anonymous(line, plan.host) for line in summary(plan)), []).append(plan)
    return [
        (tuple(plan.host for plan in same), summary(same[0]) if len(same) == 1 else lines)
        for lines, same in alike.items()
        if lines
    ]


def _anonymous(line: PlanLine, host: str) -> PlanLine:
    own = re.compile(rf"(?<![\w.-]){re.escape(host)}(?=-[0-9]|\W|\Z)")
    return PlanLine(line.action, own.sub("<host>", line.subject), own.sub("<host>", line.detail))


def _installation_lines(plan: HostPlan) -> Iterator[PlanLine]:
    if plan.wheels_to_upload:
        count = len(plan.wheels_to_upload)
        yield PlanLine("upload", f"{count} wheel{'s' if count > 1 else ''}")
    if plan.install_release:
        yield PlanLine("install", f"release {plan.install_release}")
    if plan.supervisor_to_install:
        yield PlanLine("install", f"supervisor {plan.supervisor_to_install}")


def _file_lines(plan: HostPlan) -> Iterator[PlanLine]:
    for write in plan.files_to_write:
        yield PlanLine("write", write.file.path, write.reason.value)
    for path in plan.files_to_remove:
        yield PlanLine("remove", path)
    if plan.switch_release:
        before = plan.switch_release.before
        yield PlanLine("switch", f"release to {plan.switch_release.after}", f"from {before}" if before else "")


def _worker_lines(plan: HostPlan) -> Iterator[PlanLine]:
    if plan.start_supervisord:
        yield PlanLine("start", "supervisord")
    for name in plan.workers_added:
        yield PlanLine("add", name)
    for change in plan.workers_changed:
        why = ", ".join(reason.value for reason in change.reasons)
        yield PlanLine("restart" if change.restart else "recycle", change.name, f"{why}; after its calculation")
    for name in plan.workers_removed:
        yield PlanLine("remove", name, "after its calculation")
    for name in plan.workers_to_start:
        yield PlanLine("start", name, "it is down and was not stopped on purpose")
    if plan.enable_boot:
        yield PlanLine("enable", "start at boot", "workers are back after a reboot")
    if plan.disable_boot:
        yield PlanLine("disable", "start at boot", "hosts.yaml says 'boot: none'")


def _proof_lines(plan: HostPlan) -> Iterator[PlanLine]:
    if plan.unproven and plan.empty:  # else they are waited for in any case
        yield PlanLine("wait", "for its workers", "the last deploy did not see them healthy; put back if they are not")


def _remarks(plan: HostPlan) -> Iterator[PlanLine]:
    yield from _drift_lines(plan)
    if plan.drained:
        yield PlanLine("keep", "stopped", f"{plan.drained}; 'puffin-fleet resume {plan.host}' brings it back")
    for name in () if plan.drained else plan.kept_stopped:
        if name not in plan.drift.workers_stopped:
            yield PlanLine("keep", name, "stays stopped; 'puffin-fleet start' starts it")
    for name in plan.strangers:
        yield PlanLine("keep", name, "a program under supervisord that is not from here; left alone")
    changed = {write.file.path for write in plan.files_to_write if write.reason is WriteReason.CHANGED}
    if "etc/supervisord.conf" in changed and not plan.start_supervisord:
        yield PlanLine("keep", "supervisord", "its own settings take effect when it is next started")
    if plan.no_boot and not plan.empty:  # 'puffin-fleet check' goes on saying so
        yield PlanLine("note", "no start at boot", f"after a reboot deploy again; {plan.no_boot}")


def _drift_lines(plan: HostPlan) -> Iterator[PlanLine]:
    consent = "" if plan.repair else " with --repair"
    removed = frozenset(plan.files_to_remove)
    for path in plan.drift.files_changed:
        what = "removed" if path in removed else "written over"
        yield PlanLine("drift", path, f"changed by hand; {what}{consent}")
    for path in plan.drift.files_missing:
        yield PlanLine("drift", path, f"removed by hand; written again{consent}")
    for name in plan.drift.workers_stopped:
        what = "started" if plan.repair else "'puffin-fleet start' or --repair starts it"
        if name in (*plan.kept_stopped, *plan.workers_to_start):
            yield PlanLine("drift", name, f"stopped by hand; {what}")
    for path in plan.drift.files_strange:
        yield PlanLine("keep", path, "a file that is not from here; left alone")
