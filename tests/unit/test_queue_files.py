"""Which files words on a command line stand for, and what is said about a job nobody knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fleet.queue.files import find_files
from fleet.queue.model import JobTemplate, make_model
from fleet.queue.submit import (
    METHODS,
    SETTINGS,
    advice_on_others,
    asks_for_other,
    method_problem,
    order_problem,
    program_problem,
    unknown_settings,
)
from puffin.calculations import Status
from puffin.documents import Model
from puffin.jobs import command, sleep
from puffin.programs.catalogue import CATALOGUE
from puffin.submissions import Submitted


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("b.xyz", "a.XYZ", "notes.txt", "deep/er/c.sdf", "with space.pdb"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(place: Path, *words: str) -> list[str]:
    return [str(path.relative_to(place)) for path in find_files([str(place / word) for word in words]).files]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["b.xyz"], ["b.xyz"]),
        (["with space.pdb", "b.xyz"], ["with space.pdb", "b.xyz"]),
        ([""], ["a.XYZ", "b.xyz", "deep/er/c.sdf", "with space.pdb"]),
        (["*.xyz"], ["b.xyz"]),
        (["**/*.sdf"], ["deep/er/c.sdf"]),
        # Whoever names a file wants it, whatever it is.
        (["notes.txt"], ["notes.txt"]),
    ],
)
def test_what_is_found(place: Path, words: list[str], found: list[str]) -> None:
    assert names(place, *words) == found


def test_a_file_that_is_named_twice_is_taken_once(place: Path) -> None:
    (place / "link.xyz").symlink_to(place / "b.xyz")
    found = find_files([str(place / "b.xyz"), str(place / "link.xyz"), str(place / "deep"), str(place / "b.xyz")])
    assert [path.name for path in found.files] == ["b.xyz", "c.sdf"]
    assert [path.name for path in found.repeated] == ["link.xyz", "b.xyz"]


def test_all_words_that_stand_for_nothing(place: Path) -> None:
    found = find_files([str(place / "none.xyz"), str(place / "empty"), str(place / "*.mol"), str(place / "b.xyz")])
    assert [problem.removeprefix(f"{place}/") for problem in found.problems] == [
        "none.xyz: no such file",
        "empty: no .xyz, .mol, .sdf, .pdb in this directory",
        "*.mol: no such file",
    ]
    assert len(found.files) == 1


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("scine_single_point", ""),
        ("local", ""),
        ("sleep", ""),
        ("scine_singel_point", "did you mean scine_single_point"),
        ("single_point", "did you mean scine_single_point"),
        ("xyz", "known are local, scine_hessian, scine_single_point, sleep"),
    ],
)
def test_the_job_of_a_submission(order: str, said: str) -> None:
    problem = order_problem(order, ["scine_single_point", "scine_hessian"], ("local",))
    assert said in problem
    assert bool(said) == bool(problem)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("sparrow", ""),
        ("any", ""),
        ("mine", ""),
        ("sparrow/swoose", ""),
        ("sparow", "--program: no program 'sparow', did you mean 'sparrow'?"),
        ("Sparrow", "--program: no program 'Sparrow', did you mean 'sparrow'?"),
        ("orka/swoose", "no program 'orka', did you mean 'orca'?"),
        ("zzz", "no program 'zzz'; known are ams, any, core, "),
    ],
)
def test_the_program_of_a_submission(program: str, said: str) -> None:
    problem = program_problem(program, ["mine"])
    assert said in problem
    assert bool(said) == bool(problem)


@pytest.mark.parametrize(
    ("program", "method", "said"),
    [
        ("sparrow", "PM6", ""),
        ("sparrow", "pm6", ""),
        ("any", "PM66", ""),
        ("orca", "PM66", ""),
        ("sparrow", "PM66", "--method: sparrow has no method 'PM66', did you mean 'PM6'?"),
        ("xtb", "PBE", "xtb has no method 'PBE'; it has GFN0, GFN1, GFN2, GFNFF"),
    ],
)
def test_the_method_of_a_submission(program: str, method: str, said: str) -> None:
    problem = method_problem(make_model(None, {"program": program, "method": method}))
    assert said in problem
    assert bool(said) == bool(problem)


@pytest.mark.parametrize("program", METHODS)
def test_the_methods_are_those_of_the_program(program: str) -> None:
    assert METHODS[program] == CATALOGUE[program].models


def there(status: Status, needs: tuple[int, float, float] | None = (1, 2.0, 1.0)) -> Submitted:
    return Submitted("65f0c1", status, added=needs is None, needs=needs)


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (there(Status.NEW), True),
        (there(Status.HOLD), True),
        (there(Status.FAILED), True),
        (there(Status.COMPLETE), False),
        (there(Status.PENDING), False),
        (there(Status.NEW, (4, 8.0, 1.0)), False),
        (there(Status.NEW, None), False),
    ],
)
def test_what_is_there_with_other_needs_is_told(done: Submitted, expected: bool) -> None:
    wanted = JobTemplate("scine_single_point", Model(), {}, cores=4, memory=8.0, disk=1.0)
    assert asks_for_other(done, wanted) == expected


def test_what_to_do_about_other_needs() -> None:
    told = advice_on_others([there(Status.FAILED), there(Status.NEW)])
    assert "2 of those ask for something else than now, such as 65f0c1 for --cores 1 --memory 2 --disk 1." in told
    assert told.endswith("cancel what waits, as with 'puffin-fleet queue cancel 65f0c1', then submit with --again.")
    assert "cancel" not in advice_on_others([there(Status.FAILED)])


@pytest.mark.parametrize(
    ("order", "settings", "said"),
    [
        ("sleep", ["time"], []),
        ("sleep", ["tiem"], ["--setting tiem: sleep knows no such setting, did you mean 'time'?"]),
        ("command", ["program", "argument"], ["--setting argument: command knows no such setting, did you mean"]),
        ("command", ["x"], ["--setting x: command knows no such setting; it has program, arguments"]),
        # Which settings these have depends on SCINE's versions and on the calculator.
        ("scine_single_point", ["max_scf_iteration"], []),
        ("my_job", ["x"], []),
    ],
)
def test_settings_that_a_job_does_not_know(order: str, settings: list[str], said: list[str]) -> None:
    found = unknown_settings(order, settings)
    assert len(found) == len(said)
    assert all(problem.startswith(words) for problem, words in zip(found, said, strict=True))


class Asked(dict[str, Any]):
    """Remembers what it is asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def test_the_settings_of_jobs_are_those_that_they_read() -> None:
    asked = Asked({"time": 0})
    sleep.run(cast("Any", SimpleNamespace(claim=SimpleNamespace(settings=asked))))
    assert asked.names == set(SETTINGS["sleep"])
    asked = Asked({"program": "true", "arguments": []})
    command.command_line(asked, ("/bin/true",))
    assert asked.names == set(SETTINGS["command"])
