"""Hosts to try things on by hand: ``python -m tests.lab up 5``, as root; ``down`` ends whatever is left."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import yaml

from tests.lab.bare import bare_root
from tests.lab.laboratory import DISK_SIZE, Laboratory, LaboratoryError, hosts_yaml, obstacle

STATE = Path("/run/puffin-laboratory")
CACHE = Path.home() / ".cache" / "puffin-fleet-tests"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    made.add_argument("--state", type=Path, default=STATE, help=f"directory of the laboratory (default: {STATE})")
    verbs = made.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make hosts, the first ones or more")
    up.add_argument("count", type=int, nargs="?", default=3)
    up.add_argument("--bare", action="store_true", help="with a minimal root of their own, made by debootstrap")
    up.add_argument("--disk", type=float, default=DISK_SIZE / (1 << 30), help="size of each disk in GiB, in memory")
    verbs.add_parser("down", help="end all hosts and remove everything")
    verbs.add_parser("list", help="show the hosts")
    for verb, meaning in (
        ("cut", "cut a host off: frames vanish"),
        ("heal", "connect it again"),
        ("kill", "switch it off without warning"),
        ("revive", "switch it on again, with its disk"),
        ("fill", "make its disk full"),
        ("empty", "give its disk its size back"),
    ):
        verbs.add_parser(verb, help=meaning).add_argument("hosts", nargs="+")
    delay = verbs.add_parser("delay", help="slow its network down; 0 takes that back")
    delay.add_argument("hosts", nargs="+")
    delay.add_argument("seconds", type=float, help="each way")
    ssh = verbs.add_parser("ssh", help="log in, or run a command")
    ssh.add_argument("host")
    ssh.add_argument("words", nargs=argparse.REMAINDER)
    return made


def main(words: list[str]) -> int:
    given = parser().parse_args(words)
    reason = obstacle()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    try:
        return run(Laboratory(given.state, bound=False), given)
    except LaboratoryError as error:
        print(error, file=sys.stderr)
        return 1


def run(laboratory: Laboratory, given: argparse.Namespace) -> int:
    if given.verb == "up":
        return up(laboratory, given)
    if given.verb == "down":
        laboratory.down()
    elif given.verb == "list":
        show(laboratory)
    elif given.verb == "ssh":
        command = laboratory[given.host].ssh_words(*given.words)
        os.execvp(command[0], command)
    elif given.verb == "delay":
        for name in given.hosts:
            laboratory.delay(name, given.seconds)
    else:
        for name in given.hosts:
            getattr(laboratory, given.verb)(name)
    return 0


def up(laboratory: Laboratory, given: argparse.Namespace) -> int:
    first = max((machine.index for machine in laboratory.machines), default=0) + 1
    names = [f"node{index}" for index in range(first, first + given.count)]
    lower = bare_root(CACHE) if given.bare else None
    sshd = "/usr/sbin/sshd" if given.bare else None
    try:
        laboratory.up(names, lower, sshd, int(given.disk * (1 << 30)))
    except BaseException:  # Ctrl-C too: half a laboratory is of no use
        if first == 1:
            laboratory.down()
        raise
    database = {"uri": f"mongodb://{laboratory.address}:27017", "names": ["laboratory"]}
    file = laboratory.state / "hosts.yaml"
    file.write_text(yaml.safe_dump(hosts_yaml(laboratory, "laboratory", database), sort_keys=False))
    show(laboratory)
    print(f"\n{file} describes them; hosts reach this machine at {laboratory.address}, and nothing else.")
    return 0


def show(laboratory: Laboratory) -> None:
    for machine in laboratory.machines:
        state = "on" if laboratory.runs(machine.name) else "off"
        more = [f"delay {laboratory.delay_of(machine.name):g} s"] if laboratory.delay_of(machine.name) else []
        more += ["cut"] if laboratory.is_cut(machine.name) else []
        print(f"{machine.name:12} {machine.address:15} {', '.join([state, *more])}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
