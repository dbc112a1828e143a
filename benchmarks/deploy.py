"""Deploys to laboratory hosts by puffin-fleet and by an Ansible playbook, side by side; prints, asserts nothing.

    python -m benchmarks.deploy [--hosts 10] [--workers 2] [--forks 10] [--rounds 3] [--planned 1000]

As root, with the extras ``embedded`` and ``dev``; Ansible is installed into an environment of its own. Both bring the
same hosts, below different directories, to supervisord with workers. The playbook has nine tasks and does it in two
ways: as it was measured before there was a puffin-fleet, with supervisor, pyyaml and workers that sleep; and to the
same state, with all that a worker needs and real workers, which have to run for 10 s. A first run has what has to be
sent on this machine already; first runs are repeated in turn, below new directories each time, since a machine that
others share is not equally fast for long, and their medians are compared. Then each is run with nothing to do.

At the end the time is taken in which a deploy to many hosts is planned, from reading hosts.yaml to the last plan; the
hosts are answers of a real probe under other names.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from fleet.deployment import survey as surveys
from fleet.deployment.survey import Goal
from fleet.hosts.access import open_remotes
from fleet.hosts.inventory import parse_inventory
from fleet.release.bundle import default_cache
from tests.lab.fixtures_lab import ReachableServer
from tests.lab.laboratory import USER, Laboratory, hosts_yaml, obstacle

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent
PLAYBOOK = Path(__file__).with_name("deploy_playbook.yml")
PYTHON = "/usr/bin/python3"
HOME = f"/home/{USER}"
ANSIBLE = {
    **os.environ,
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_HOST_KEY_CHECKING": "0",
    "ANSIBLE_LOCALHOST_WARNING": "0",
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--planned", type=int, default=1000)
    given = parser.parse_args(words)
    reason = obstacle()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="puffin-benchmark-") as place:
        if given.hosts:
            compare(Path(place), given.hosts, given.workers, given.forks, given.rounds)
        plan_many(Path(place), given.planned)
    return 0


def compare(place: Path, hosts: int, workers: int, forks: int, rounds: int) -> None:
    ansible = install_ansible(place)
    with laboratory(place, hosts) as (lab, server):
        inventory = write_inventory(place, lab, workers)
        play = [str(ansible / "bin/ansible-playbook"), "-i", str(inventory), "-f", str(forks), str(PLAYBOOK)]
        parts, whole = describe_parts(place), describe_whole(place, server)
        fleets = [describe(lab, server, workers, f"waits-{number}") for number in range(rounds)]
        at_once = [describe(lab, server, workers, f"at-once-{number}", "0s") for number in range(rounds)]
        timed(fleet(place, "plan", fleets[0]))  # makes the bundle, as the wheels of the playbook were made
        print(f"{hosts} hosts, {workers} workers each, Ansible with pipelining and {forks} forks, {rounds} rounds")
        taken: dict[str, list[float]] = {"parts": [], "whole": [], "at once": [], "waits": []}
        for number in range(rounds):
            taken["parts"].append(timed([*play, "-e", as_words(parts, f"parts-{number}")], ANSIBLE))
            taken["at once"].append(timed(fleet(place, "deploy", at_once[number])))
            run(fleet(place, "stop", at_once[number], "--supervisord"))
            taken["whole"].append(timed([*play, "-e", as_words(whole, f"whole-{number}")], ANSIBLE))
            base = f"{HOME}/by-ansible-whole-{number}"
            shut_down = f"{base}/venv/bin/supervisorctl -c {base}/etc/supervisord.conf shutdown"
            run([str(ansible / "bin/ansible"), "-i", str(inventory), "all", "-m", "command", "-a", shut_down], ANSIBLE)
            taken["waits"].append(timed(fleet(place, "deploy", fleets[number])))
            if number < rounds - 1:
                run(fleet(place, "stop", fleets[number], "--supervisord"))
        ours = timed(fleet(place, "deploy", fleets[-1]))
        theirs = timed([*play, "-e", as_words(parts, f"parts-{rounds - 1}")], ANSIBLE)
        report("first run, all of it, 10 s in good health", taken["waits"], taken["whole"])
        report("first run, Ansible: supervisor and pyyaml", taken["at once"], taken["parts"])
        report("  and only puffin-fleet waits for 10 s", taken["waits"], taken["parts"])
        report("nothing to do", [ours], [theirs])


def describe_parts(place: Path) -> dict[str, object]:
    """What the playbook does that was measured before there was a puffin-fleet."""
    return {
        "wheels": str(fetch_wheels(place / "parts", ["supervisor", "pyyaml", "setuptools"])),
        "packages": ["supervisor", "pyyaml"],
        "settings": {"resources": {"cores": 1, "memory": 1}},
        "command": "/bin/sleep infinity",
        "startsecs": 1,
    }


def describe_whole(place: Path, server: ReachableServer) -> dict[str, object]:
    """The state that puffin-fleet brings a host to: all that a worker needs, and workers that have lived for 10 s."""
    packages = ["supervisor", "setuptools", "click", "psutil", "pymongo", "dnspython", "pyyaml"]
    wheels = fetch_wheels(place / "whole", packages)
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)])
    worker = "{{ inventory_hostname }}-{{ item }}"
    host, port = server.uri.removeprefix("mongodb://").split(":")
    return {
        "wheels": str(wheels),
        "packages": [*packages, "puffin-fleet"],
        "settings": {
            "database": {"ip": host, "port": int(port), "name": "ansible"},
            "daemon": {what: f"{{{{ base }}}}/run/{worker}.{what}" for what in ("job_dir", "log", "pid", "stop")},
            "resources": {"cores": 1, "memory": 0.1, "disk": 0.1},
        },
        "command": f"{{{{ base }}}}/venv/bin/puffin -c {{{{ base }}}}/etc/workers/{worker}.yaml container",
        "startsecs": 10,
    }


def as_words(what: dict[str, object], name: str) -> str:
    return json.dumps({**what, "under": name})


def fleet(place: Path, verb: str, content: dict[str, object], *options: str) -> list[str]:
    """A command of puffin-fleet, with its hosts.yaml written."""
    file = place / f"{content['fleet']}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    agreed = [] if verb == "plan" else ["--yes"]
    return [str(BIN / "puffin-fleet"), verb, str(file), *options, *agreed]


def report(what: str, ours: list[float], theirs: list[float]) -> None:
    mine, other = statistics.median(ours), statistics.median(theirs)
    ratio = f"{other / mine:5.1f} times faster"
    print(f"{what:42} puffin-fleet {mine:6.1f} s   ansible {other:6.1f} s   {ratio}   {each(ours)} | {each(theirs)}")


def each(taken: list[float]) -> str:
    return " ".join(f"{seconds:.1f}" for seconds in taken)


@contextlib.contextmanager
def laboratory(place: Path, hosts: int) -> Iterator[tuple[Laboratory, ReachableServer]]:
    lab = Laboratory(place / "laboratory")
    try:
        lab.up([f"node{number}" for number in range(1, hosts + 1)])
        (place / "database").mkdir()
        server = ReachableServer(place / "database", lab.address)
        server.start()
        try:
            yield lab, server
        finally:
            server.stop()
    finally:
        lab.down()


def describe(
    lab: Laboratory, server: ReachableServer, workers: int, name: str, healthy: str | None = None
) -> dict[str, object]:
    content = hosts_yaml(lab, name, {"uri": server.uri, "names": [name]})
    del content["update"]  # as it is by default, canary and all
    if healthy is not None:
        content["update"] = {"min_healthy_time": healthy}
    content["defaults"] |= {  # type: ignore[operator]  # a mapping, as hosts_yaml makes it
        "reserve": {"cores": 0, "memory": 0},
        "workers": {"cores": 1, "memory": 0.1, "disk": 0.1, "count": workers},
    }
    return content


def write_inventory(place: Path, lab: Laboratory, workers: int) -> Path:
    common = {
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={lab.known_hosts}",
        "ansible_python_interpreter": PYTHON,
        "remote_home": HOME,
        "python": PYTHON,
        "workers": workers,
    }
    hosts = {machine.name: {"ansible_host": machine.address} for machine in lab.machines}
    file = place / "inventory.yml"
    file.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": common}}))
    return file


def install_ansible(place: Path) -> Path:
    environment = place / "ansible"
    run([sys.executable, "-m", "venv", str(environment)])
    run([str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "ansible-core"])
    return environment


def fetch_wheels(wheels: Path, packages: list[str]) -> Path:
    version = run([PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    choice = ["--no-deps", "--only-binary", ":all:", "--python-version", version, "--dest", str(wheels)]
    run([sys.executable, "-m", "pip", "download", "--quiet", *choice, *packages])
    return wheels


def run(words: list[str], environment: dict[str, str] | None = None) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout


def timed(words: list[str], environment: dict[str, str] | None = None) -> float:
    started = time.monotonic()
    done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return time.monotonic() - started


def plan_many(place: Path, count: int) -> None:
    """Plan for hosts that all look like this one, under a name of their own."""
    one = inventory_of(place, 0)
    fleet = parse_inventory(one, "hosts.yaml")
    with open_remotes(fleet, fleet.hosts) as remotes:
        (probed,) = surveys.probe_all(fleet, fleet.hosts, remotes, 1)
    if probed.value is None:
        raise SystemExit(str(probed.error))
    hardware = dataclasses.replace(probed.value.hardware, cores=64, memory=256.0)
    real = dataclasses.replace(probed.value, hardware=hardware)
    text = inventory_of(place, count)
    started = time.monotonic()
    fleet = parse_inventory(text, "hosts.yaml")
    goal = Goal(fleet=fleet, password=None, records=(), cache=default_cache())
    found = [dataclasses.replace(real, host=host.name) for host in fleet.hosts]
    works = surveys.work_out(goal, found, lambda what: None)
    seconds = time.monotonic() - started
    workers = sum(len(work.value.workers) for work in works if work.value is not None)
    print(f"planning {len(works)} hosts with {workers} workers: {seconds:.2f} s")


def inventory_of(place: Path, count: int) -> str:
    workers = {"cores": 8, "memory": 16, "disk": 0.001, "count": 8}
    hosts = {f"node[0001-{count:04d}]": {}} if count else {"here": {"connection": "local"}}
    return yaml.safe_dump(
        {
            "fleet": "many",
            "database": {"uri": "mongodb://localhost:27017", "names": ["many"]},
            "release": {"install": "path", "path": sys.prefix, "python": sys.executable},
            "defaults": {"base_dir": str(place / "many"), "workers": workers},
            "hosts": hosts,
        }
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
