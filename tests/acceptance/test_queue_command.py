"""`puffin-fleet queue` as a user meets it: from a folder of molecules to a table of results."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from puffin.settings import DatabaseSettings
from puffin.store import Store
from tests.acceptance.commands import BIN, Ran, on_terminal, puffin_fleet
from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database, connect
from tests.lab.requirements import missing
from tests.lab.worker import ALL_JOBS, Workers
from tests.unit.test_health import RECORD

MOLECULES = Path(__file__).resolve().parents[2] / "examples" / "molecules"
NAMES = sorted(path.stem for path in MOLECULES.glob("*.xyz"))
SINGLE_POINT = ("--job", "scine_single_point", "--program", "sparrow", "--method", "PM6", "--disk", "0.5")
_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True)
class Place:
    """An empty database, and where to find it."""

    database: Database
    hosts: Path

    @property
    def uri(self) -> str:
        return f"{self.database.uri}/{self.database.name}"

    def queue(self, *words: object) -> Ran:
        return puffin_fleet("queue", *words, "--uri", self.uri)

    def submit(self, *words: object) -> Ran:
        return self.queue("submit", *words, *SINGLE_POINT)

    def documents(self, collection: str = "calculations") -> list[dict[str, Any]]:
        with self.database.server.client() as client:
            return [dict(document) for document in client[self.database.name][collection].find()]

    def set(self, fields: dict[str, Any], **selection: Any) -> None:
        with self.database.server.client() as client:
            client[self.database.name]["calculations"].update_many(selection, {"$set": fields})


@pytest.fixture
def place(database_server: DatabaseServer, database_name: str, tmp_path: Path) -> Iterator[Place]:
    connect(database_server, database_name).disconnect()  # says what is missing
    hosts = tmp_path / "hosts.yaml"
    content = {
        "fleet": "lab",
        "database": {"uri": database_server.uri, "names": [database_name, f"{database_name}_b"]},
        "hosts": {"here": {"connection": "local", "workers": {"cores": 1, "memory": 1}}},
    }
    hosts.write_text(yaml.safe_dump(content, sort_keys=False))
    yield Place(Database(database_server, database_name), hosts)
    with database_server.client() as client:
        client.drop_database(database_name)
        client.drop_database(f"{database_name}_b")


def energies() -> dict[str, float]:
    """PM6 energies of the example molecules in hartree, from SCINE itself."""
    try:
        import scine_sparrow  # noqa: F401  registers the calculators
        import scine_utilities as utils
    except ImportError:
        missing("scine-sparrow is not installed: pip install 'puffin-fleet[scine]'")
    found = {}
    for name in NAMES:
        calculator = utils.core.get_calculator("PM6", "Sparrow")
        calculator.log = utils.core.Log.silent()
        calculator.structure = utils.io.read(str(MOLECULES / f"{name}.xyz"))[0]
        calculator.set_required_properties([utils.Property.Energy])
        found[name] = float(calculator.calculate().energy)
    return found


# The whole way -----------------------------------------------------------------------------------------


def test_from_a_folder_of_molecules_to_their_energies(place: Place, tmp_path: Path) -> None:
    assert len(NAMES) == 20
    hosts = ("--hosts-file", place.hosts)
    submitted = puffin_fleet("queue", "submit", MOLECULES, *SINGLE_POINT, *hosts, "--json").ok()
    assert [(record["name"], record["added"]) for record in submitted.json()] == [(name, True) for name in NAMES]
    assert "20 calculations submitted" in submitted.err
    # Without --database it goes into the first one of hosts.yaml.
    assert {record["database"] for record in submitted.json()} == {place.database.name}

    workers = Workers(tmp_path, place.database)
    worker = workers.make(daemon={**ALL_JOBS, "max_number_of_jobs": 20})
    try:
        assert worker.start().wait(180) == 0, worker.log
    finally:
        workers.end()

    expected = energies()
    check_json(place, expected)
    check_csv(place, expected)
    check_table(place, expected)
    check_xyz(place, expected)
    check_sdf(place, expected)
    check_looks(place, [record["id"] for record in submitted.json()], worker.uuid)
    check_what_is_there_is_skipped(place)


def check_json(place: Place, expected: dict[str, float]) -> None:
    records = place.queue("results", "--json").ok().json()
    assert [record["name"] for record in records] == NAMES
    for record in records:
        assert record["energy_hartree"] == pytest.approx(expected[record["name"]], abs=1e-9)
        properties = {item["name"]: item for item in record["properties"]}
        assert properties["electronic_energy"]["value"] == record["energy_hartree"]
        assert len(properties["atomic_charges"]["value"]) == len(record["inputs"][0]["elements"])


def check_csv(place: Place, expected: dict[str, float]) -> None:
    rows = list(csv.DictReader(place.queue("results", "--format", "csv").ok().out.splitlines()))
    found = {row["name"]: float(row["electronic_energy_hartree"]) for row in rows}
    assert found == pytest.approx(expected, abs=1e-9)
    assert {row["status"] for row in rows} == {"complete"}
    assert next(row["formula"] for row in rows if row["name"] == "caffeine") == "C8H10N4O2"


def check_table(place: Place, expected: dict[str, float]) -> None:
    heading, *lines = place.queue("results").ok().out.splitlines()
    assert heading.split() == ["NAME", "FORMULA", "JOB", "METHOD", "ENERGY/HARTREE", "SECONDS", "WORKER", "ID"]
    found = {line.split()[0]: float(line.split()[4]) for line in lines}
    assert found == pytest.approx(expected, abs=1e-7)


def check_xyz(place: Place, expected: dict[str, float]) -> None:
    lines = place.queue("results", "--format", "xyz").ok().out.splitlines()
    found = {}
    while lines:
        count, comment = int(lines[0]), lines[1]
        source = (MOLECULES / f"{comment.split()[0]}.xyz").read_text().splitlines()[2:]
        for mine, theirs in zip(lines[2 : 2 + count], source, strict=True):
            assert mine.split()[0] == theirs.split()[0]
            positions = [[float(word) for word in line.split()[1:4]] for line in (mine, theirs)]
            assert positions[0] == pytest.approx(positions[1], abs=1e-7)
        energy = re.search(r"energy_hartree=(\S+)", comment)
        assert energy is not None
        found[comment.split()[0]] = float(energy[1])
        lines = lines[2 + count :]
    assert found == pytest.approx(expected, abs=1e-9)


def check_sdf(place: Place, expected: dict[str, float]) -> None:
    records = place.queue("results", "--format", "sdf").ok().out.split("$$$$\n")
    assert records.pop() == ""
    found = {}
    for record in records:
        energy = re.search(r"> <electronic_energy_hartree>\n(\S+)\n", record)
        assert energy is not None
        found[record.splitlines()[0]] = float(energy[1])
    assert found == pytest.approx(expected, abs=1e-9)
    caffeine = next(record for record in records if record.startswith("caffeine\n"))
    assert caffeine.splitlines()[3].split()[:2] == ["24", "25"]


def check_looks(place: Place, ids: list[str], worker: str) -> None:
    (status,) = place.queue("status", "--json").ok().json()
    assert status["counts"] == {"complete": 20}
    assert (status["finished_last_hour"], status["left_s"]) == (20, 0)
    table = place.queue("status").ok().out.splitlines()
    assert [line.split() for line in table] == [
        ["JOB", "PROGRAM", "COMPLETE"],
        ["scine_single_point", "sparrow", "20"],
    ]

    listed = place.queue("list", "--worker", worker, "--json", "--limit", 5).ok().json()
    assert len(listed) == 5
    assert {record["worker"] for record in listed} == {worker}

    shown = place.queue("show", ids[0]).ok().out
    for text in ("acetaldehyde", "C2H4O", "electronic_energy", "hartree", "claimed", "finished", "Output"):
        assert text in shown
    (record,) = place.queue("show", ids[0], "--json").ok().json()
    assert "hartree" in record["raw_output"]
    assert [event["kind"] for event in record["events"]] == ["claimed", "finished"]


def check_what_is_there_is_skipped(place: Place) -> None:
    again = place.submit(MOLECULES).ok()
    assert Counter(line.split()[1] for line in again.out.splitlines()) == {"there:": 20}
    assert "0 calculations submitted" in again.err
    assert "20 were there already (20 complete)" in again.err
    assert len(place.documents()) == 20


def test_optimized_structures_come_out_and_go_in_again(place: Place, tmp_path: Path) -> None:
    optimization = ("--job", "scine_geometry_optimization", *SINGLE_POINT[2:])
    (record,) = place.queue("submit", MOLECULES / "water.xyz", *optimization, "--json").ok().json()
    workers = Workers(tmp_path, place.database)
    try:
        assert workers.start(daemon={**ALL_JOBS, "max_number_of_jobs": 1}).wait(120) == 0
    finally:
        workers.end()
    (result,) = place.queue("results", record["id"][:20], "--json").ok().json()
    assert [item["label"] for item in result["structures"]] == ["user_optimized"]

    optimized = tmp_path / "optimized.xyz"
    optimized.write_text(place.queue("results", "--format", "xyz").ok().out)
    assert f"energy_hartree={result['energy_hartree']}" in optimized.read_text()
    assert place.submit(optimized, "--json").ok().json()[0]["added"]
    structures = place.documents("structures")
    made = next(item for item in structures if item["label"] == "user_optimized")
    submitted = next(item for item in structures if item["comment"] == "optimized")
    for mine, theirs in zip(submitted["atoms"], made["atoms"], strict=True):
        assert [mine[axis] for axis in "xyz"] == pytest.approx([theirs[axis] for axis in "xyz"], abs=1e-8)


# Bad input ---------------------------------------------------------------------------------------------


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    directory = tmp_path / "set"
    directory.mkdir()
    for name, text in (
        ("broken.xyz", "3\n\nO 0 0 0\nH 0 0\n"),
        ("element.xyz", "2\n\nH 0 0 0\nXx 0 0 1\n"),
        ("parity.xyz", "1\ncharge=1 multiplicity=1\nHe 0 0 0\n"),
        ("good.xyz", "1\n\nHe 0 0 0\n"),
    ):
        (directory / name).write_text(text)
    return directory


def test_everything_that_is_wrong_is_said_at_once_and_nothing_written(place: Place, bad: Path) -> None:
    ran = place.queue("submit", bad, bad / "none.xyz", "--job", "scine_singel_point", *SINGLE_POINT[2:])
    assert (ran.code, ran.out) == (2, "")
    for text in (
        "no job 'scine_singel_point': did you mean scine_single_point",
        f"{bad}/none.xyz: no such file",
        f"{bad}/broken.xyz:4: expected an element and three coordinates, not 'H 0 0'",
        f"{bad}/element.xyz:4: unknown element 'Xx'",
        f"{bad}/parity.xyz:1: charge +1 leaves an odd number of electrons (1)",
        "Nothing was submitted",
    ):
        assert text in ran.err
    assert "good.xyz" not in ran.err
    assert place.documents() == []


def test_bad_ones_can_be_left_out(place: Place, bad: Path) -> None:
    ran = place.submit(bad, "--skip-bad", "--json")
    assert ran.code == 1
    assert [record["name"] for record in ran.json()] == ["good"]
    assert ran.err.count("left out:") == 3
    assert len(place.documents()) == 1


def test_a_file_twice(place: Place, bad: Path) -> None:
    copy = bad / "copy.xyz"
    copy.write_text((bad / "good.xyz").read_text())
    ran = place.submit(bad / "good.xyz", bad / "good.xyz", copy).ok()
    assert "1 files are named twice" in ran.err
    assert [line.split()[1] for line in ran.out.splitlines()] == ["submitted", "there:"]
    assert len(place.documents()) == 1


def test_the_same_with_other_needs(place: Place, bad: Path) -> None:
    place.submit(bad / "good.xyz").ok()
    (id_,) = [str(item["_id"]) for item in place.documents()]
    assert "something else" not in place.submit(bad / "good.xyz").ok().err
    said = place.submit(bad / "good.xyz", "--memory", 4).ok().err
    assert f"1 of those ask for something else than now, such as {id_} for --cores 1 --memory 1 --disk 0.5." in said
    assert f"'puffin-fleet queue cancel {id_}', then submit with --again" in said


def test_a_program_or_method_that_nobody_knows(place: Place, bad: Path) -> None:
    words = ("submit", bad / "good.xyz", "--job", "scine_single_point", "--program")
    for wrong, said in (
        (("sparow", "--method", "PM6"), "--program: no program 'sparow', did you mean 'sparrow'?"),
        (("sparrow", "--method", "PM66"), "--method: sparrow has no method 'PM66', did you mean 'PM6'?"),
    ):
        ran = place.queue(*words, *wrong)
        assert (ran.code, ran.out) == (2, "")
        assert f"{said}\n  --force submits it all the same\nNothing was submitted." in ran.err
    ran = place.queue(*words, "sparow", "--method", "PM6", "--force").ok()
    assert "Nobody would take it now: no worker has reported to this database yet" in ran.err
    assert len(place.documents()) == 1


def test_what_nobody_would_take_is_told_after_what_was_put_in(place: Place, bad: Path) -> None:
    words = ("submit", bad / "good.xyz", "--job", "sleep", "--method", "none", "--setting")
    wrong = place.queue(*words, "tiem=1")
    assert (wrong.code, wrong.out) == (2, "")
    assert "--setting tiem: sleep knows no such setting, did you mean 'time'?" in wrong.err
    words = (*words, "time=1")
    said = place.queue(*words).ok().err
    assert said.index("1 calculation submitted") < said.index("Nobody would take it now: no worker has reported")
    again = place.queue(*words).ok().err
    assert "0 calculations submitted" in again
    assert "1 were there already" in again
    assert "Nobody would take it" not in again


def test_a_job_of_ones_own_can_be_forced(place: Place, bad: Path) -> None:
    words = ("submit", bad / "good.xyz", "--job", "my_job", "--method", "PM6")
    assert place.queue(*words).code == 2
    assert len(place.queue(*words, "--force", "--json").ok().json()) == 1
    assert "my_job:" not in place.queue("status").ok().err  # no worker has ever reported
    store = Store(DatabaseSettings(uri=place.database.uri, name=place.database.name))
    with closing(store):
        store.registry.report(RECORD)
    assert "1 x my_job: no worker accepts the job my_job" in place.queue("status").ok().err
    (status,) = place.queue("status", "--json").ok().json()
    assert [(each["job"], each["count"]) for each in status["untaken"]] == [("my_job", 1)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("submit", MOLECULES, "--job", "sleep"), "which method?"),
        (("submit", MOLECULES, *SINGLE_POINT, "--setting", "a", "--setting", "b=nan"), "b: must be a finite number"),
        (("submit", MOLECULES, *SINGLE_POINT, "--model", "none.yaml"), "--model: cannot read none.yaml"),
        (("submit", MOLECULES, *SINGLE_POINT, "--cores", "0"), "--cores"),
        (("submit", MOLECULES, *SINGLE_POINT, "--memory", "nan"), "nan is no size in GB"),
        (("submit", MOLECULES, *SINGLE_POINT, "--disk", "inf"), "inf is no size in GB"),
        (("submit", MOLECULES, *SINGLE_POINT, "--database", "a", "--database", "b"), "go into one of a and b"),
        (("list", "--status", "fialed"), "no status 'fialed', did you mean 'failed'?"),
        (("list", "--since", "yesterday"), "'yesterday' is no time"),
        (("list", "hosts.yaml"), "hosts.yaml and --uri do not go together"),
        (("show", "hosts.yaml"), "no id; which hosts.yaml is said with --hosts-file hosts.yaml"),
        (("submit", "hosts.yaml", *SINGLE_POINT), "no file of molecules; which hosts.yaml is said with --hosts-file"),
        (("show", "xyz"), "no id: ids are 24 hexadecimal digits"),
        (("show", "ffff"), "no such calculation"),
        (("cancel", "--yes"), "cancel what?"),
        (("hold", "ffff", "--job", "x"), "do not go together"),
        (("results", "--json", "--format", "csv"), "do not go together"),
        (("lsit",), "no verb 'lsit', did you mean 'list'?"),
    ],
)
def test_what_a_user_gets_wrong(place: Place, words: tuple[object, ...], said: str) -> None:
    ran = place.queue(*words)
    assert (ran.code, ran.out) == (2, "")
    assert said in " ".join(ran.err.split())


def test_which_database(place: Place) -> None:
    name = place.database.name
    hosts = ("--hosts-file", place.hosts)
    wrong = puffin_fleet("queue", "status", *hosts, "--database", f"{name}_c")
    assert wrong.code == 2
    assert f"it has {name}, {name}_b" in wrong.err
    water = MOLECULES / "water.xyz"
    puffin_fleet("queue", "submit", water, *SINGLE_POINT, *hosts, "--database", f"{name}_b").ok()
    for words in (hosts, (place.hosts,)):
        found = puffin_fleet("queue", "status", *words, "--json").ok().json()
        assert [(record["database"], record["counts"]) for record in found] == [(name, {}), (f"{name}_b", {"new": 1})]
    (listed,) = puffin_fleet("queue", "list", place.hosts, "--json").ok().json()
    assert listed["database"] == f"{name}_b"
    unnamed = puffin_fleet("queue", "status", "--uri", place.database.uri)
    assert unnamed.code == 2
    assert "--uri needs --database" in unnamed.err


def test_a_database_that_does_not_answer(closed_port: int) -> None:
    ran = puffin_fleet("queue", "status", "--uri", f"mongodb://user:secret@127.0.0.1:{closed_port}/x")
    assert (ran.code, ran.out) == (1, "")
    assert f"cannot reach the database at 127.0.0.1:{closed_port}" in ran.err
    assert "secret" not in ran.err


# Changes -----------------------------------------------------------------------------------------------


def test_hold_release_cancel_requeue(place: Place) -> None:
    ids = [record["id"] for record in place.submit(MOLECULES, "--json").ok().json()]
    held = place.queue("hold", "--program", "sparrow", "--yes", "--json").ok()
    assert "to hold in" in held.err
    assert "20 scine_single_point (new)" in held.err
    assert {(record["was"], record["changed"]) for record in held.json()} == {("new", True)}

    place.queue("release", ids[0], ids[1][:23] + ids[1][23], "--yes").ok()
    place.queue("cancel", "--status", "hold", "--reason", "wrong method", "--yes").ok()
    counts = Counter((item["status"], item["comment"].partition(": ")[2]) for item in place.documents())
    assert counts == {("new", ""): 2, ("failed", "wrong method"): 18}

    ran = place.queue("requeue", "--yes").ok()
    assert "left out: 18 that were cancelled; --cancelled requeues them too" in ran.err
    assert "(18 of those failed were cancelled)" in place.queue("status").ok().err
    (status,) = place.queue("status", "--json").ok().json()
    assert (status["counts"], status["cancelled"]) == ({"new": 2, "failed": 18}, 18)
    place.queue("requeue", ids[5], "--yes").ok()
    assert Counter(item["status"] for item in place.documents()) == {"new": 3, "failed": 17}
    place.queue("requeue", "--cancelled", "--yes").ok()
    assert {item["status"] for item in place.documents()} == {"new"}
    (shown,) = place.queue("show", ids[5], "--json").ok().json()
    assert [event["kind"] for event in shown["events"]] == ["held", "cancelled", "requeued"]


def test_what_cannot_be_changed_is_reported(place: Place) -> None:
    (record,) = place.submit(MOLECULES / "water.xyz", "--json").ok().json()
    place.set({"status": "pending", "executor": "scine-puffin"})
    for verb, said in (
        ("requeue", "is running: cancel it first, or wait"),
        ("hold", "is run by scine-puffin, which is no worker of this project"),
        ("release", "is running"),
    ):
        ran = place.queue(verb, record["id"], "--yes", "--json")
        assert ran.code == 1
        assert said in ran.err
        assert [item["changed"] for item in ran.json()] == [False]
    assert [item["status"] for item in place.documents()] == ["pending"]


def test_nothing_is_changed_without_a_yes(place: Place) -> None:
    place.submit(MOLECULES / "water.xyz").ok()
    ran = place.queue("hold")
    assert (ran.code, ran.out) == (2, "")
    assert "say --yes" in ran.err
    for answer, code, status in (("n", 130, "new"), ("y", 0, "hold")):
        shown, ended = on_terminal(80, "queue", "hold", "--uri", place.uri, answer=answer)
        assert ended == code
        assert "hold 1 calculation? [y/N]" in shown
        assert [item["status"] for item in place.documents()] == [status]


def test_nothing_to_do_is_no_failure(place: Place) -> None:
    place.submit(MOLECULES / "water.xyz").ok()
    assert "nothing to requeue" in place.queue("requeue").ok().err
    assert "has finished yet" in place.queue("results").ok().err
    assert "No such calculation" in place.queue("results", "--job", "none").ok().err


# Looks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("verb", ["list", "status", "results"])
def test_tables_fit_the_terminal(place: Place, width: int, verb: str) -> None:
    place.submit(MOLECULES).ok()
    comment = "it failed for a reason that takes some words to explain, and then some more\nand lines"
    place.set({"status": "complete", "runtime": 1.5, "executor": "worker-1", "comment": comment})
    shown, code = on_terminal(width, "queue", verb, "--uri", place.uri)
    assert code == 0
    lines = [_STYLE.sub("", line).rstrip() for line in shown.splitlines()]
    assert max(len(line) for line in lines) <= width
    # Where room is scarce a list says of each what it is and what became of it.
    seen = ("water", "complete", "it failed for a r") if (width, verb) == (80, "list") else ("scine_single_point",)
    assert any(all(word in line for word in seen) for line in lines)
    plain, _ = on_terminal(width, "queue", verb, "--uri", place.uri, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)


def test_a_long_submission_on_a_terminal_is_summed_up(place: Place, tmp_path: Path) -> None:
    many = tmp_path / "many.xyz"
    many.write_text("".join(f"1\n\nHe 0 0 {number}\n" for number in range(50)))
    shown, code = on_terminal(80, "queue", "submit", many, *SINGLE_POINT, "--uri", place.uri)
    assert code == 0
    assert shown.count("submitted  ") == 20
    assert "... and 30 more" in shown
    assert "50 calculations submitted" in shown
    assert len(place.documents()) == 50


@pytest.mark.soak
def test_an_interrupted_submission_is_completed_by_the_same_command(place: Place, tmp_path: Path) -> None:
    many = tmp_path / "many.xyz"
    many.write_text("".join(f"1\n\nHe 0 0 {number}\n" for number in range(3000)))
    words = [str(BIN / "puffin-fleet"), "queue", "submit", str(many), *SINGLE_POINT, "--uri", place.uri]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    # Its first lines come once the first piece is written.
    assert "submitted" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 3000: the same command submits the rest" in said
    begun = len(place.documents())
    assert 0 < begun < 3000

    again = place.submit(many).ok()
    assert f"{3000 - begun} calculations submitted" in again.err
    assert len(place.documents()) == len(place.documents("structures")) == 3000
