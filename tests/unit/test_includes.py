"""hosts.yaml in several files."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fleet.errors import InventoryError
from fleet.hosts.inventory import Fleet, parse_inventory

TOP = """\
include: [racks/a.yaml, site.yaml]
fleet: lab
database: {uri: "mongodb://db", names: [x]}
defaults:
  workers: {cores: 2}
hosts:
  top: {groups: [big]}
"""
RACK = """\
include: [../site.yaml]
defaults: {user: rack, base_dir: /rack, workers: {cores: 9, memory: 9}}
hosts:
  a[1-2]: {groups: [big]}
"""
SITE = """\
defaults: {user: site, scratch: /site, ssh: {port: 23}}
groups:
  big: {reserve: {cores: 3}}
update: {canary: 2}
"""
FILES = {"racks/a.yaml": RACK, "site.yaml": SITE}


def parse(text: str = TOP, files: Mapping[str, object] | None = None, source: str = "hosts.yaml") -> Fleet:
    there = FILES if files is None else files

    def read_file(path: str) -> str:
        found = there.get(path)
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise FileNotFoundError(path)
        return str(found)

    return parse_inventory(text, source, read_file=read_file)


def complaints(text: str = TOP, files: Mapping[str, object] | None = None) -> list[str]:
    with pytest.raises(InventoryError) as caught:
        parse(text, files)
    return [str(problem) for problem in caught.value.problems]


def test_what_a_file_says_wins_over_what_it_includes_and_the_later_over_the_earlier() -> None:
    fleet = parse()
    assert [host.name for host in fleet.hosts] == ["a1", "a2", "top"]
    for host in fleet.hosts:
        assert (host.user, host.base_dir, host.scratch, host.ssh.port) == ("site", "/rack", "/site", 23)
        assert [(shape.cores, shape.memory) for shape in host.workers] == [(2, None)]  # workers are never merged
        assert host.reserve.cores == 3
    assert fleet.update.canary == 2
    assert fleet.source == "hosts.yaml"


def test_names_start_from_the_directory_of_the_file_they_stand_in() -> None:
    moved = {f"/etc/fleet/{name}": text for name, text in FILES.items()}
    assert len(parse(files=moved, source="/etc/fleet/hosts.yaml").hosts) == 3
    absolute = {"/racks/a.yaml": RACK.replace("../", "~/"), "~/site.yaml": SITE}
    assert len(parse(TOP.replace("racks/", "/racks/").replace("site", "~/site"), absolute).hosts) == 3


def test_problems_name_file_and_line_all_at_once() -> None:
    files = {
        "racks/a.yaml": RACK.replace("big]", "bgi]").replace("user: rack", "usr: rack"),
        "site.yaml": SITE.replace("cores: 3", "cores: -3") + "hosts:\n  top:\n  b[1-3]:\n  b2:\n",
    }
    assert complaints(TOP.replace("cores: 2", "cores: none"), files) == [
        "hosts.yaml:5 defaults.workers.cores: must be a whole number",
        "hosts.yaml:7 hosts.top: host 'top' is already given in site.yaml:6: keep one",
        "racks/a.yaml:2 defaults.usr: unknown key 'usr', did you mean 'user'?",
        "racks/a.yaml:4 hosts.a[1-2].groups[0]: unknown group 'bgi', did you mean 'big'?",
        "site.yaml:3 groups.big.reserve.cores: must be at least 0",
        "site.yaml:8 hosts.b2: host 'b2' is already given by 'b[1-3]' on line 7",
    ]


def test_a_host_of_a_range_in_another_file() -> None:
    assert complaints(TOP.replace("top:", "a2:")) == [
        "hosts.yaml:7 hosts.a2: host 'a2' is already given by 'a[1-2]' in racks/a.yaml:4"
    ]


def test_a_file_included_twice_gives_its_hosts_once() -> None:
    files = {**FILES, "site.yaml": SITE + "hosts: {both: }\n"}
    assert [host.name for host in parse(files=files).hosts] == ["both", "a1", "a2", "top"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "hosts.yaml:1 include[0]: there is no file racks/a.yaml; names start from the directory of the file"),
        (
            {"racks/a.yaml": PermissionError(13, "Permission denied")},
            "include[0]: cannot read racks/a.yaml: Permission",
        ),
        (
            {"racks/a.yaml": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")},
            "cannot read racks/a.yaml: it is not text",
        ),
        ({"racks/a.yaml": "- a\n"}, "racks/a.yaml:1: must be a mapping with keys such as defaults"),
        ({"racks/a.yaml": "a: [\n"}, "racks/a.yaml:2: not valid YAML"),
        ({"racks/a.yaml": "a: 1\na: 2\n"}, "racks/a.yaml:2 a: given twice, first on line 1"),
        (
            {"racks/a.yaml": "include: [b.yaml]\n", "racks/b.yaml": "\ninclude: [../hosts.yaml]\n"},
            "racks/b.yaml:2 include[0]: includes itself: hosts.yaml > racks/a.yaml > racks/b.yaml > hosts.yaml",
        ),
        (
            {"racks/a.yaml": "include: [a.yaml]\n"},
            "racks/a.yaml:1 include[0]: includes itself: racks/a.yaml > racks/a.yaml",
        ),
        ({"racks/a.yaml": "include: site.yaml\n"}, "racks/a.yaml:1 include: must be a list of files"),
        ({"racks/a.yaml": "include: ['${HOME}/x']\n"}, "racks/a.yaml:1 include[0]: '${' may stand only in"),
    ],
)
def test_files_that_cannot_be_included(files: Mapping[str, object], expected: str) -> None:
    found = complaints(files={"site.yaml": SITE, **files})
    assert expected in "\n".join(found), found


def test_endless_nesting_ends() -> None:
    """As a link to its own directory makes it: every file has another name than the one before."""

    def read_file(path: str) -> str:
        return "include: [down/a.yaml, down/b.yaml]\n"

    with pytest.raises(InventoryError, match="more than 20 files within one another, or 500 in all"):
        parse_inventory("include: [a.yaml]\n", "hosts.yaml", read_file=read_file)


def test_an_empty_file_is_no_mistake() -> None:
    files = {"site.yaml": "# nothing\n", "racks/a.yaml": ""}
    assert [host.name for host in parse(TOP.replace("[big]", "[]"), files).hosts] == ["top"]


def test_what_may_stand_in_a_missing_file_is_not_said_to_be_missing() -> None:
    text = TOP.replace("uri:", "tls: 1, ui:").replace("names: [x]", "name: x").replace("fleet: lab\n", "")
    assert complaints(text, {"site.yaml": ""}) == [
        "hosts.yaml:1 include[0]: there is no file racks/a.yaml;"
        " names start from the directory of the file they stand in",
        "hosts.yaml:2 database.tls: must be true or false",
        "hosts.yaml:2 database.ui: unknown key 'ui', did you mean 'uri'?",
    ]
