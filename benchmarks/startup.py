"""How long the commands take to say what they can do, beside Python that does nothing.

    python -m benchmarks.startup [--rounds 20]

Every command is run in turn, so that whatever else the machine does meets all alike; medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
NOTHING = "python -c pass"
COMMANDS = {
    NOTHING: (sys.executable, "-c", "pass"),
    "puffin --help": (str(BIN / "puffin"), "--help"),
    "puffin-fleet --help": (str(BIN / "puffin-fleet"), "--help"),
    "puffin-fleet (alone)": (str(BIN / "puffin-fleet"),),
    "puffin-fleet status --help": (str(BIN / "puffin-fleet"), "status", "--help"),
    "puffin-fleet deploy --help": (str(BIN / "puffin-fleet"), "deploy", "--help"),
    "puffin-fleet queue --help": (str(BIN / "puffin-fleet"), "queue", "--help"),
}


def seconds(words: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            taken[name].append(seconds(words))
    base = statistics.median(taken[NOTHING])
    print(f"{rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'':28} {'median':>8} {'worst':>8} {'ratio':>7}")
    for name, found in taken.items():
        median = statistics.median(found)
        print(f"{name:28} {median * 1000:6.0f} ms {max(found) * 1000:5.0f} ms {median / base:7.1f}")


if __name__ == "__main__":
    main()
