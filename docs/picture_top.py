"""Makes docs/top.svg from the real program: a fleet computes molecules on this machine while `top` looks on."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import demo
from fleet.cli import options
from fleet.cli.top.app import Top
from fleet.embedded import EmbeddedDatabase
from fleet.hosts import yamlmap
from fleet.hosts.access import open_store

HOSTS = 4
SIZE = (130, 23)
LOOKS_ON_S = 24.0
JOBS = ("scine_geometry_optimization", "scine_hessian", "scine_bond_orders")
METHODS = ("PM6", "AM1", "RM1", "MNDO", "DFTB2", "DFTB3")


def hosts_file(directory: Path, uri: str) -> str:
    """Hosts that are all this machine, each with two workers and a directory of its own."""
    return yamlmap.write(
        {
            "fleet": "reactions",
            "database": {"uri": uri, "names": ["explore"]},
            "release": {"install": "path", "path": sys.prefix, "python": sys.executable},
            "defaults": {
                "connection": "local",
                "boot": "none",
                "scratch": str(directory / "scratch"),
                "reserve": {"cores": 0, "memory": 0},
                "workers": {"cores": 1, "memory": 1, "disk": 0.1, "count": 2},
                "puffin": {"daemon": {"cycle_time_in_s": 1.0}},
            },
            "update": {"min_healthy_time": "0s", "max_parallel": "100%", "canary": 0},
            "hosts": {f"node{at}": {"base_dir": str(directory / f"node{at}")} for at in range(1, HOSTS + 1)},
        }
    )


def puffin_fleet(*words: object) -> None:
    command = Path(sys.executable).parent / "puffin-fleet"
    subprocess.run([str(command), *map(str, words)], check=True, stdin=subprocess.DEVNULL)


@contextmanager
def at_work() -> Iterator[Path]:
    """A fleet that has something to do; nothing is left of it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="puffin-picture-"))
    database = EmbeddedDatabase(directory / "database")
    try:
        database.start()
        file = directory / "hosts.yaml"
        file.write_text(hosts_file(directory, database.uri), encoding="utf-8")
        for job, method in itertools.product(JOBS, METHODS):
            model = ("--job", job, "--program", "sparrow", "--method", method, "--memory", 0.5, "--disk", 0.1)
            puffin_fleet("queue", "submit", "--hosts-file", file, *demo.molecules(), *model, "--force")
        puffin_fleet("deploy", file, "--yes")
        yield file
    finally:
        demo.sweep(directory)
        database.stop()
        demo.remove(directory)


async def picture(file: Path) -> str:
    """What `top` shows after a while."""
    chosen = options.choose(str(file), ())
    store = open_store(chosen.fleet)
    try:
        app = Top(chosen, store, every=1.0)
        async with app.run_test(size=SIZE) as pilot:
            await pilot.press("tab")  # workers instead of hosts
            await pilot.pause(LOOKS_ON_S)
            return app.export_screenshot(title="puffin-fleet top")
    finally:
        store.close()


def main() -> None:
    with at_work() as file:
        drawn = asyncio.run(picture(file))
    Path(__file__).with_name("top.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
