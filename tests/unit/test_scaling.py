"""The one line of hosts.yaml that says how many workers there are."""

from __future__ import annotations

import pytest

from fleet.errors import UsageError
from fleet.hosts.includes import gather, no_files
from fleet.hosts.inventory import parse_inventory
from fleet.hosts.scaling import Edit, find_edit

FILE = """\
fleet: reactions
database: {uri: "mongodb://localhost", names: [a]}
release: {install: path, path: /opt/env}
defaults:
  workers: {cores: 4, memory: 8, count: auto}   # fills the host
groups:
  big:
    workers:          # the large ones
      # two of them
      cores: 16
      count: 2   # by hand
  small: {workers: {cores: 1}}
  mixed:
    workers: [{cores: 4, count: 1}, {cores: 2, count: 3}]
  one_kind:
    workers:
    - {count: 3, cores: 2}
  shared:
    workers: &common {cores: 3, count: 3}
  alias:
    workers: *common
hosts:
  node1: {groups: [big]}
  node2: {groups: [big]}
  node3: {groups: [small]}
  node[4-6]: {groups: [one_kind]}
  node7: {}
  node8: {}
  node9: {groups: [mixed]}
  own: {groups: [big], workers: {cores: 1, count: 5}}
  late: {groups: [shared]}
  later: {groups: [alias]}
"""


def edit(target: str, count: str = "7") -> Edit:
    document = gather(FILE, "hosts.yaml", no_files)
    fleet = parse_inventory(FILE, "hosts.yaml")
    return find_edit(document, fleet, {"hosts.yaml": FILE}, target, count)


@pytest.mark.parametrize(
    ("target", "line", "after"),
    [
        ("small", 12, "  small: {workers: {count: 7, cores: 1}}"),
        ("node3", 12, "  small: {workers: {count: 7, cores: 1}}"),  # nobody else is in that group
        ("one_kind", 17, "    - {count: 7, cores: 2}"),
        ("own", 30, "  own: {groups: [big], workers: {cores: 1, count: 7}}"),
    ],
)
def test_only_the_value_changes(target: str, line: int, after: str) -> None:
    found = edit(target)
    assert (found.file, found.line, found.after) == ("hosts.yaml", line, after)
    changed = [(old, new) for old, new in zip(FILE.splitlines(), found.text.splitlines(), strict=True) if old != new]
    assert changed == [(found.before, after)]


def test_a_count_that_was_not_said_gets_a_line_of_its_own() -> None:
    text = FILE.replace("      count: 2   # by hand\n", "").replace(", workers: {cores: 1, count: 5}", "")
    document = gather(text, "hosts.yaml", no_files)
    fleet = parse_inventory(text, "hosts.yaml")
    found = find_edit(document, fleet, {"hosts.yaml": text}, "big", "auto")
    assert "      # two of them\n      count: auto\n      cores: 16\n" in found.text
    assert set(found.hosts) == {"node1", "node2", "own"}
    counts = {host.name: host.workers[0].count for host in parse_inventory(found.text, "x").hosts}
    assert counts["node1"] == counts["own"] == "auto"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("node7", ["hosts.yaml:5 defaults.workers", "also for node8", "'workers' of its own"]),
        ("node5", ["hosts.yaml:16", "also for node4, node6"]),
        ("big", ["not for own, which have workers of their own"]),
        ("mixed", ["2 kinds of workers (lines 14, 14)"]),
        ("shared", ["alias"]),
        ("alias", ["alias"]),
        ("nobody", ["no host and no group is called 'nobody'", "node1"]),
    ],
)
def test_what_is_not_certain_is_refused(target: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        edit(target)
    for word in words:
        assert word in str(caught.value)
