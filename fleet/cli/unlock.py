"""unlock."""

from __future__ import annotations

import click

from fleet.cli import options
from fleet.cli.output import note, print_json, report_failures
from fleet.deployment.lock import Deed, describe, new_deed
from fleet.deployment.survey import probe_all
from fleet.errors import ExitCode
from fleet.hosts.access import Remotes, open_remotes
from fleet.reach.execute import ask, fan_out
from fleet.reach.facts import Facts


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@options.yes
def unlock(hosts_file: str | None, patterns: tuple[str, ...], parallel: int, json_lines: bool, yes: bool) -> int:
    """Remove the locks of a command that is gone, such as one whose machine has died.

    A command that still runs notices that its lock is gone, and changes nothing more.

    \b
    puffin-fleet unlock
    puffin-fleet unlock --host node7 --yes
    """
    chosen = options.choose(hosts_file, patterns)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        probed = probe_all(chosen.fleet, chosen.hosts, remotes, parallel)
        locked = [result.value for result in probed if result.value is not None and result.value.lock.holder]
        failed = report_failures(probed)
        if not locked:
            note("No host is locked." if not failed else "No other host is locked.")
            return ExitCode.FAILED if failed else ExitCode.DONE
        if not json_lines:
            for facts in locked:
                assert facts.lock.holder is not None  # noqa: S101 - chosen so above
                note(f"{facts.host}: {describe(facts.lock.holder)}")
        plural = "s" if len(locked) > 1 else ""
        options.confirm(f"Remove the lock{plural} of {options.count_of(len(locked))}?", yes, "removed")
        deed = new_deed("unlock")
        results = fan_out({facts.host: facts for facts in locked}, lambda facts: _break(remotes, facts, deed), parallel)
    for result in results:
        if json_lines:
            print_json({"host": result.host, "ok": result.ok, "removed": bool(result.value)})
    failed += report_failures(results)
    if not json_lines:
        note(f"{options.count_of(sum(bool(result.value) for result in results))} unlocked.", "green")
    return ExitCode.FAILED if failed else ExitCode.DONE


def _break(remotes: Remotes, facts: Facts, deed: Deed) -> bool:
    request = {"host_root": facts.host_root, "step": "break", "id": deed.id, "who": deed.who}
    return bool(ask(remotes[facts.host], "lock", request)["held"])
