"""status."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import click

from fleet.cli import options, status_view
from fleet.cli.status_look import Look
from fleet.errors import ExitCode
from fleet.hosts.access import open_remotes, open_store


class _Seconds(click.FloatRange):
    """Says what to write where the word after --watch is not meant for it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            float(value)
        except ValueError:
            self.fail(f"'{value}' is no number of seconds; a file stands before it: {value} --watch", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@options.hosts_file
@options.as_json
@click.option("--deep", is_flag=True, help="Ask the hosts, too: what supervisord says, and what really runs.")
@click.option("--workers", "single", is_flag=True, help="Show every single worker.")
@click.option(
    "--watch",
    "every",
    type=_Seconds(min=0.2),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it again and again, every 2 seconds if nothing else is said; HOSTS_FILE stands before it.",
)
@options.parallel
def status(
    hosts_file: str | None,
    patterns: tuple[str, ...],
    json_lines: bool,
    deep: bool,
    single: bool,
    every: float | None,
    parallel: int,
) -> int:
    """Show what every worker is doing, what is wrong first; asks the database, not the hosts.

    A large fleet is shown host by host, and single workers where something is wrong.

    \b
    puffin-fleet status
    puffin-fleet status --host node7 --deep
    puffin-fleet status --watch 5
    """
    chosen = options.choose(hosts_file, patterns)
    one_by_one = single or bool(patterns)
    with ExitStack() as opened:
        store = open_store(chosen.fleet)
        opened.callback(store.close)
        remotes = opened.enter_context(open_remotes(chosen.fleet, chosen.hosts)) if deep else None
        look = Look(chosen, store, remotes, parallel, brief=not json_lines)
        if every is not None:
            status_view.watch(chosen, look.now, every, one_by_one, json_lines)
        view = look.now()
    return ExitCode.FAILED if status_view.show(chosen, view, one_by_one, json_lines) else ExitCode.DONE
