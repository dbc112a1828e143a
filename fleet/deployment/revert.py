"""Puts one host back to the last state in which all its workers were healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.deployment.waiting import Expected, Watch, running
from fleet.deployment.workerfiles import named_like_ours
from fleet.errors import RemoteError
from fleet.reach.execute import Say
from fleet.reach.facts import States
from fleet.reach.reply import Reader
from puffin.records import WorkerRecord

_DOWN = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})


@dataclass(frozen=True)
class GoodState:
    """What a host was put back to: a release, and by worker the hash of its settings."""

    release: str
    configurations: Mapping[str, str]


class Reversal:
    """One host's way back.

    Parameters
    ----------
    host
        Its name.
    watch
        Looks at its workers, and asks it to do things.
    say
        Told what is being done.
    undo
        Id of the deploy that is taken back: a state that it found good itself does not count.
    """

    def __init__(self, host: str, watch: Watch, say: Say, undo: str) -> None:
        self._host = host
        self._undo = undo
        self._watch = watch
        self._say = say

    def carry_out(self) -> GoodState:
        """Restore files and release, then have each worker run them; calculations are waited for.

        Returns
        -------
        GoodState
            What the host runs again.

        Raises
        ------
        RemoteError
            There is no earlier good state, or the workers do not become healthy with it either.
        """
        self._say("putting back the last good state")
        known = [program.name for program in self._watch.states().supervisord.programs]
        good = self._parse(self._watch.ask("good", operation="restore", undo=self._undo))
        # Programs that somebody else has put there are theirs.
        self._ours = sorted({*good.configurations, *(name for name in known if named_like_ours(name, self._host))})
        states = self._supervise()
        # Who was told to end cannot be told otherwise: it does, and is then started again.
        told = states.ending.intersection(good.configurations)
        ending = running(states, [*self._surplus(states, good), *self._pending, *told])
        if ending:
            self._watch.end(ending)
            states = self._supervise()
        self._operate(orders(good, states, self._watch.records()))
        stopped = frozenset(good.configurations) if states.stop else states.stopped
        expected = Expected(good.release, good.configurations, frozenset(stopped))
        try:
            self._watch.wait_until_healthy(expected)
        except RemoteError:
            if not self._start_given_up(expected):
                raise
            self._watch.wait_until_healthy(expected)
        return good

    def _start_given_up(self, expected: Expected) -> bool:
        """Start what supervisord has given up: its last try may have been with what is taken back; say whether any."""
        programs = {program.name: program.state for program in self._watch.states().supervisord.programs}
        wanted = [name for name in expected.configurations if name not in expected.stopped]
        given_up = [name for name in wanted if programs.get(name) == "FATAL"]
        self._operate([{"operation": "start", "workers": given_up}] if given_up else [])
        return bool(given_up)

    def _parse(self, reply: Mapping[str, Any]) -> GoodState:
        reader = Reader(self._host, "", reply)
        workers = reader.inner("workers")
        return GoodState(reader.text("release"), {name: workers.text(name) for name in workers.names()})

    def _supervise(self) -> States:
        found = self._watch.supervise(programs=self._ours)
        self._pending = found.pending
        return found.states

    def _surplus(self, states: States, good: GoodState) -> list[str]:
        names = [program.name for program in states.supervisord.programs]
        return [name for name in names if name not in good.configurations and name in self._ours]

    def _operate(self, operations: list[dict[str, Any]]) -> None:
        if operations:
            self._watch.ask("control", operations=operations)


def orders(good: GoodState, states: States, records: Sequence[WorkerRecord]) -> list[dict[str, Any]]:
    """What to tell the workers of a host so that each runs the good state.

    Parameters
    ----------
    good
        The good state.
    states
        What the host says.
    records
        What its workers reported.
    """
    programs = {program.name: program for program in states.supervisord.programs}
    reported = {record.worker: record for record in records}
    again, down, staying = [], [], []
    for worker, configuration in good.configurations.items():
        program, record = programs.get(worker), reported.get(worker)
        if program is None or states.stop or worker in states.stopped:
            continue
        if program.state in _DOWN:
            down.append(worker)
        elif (
            record is not None
            and record.pid == program.pid
            and (record.release, record.configuration) == (good.release, configuration)
        ):
            staying.append(worker)
        else:
            again.append(worker)
    wanted = (("clear_recycle", staying), ("recycle", again), ("start", down))
    return [{"operation": operation, "workers": workers} for operation, workers in wanted if workers]
