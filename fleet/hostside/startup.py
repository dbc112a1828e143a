"""Run on the host by `bin/boot`, when the machine has started and before it ends; not sent by anybody.

`python -m fleet.hostside.startup HOST_ROOT start` has supervisord run, with the same checks as a deploy. Workers
that were stopped on purpose stay stopped. `stop` has the workers give their calculations back at once.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fleet.hostside import boot, supervise
from fleet.hostside.common import Failure, os_failure, wait_until
from fleet.hostside.places import restore_run_directory, socket_path
from fleet.hostside.rpc import ACTIVE, NOT_RUNNING, Supervisor, Unreachable, observe, unanswered

PATIENCE_S = 300.0
STARTING_S = 120.0
GIVING_BACK_S = 40.0
_ASK_AGAIN_S = 0.5


def main(arguments: list[str]) -> int:
    """Start or stop; say what happened, and return an exit status.

    Parameters
    ----------
    arguments
        HOST_ROOT, and `start` or `stop`.
    """
    root, verb = Path(arguments[0]), arguments[1] if len(arguments) > 1 else "start"
    try:
        said = give_back(root, GIVING_BACK_S) if verb == "stop" else start(root, PATIENCE_S)
    except Failure as failure:
        _say(f"{verb}: {failure.step}: {failure.what}" + (f"; {failure.hint}" if failure.hint else ""))
        return 1
    except OSError as error:
        _say(f"{verb}: {os_failure(error, '').what}")
        return 1
    _say(f"{verb}: {said}")
    return 0


def start(root: Path, patience: float) -> str:
    """Have supervisord run.

    Parameters
    ----------
    root
        The host's own directory.
    patience
        Seconds to wait for a place for sockets, such as the one that a login makes.

    Raises
    ------
    Failure
        It cannot be started; workers that outlived an earlier one are among the reasons.
    """
    _wait_for_run_directory(root, patience)
    os.environ.update(boot.remembered(root))
    reply = supervise.main({"host_root": str(root), "timeout": STARTING_S, "direct": True})
    names = [program["name"] for program in reply["supervisord"]["programs"]]
    stopped = ["all"] if reply["stop"] else reply["stopped"]
    done = "started supervisord" if reply["started"] else "supervisord ran already"
    kept = f"; stopped on purpose: {', '.join(stopped)}" if stopped else ""
    return f"{done} (pid {reply['pid']}); workers: {', '.join(names) or 'none'}{kept}"


def _wait_for_run_directory(root: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            return restore_run_directory(root)
        except Failure:
            if time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def give_back(root: Path, seconds: float) -> str:
    """Tell all workers to give their calculations back and end, and wait for that.

    Parameters
    ----------
    root
        The host's own directory.
    seconds
        How long to wait at the most.

    Returns
    -------
    str
        What was done, for the log.

    Raises
    ------
    Failure
        supervisord runs and does not answer in that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            names = _tell_to_give_back(root)
            break
        except Unreachable as error:
            why = unanswered(root, error, "having the workers give back their calculations")
            if not why.passing:
                return f"nothing to do: {error}"
            if time.monotonic() > deadline:
                raise why from error
        time.sleep(_ASK_AGAIN_S)
    ended = wait_until(lambda: not _active(root), deadline - time.monotonic(), 0.2)
    left = "" if ended else f"; still running: {', '.join(_active(root))}"
    return f"told {', '.join(names) or 'nobody'} to give back what they had{left}"


def _tell_to_give_back(root: Path) -> list[str]:
    supervisor = Supervisor(socket_path(root))
    names = [program["name"] for program in supervisor.programs() if program["state"] in ACTIVE]
    for name in names:
        supervisor.attempt("signalProcess", name, "QUIT", accept=(NOT_RUNNING,))
    return names


def _active(root: Path) -> list[str]:
    return [program["name"] for program in observe(root)["programs"] if program["state"] in ACTIVE]


def _say(what: str) -> None:
    sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
