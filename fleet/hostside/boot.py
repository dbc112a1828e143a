"""Action `boot`: have the workers of this host started with the machine, or no longer.

Request: host_root, remove (bool).
Reply: kind ("systemd", "cron" or "none"), changed (bool), why (what there is to know; may be empty).

A unit of the user's own systemd is best, since it also ends the workers in order; cron's `@reboot` is next.
Both run `bin/boot`, which runs `fleet.hostside.startup` of the present release. What does not work here is noted in
`boot.json`, so that the next deploy does not plan it again.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from fleet.hostside import crontab, user_unit
from fleet.hostside.common import Failure, Json, clean_environment, locked, read_text
from fleet.hostside.files import write
from fleet.hostside.places import MUTEX_OF_BOOT, host_root, run_directory
from fleet.hostside.user_unit import Unit

STEP = "arranging the start at boot"
SYSTEMD, CRON, NONE = "systemd", "cron", "none"
PROGRAM = "bin/boot"
_NOTES = "boot.json"
_OF_THE_SESSION = ("DBUS_", "DISPLAY", "KRB5CCNAME", "LS_COLORS", "MAIL", "OLDPWD", "PWD", "SHLVL", "TERM", "XDG_")
_ADVICE = "an administrator can run 'loginctl enable-linger {user}', or allow this user to use cron"


class Integration(NamedTuple):
    """One host's ways to be started with the machine.

    Parameters
    ----------
    unit
        That of the user's systemd.
    mark
        By this word our line of the crontab is known.
    line
        Our line of the crontab.
    """

    unit: Unit
    mark: str
    line: str

    @classmethod
    def of(cls, root: Path) -> Integration:
        """What there is for the host with this directory.

        Parameters
        ----------
        root
            The host's own directory.

        Raises
        ------
        Failure
            Its path cannot stand in a crontab.
        """
        fleet, host, program = root.parents[1].name, root.name, root / PROGRAM
        pid_file = run_directory(root, os.environ, os.getuid()) / "supervisord.pid"
        unit = user_unit.unit(fleet, host, program, pid_file, socket.gethostname())
        return cls(unit, crontab.marker(fleet, host), crontab.line(fleet, host, program))


def main(request: Json) -> Json:
    """Arrange it, or take it back.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        What is there cannot be taken out, or somebody else arranges it just now.
    """
    root = host_root(request)
    return remove(root) if request.get("remove") else ensure(root)


def ensure(root: Path) -> Json:
    """Have the workers started with the machine, by the best way there is; never fails for want of one.

    Parameters
    ----------
    root
        The host's own directory.

    Returns
    -------
    Json
        The reply.
    """
    with _alone(root):
        ways = Integration.of(root)
        reasons: dict[str, str] = {}
        for kind, arrange in ((SYSTEMD, _by_systemd), (CRON, _by_cron)):
            try:
                changed = arrange(ways)
            except Failure as failure:
                reasons[kind] = failure.what
            else:
                _note(root, refused={})
                return _report(kind, changed, _doubt(kind))
        _note(root, refused=reasons)
        return _report(NONE, False, _nothing_works(reasons))


def remove(root: Path) -> Json:
    """Have nothing started with the machine any more; what runs goes on.

    Raises
    ------
    Failure
        It is there and cannot be taken out.
    """
    with _alone(root):
        ways = Integration.of(root)
        changed = user_unit.remove(ways.unit)
        try:
            changed = _without_line(ways) or changed
        except Failure as failure:
            return _report(NONE, changed, failure.what)
    return _report(NONE, changed, "")


def look(root: Path) -> Json:
    """What there is; changes nothing.

    Returns
    -------
    dict
        kind; current (whether it is as it shall be); available (the kind that `ensure` would choose); why.
    """
    ways = Integration.of(root)
    if ways.unit.in_place:
        return {"kind": SYSTEMD, "current": True, "available": SYSTEMD, "why": ""}
    reasons = _refused(root)
    line, reason = _line_there(ways)
    if line is not None:
        return {"kind": CRON, "current": line == ways.line, "available": CRON, "why": _doubt(CRON)}
    if SYSTEMD not in reasons or user_unit.lingers():
        reasons[SYSTEMD] = user_unit.obstacle()
    if reason or CRON not in reasons:
        reasons[CRON] = reason
    kind = SYSTEMD if ways.unit.enabled else NONE
    available = next((each for each in (SYSTEMD, CRON) if not reasons[each]), NONE)
    why = _nothing_works(reasons) if available == NONE else ""
    return {"kind": kind, "current": False, "available": available, "why": why}


def start_by_system(root: Path, seconds: float) -> bool:
    """Start through the unit where there is one: what this session starts may end with it.

    Parameters
    ----------
    root
        The host's own directory.
    seconds
        How long to wait.

    Returns
    -------
    bool
        Whether supervisord was started.
    """
    unit = Integration.of(root).unit
    if not unit.in_place or user_unit.obstacle():
        return False
    try:
        user_unit.start(unit, seconds)
    except Failure:
        return False  # it is started directly then; the unit said why in systemd's journal and in log/boot.log
    return True


def remember(root: Path, environment: Mapping[str, str]) -> None:
    """Keep the environment that workers have now, since the one at boot is nearly empty.

    Start-up files of shells are where people put the paths of their programs; neither systemd nor cron reads them.

    Parameters
    ----------
    root
        The host's own directory.
    environment
        All variables; those of the session are left out.

    Raises
    ------
    Failure
        It cannot be written.
    """
    kept = {name: text for name, text in clean_environment(environment).items() if not _belongs_to_session(name)}
    _note(root, environment=kept)


def remembered(root: Path) -> dict[str, str]:
    """The environment that `remember` kept.

    Parameters
    ----------
    root
        The host's own directory.
    """
    found = _notes(root).get("environment", {})
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}


def _belongs_to_session(name: str) -> bool:
    return name == "_" or name.startswith(_OF_THE_SESSION)


def _by_systemd(ways: Integration) -> bool:
    if ways.unit.in_place:
        return False
    if problem := user_unit.obstacle():
        raise Failure(problem, STEP)
    user_unit.linger()
    user_unit.install(ways.unit)
    # Mostly there is no cron, so there is no line; one that cannot be taken out finds supervisord running.
    with suppress(Failure):
        _without_line(ways)
    return True


def _by_cron(ways: Integration) -> bool:
    text = crontab.read()
    wanted = crontab.with_line(text, ways.mark, ways.line)
    if wanted == text or crontab.our_line(text, ways.mark) == ways.line:
        return False
    crontab.write(wanted)
    user_unit.remove(ways.unit)
    return True


def _without_line(ways: Integration) -> bool:
    text = crontab.read()
    if crontab.our_line(text, ways.mark) is None:
        return False
    crontab.write(crontab.with_line(text, ways.mark, None))
    return True


def _line_there(ways: Integration) -> tuple[str | None, str]:
    """Our line, and why cron cannot be used."""
    try:
        return crontab.our_line(crontab.read(), ways.mark), ""
    except Failure as failure:
        return None, failure.what


def _doubt(kind: str) -> str:
    if kind == CRON and not crontab.daemon_seen():
        return "the line is in the crontab, but no cron daemon was seen to run"
    return ""


def _nothing_works(reasons: Mapping[str, str]) -> str:
    said = "; ".join(f"{kind}: {reason}" for kind, reason in reasons.items() if reason)
    return f"{said}. {_ADVICE.format(user=user_unit.user_name())}"


def _report(kind: str, changed: bool, why: str) -> Json:
    return {"kind": kind, "changed": changed, "why": why}


def _alone(root: Path) -> AbstractContextManager[None]:
    """A crontab is read, changed and written back: hosts of one fleet may be one machine."""
    return locked(root.parents[2] / MUTEX_OF_BOOT, 60, STEP)


def _notes(root: Path) -> Json:
    try:
        found = json.loads(read_text(root / _NOTES) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refused(root: Path) -> dict[str, str]:
    found = _notes(root).get("refused", {})
    return {str(kind): str(why) for kind, why in found.items()} if isinstance(found, dict) else {}


def _note(root: Path, **changes: Json) -> None:
    notes = _notes(root)
    if any(notes.get(name) != value for name, value in changes.items()):
        # Readable for its owner only: somebody may keep secrets in the environment.
        write(root / _NOTES, (json.dumps({**notes, **changes}, indent=1) + "\n").encode(), 0o600)
