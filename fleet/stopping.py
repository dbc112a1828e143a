"""Stops and starts the workers of hosts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet import facts as host_facts
from fleet.errors import RemoteError
from fleet.execute import ask
from fleet.facts import Facts, States, parse_states
from fleet.inventory import Fleet, Host
from fleet.remote import Remote

_ALIVE = frozenset({"STARTING", "RUNNING", "BACKOFF", "STOPPING"})
_POLL_S = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stop:
    """How to stop.

    Parameters
    ----------
    now
        Whether running calculations are given back instead of finished.
    wait
        Whether to wait until the workers have ended.
    timeout_s
        For how long to wait, in seconds; None for as long as it takes.
    supervisord
        Whether supervisord ends as well once its workers have.
    """

    now: bool = False
    wait: bool = True
    timeout_s: float | None = None
    supervisord: bool = False


@dataclass(frozen=True)
class Stopped:
    """A host that was told to stop, and the workers of it that still run."""

    running: tuple[str, ...]


class HostControl:
    """Stops and starts one host.

    Parameters
    ----------
    fleet
        The fleet.
    host
        The host.
    remote
        The connection to it.
    say
        Told what is being done.
    """

    def __init__(self, fleet: Fleet, host: Host, remote: Remote, say: Say) -> None:
        self._fleet = fleet
        self._host = host
        self._remote = remote
        self._say = say

    def stop(self, how: Stop) -> Stopped:
        """Write the stop file, so that the workers end when their jobs are done and stay down.

        Parameters
        ----------
        how
            How to stop.

        Raises
        ------
        RemoteError
            The host cannot be reached, nothing is deployed there, or the time is over.
        """
        facts = self._probe()
        self._say("writing the stop file")
        operations: list[dict[str, Any]] = [{"operation": "stop_file", "workers": None}]
        if how.now and facts.supervisord.reachable:
            operations.append({"operation": "signal", "workers": None, "signal": "QUIT"})
        running = _running(self._operate(facts, operations))
        if not how.wait:
            return Stopped(running)
        running = self._wait_until_ended(facts, running, how.timeout_s)
        if how.supervisord and not running:
            self._operate(facts, [{"operation": "shutdown", "workers": None}])
        return Stopped(running)

    def start(self) -> Stopped:
        """Remove the stop files and start the workers, supervisord included.

        Returns
        -------
        Stopped
            The workers that run now.

        Raises
        ------
        RemoteError
            The host cannot be reached, or nothing is deployed there.
        """
        facts = self._probe()
        self._say("starting workers")
        self._operate(facts, [{"operation": "clear_stop_file", "workers": None}])
        ask(
            self._remote,
            "supervise",
            {"host_root": facts.host_root, "supervisor": _supervisor_of(self._fleet, facts)},
        )
        return Stopped(_running(self._operate(facts, [{"operation": "start", "workers": None}])))

    def _probe(self) -> Facts:
        host, fleet = self._host, self._fleet
        request = host_facts.probe_request(fleet.name, host.name, host.base_dir, host.scratch, fleet.release.python)
        facts = host_facts.parse(host.name, ask(self._remote, host_facts.ACTION, request))
        if facts.current is None:
            raise RemoteError(host.name, "looking", "nothing is deployed there", "run 'puffin-fleet deploy' first")
        return facts

    def _operate(self, facts: Facts, operations: list[dict[str, Any]]) -> States:
        reply = ask(self._remote, "control", {"host_root": facts.host_root, "operations": operations})
        return parse_states(self._host.name, reply)

    def _wait_until_ended(self, facts: Facts, running: tuple[str, ...], timeout_s: float | None) -> tuple[str, ...]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while running:
            if deadline is not None and time.monotonic() > deadline:
                return running
            self._say(f"waiting for {', '.join(running)}")
            time.sleep(_POLL_S)
            reply = ask(self._remote, "states", {"host_root": facts.host_root})
            running = _running(parse_states(self._host.name, reply))
        return running


def _running(states: States) -> tuple[str, ...]:
    """Workers that live, as supervisord sees it or, where it does not run, as their locks show."""
    programs = {program.name for program in states.supervisord.programs if program.state in _ALIVE}
    return tuple(sorted(programs | set(states.pids)))


def _supervisor_of(fleet: Fleet, facts: Facts) -> str:
    """The environment with supervisord on a host that was deployed before."""
    if fleet.release.path is None and facts.supervisors:
        return f"{facts.fleet_root}/supervisor/{facts.supervisors[-1]}"
    return f"{facts.fleet_root}/releases/{facts.current}"
