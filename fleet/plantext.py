"""A plan for people: lines that say what is done, and diffs of files with their secrets hidden. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fleet.plan import HostPlan, WriteReason
from fleet.render import RenderedFile

_SECRET_KEY = re.compile(
    r"""["']?\w*(?:password|passwd|passphrase|secret|token|credential|(?:api|access|private)_?key)\w*["']?\s*[:=]""",
    re.IGNORECASE,
)
_SECRET_IN_ADDRESS = re.compile(r"(\w+://[^/@:\s]*:)[^/@\s]+(?=@)")
MASK = "(hidden)"


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
    return (*_installation_lines(plan), *_file_lines(plan), *_worker_lines(plan), *_remarks(plan))


def unified_diff(file: RenderedFile, before: bytes | None) -> str:
    """Show how a file changes, with secrets hidden.

    Parameters
    ----------
    file
        As it shall be.
    before
        Its content on the host; None where it is not there.

    Returns
    -------
    str
        A unified diff, empty where nothing changes. Of a secret file only that it changes.
    """
    if before == file.content:
        return ""
    old = "/dev/null" if before is None else f"a/{file.path}"
    new = f"b/{file.path}"
    if file.secret:
        return f"--- {old}\n+++ {new}\n{MASK}\n"
    lines = difflib.unified_diff(_text_lines(before or b""), _text_lines(file.content), old, new, lineterm="")
    return "".join(f"{mask_secrets(line)}\n" for line in lines)


def mask_secrets(line: str) -> str:
    """Hide what follows a key such as ``password:`` or ``API_TOKEN=``, and passwords in addresses."""
    line = _SECRET_IN_ADDRESS.sub(rf"\1{MASK}", line)
    for match in _SECRET_KEY.finditer(line):
        if not re.search(r"password_file\W*\Z", match.group()):  # names a file; no secret itself
            return f"{line[: match.end()]} {MASK}"
    return line


def _installation_lines(plan: HostPlan) -> Iterator[PlanLine]:
    if plan.wheels_to_upload:
        yield PlanLine("upload", f"{len(plan.wheels_to_upload)} wheels")
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


def _remarks(plan: HostPlan) -> Iterator[PlanLine]:
    for name in plan.kept_stopped:
        yield PlanLine("keep", name, "stays stopped; 'puffin-fleet start' starts it")
    for name in plan.strangers:
        yield PlanLine("keep", name, "a program under supervisord that is not from here; left alone")
    changed = {write.file.path for write in plan.files_to_write if write.reason is WriteReason.CHANGED}
    if "etc/supervisord.conf" in changed and not plan.start_supervisord:
        yield PlanLine("keep", "supervisord", "its own settings take effect when it is next started")
    if plan.no_boot and not plan.empty:  # 'puffin-fleet check' goes on saying so
        yield PlanLine("note", "no start at boot", f"after a reboot deploy again; {plan.no_boot}")


def _text_lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").splitlines()
