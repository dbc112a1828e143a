"""plan."""

from __future__ import annotations

import click

from fleet.access import open_remotes, open_store
from fleet.cli import options
from fleet.cli.output import report_failures
from fleet.cli.planning import known_of, show_plans, survey_chosen
from fleet.errors import ExitCode


@click.command()
@options.hosts_file
@options.parallel
@options.as_json
@click.option("--refresh", is_flag=True, help="Look for newer versions of what the workers require.")
def plan(hosts_file: str | None, patterns: tuple[str, ...], parallel: int, json_lines: bool, refresh: bool) -> int:
    """Show what a deploy would change; changes nothing.

    \b
    puffin-fleet plan hosts.yaml
    puffin-fleet plan --host 'node0*' --json
    """
    chosen = options.choose(hosts_file, patterns)
    store = open_store(chosen.fleet)
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        works = survey_chosen(chosen, remotes, known_of(chosen, store, must=False), parallel, refresh)
    show_plans(works, json_lines)
    return ExitCode.FAILED if report_failures(works) else ExitCode.DONE
