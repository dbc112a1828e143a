"""What the documentation says of the code is made from the code."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from fleet.plan import HostPlan

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "function"), [("configuration.md", "page"), ("hosts.md", "hosts_page")])
def test_what_is_made_from_the_code_is_up_to_date(name: str, function: str) -> None:
    made = runpy.run_path(str(ROOT / "docs" / "reference.py"))[function]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made, "run: python docs/reference.py"


def test_what_the_documentation_points_to_is_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
        files = re.findall(r"`(tests/[\w/]+\.py)`", text)
        missing = [link for link in links if not (page.parent / link).exists()]
        missing += [file for file in files if not (ROOT / file).exists()]
        assert missing == [], page


def test_the_yaml_in_the_readme_is_a_hosts_yaml() -> None:
    from fleet.inventory import parse_inventory

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(parse_inventory(block, "README.md").hosts) == 40


def test_the_example_of_a_cluster_is_a_hosts_yaml() -> None:
    from fleet.inventory import parse_inventory

    file = ROOT / "examples" / "cluster" / "hosts.yaml"
    fleet = parse_inventory(
        file.read_text(encoding="utf-8"),
        str(file),
        read_file=lambda path: Path(path).read_text(encoding="utf-8"),
        environment={"USER": "chem", "DB_HOST": "db.example"},
    )
    hosts = {host.name: host for host in fleet.hosts}
    assert len(hosts) == 4 + 8 + 41
    assert (hosts["gpu1"].workers[0].gpus, hosts["old8"].cpus[-1], hosts["node01"].user) == (1, 15, "chem")


def test_every_verb_in_the_readme_exists() -> None:
    import click

    from fleet.cli import cli

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"`puffin-fleet (\w+)", text))
    assert verbs <= set(cli.list_commands(click.Context(cli)))
    assert {"deploy", "queue", "status", "trust"} <= verbs


def explained_under(title: str) -> set[str]:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(\w+)`", text[text.index(f"## {title}") :].split("\n## ")[0]))


def test_every_key_of_a_plan_is_explained() -> None:
    data = HostPlan("node1").to_json()
    assert {*data, *data["drift"]} - explained_under("What `plan --json` prints") == set()


def test_every_key_of_a_status_and_of_an_event_is_explained() -> None:
    from datetime import datetime

    from fleet.status import status_of, to_json
    from puffin.store import EventRecord
    from tests.unit.test_health import RECORD

    (status,) = status_of([RECORD], datetime(2026, 1, 1))
    assert set(to_json(status, vars(RECORD))) - explained_under("What `status --json` prints") == set()
    assert set(EventRecord.__dataclass_fields__) - explained_under("What the fleet is doing") == set()
