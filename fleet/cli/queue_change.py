"""queue requeue, queue hold, queue release, queue cancel."""

from __future__ import annotations

import getpass
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from fleet.cli import options, queue_options
from fleet.cli.output import note, print_json
from fleet.cli.queue_options import QueueTarget, entry_of, opened, selected
from fleet.errors import ExitCode, UsageError
from puffin.calculations import Status
from puffin.changes import RULES, Change, refusal
from puffin.entries import Entry, cancellation
from puffin.errors import DatabaseError
from puffin.lease import RENEW_FRACTION
from puffin.settings import DaemonSettings
from puffin.store import Event

Command = TypeVar("Command", bound=Callable[..., Any])

_PIECE = 150
"""Calculations per write: what a busy server does well within the time for which it is waited for."""

_LISTED = 10
_DONE = {
    Change.REQUEUE: "requeued",
    Change.HOLD: "held",
    Change.RELEASE: "released",
    Change.CANCEL: "cancelled",
}


@dataclass(frozen=True)
class _Asked:
    """What a command line asks for."""

    change: Change
    ids: tuple[str, ...]
    statuses: tuple[str, ...]
    orders: tuple[str, ...]
    programs: tuple[str, ...]
    workers: tuple[str, ...]
    since: str | None
    yes: bool
    json_lines: bool
    reason: str = ""
    cancelled: bool = False

    @property
    def by_filter(self) -> bool:
        return bool(self.statuses or self.orders or self.programs or self.workers or self.since)


def _changing(change: Change) -> Callable[[Command], Command]:
    """Add what all four commands have in common."""

    def decorate(command: Command) -> Command:
        command = options.as_json(queue_options.target(command))
        command = options.yes(command)
        command = queue_options.selection(*RULES[change].usual)(command)
        return click.argument("ids", nargs=-1, metavar="[ID]...")(command)

    return decorate


@click.command()
@_changing(Change.REQUEUE)
@click.option("--cancelled", is_flag=True, help="Also those that somebody cancelled.")
def requeue(hosts_file: str | None, uri: str | None, databases: tuple[str, ...], **asked: Any) -> int:
    """Run calculations again: those that failed, unless others are named. Their old results are forgotten.

    What was cancelled stays so unless it is named by its id, or with --cancelled.

    \b
    puffin-fleet queue requeue
    puffin-fleet queue requeue --worker 'node7-*' --since 1d
    puffin-fleet queue requeue 65f0c1
    """
    return _run(hosts_file, uri, databases, _Asked(Change.REQUEUE, **asked))


@click.command()
@_changing(Change.HOLD)
def hold(hosts_file: str | None, uri: str | None, databases: tuple[str, ...], **asked: Any) -> int:
    """Keep new calculations from being run, until 'release'.

    With --status pending, or by id, running ones too: their workers kill the jobs when they next renew the lease, after
    a third of daemon.lease_in_s at the latest: 20 s by default.

    \b
    puffin-fleet queue hold --program orca
    puffin-fleet queue hold 65f0c1
    """
    return _run(hosts_file, uri, databases, _Asked(Change.HOLD, **asked))


@click.command()
@_changing(Change.RELEASE)
def release(hosts_file: str | None, uri: str | None, databases: tuple[str, ...], **asked: Any) -> int:
    """Let calculations on hold be run.

    \b
    puffin-fleet queue release
    puffin-fleet queue release --program orca
    """
    return _run(hosts_file, uri, databases, _Asked(Change.RELEASE, **asked))


@click.command()
@_changing(Change.CANCEL)
@click.option("--reason", metavar="TEXT", default="", help="Goes into the comment.")
@click.option("--all", "everything", is_flag=True, help="All that have not ended.")
def cancel(hosts_file: str | None, uri: str | None, databases: tuple[str, ...], everything: bool, **asked: Any) -> int:
    """Give calculations up: they fail with a comment, and running jobs are killed, within 20 s as with 'hold'.

    \b
    puffin-fleet queue cancel 65f0c1
    puffin-fleet queue cancel --job scine_hessian --reason 'wrong basis set'
    """
    wanted = _Asked(Change.CANCEL, **asked)
    if not (wanted.ids or wanted.by_filter or everything):
        raise UsageError("cancel what? Name ids, filters such as --job, or --all")
    return _run(hosts_file, uri, databases, wanted)


def _run(hosts_file: str | None, uri: str | None, databases: Sequence[str], asked: _Asked) -> int:
    if asked.ids and asked.by_filter:
        raise UsageError("ids and filters do not go together")
    with opened(hosts_file, uri, databases) as target:
        entries = _entries(target, asked)
        refused = [(entry, reason) for entry in entries if (reason := refusal(asked.change, entry))]
        able = [entry for entry in entries if not refusal(asked.change, entry)]
        _preview(target, asked, able, refused)
        if able:
            calculations = f"{len(able)} calculation{'' if len(able) == 1 else 's'}"
            options.confirm(f"{asked.change.value} {calculations}?", asked.yes, _DONE[asked.change])
        changed = _change(target, asked, able)
    _report(asked, able, refused, changed)
    return ExitCode.FAILED if refused or len(changed) < len(able) else ExitCode.DONE


def _entries(target: QueueTarget, asked: _Asked) -> list[Entry]:
    if asked.ids:
        named = [entry_of(target, prefix) for prefix in asked.ids]
        return list({(entry.database, entry.id): entry for entry in named}.values())
    usual = RULES[asked.change].usual
    wanted = selected(asked.statuses, asked.orders, asked.programs, asked.workers, asked.since, usual)
    found = [entry for queue in target.queues for entry in queue.entries(wanted)]
    if asked.change is not Change.REQUEUE or asked.cancelled:
        return found
    kept = [entry for entry in found if not entry.cancelled]
    if len(kept) < len(found):
        note(f"left out: {len(found) - len(kept)} that were cancelled; --cancelled requeues them too")
    return kept


def _preview(target: QueueTarget, asked: _Asked, able: Sequence[Entry], refused: Sequence[tuple[Entry, str]]) -> None:
    if not able and not refused:
        note(f"nothing to {asked.change.value} in {', '.join(target.names)}")
        return
    for name in target.names:
        here = [entry for entry in able if entry.database == name]
        kinds = Counter((entry.order, entry.status.value) for entry in here)
        if here:
            words = ", ".join(f"{count} {order} ({status})" for (order, status), count in sorted(kinds.items()))
            note(f"to {asked.change.value} in {name}: {words}", "bold")
    running = sum(entry.status is Status.PENDING for entry in able)
    if running:
        within = f"within {RENEW_FRACTION * DaemonSettings().lease_in_s:.0f} s by default"
        note(f"{running} of them running: their jobs are killed {within}, and what they have done is lost", "yellow")
    for entry, reason in refused[:_LISTED]:
        note(f"left as it is: {entry.id} {reason}", "yellow")
    if len(refused) > _LISTED:
        note(f"... and {len(refused) - _LISTED} more", "yellow")


def _change(target: QueueTarget, asked: _Asked, able: Sequence[Entry]) -> list[Entry]:
    """Change them piece by piece, each piece only as far as it is still as it was listed; return what was changed."""
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    reason = cancellation(by, asked.reason)
    history = _History(target, asked, by)
    changed: list[Entry] = []
    piece: Sequence[Entry] = ()
    try:
        for queue in target.queues:
            here = [entry for entry in able if entry.database == queue.name]
            for start in range(0, len(here), _PIECE):
                piece = here[start : start + _PIECE]
                done = queue.change(asked.change, piece, reason)
                piece = ()
                changed += done
                history.note(done)
    except (KeyboardInterrupt, DatabaseError):
        note(_how_far(asked.change, len(changed), len(able), len(piece)), "yellow")
        raise
    return changed


def _how_far(change: Change, changed: int, able: int, in_doubt: int) -> str:
    """What to say of a change that did not come to its end.

    Parameters
    ----------
    change
        The change.
    changed
        How many were changed for certain.
    able
        How many were to be changed.
    in_doubt
        How many were in the write of which no answer came.
    """
    doubt = f", and perhaps some of the next {in_doubt}" if in_doubt else ""
    return f"{changed} of {able} {_DONE[change]}{doubt}: the same command does the rest"


class _History:
    """Adds what is done to the calculations' history; that it was done is true without it.

    Parameters
    ----------
    target
        Where the calculations are.
    asked
        What is done.
    by
        Who does it.
    """

    def __init__(self, target: QueueTarget, asked: _Asked, by: str) -> None:
        self._target = target
        self._asked = asked
        self._by = by
        self._is_prepared = self._is_refused = False

    def note(self, changed: Sequence[Entry]) -> None:
        """Note a piece; once that was refused, it is not tried again."""
        if self._is_refused or not changed:
            return
        kind, host, fleet = _DONE[self._asked.change], socket.gethostname(), self._target.fleet
        events = [(time.time(), Event(kind, self._by, host, fleet, entry.id, self._asked.reason)) for entry in changed]
        try:
            if not self._is_prepared:
                self._target.store.events.prepare()
            self._is_prepared = True
            self._target.store.events.write(events)
        except DatabaseError as error:
            self._is_refused = True
            note(f"not noted in the history: {error}", "yellow")


def _report(
    asked: _Asked, able: Sequence[Entry], refused: Sequence[tuple[Entry, str]], changed: Sequence[Entry]
) -> None:
    done = {(entry.database, entry.id) for entry in changed}
    lost = [entry for entry in able if (entry.database, entry.id) not in done]
    if asked.json_lines:
        outcomes = [(entry, "") for entry in changed] + [(entry, "changed meanwhile") for entry in lost]
        for entry, reason in [*outcomes, *refused]:
            record = {"id": entry.id, "database": entry.database, "was": entry.status.value, "changed": not reason}
            print_json({**record, "reason": reason})
    if able:
        note(f"{len(changed)} {_DONE[asked.change]}")
    for entry in lost[:_LISTED]:
        note(f"left as it is: {entry.id} changed meanwhile", "yellow")
