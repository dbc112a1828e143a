"""supervisord, asked over its UNIX socket."""

from __future__ import annotations

import http.client
import os
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any

from fleet.hostside.common import Failure, Json, tail_of
from fleet.hostside.places import socket_path
from fleet.hostside.processes import alive, command_of, read_pid

BAD_NAME, ALREADY_STARTED, NOT_RUNNING, ALREADY_ADDED, STILL_RUNNING = 10, 60, 70, 90, 91
ACTIVE = frozenset({"STARTING", "RUNNING", "BACKOFF", "STOPPING"})
"""States in which a program has a process, or will have one by itself."""

_KEPT = ("name", "pid", "description", "spawnerr", "exitstatus", "start", "stop", "now")


class Unreachable(Exception):
    """Nobody answers at the socket."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._timeout = timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path, self._timeout)


class Supervisor:
    """The few of supervisord's calls that are needed, with its faults told apart.

    Parameters
    ----------
    path
        Its socket.
    timeout
        Seconds to wait for an answer.
    """

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self._path = path
        self._proxy = xmlrpc.client.ServerProxy(
            "http://localhost", transport=_Transport(path, timeout), allow_none=True
        )

    def call(self, method: str, *arguments: object) -> Any:
        """Make one call.

        Raises
        ------
        Unreachable
            Nobody answers at the socket.
        xmlrpc.client.Fault
            supervisord refuses.
        """
        try:
            return getattr(self._proxy.supervisor, method)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise Unreachable(f"no answer at {self._path}: {error}") from error

    def attempt(self, method: str, *arguments: object, accept: tuple[int, ...] = ()) -> bool:
        """Make one call whose listed faults only say that nothing had to be done.

        Parameters
        ----------
        method, arguments
            As for `call`.
        accept
            The codes of these faults.

        Returns
        -------
        bool
            Whether it did something.

        Raises
        ------
        Unreachable
            Nobody answers.
        Failure
            It is refused for another reason.
        """
        try:
            self.call(method, *arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in accept:
                return False
            words = " ".join(str(argument) for argument in arguments)
            raise Failure(f"supervisord refused {method} {words}: {fault.faultString}", "supervisord") from fault
        return True

    def answers(self) -> bool:
        """Whether it is up and not on its way down."""
        try:
            return bool(self.call("getState")["statename"] == "RUNNING")
        except (Unreachable, xmlrpc.client.Fault):
            return False

    def programs(self) -> list[Json]:
        """Every program with its state.

        Raises
        ------
        Unreachable
            Nobody answers.
        """
        return [_program(info) for info in self.call("getAllProcessInfo")]


def _program(info: Json) -> Json:
    return {"state": info["statename"], **{key: info[key] for key in _KEPT}}


def daemon_pid(root: Path) -> int | None:
    """The pid of this host's supervisord if it runs; a pid file left by a dead one does not count.

    Parameters
    ----------
    root
        The host's own directory.
    """
    pid = read_pid(root / "run" / "supervisord.pid")
    if pid is None or not alive(pid):
        return None
    words = command_of(pid)
    ours = any("supervisord" in word for word in words) and str(root / "etc/supervisord.conf") in words
    return pid if ours else None


def unanswered(root: Path, error: Unreachable, step: str) -> Failure:
    """What it means that nobody answers: supervisord does not run, or has other things to do, which passes.

    Parameters
    ----------
    root
        The host's own directory.
    error
        What was seen.
    step
        What was being done.
    """
    pid = daemon_pid(root)
    if pid is None:
        hint = "deploy to this host, which starts supervisord"
        return Failure(f"supervisord does not run on this host: {error}{log_tail(root)}", step, hint)
    hint = f"try again; look at {root / 'log/supervisord.log'}; if it hangs, end process {pid} and deploy again"
    what = f"supervisord runs (pid {pid}) but does not answer: {error}{log_tail(root)}"
    return Failure(what, step, hint, passing=True)


def log_tail(root: Path) -> str:
    """The last lines of supervisord's log, to be put after a message.

    Parameters
    ----------
    root
        The host's own directory.
    """
    lines = tail_of(root / "log" / "supervisord.log", 10)
    return "\nlast lines of its log:\n" + "\n".join(lines) if lines else ""


def observe(root: Path) -> Json:
    """What supervisord says about itself and its programs, running or not; where it is silent, `problem` says so.

    Parameters
    ----------
    root
        The host's own directory.
    """
    path = socket_path(root)
    pid = daemon_pid(root)
    report: Json = {
        "running": pid is not None,
        "reachable": False,
        "pid": pid,
        "socket": str(path),
        "version": None,
        "problem": None,
        "programs": [],
    }
    if pid is None and not path.exists():
        return report
    supervisor = Supervisor(path)
    try:
        report["version"] = supervisor.call("getSupervisorVersion")
        report["programs"] = supervisor.programs()
        report.update(reachable=True, running=True, pid=supervisor.call("getPID"))
    except Unreachable as error:
        report["problem"] = str(error) if pid is not None else None
    except xmlrpc.client.Fault as fault:
        report["problem"] = f"supervisord at {path} says: {fault.faultString}"
    return report


def drifted(root: Path) -> list[str]:
    """Programs whose section on disk is not the one that supervisord runs with; it only compares, and touches none.

    Parameters
    ----------
    root
        The host's own directory.
    """
    try:
        _, changed, _ = Supervisor(socket_path(root)).call("reloadConfig")[0]
    except (Unreachable, xmlrpc.client.Fault):
        return []
    return [str(name) for name in changed]
