"""What `init` proposes for hardware it has found."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.hosts.inventory import parse_inventory
from fleet.hosts.layout import Hardware, lay_out
from fleet.hosts.proposal import Proposal, describe, group, propose
from fleet.hosts.templates import hosts_template
from fleet.hostside import probe
from fleet.reach import probing
from fleet.reach.affinity import Processor
from fleet.reach.facts import Disk, Facts, Gpu, Roomy


@functools.cache
def _this_machine() -> Facts:
    return probing.parse("n", probe.main(probing.probe_request("lab", "n", "/nowhere/pool")))


def found(
    cores: int,
    memory: float,
    *,
    nodes: int = 1,
    quota: float | None = None,
    home: float = 500,
    roomy: dict[str, float] | None = None,
    shared: bool = False,
    gpus: tuple[str, ...] = (),
) -> Facts:
    """Facts of a host with so much."""
    whole = int(quota) if quota else cores
    hardware = replace(
        _this_machine().hardware,
        cores=whole,
        physical=cores,
        logical=cores,
        quota=quota,
        processors=tuple(Processor(cpu, cpu, cpu * nodes // cores) for cpu in range(cores)),
        memory=memory,
        disk=Disk("/home/chem/pool", False, home, 10**6, True),
        gpus=tuple(Gpu(str(index), name) for index, name in enumerate(gpus)),
    )
    places = tuple(Roomy(path, free) for path, free in (roomy or {}).items())
    return replace(_this_machine(), hardware=hardware, roomy=places, shared=shared, base_dir="/home/chem/pool")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param(found(1, 2), Proposal(1, 1.5, None, 0, 0.5, None, False), id="a small virtual machine"),
        pytest.param(found(4, 15.6), Proposal(1, 3, None, 0, 1, None, False), id="a desktop"),
        pytest.param(found(8, 31.2), Proposal(2, 7, None, 0, 2, None, False), id="a workstation"),
        pytest.param(
            found(64, 251.6, nodes=2, roomy={"/scratch": 1843, "/tmp": 2000}),
            Proposal(4, 16, None, 1, 4, "/scratch/puffin", True),
            id="a node of a cluster",
        ),
        pytest.param(
            found(64, 251.6, nodes=2, quota=8), Proposal(2, 61, None, 0, 4, None, False), id="a share of such a node"
        ),
        pytest.param(
            found(16, 60, roomy={"/scratch": 505}),
            Proposal(4, 14, None, 0, 2, None, False),
            id="scratch on the same disk",
        ),
        pytest.param(
            found(16, 60, roomy={"/local": 200, "/tmp": 900}, shared=True),
            Proposal(4, 14, None, 0, 2, "/local/puffin", False),
            id="a home directory on a network",
        ),
        pytest.param(
            found(16, 60, roomy={"/var/tmp": 90, "/tmp": 30}, shared=True),
            Proposal(4, 14, None, 0, 2, "/var/tmp/puffin", False),
            id="nothing better than what is swept",
        ),
        pytest.param(
            found(16, 60, roomy={"/scratch": 5}, home=41), Proposal(4, 14, 9, 0, 2, None, False), id="a full disk"
        ),
    ],
)
def test_proposals(host: Facts, expected: Proposal) -> None:
    assert propose(host) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (
            found(64, 251.6, nodes=2, roomy={"/scratch": 1843}),
            "node1: 64 cores on 2 NUMA nodes, 252 GB, 1.8 TB free in /scratch",
        ),
        (
            found(64, 251.6, quota=8, home=7.25),
            "node1: 8 cores (limited to 8 of 64), 252 GB, 7.2 GB free in /home/chem/pool",
        ),
        (found(1, 1.94), "node1: 1 core, 1.9 GB, 500 GB free in /home/chem/pool"),
        (
            found(4, 16, gpus=("A40", "A40", "T4\n# x")),
            "node1: 4 cores, 16 GB, 500 GB free in /home/chem/pool, GPUs: 2 A40, 1 T4 # x",
        ),
    ],
)
def test_what_was_found_in_words(host: Facts, expected: str) -> None:
    assert describe("node1", host) == expected


def template(hosts: dict[str, Facts], **more: Any) -> str:
    groups = group(hosts, {key: key for key in hosts})
    return hosts_template(
        "lab", database_uri="mongodb://db", database_names=["a"], hosts=[*hosts, *more.pop("others", [])], groups=groups
    )


def test_hosts_of_one_kind_share_the_defaults() -> None:
    text = template({"a": found(16, 60.1), "b": found(16, 60.4)}, others=["c[1-2]"])
    assert "# Found a: 16 cores, 60 GB, 500 GB free in /home/chem/pool.\n  # Found b: 16 cores" in text
    fleet = parse_inventory(text, "hosts.yaml")
    assert [host.groups for host in fleet.hosts] == [()] * 4
    assert {(host.workers[0].cores, host.workers[0].memory, host.reserve.memory) for host in fleet.hosts} == {
        (4, 14, 2)
    }


def test_hosts_of_other_kinds_become_groups_of_their_own() -> None:
    big = found(64, 251.6, nodes=2, roomy={"/scratch": 1843})
    text = template({"b[1-2]": big, "c": big, "small": found(4, 8), "fat": found(64, 1000), "other": found(64, 500)})
    fleet = parse_inventory(text, "hosts.yaml")
    named = {host.name: host for host in fleet.hosts}
    assert [named[name].groups for name in ("b1", "c", "small", "fat", "other")] == [
        (),
        (),
        ("cores4",),
        ("cores64-2",),
        ("cores64-3",),
    ]
    assert (named["b2"].affinity, named["b2"].scratch) == ("numa", "/scratch/puffin")
    # What the defaults say for the most does not hold for these.
    assert (named["small"].affinity, named["small"].scratch) == ("none", "~/.puffin-fleet/scratch")
    assert [named[name].workers[0].memory for name in ("small", "fat", "other")] == [1.7, 66, 33]


def test_this_machine_can_be_in_a_group() -> None:
    text = template({"a": found(16, 60), "b": found(16, 60), "localhost": found(2, 4)})
    here = parse_inventory(text, "hosts.yaml").hosts[-1]
    assert (here.connection, here.groups) == ("local", ("cores2",))


@given(
    st.integers(1, 256),
    st.floats(0.5, 16),
    st.integers(1, 8),
    st.none() | st.integers(1, 64),
    st.floats(60, 4000),
    st.booleans(),
)
def test_what_is_proposed_fits(
    cores: int, per_core: float, nodes: int, quota: int | None, free: float, shared: bool
) -> None:
    facts = found(
        cores,
        max(1.0, cores * per_core),
        nodes=min(nodes, cores),
        quota=None if quota is None else min(quota, cores),
        home=free,
        shared=shared,
        roomy={"/scratch": free / 2},
    )
    text = template({"node1": facts})
    (host,) = parse_inventory(text, "hosts.yaml").hosts
    free = facts.roomy[0].free if host.scratch == "/scratch/puffin" else facts.hardware.disk.free
    workers = lay_out(host, Hardware.found(facts, free))
    assert len(workers) == (facts.hardware.cores - host.reserve.cores) // host.workers[0].cores
    assert {len(worker.cpus) for worker in workers} == ({host.workers[0].cores} if host.affinity == "numa" else {0})
