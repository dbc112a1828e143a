"""The decisions of bootstrap: commands, settings of uv, places, what is wanted and what is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puffin.bootstrap import bootstrap
from puffin.check import Finding, table
from puffin.config import Configuration
from puffin.errors import ConfigurationError, ProgramError
from puffin.overlay import parse
from puffin.programs import building, builds, sources, wheels
from puffin.programs.catalogue import program_of
from puffin.programs.module import ScineModule
from puffin.programs.places import Places, locked
from puffin.programs.workshop import Workshop
from puffin.settings import PROGRAMS, ProgramSettings, Settings
from puffin.severity import Severity


def settings(**programs: dict[str, Any]) -> Settings:
    off = {name: {"available": False} for name in PROGRAMS if name not in programs}
    return parse([("test", {"programs": {**off, **programs}})])


# Commands --------------------------------------------------------------------------------------------------------


def test_cmake_is_told_everything_that_was_chosen() -> None:
    chosen = {"march": "haswell", "cxx_compiler_flags": "-O2 -g", "cmake_flags": "-DA=1 '-DB=two words'"}
    words = building.cmake_configure(Path("/r"), Path("/b"), Path("/i"), chosen, [Path("/p"), Path("/q")])
    assert words[:5] == ["cmake", "-S", "/r", "-B", "/b"]
    assert {
        *("-DCMAKE_INSTALL_PREFIX=/i", "-DCMAKE_PREFIX_PATH=/p;/q", "-DSCINE_MARCH=haswell"),
        *("-DCMAKE_CXX_FLAGS=-O2 -g", "-DSCINE_BUILD_PYTHON_BINDINGS=ON", "-DSCINE_BUILD_TESTS=OFF"),
        f"-DPYTHON_EXECUTABLE={sys.executable}",
    } <= set(words)
    assert words[-2:] == ["-DA=1", "-DB=two words"]


def test_cmake_forgets_flags_that_are_gone() -> None:
    words = building.cmake_configure(Path("/r"), Path("/b"), Path("/i"), {"cxx_compiler_flags": ""}, [])
    assert "-DCMAKE_CXX_FLAGS=" in words


@pytest.mark.parametrize(
    ("output", "meaning"),
    [
        ("error: Failed to fetch: `https://x/`\n  Caused by: dns error: failed to lookup", "cannot be reached"),
        ("Because scine-sparrow was not found in the package registry", "no such version"),
        ("Because scine-utils==9.9.9 has no wheels with a matching platform tag", "no wheel for this Python"),
        ("something else", ""),
    ],
)
def test_failures_of_uv_are_explained(output: str, meaning: str) -> None:
    assert meaning in building.explain(output)
    assert bool(meaning) == bool(building.explain(output))


def test_git_uses_the_keys_and_never_asks(tmp_path: Path) -> None:
    key = tmp_path / "my key"
    environment = sources.git_environment([str(key)], {"GIT_SSH_COMMAND": "ssh -F config"})
    assert environment["GIT_TERMINAL_PROMPT"] == "0"
    commands = f'printf "%s\\n" {environment["GIT_SSH_COMMAND"]}'
    shown = subprocess.run(["sh", "-c", commands], capture_output=True, text=True)
    options = ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", str(key)]
    assert shown.stdout.splitlines() == ["ssh", "-F", "config", *options]
    assert "GIT_SSH_COMMAND" not in sources.git_environment([], {})


# Running commands ------------------------------------------------------------------------------------------------


def test_everything_printed_goes_to_the_log_and_to_whoever_watches(tmp_path: Path) -> None:
    seen: list[str] = []
    workshop = Workshop(tmp_path / "log" / "xtb.log", {"COLOUR": "blue"}, watch=seen.append)
    workshop.run(["sh", "-c", 'echo "$COLOUR $SHADE"; echo trouble >&2'], "paint", {"SHADE": "dark"})
    assert seen == ["blue dark", "trouble"]
    log = workshop.log.read_text()
    assert "blue dark\ntrouble\n" in log
    assert log.lstrip().startswith("$ sh -c ")


def test_a_failure_names_the_log_and_quotes_its_end(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path / "xtb.log")
    with pytest.raises(ProgramError) as caught:
        workshop.run(["sh", "-c", "seq 1 100; echo; echo the reason; exit 3"], "build xtb")
    first, *quoted = str(caught.value).splitlines()
    assert first == f"cannot build xtb; everything that was printed is in {workshop.log}"
    assert [line.strip() for line in quoted] == ["97", "98", "99", "100", "the reason"]
    assert "\n1\n2\n" in workshop.log.read_text()


def test_a_command_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"cannot build xtb: no-such-cmake: No such file .* Install no-such-cmake"):
        Workshop(tmp_path / "log").run(["no-such-cmake"], "build xtb")


# Places ----------------------------------------------------------------------------------------------------------


def test_switching_keeps_the_installation_before_and_no_other(tmp_path: Path) -> None:
    places = Places(tmp_path)
    made = [places.installations("xtb") / name for name in ("a", "b", "c")]
    for installation in made:
        installation.mkdir(parents=True)
        places.use("xtb", installation)
        assert places.current("xtb").resolve() == installation
    assert sorted(path.name for path in places.installations("xtb").iterdir()) == ["b", "c", "current"]
    places.use("xtb", made[2])
    assert places.current("xtb").resolve() == made[2]


def test_installations_are_those_of_this_python(tmp_path: Path) -> None:
    assert str(sys.implementation.cache_tag) in str(Places(tmp_path).current("xtb"))


def test_two_bootstraps_do_not_meet(tmp_path: Path) -> None:
    code = "from puffin.programs.places import Places, locked\nfrom pathlib import Path\nimport sys\n"
    code += "with locked(Places(Path(sys.argv[1]))): print('in')"
    words = [sys.executable, "-c", code, str(tmp_path)]
    with locked(Places(tmp_path)):
        refused = subprocess.run(words, capture_output=True, text=True)
    assert f"another bootstrap is at work in {tmp_path}" in refused.stderr
    assert subprocess.run(words, capture_output=True, text=True).stdout == "in\n"


# What is wanted, and what is there -------------------------------------------------------------------------------


def packages(directory: Path, **versions: str) -> list[str]:
    for name, version in versions.items():
        information = directory / f"{name}-{version}.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return [str(directory)]


REST = {"scine_puffin": "2.1.0", "setuptools": "80.0", "typing_extensions": "4.9"}


@pytest.mark.parametrize(
    ("chosen", "installed", "missing"),
    [
        ({}, {}, ["scine-xtb-wrapper==3.0.2"]),
        ({}, {"scine_xtb_wrapper": "3.0.2"}, []),
        ({}, {"scine_xtb_wrapper": "3.1.0"}, []),  # newer than the default: somebody installed it
        ({"version": "2.0.0"}, {"scine_xtb_wrapper": "3.0.2"}, ["scine-xtb-wrapper==2.0.0"]),
        ({"version": ""}, {"scine_xtb_wrapper": "3.0.2"}, []),
        ({"version": ""}, {}, ["scine-xtb-wrapper"]),
        ({"source": "https://example.org/xtb.git"}, {}, None),
        ({"root": "/opt/xtb"}, {}, None),
        ({"available": False}, {}, None),
    ],
)
def test_what_has_to_come_from_pypi(
    chosen: dict[str, Any], installed: dict[str, str], missing: list[str] | None, tmp_path: Path
) -> None:
    wanted = wheels.from_pypi(settings(xtb={"available": True, **chosen}))
    assert [program.name for program in wanted] == ([] if missing is None else ["xtb"])
    assert wheels.lacking(wanted, packages(tmp_path, **installed, **REST)) == (missing or [])


def test_the_job_classes_are_wanted_with_the_programs(tmp_path: Path) -> None:
    missing = wheels.lacking((), packages(tmp_path, setuptools="80.0", typing_extensions="4.9"))
    assert [requirement.partition(">")[0] for requirement in missing] == ["scine-puffin"]


def test_core_comes_with_utils() -> None:
    core = program_of("core", PROGRAMS["core"].defaults)
    assert isinstance(core, ScineModule)
    assert core.requirement() == ""
    assert [program.name for program in wheels.from_pypi(settings(core={"available": True}))] == []


def test_what_is_built_and_against_what(tmp_path: Path) -> None:
    root = tmp_path / "opt"
    places = Places(tmp_path / "software")
    chosen = settings(
        utils={"available": True, "root": str(root)},
        xtb={"available": True, "source": "/repositories/xtb"},
        ams={"available": True, "source": "/repositories/ams", "root": "/opt/ams"},
        sparrow={"available": True},
        readuct={"available": False, "source": "/repositories/readuct"},
    )
    assert builds.from_sources(chosen) == ("xtb", "ams"), "the root of ams is not that of its wrapper"
    assert builds.prefixes(chosen, places) == (root,)
    built = places.installations("xtb") / "1"
    built.mkdir(parents=True)
    places.use("xtb", built)
    assert builds.prefixes(chosen, places) == (root, built)


# bootstrap itself ------------------------------------------------------------------------------------------------


def host(directory: Path, **programs: dict[str, Any]) -> Configuration:
    off = {name: {"available": False} for name in PROGRAMS if name not in programs}
    names = ("job_dir", "software_dir", "error_dir", "archive_dir", "pid_dir")
    daemon = {name: str(directory / "deep" / name) for name in names}
    daemon |= {"log": str(directory / "logs" / "puffin.log"), "stop": str(directory / "stops" / "stop")}
    return Configuration.of(parse([("test", {"daemon": daemon, "programs": {**off, **programs}})]))


def test_it_makes_the_directories_and_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bootstrap(host(tmp_path))
    for name in ("job_dir", "software_dir", "error_dir", "archive_dir", "pid_dir"):
        assert (tmp_path / "deep" / name).is_dir()
    assert (tmp_path / "logs").is_dir()
    script = tmp_path / "puffin.sh"
    assert "export OMP_NUM_THREADS=1\n" in script.read_text()
    assert str(script) in capsys.readouterr().err
    before = script.stat()
    bootstrap(host(tmp_path))
    assert script.stat() == before, "what has not changed is not written"
    assert not list(tmp_path.glob(".puffin.sh*"))


def test_every_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").write_text("a file")
    with pytest.raises(ConfigurationError) as caught:
        bootstrap(host(tmp_path))
    assert len(caught.value.problems) == 5
    assert str(tmp_path / "deep" / "job_dir") in caught.value.problems[0]


@pytest.mark.parametrize("bad", ["", "/a:b"])
def test_a_software_dir_that_no_path_variable_can_hold(bad: str, tmp_path: Path) -> None:
    config = host(tmp_path)
    config["daemon"]["software_dir"] = bad
    with pytest.raises(ConfigurationError, match=r"daemon\.software_dir: must name a folder without a colon"):
        bootstrap(config)


def test_every_program_that_does_not_work_is_named_and_the_script_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("ORCA_BINARY_PATH", "CP2K_BINARY_PATH"):
        monkeypatch.delenv(variable, raising=False)
    config = host(tmp_path, orca={"available": True, "root": "/no/orca"}, cp2k={"available": True})
    with pytest.raises(ProgramError) as caught:
        bootstrap(config)
    problems = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in problems] == ["orca", "cp2k"]
    assert "/no/orca has no program orca" in problems[0]
    assert (tmp_path / "puffin.sh").is_file()


# The table of puffin check ---------------------------------------------------------------------------------------


def test_the_table_fits_and_loses_nothing() -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    path = "/a" * 60
    findings = [
        Finding("disk", Severity.OK, "fine"),
        Finding("molassembler", Severity.WARN, long),
        Finding("folder", Severity.FAIL, f"{path}\nsecond part"),
    ]
    lines = table(findings, 60)
    assert lines[0] == "ok    disk          fine"
    assert all(len(line) <= 60 for line in lines if path not in line)
    assert " ".join(" ".join(lines).split()).endswith("second part")
    assert all(word in " ".join(lines) for word in [*long.split(), path])
    assert [line[:4].strip() for line in lines if line[:4].strip()] == ["ok", "warn", "FAIL"]


def test_defaults_need_no_compiler() -> None:
    available = {name: kind.defaults for name, kind in PROGRAMS.items() if kind.defaults.available}
    assert set(available) == {"core", "utils", "database", "readuct", "sparrow", "molassembler", "kinetx"}
    assert all(program == ProgramSettings(True, "pypi", "", program.version) for program in available.values())
