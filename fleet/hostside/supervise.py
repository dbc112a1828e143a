"""Action `supervise`: have supervisord run, with the programs its configuration names.

Request: host_root, supervisor (its environment's path; null: what etc/supervisor says), timeout (s),
programs [those to bring up to date; null: all that its configuration names], boot (true: also have it started with the
machine; false: no longer; null: leave that as it is), direct (bool: not through systemd), lock (token, or null).
Reply: started (bool), pid, added, removed, replaced, pending [{name, why}], boot {kind, changed, why} (or null), and
all of `states`.

Programs are added and removed one at a time and by name. A program that runs is never stopped here: its calculation
would be lost. SIGHUP and `update` restart everything and are never used.
"""

from __future__ import annotations

import os
import subprocess
import xmlrpc.client
from pathlib import Path

from fleet.hostside import boot
from fleet.hostside.common import Failure, Json, clean_environment, read_text, wait_until
from fleet.hostside.guard import require_lock, still_locked
from fleet.hostside.places import host_root, restore_run_directory, socket_path
from fleet.hostside.processes import orphans
from fleet.hostside.rpc import (
    ACTIVE,
    ALREADY_ADDED,
    BAD_NAME,
    STILL_RUNNING,
    Supervisor,
    Unreachable,
    daemon_pid,
    log_tail,
    unanswered,
)
from fleet.hostside.states import forget_ending, look

STEP = "starting supervisord"


def main(request: Json) -> Json:
    """Start or reload.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The lock that it names is not ours any more, nothing is deployed here, or supervisord does not start.
    """
    root = host_root(request)
    require_lock(request)
    seconds = float(request.get("timeout", 30))
    if not (root / "etc/supervisord.conf").is_file():
        raise Failure(f"{root / 'etc/supervisord.conf'} is missing", STEP, "deploy to this host first")
    restore_run_directory(root)
    at_boot = _arrange_boot(root, request.get("boot"))
    by_system = not request.get("direct") and _start_by_system(root, seconds)
    with still_locked(request, root / "run" / ".supervise.lock", 60, STEP):
        started = _ensure_running(root, request, seconds) or by_system
        changes = _reload(root, request)
    for name in [*changes["removed"], *changes["replaced"]]:
        forget_ending(root, name)
    return {"started": started, "pid": daemon_pid(root), "boot": at_boot, **changes, **look(root)}


def _arrange_boot(root: Path, wanted: bool | None) -> Json | None:
    if wanted is None:
        return None
    if not wanted:
        return boot.remove(root)
    boot.remember(root, os.environ)
    return boot.ensure(root)


def _start_by_system(root: Path, seconds: float) -> bool:
    """Not under our lock: the user's systemd runs `bin/boot`, which takes it."""
    return daemon_pid(root) is None and boot.start_by_system(root, seconds)


def _ensure_running(root: Path, request: Json, seconds: float) -> bool:
    supervisor = Supervisor(socket_path(root))
    if supervisor.answers():
        return False
    pid = daemon_pid(root)
    if pid is not None and _comes_up(root, supervisor, pid, seconds):
        return False
    _refuse_orphans(root)
    socket_path(root).unlink(missing_ok=True)  # nobody answers there, and nobody owns it
    _start(root, _environment(root, request), seconds)
    if not wait_until(supervisor.answers, seconds):
        raise Failure(f"supervisord does not answer at {socket_path(root)}{log_tail(root)}", STEP)
    return True


def _environment(root: Path, request: Json) -> Path:
    """The environment that holds supervisord: what is asked for, else what the last deploy wrote down."""
    found = request.get("supervisor") or read_text(root / "etc" / "supervisor").strip()
    if not found:
        raise Failure(f"{root / 'etc/supervisor'} is missing", STEP, "deploy to this host again")
    return Path(found)


def _comes_up(root: Path, supervisor: Supervisor, pid: int, seconds: float) -> bool:
    """It may be on its way up, or down; a second one must not be started beside it."""
    if not wait_until(lambda: supervisor.answers() or daemon_pid(root) is None, seconds):
        hint = f"look at {root / 'log/supervisord.log'}; if it hangs, end process {pid} and deploy again"
        what = f"supervisord runs (pid {pid}) but does not answer at {socket_path(root)}{log_tail(root)}"
        raise Failure(what, STEP, hint, passing=True)
    return daemon_pid(root) is not None


def _refuse_orphans(root: Path) -> None:
    """Workers that outlived their supervisord would be started a second time."""
    lost = [orphan for orphan in orphans(root, Path(os.path.realpath(root / "run")), None) if orphan["worker"]]
    if lost:
        names = ", ".join(f"{orphan['worker']} (pid {orphan['pid']})" for orphan in lost)
        hint = "'puffin-fleet stop' lets them finish, 'stop --now' gives their jobs back; then 'start'"
        raise Failure(f"workers of an earlier supervisord still run: {names}", STEP, hint)


def _start(root: Path, environment: Path, seconds: float) -> None:
    program = environment / "bin" / "supervisord"
    configuration = root / "etc" / "supervisord.conf"
    if not program.exists():
        raise Failure(f"{program} is missing", STEP, "deploy again: it will be installed")
    try:
        done = subprocess.run(
            [str(program), "-c", str(configuration)],
            env=clean_environment(os.environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"supervisord did not go into the background in {seconds:g} s", STEP) from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        raise Failure(f"supervisord ended with status {done.returncode}: {said}{log_tail(root)}", STEP)


def _reload(root: Path, request: Json) -> Json:
    ours = request.get("programs")
    try:
        return reload(Supervisor(socket_path(root)), None if ours is None else frozenset(ours))
    except Unreachable as error:
        raise unanswered(root, error, STEP) from error


def reload(supervisor: Supervisor, ours: frozenset[str] | None = None) -> Json:
    """Bring supervisord's programs to what its configuration files say, without stopping one that runs.

    Parameters
    ----------
    supervisor
        The one that runs.
    ours
        Only these programs; None for all.

    Returns
    -------
    Json
        Names: added, removed, replaced; and pending, what has to wait.

    Raises
    ------
    Failure
        It cannot read its configuration.
    """
    try:
        found = supervisor.call("reloadConfig")[0]
    except xmlrpc.client.Fault as fault:
        hint = "the rendered configuration is wrong: please report it"
        raise Failure(f"supervisord cannot read its configuration: {fault.faultString}", STEP, hint) from fault
    added, changed, removed = ([name for name in names if ours is None or name in ours] for names in found)
    pending: list[Json] = []
    gone = [name for name in removed if _take_out(supervisor, name, pending)]
    taken = [name for name in changed if _take_out(supervisor, name, pending)]
    for name in [*taken, *added]:
        supervisor.attempt("addProcessGroup", name, accept=(ALREADY_ADDED,))
    return {"added": added, "removed": gone, "replaced": taken, "pending": pending}


def _take_out(supervisor: Supervisor, name: str, pending: list[Json]) -> bool:
    if _active(supervisor, name) or not supervisor.attempt(
        "removeProcessGroup", name, accept=(STILL_RUNNING, BAD_NAME)
    ):
        pending.append({"name": name, "why": "it is still running"})
        return False
    return True


def _active(supervisor: Supervisor, name: str) -> bool:
    return any(program["name"] == name and program["state"] in ACTIVE for program in supervisor.programs())
