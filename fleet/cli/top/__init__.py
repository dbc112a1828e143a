"""top."""

from __future__ import annotations

import sys
from contextlib import closing

import click

from fleet.cli import options
from fleet.errors import ExitCode, UsageError
from fleet.hosts.access import open_store


@click.command()
@options.hosts_file
@click.option(
    "--every",
    type=click.FloatRange(min=0.2),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
def top(hosts_file: str | None, patterns: tuple[str, ...], every: float) -> int:
    """Watch the fleet live, full screen; stop, start, restart and drain from there, and read logs.

    \b
    puffin-fleet top
    puffin-fleet top --host 'node0*' --every 5
    """
    chosen = options.choose(hosts_file, patterns)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal: 'puffin-fleet status' prints the same once, also as --json")
    # Not at the top: it takes a third of a second to import, and --help and completion pass through here.
    from fleet.cli.top.app import Top

    with closing(open_store(chosen.fleet)) as store:
        Top(chosen, store, every).run()
    return ExitCode.DONE
