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
from fleet.plan import named_like_ours
from fleet.remote import ConnectionLost, Remote, UnreachableError

_ALIVE = frozenset({"STARTING", "RUNNING", "BACKOFF", "STOPPING"})
_POLL_S = 0.5
_LONGEST_TROUBLE_S = 120.0

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
class Told:
    """A host that was told to stop: where it keeps its things, and the workers that ran then."""

    host_root: str
    running: tuple[str, ...]


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

    def tell(self, how: Stop) -> Told:
        """Write the stop file, so that the workers end when their jobs are done and stay down.

        Parameters
        ----------
        how
            How to stop.

        Returns
        -------
        Told
            The workers that still run; none where nothing was ever deployed.

        Raises
        ------
        RemoteError
            The host cannot be reached.
        """
        facts = self._probe()
        if not facts.files and not facts.supervisord.running:
            return Told(facts.host_root, ())
        self._say("writing the stop file")
        operations: list[dict[str, Any]] = [{"operation": "stop_file", "workers": None}]
        if how.now:
            operations.append({"operation": "signal", "workers": None, "signal": "QUIT"})
        return Told(facts.host_root, self._running(self._operate(facts.host_root, operations)))

    def see_off(self, told: Told, how: Stop) -> Stopped:
        """Wait until workers that were told to stop have ended.

        Parameters
        ----------
        told
            What :meth:`tell` returned.
        how
            How to stop.

        Raises
        ------
        RemoteError
            The host cannot be reached any more.
        """
        running = told.running
        if how.wait:
            running = self._wait_until_ended(told, how.timeout_s)
        if how.wait and how.supervisord and not running:
            self._operate(told.host_root, [{"operation": "shutdown", "workers": None}])
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
        if facts.current is None:
            raise RemoteError(
                self._host.name, "looking", "nothing is deployed there", "run 'puffin-fleet deploy' first"
            )
        self._say("starting workers")
        self._operate(facts.host_root, [{"operation": "clear_stop_file", "workers": None}])
        ask(self._remote, "supervise", {"host_root": facts.host_root})
        return Stopped(self._running(self._operate(facts.host_root, [{"operation": "start", "workers": None}])))

    def _probe(self) -> Facts:
        host, fleet = self._host, self._fleet
        request = host_facts.probe_request(fleet.name, host.name, host.base_dir, host.scratch, fleet.release.python)
        return host_facts.parse(host.name, ask(self._remote, host_facts.ACTION, request))

    def _operate(self, host_root: str, operations: list[dict[str, Any]]) -> States:
        reply = ask(self._remote, "control", {"host_root": host_root, "operations": operations})
        return parse_states(self._host.name, reply)

    def _wait_until_ended(self, told: Told, timeout_s: float | None) -> tuple[str, ...]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        running = told.running
        while running and (deadline is None or time.monotonic() < deadline):
            self._say(f"waiting for {', '.join(running)}")
            time.sleep(_POLL_S)
            running = self._running(self._states(told))
        return running

    def _states(self, told: Told) -> States:
        """The present states; a connection that fails for a while is no reason to give up a wait."""
        give_up = time.monotonic() + _LONGEST_TROUBLE_S
        while True:
            try:
                return parse_states(self._host.name, ask(self._remote, "states", {"host_root": told.host_root}))
            except (ConnectionLost, UnreachableError) as error:
                if time.monotonic() > give_up:
                    raise
                self._say(f"connecting again: {error.what}")
                time.sleep(_POLL_S)

    def _running(self, states: States) -> tuple[str, ...]:
        """Workers that live, as supervisord sees it or, where it does not run, as their locks show."""
        programs = {program.name for program in states.supervisord.programs if program.state in _ALIVE}
        # Others may have put programs of their own beside them.
        ours = {name for name in programs if named_like_ours(name, self._host.name)}
        return tuple(sorted(ours | set(states.pids)))
