"""plan."""

from __future__ import annotations

import click

from fleet.cli import options
from fleet.cli.output import report_failures
from fleet.cli.planning import diffs_of, known_of, show_plans, survey_chosen
from fleet.errors import ExitCode
from fleet.hosts.access import open_remotes, open_store


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@click.option("--refresh", is_flag=True, help="Look for newer versions of what the workers require.")
@click.option("--diff", is_flag=True, help="Show how each file changes; secrets are hidden.")
@click.option("--repair", is_flag=True, help="Plan to undo what was changed by hand on the hosts, too.")
def plan(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    parallel: int,
    json_lines: bool,
    refresh: bool,
    diff: bool,
    repair: bool,
) -> int:
    """Show what a deploy would change; changes nothing.

    \b
    puffin-fleet plan hosts.yaml
    puffin-fleet plan --diff
    puffin-fleet plan --host 'node0*' --json
    """
    chosen = options.choose(hosts_file, patterns)
    store = open_store(chosen.fleet)
    unread = 0
    diffs = None
    known = known_of(chosen, store, must=False)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        works = survey_chosen(chosen, remotes, known, parallel, refresh=refresh, repair=repair)
        if diff:
            diffs, unread = diffs_of(works, remotes, parallel)
    show_plans(works, json_lines, diffs)
    return ExitCode.FAILED if report_failures(works) or unread else ExitCode.DONE
