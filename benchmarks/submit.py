"""How fast `puffin-fleet queue submit` is, and how much memory it takes: first into an empty database, then again.

    python benchmarks/submit.py [COUNT ...]

The database server is the embedded one, on this machine; its share of the time is in the rate.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fleet.embedded import EmbeddedDatabase

_COMMAND = Path(sys.executable).with_name("puffin-fleet")
_MOLECULES = sorted((Path(__file__).parents[1] / "examples" / "molecules").glob("*.xyz"))
_WORDS = ("--job", "scine_single_point", "--program", "sparrow", "--method", "PM6", "--json")


def main(counts: list[int]) -> None:
    print(f"{'calculations':>12}  {'':<9}  {'seconds':>7}  {'per second':>10}  {'peak MB':>7}")
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="puffin-benchmark-") as name:
            directory = Path(name)
            write_molecules(directory / "molecules", count)
            with EmbeddedDatabase(directory / "database") as database:
                for title in ("new", "all there"):
                    seconds, peak = submit(directory / "molecules", database.uri, count)
                    print(f"{count:>12}  {title:<9}  {seconds:7.2f}  {count / seconds:10.0f}  {peak:7.0f}", flush=True)


def write_molecules(directory: Path, count: int) -> None:
    """The example molecules in turn, their atoms moved a little, so that no two are the same."""
    directory.mkdir()
    chance = random.Random(1)
    texts = [path.read_text().splitlines() for path in _MOLECULES]
    for number in range(count):
        head, atoms = texts[number % len(texts)][:2], texts[number % len(texts)][2:]
        moved = []
        for line in atoms:
            element, *position = line.split()
            moved.append(
                " ".join([element, *(f"{float(word) + chance.uniform(-0.01, 0.01):.6f}" for word in position)])
            )
        (directory / f"molecule-{number:06d}.xyz").write_text("\n".join([*head, *moved, ""]))


def submit(directory: Path, uri: str, count: int) -> tuple[float, float]:
    """Seconds, and peak memory in MB."""
    words = [str(_COMMAND), "queue", "submit", str(directory), *_WORDS, "--uri", f"{uri}/benchmark"]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        out.seek(0)
        lines = sum(1 for _ in out)
    if os.waitstatus_to_exitcode(status) or lines != count:
        raise SystemExit(f"{' '.join(words)}: ended with {status}, {lines} lines for {count} molecules")
    return seconds, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1_000, 10_000])
