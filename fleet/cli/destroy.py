"""destroy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
from rich.text import Text

from fleet.cli import options
from fleet.cli.options import Chosen
from fleet.cli.output import Board, Column, data_console, note, print_json, print_table, report_failures
from fleet.deployment.lock import Lock, LockTarget, hold, new_deed, outcome_of
from fleet.deployment.survey import probe_all
from fleet.errors import ExitCode
from fleet.hosts.access import Remotes, open_remotes, open_store
from fleet.operation.destroying import Destroyed, HostDestroyer, workers_of
from fleet.reach.execute import Interrupted, fan_out
from fleet.reach.remote import HostResult
from puffin.errors import DatabaseError
from puffin.store import Store

_LOCK_FILE = "lock file"


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@options.lock_timeout
@click.option("--now", is_flag=True, help="Give running calculations back instead of waiting for them.")
@options.timeout
@options.yes
def destroy(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    lock_timeout: float,
    now: bool,
    timeout: float | None,
    yes: bool,
) -> int:
    """Take hosts out of the fleet: let their workers finish, then remove what was deployed.

    Logs, and the directories of failed and archived calculations, stay; so does what is in the database.

    \b
    puffin-fleet destroy --host node7
    puffin-fleet destroy --now --yes
    """
    chosen = options.choose(hosts_file, patterns)
    whole = f"all {options.count_of(len(chosen.hosts))}"
    if not chosen.whole:
        names = ", ".join(host.name for host in chosen.hosts)
        whole = f"{len(chosen.hosts)} of {options.count_of(len(chosen.fleet.hosts))}: {names}"
    what = "give running calculations back" if now else "wait for running calculations"
    options.confirm(f"Destroy fleet '{chosen.fleet.name}' on {whole} ({what})?", yes, "removed")
    store = open_store(chosen.fleet)
    try:
        with open_remotes(chosen.fleet, chosen.hosts) as remotes:
            probed = probe_all(chosen.fleet, chosen.hosts, remotes, parallel)
            roots = {result.host: result.value.host_root for result in probed if result.value is not None}
            missing = {result.host: outcome_of(result.error).error for result in probed if not result.ok}
            how = _How(now, timeout, parallel, lock_timeout, missing)
            results = _destroy_all(chosen, remotes, roots, store, how)
    finally:
        store.close()
    done = {result.host: result for result in results}
    every = [done.get(one.host) or HostResult[Destroyed](one.host, error=one.error) for one in probed]
    _report(every, json_lines)
    return ExitCode.FAILED if report_failures(every) else ExitCode.DONE


@dataclass(frozen=True)
class _How:
    """How hosts are destroyed: `now` gives running calculations back, `timeout` is for workers.

    `missing` are hosts that cannot be, and why, for the notes on the others.
    """

    now: bool
    timeout: float | None
    parallel: int
    lock_timeout: float
    missing: Mapping[str, str]


def _destroy_all(
    chosen: Chosen, remotes: Remotes, roots: Mapping[str, str], store: Store, how: _How
) -> list[HostResult[Destroyed]]:
    targets = {name: LockTarget(root) for name, root in roots.items()}
    with (
        hold(remotes, targets, new_deed("destroy"), how.lock_timeout, how.parallel, note) as lock,
        Board("Destroying", len(lock.hosts)) as board,
    ):
        lock.missing.update(how.missing)
        try:
            results = _work(chosen, remotes, lock, board, how)
        except Interrupted as interrupted:
            done = [result for result in interrupted.results if isinstance(result.value, Destroyed)]
            _conclude(chosen, store, lock, done)
            _say_how_far(done, lock)
            raise
        results += [HostResult[Destroyed](host, error=error) for host, error in lock.failed.items()]
        _conclude(chosen, store, lock, results)
    return results


def _work(chosen: Chosen, remotes: Remotes, lock: Lock, board: Board, how: _How) -> list[HostResult[Destroyed]]:
    """Tell all hosts before waiting for any: the last must not go on taking work while the first one finishes."""
    hosts = {host.name: host for host in chosen.hosts if host.name in lock.hosts}
    # Only now nobody else changes them any more.
    probed = probe_all(chosen.fleet, list(hosts.values()), remotes, how.parallel)
    found = {result.host: result.value for result in probed if result.value is not None}

    def destroyer(name: str) -> HostDestroyer:
        return HostDestroyer(
            fleet=chosen.fleet,
            host=hosts[name],
            facts=found[name],
            remote=remotes[name],
            token=lock.token,
            say=lambda what: board.step(name, what),
        )

    told = fan_out({name: name for name in found}, lambda name: destroyer(name).tell(how.now), how.parallel)
    waiting = {result.host: (result.host, result.value) for result in told if result.value is not None}
    ended = fan_out(
        waiting,
        lambda pair: destroyer(pair[0]).finish(pair[1], how.timeout),
        max(1, len(waiting)),
        lambda event: board.finished(event.host, event.result.ok) if event.result else None,
    )
    unreachable = [HostResult[Destroyed](one.host, error=one.error) for one in probed if not one.ok]
    return ended + unreachable + [HostResult[Destroyed](one.host, error=one.error) for one in told if not one.ok]


def _say_how_far(done: Sequence[HostResult[Destroyed]], lock: Lock) -> None:
    names = sorted(result.host for result in done)
    rest = sorted(lock.hosts - set(names))
    note(f"\ndestroyed {', '.join(names) or 'none'}; not finished {', '.join(rest) or 'none'}.", "yellow")
    note("Workers that were told to stop stay stopped: the same command goes on, or 'puffin-fleet start'.", "yellow")


def _conclude(chosen: Chosen, store: Store, lock: Lock, results: Sequence[HostResult[Destroyed]]) -> None:
    for result in results:
        lock.conclude(result.host, outcome_of(result.error))
    _forget(chosen, store, [result.host for result in results if result.ok])


def _forget(chosen: Chosen, store: Store, hosts: Sequence[str]) -> None:
    """Without the database the workers stay in the registry, where they count as lost."""
    try:
        records = store.registry.workers(chosen.fleet.name, brief=True)
        store.registry.forget(uuid for host in hosts for uuid in workers_of(host, records))
        store.control.forget_hosts(chosen.fleet.name, hosts)
    except DatabaseError as error:
        note(f"{error}\n  'status' goes on showing these workers; run this again when the database answers.", "yellow")


def _report(results: Sequence[HostResult[Destroyed]], json_lines: bool) -> None:
    if json_lines:
        for result in results:
            left = [vars(one) for one in result.value.left] if result.value else []
            shared = _still_shared(result.value, results) if result.value else []
            changed = result.value.changed if result.value else None
            record = {"host": result.host, "ok": result.ok, "changed": changed, "left": left, "shared": shared}
            print_json({**record, "error": str(result.error or "")})
        return
    rows: list[list[Text | str]] = []
    for result in results:
        if result.value is None:
            rows.append([result.host, Text("failed", style="red"), ""])
        else:
            others = ", ".join(_still_shared(result.value, results))
            stays = f"installations stay, for {others}" if others else ""
            done = Text("destroyed", style="green") if result.value.changed else Text("nothing was there", style="dim")
            rows.append([result.host, done, stays])
    print_table((Column("HOST"), Column("RESULT"), Column("")), rows)
    _report_left(results)


def _still_shared(destroyed: Destroyed, results: Sequence[HostResult[Destroyed]]) -> list[str]:
    """The hosts that go on using what is installed: the last of those that go takes it along."""
    gone = {result.host for result in results if result.ok}
    return [host for host in destroyed.shared if host not in gone]


def _report_left(results: Sequence[HostResult[Destroyed]]) -> None:
    everything = [(result.host, one) for result in results if result.value for one in result.value.left]
    left = [(host, one) for host, one in everything if one.what != _LOCK_FILE]
    if len(left) < len(everything):
        names = sorted({one.path.rpartition("/")[2] for _, one in everything if one.what == _LOCK_FILE})
        note(f"Lock files stay, since another command may wait for them: {', '.join(names)} (--json names all).", "dim")
    if not left:
        return
    console = data_console()
    console.print(Text("Left on the hosts:", style="bold"))
    for host, one in left:
        files = "" if one.files < 2 else f", {one.files} files"
        console.print(Text.assemble("  ", (host, "cyan"), f"  {one.path}", (f"  {one.what}{files}", "dim")))
