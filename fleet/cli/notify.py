"""notify."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import datetime, timezone

import click

from fleet.cli import options
from fleet.cli.output import data_console, note, print_json
from fleet.errors import ExitCode, UsageError
from fleet.hosts.access import open_store
from fleet.hosts.inventory import Fleet
from fleet.notify.notices import Kind, Notice
from fleet.notify.notifying import Notifier, Told
from fleet.notify.telling import Hooked, NotTold, hooks_on_events
from fleet.watch.moments import full
from fleet.words import duration, plain
from puffin.errors import DatabaseError, DatabaseUnavailable

_RETRY_S = 1.0


@click.command()
@click.argument("hosts_file", required=False, metavar="[HOSTS_FILE]")
@options.as_json
@click.option("--once", is_flag=True, help="Tell what there is to tell now, and end; for cron.")
@click.option("--try", "is_try", is_flag=True, help="Tell every hook once that this is a try; asks no database.")
def notify(hosts_file: str | None, json_lines: bool, once: bool, is_try: bool) -> int:
    """Tell the hooks in hosts.yaml of what happens: failed calculations, quarantined workers, hosts lost, queue empty.

    It runs until Ctrl-C, or from cron with --once, and goes on where the last one was; one for each fleet. A hook that
    fails is tried again, ten times in the better part of an hour.

    \b
    puffin-fleet notify --try
    puffin-fleet notify
    puffin-fleet notify hosts.yaml --once --json
    """
    fleet = options.choose(hosts_file, ()).fleet
    hooked = hooks_on_events(fleet)
    if not hooked.targets:
        keys = ", ".join(kind.value for kind in Kind)
        raise UsageError(
            f"{fleet.source} names no hook on events: give a command or a URL for any of {keys} in 'hooks'"
        )
    if is_try:
        return _try(fleet, hooked, json_lines)
    with ExitStack() as opened:
        store = open_store(fleet)
        opened.callback(store.close)
        notifier = Notifier(fleet, store, hooked, listen=not once)
        notifier.sit_down(None if once else lambda what: note(what, "yellow"))
        opened.callback(_leave, notifier)
        if once:
            return ExitCode.FAILED if _once(notifier, json_lines) else ExitCode.DONE
        note(f"telling the hooks of {fleet.name} until Ctrl-C", "dim")
        _go_on(notifier, json_lines)
    return ExitCode.DONE


def _try(fleet: Fleet, hooked: Hooked, json_lines: bool) -> int:
    failed = False
    at = datetime.now(timezone.utc).replace(microsecond=0, tzinfo=None)
    for kind, names in hooked.targets.items():
        for name in names:
            text = f"{fleet.name}: this is a try of the hook {kind.value}; nothing has happened"
            notice = Notice(kind, f"try-{at:%Y%m%dT%H%M%S}", at, fleet.name, text)
            caller, error = hooked.callers[name], ""
            try:
                caller.tell(notice)
            except NotTold as problem:
                error = str(problem)
            failed |= bool(error)
            _print([Told(notice, caller.label, 1, error)], json_lines)
    return ExitCode.FAILED if failed else ExitCode.DONE


def _once(notifier: Notifier, json_lines: bool) -> bool:
    """Tell what is due; return whether anything failed."""
    failed = anything = False
    notifier.step(0.0)
    while True:
        told = notifier.told()
        failed |= any(each.error for each in told)
        anything |= bool(told)
        _print(told, json_lines)
        if not notifier.busy:
            # cron would send a mail for every word.
            if not anything and sys.stderr.isatty():
                note("Nothing to tell.")
            return failed
        notifier.step(0.0)


def _go_on(notifier: Notifier, json_lines: bool) -> None:
    """Until Ctrl-C; an outage of the database is told, and nothing is missing afterwards."""
    away = False
    while True:
        try:
            notifier.step()
        except DatabaseUnavailable as error:
            if not away:
                note(f"{error}; going on when it is back", "yellow")
            away = True
            time.sleep(_RETRY_S)
        else:
            if away:
                note("the database is back", "yellow")
            away = False
        _print(notifier.told(), json_lines)


def _leave(notifier: Notifier) -> None:
    with suppress(DatabaseError):
        notifier.leave()


def _print(told: Iterable[Told], json_lines: bool) -> None:
    console = data_console()
    for each in told:
        if json_lines:
            print_json(_fields(each))
        else:
            console.print(plain(_line(each)), style="bold red" if each.error else "", markup=False)
    sys.stdout.flush()


def _fields(told: Told) -> dict[str, object]:
    notice = told.notice
    return {
        "event": notice.kind.value,
        "id": notice.id,
        "at": notice.at,
        "text": notice.text,
        "hook": told.label,
        "told": not told.error,
        "tries": told.tries,
        "error": told.error,
        "again_at": told.again_at,
    }


def _line(told: Told) -> str:
    notice = told.notice
    head = f"{full(notice.at)}  {notice.kind.value}"
    if not told.error:
        return f"{head}  told {told.label}: {notice.text}"
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    left = None if told.again_at is None else max(0.0, (told.again_at - now).total_seconds())
    then = "given up" if left is None else f"again in {duration(left)}"
    return f"{head}  not told {told.label}, try {told.tries}, {then}: {told.error}; {notice.text}"
