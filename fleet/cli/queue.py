"""The verbs of ``puffin-fleet queue``."""

from __future__ import annotations

import click

from fleet.cli.lazy import LazyGroup

_VERBS = {
    "submit": ("fleet.cli.queue_submit", "molecules in files become calculations"),
    "status": ("fleet.cli.queue_look", "how many there are, how fast it goes"),
    "list": ("fleet.cli.queue_look:list_calculations", "the newest calculations"),
    "show": ("fleet.cli.queue_look", "everything about one calculation"),
    "results": ("fleet.cli.queue_results", "energies, properties, structures"),
    "requeue": ("fleet.cli.queue_change", "run failed calculations again"),
    "hold": ("fleet.cli.queue_change", "keep calculations from being run"),
    "release": ("fleet.cli.queue_change", "let calculations on hold be run"),
    "cancel": ("fleet.cli.queue_change", "give calculations up, running ones too"),
}


@click.group(cls=LazyGroup, verbs=_VERBS)
def queue() -> None:
    """Put calculations into the database, look at them, read their results.

    \b
    puffin-fleet queue submit molecules/ --job scine_geometry_optimization --program sparrow --method PM6
    puffin-fleet queue status
    puffin-fleet queue list --status failed
    puffin-fleet queue show 65f0c1
    puffin-fleet queue requeue --status failed
    puffin-fleet queue results --format csv > energies.csv

    The database is the one in hosts.yaml: --hosts-file, $PUFFIN_FLEET, or hosts.yaml here; status and list take the
    file as a word, too, as other verbs do. With --uri no hosts.yaml is needed.
    """
