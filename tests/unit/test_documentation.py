"""What the documentation says of the code is made from the code."""

from __future__ import annotations

import ast
import itertools
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import click
import pytest

from fleet import shapes
from fleet.cli import cli as fleet_cli
from fleet.cli.queue_change import _DONE as DONE
from fleet.cli.queue_change import cancel, hold
from fleet.queue.results import outcome_record
from puffin.cli import cli as puffin_cli
from puffin.lease import RENEW_FRACTION
from puffin.settings import DaemonSettings
from tests.tools.shapes import problems
from tests.unit.test_queue_results import OUTCOME

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return runpy.run_path(str(ROOT / "docs" / "reference.py"))["pages"]()


@pytest.mark.parametrize("name", ["configuration.md", "hosts.md", "cli.md", "json.md"])
def test_what_is_made_from_the_code_is_up_to_date(name: str, pages: dict[str, str]) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == pages[name], "run: python docs/reference.py"


def test_every_dependency_is_listed_with_its_reason_and_licence() -> None:
    """What a licence is called may change with the next release of a package, so the page may lag behind in that."""
    found = runpy.run_path(str(ROOT / "docs" / "reference_dependencies.py"))["requirements"](
        (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    declared = {line.split(";")[0].lower() for line in requires("puffin-fleet") or []}
    assert {each.lower() for some in found.values() for each, _ in some} == declared
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = {tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in page.splitlines() if line[:1] == "|"}
    listed = {(name, least, why) for name, least, licence, why in rows if licence}
    for each, why in (pair for some in found.values() for pair in some):
        assert why, f"pyproject.toml does not say why {each} is needed"
        name, _, least = each.partition(">=")
        assert (name, least, why) in listed, "run: python docs/reference.py"


def test_what_the_documentation_points_to_is_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
        files = re.findall(r"`(tests/[\w/]+\.py)`", text)
        missing = [link for link in links if not (page.parent / link).exists()]
        missing += [file for file in files if not (ROOT / file).exists()]
        assert missing == [], page


def test_the_yaml_in_the_readme_is_a_hosts_yaml() -> None:
    from fleet.hosts.inventory import parse_inventory

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(parse_inventory(block, "README.md").hosts) == 40


def test_the_example_of_a_cluster_is_a_hosts_yaml() -> None:
    from fleet.hosts.inventory import parse_inventory

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


def documented_commands() -> dict[str, list[str]]:
    """Every command that a page shows, in a block or within a line."""
    found = {}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^(puffin(?:-fleet)? [a-z-].*)$", text, re.MULTILINE)
        lines += re.findall(r"`(puffin(?:-fleet)? [^`]+)`", text)
        end = r"\s+#\s|[|>;](?=(?:[^']*'[^']*')*[^']*$)"  # what ends a command, outside quotes
        found[page.name] = [re.split(end, line)[0] for line in lines if "[OPTIONS]" not in line]
    return found


def wrong_with(line: str) -> str:
    """What the command itself would say of its verb and options; empty if nothing."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;>&")
    lexer.whitespace_split = True
    words = list(itertools.takewhile(lambda word: word[0] not in "|;>&…", lexer))
    group: click.Command = {"puffin": puffin_cli, "puffin-fleet": fleet_cli}[words.pop(0)]
    if words[:1] == ["-c"]:
        del words[:2]
    while isinstance(group, click.Group) and words and not words[0].startswith("-") and words[0] != "VERB":
        command = group.get_command(click.Context(group), words[0])
        if command is None:
            return f"no verb {words[0]}"
        group = command
        words.pop(0)
    options = {name for each in group.params for name in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
    given = words[: words.index("--")] if "--" in words else words
    unknown = [word for word in given if re.match(r"--?[a-z]", word) and word.split("=")[0] not in options]
    return f"no option {unknown}" if unknown else ""


def test_every_command_in_the_documentation_exists() -> None:
    found = documented_commands()
    assert sum(len(lines) for lines in found.values()) > 150
    wrong = {(page, line): said for page, lines in found.items() for line in lines if (said := wrong_with(line))}
    assert wrong == {}
    assert wrong_with("puffin-fleet deplay") == "no verb deplay"
    assert wrong_with("puffin-fleet queue list --state new") == "no option ['--state']"


def kinds_of_events(tree: ast.AST) -> Iterator[str]:
    """The kinds that a module notes, as far as they stand where they are noted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] in {"event", "Event"}:
            words = (inner for inner in ast.walk(node.args[0]) if isinstance(inner, ast.Constant))
            yield from (word.value for word in words if isinstance(word.value, str))


def test_every_kind_of_event_is_explained() -> None:
    sources = [path for package in ("puffin", "fleet") for path in (ROOT / package).rglob("*.py")]
    noted = {kind for path in sources for kind in kinds_of_events(ast.parse(path.read_text(encoding="utf-8")))}
    assert {"claimed", "finished", "failed", "deployed"} <= noted
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("| kind of event |")[2].partition("\n\n")[0]
    explained = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.partition(" | ")[0])}
    assert noted | set(DONE.values()) <= explained


def test_results_are_printed_as_documented() -> None:
    record = json.loads(json.dumps(outcome_record(OUTCOME)))
    assert list(problems(record, shapes.CalculationOutcome)) == []
    strange = list(problems({**record, "new": 1}, shapes.CalculationOutcome))
    assert strange == [".new is not described by CalculationOutcome"]
    record.pop("job")
    assert list(problems(record, shapes.CalculationOutcome)) == [".job is missing"]


def test_how_soon_a_running_job_is_killed_is_what_the_settings_give() -> None:
    said = f"{RENEW_FRACTION * DaemonSettings().lease_in_s:g} s"
    documents = {
        name: " ".join((ROOT / "docs" / name).read_text().split()) for name in ("operations.md", "architecture.md")
    }
    assert f"a third of `daemon.lease_in_s` at the latest, {said} by default" in documents["operations.md"]
    assert f"the job is killed at the next renewal, by default within {said}." in documents["architecture.md"]
    assert f"a third of daemon.lease_in_s at the latest: {said} by default" in " ".join((hold.help or "").split())
    assert f"within {said}" in (cancel.help or "")
