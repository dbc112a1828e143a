"""Programs: what each needs, finds, prints and says when it is not there; with stand-ins for what costs money."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.jobs import stand_ins
from puffin.overlay import parse
from puffin.programs.catalogue import CATALOGUE, program_of
from puffin.programs.environment import Environment, activate, environment_of, merged, script
from puffin.programs.external import ExternalProgram
from puffin.programs.module import ScineModule
from puffin.programs.program import Program, add_path
from puffin.programs.verify import check, verify
from puffin.settings import PROGRAMS, ProgramSettings

HYDROGEN_ORCA = "! HF STO-3G\n* xyz 0 1\nH 0.0 0.0 0.0\nH 0.0 0.0 0.74\n*\n"


def program(name: str, **settings: Any) -> Program:
    return program_of(name, ProgramSettings(available=True, **settings))


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(autouse=True)
def no_programs_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed on this machine must not matter."""
    for kind in CATALOGUE.values():
        if issubclass(kind, ExternalProgram):
            monkeypatch.delenv(kind.variable, raising=False)
    for name in ("AMSHOME", "AMSBIN", "AMS_BINARY_PATH", "SCMLICENSE"):
        monkeypatch.delenv(name, raising=False)


# The catalogue ---------------------------------------------------------------------------------------------------


def test_every_program_of_the_configuration_has_its_class() -> None:
    assert set(CATALOGUE) == set(PROGRAMS)
    assert all(kind.__name__ == name.capitalize() for name, kind in CATALOGUE.items())
    assert all(kind.__module__ == f"puffin.programs.{name}" for name, kind in CATALOGUE.items())


def test_every_program_offers_the_whole_interface() -> None:
    methods = (
        *("available_models", "check_install", "initialize", "install", "pip_module_source_install"),
        *("pip_package_install", "scine_module_install", "setup_environment"),
    )
    for kind in CATALOGUE.values():
        made = kind({"available": True, "source": "", "root": "", "version": "1"})
        assert all(callable(getattr(made, method)) for method in methods)
        assert (made.version, made.root, made.source) == ("1", "", "")


def test_each_is_built_after_what_it_is_built_on() -> None:
    order = list(CATALOGUE)
    for earlier, later in (("core", "utils"), ("utils", "database"), ("utils", "sparrow"), ("molassembler", "swoose")):
        assert order.index(earlier) < order.index(later)


def test_every_module_with_a_wheel_comes_from_pypi_by_default() -> None:
    for name, kind in CATALOGUE.items():
        if issubclass(kind, ScineModule) and (kind.package or name == "core"):
            assert PROGRAMS[name].defaults.source == "pypi"


# External programs, as stand-ins that check what they are given ---------------------------------------------------

ORCA = f"""\
[ "$ORCA_BINARY_PATH" = "$0" ] || {{ echo "ORCA_BINARY_PATH is $ORCA_BINARY_PATH"; exit 9; }}
[ "$(cat "$1")" = "$(printf '{HYDROGEN_ORCA}')" ] || {{ echo "unexpected input"; exit 9; }}
echo "                         Program Version 5.0.3 -  RELEASE  -"
echo "FINAL SINGLE POINT ENERGY        -1.116714325063"
echo "                             ****ORCA TERMINATED NORMALLY****"
"""
GAUSSIAN = """\
[ "$GAUSSIAN_BINARY_PATH" = "$0" ] || { echo "GAUSSIAN_BINARY_PATH is $GAUSSIAN_BINARY_PATH"; exit 9; }
[ -n "$GAUSS_EXEDIR" ] || { echo "GAUSS_EXEDIR is not set"; exit 9; }
grep -q '^#P HF/STO-3G' || exit 9
echo " Gaussian 16:  ES64L-G16RevC.01  3-Jul-2019"
echo " Normal termination of Gaussian 16 at Mon Jan  1 00:00:00 2024."
"""
CP2K = """\
[ "$CP2K_BINARY_PATH" = "$0" ] && [ "$1" = --version ] || exit 9
echo " CP2K version 7.1"
"""
MRCC = """\
[ "$MRCC_BINARY_PATH" = "$(dirname "$0")" ] && [ -f MINP ] && command -v dmrcc >/dev/null || exit 9
echo " Release date: February 22, 2022"
echo "                      Normal termination of mrcc."
"""
TURBOMOLE = """\
[ -x "$TURBODIR/scripts/sysname" ] || exit 9
echo " dscf (here) : TURBOMOLE V7.3 ( 22118 ) 1 Jul 2018 at 20:38:15"
echo " file control not found"
exit 1
"""


def install_stand_in(name: str, folder: Path) -> dict[str, str]:
    """Put a stand-in where the program's installer would; return the variables that jobs must get."""
    if name == "turbomole":
        executable(folder / "scripts" / "sysname", "echo em64t-unknown-linux-gnu")
        executable(folder / "bin" / "em64t-unknown-linux-gnu" / "dscf", TURBOMOLE)
        return {"TURBODIR": str(folder)}
    if name == "mrcc":
        executable(folder / "dmrcc", MRCC)
        return {"MRCC_BINARY_PATH": str(folder)}
    if name == "gaussian":
        path = executable(folder / "g16", GAUSSIAN)
        return {"GAUSSIAN_BINARY_PATH": str(path), "GAUSS_EXEDIR": f"{folder}/bsd:{folder}"}
    path = executable(folder / {"orca": "orca", "cp2k": "bin/cp2k.psmp"}[name], {"orca": ORCA, "cp2k": CP2K}[name])
    return {f"{name.upper()}_BINARY_PATH": str(path)}


EXTERNAL = {"orca": "5.0.3", "turbomole": "7.3", "gaussian": "G16RevC.01", "cp2k": "7.1", "mrcc": "February 22, 2022"}


@pytest.mark.parametrize("name", EXTERNAL)
def test_a_program_in_its_root_is_run_with_the_variables_it_needs(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "quantum chemistry"
    variables = install_stand_in(name, folder)
    found = program(name, root=str(folder))

    found.check_install()
    assert found.missing() == ""
    assert found.found_version() == EXTERNAL[name]
    assert "DFT" in found.available_models()

    found.install(str(tmp_path / "repository"), str(tmp_path / "installation"), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quantum chemistry"], "nothing is to be installed"

    paths: dict[str, str] = {}
    given: dict[str, str] = {}
    found.setup_environment(Configuration(), paths, given)
    assert given == variables


@pytest.mark.parametrize("name", EXTERNAL)
def test_a_program_that_is_not_in_its_root(name: str, tmp_path: Path) -> None:
    absent = program(name, root=str(tmp_path))
    for use in (absent.check_install, lambda: absent.install("", "", 1)):
        with pytest.raises(ProgramError, match=rf"programs\.{name}\.root: {tmp_path} has no program "):
            use()
    assert absent.available_models() == []
    given: dict[str, str] = {}
    absent.setup_environment(Configuration(), {}, given)
    assert given == {}


@pytest.mark.parametrize("name", EXTERNAL)
def test_a_program_without_a_root_says_which_setting_is_missing(name: str) -> None:
    with pytest.raises(ProgramError, match=rf"programs\.{name}\.root: name the folder"):
        program(name).check_install()


@pytest.mark.parametrize("name", ["orca", "gaussian", "cp2k", "mrcc", "turbomole"])
def test_the_variable_does_instead_of_the_root(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in install_stand_in(name, tmp_path).items():
        monkeypatch.setenv(variable, value)
    program(name).check_install()
    given: dict[str, str] = {}
    program(name).setup_environment(Configuration(), {}, given)
    assert given == {}, "what the environment says already is left alone"


def test_a_program_that_does_not_work_is_quoted(tmp_path: Path) -> None:
    broken = executable(tmp_path / "orca", "echo 'cannot open shared object libmpi.so.40' >&2; exit 127")
    with pytest.raises(ProgramError) as caught:
        program("orca", root=str(tmp_path)).check_install()
    for part in (str(broken), "libmpi.so.40", "programs.orca.root"):
        assert part in str(caught.value)


def test_another_version_than_the_configured_one_is_noted(tmp_path: Path) -> None:
    install_stand_in("orca", tmp_path)
    assert check(program("orca", root=str(tmp_path), version="5.0.3")).note == ""
    odd = check(program("orca", root=str(tmp_path), version="4.1"))
    assert odd.problem == ""
    assert "programs.orca.version is 4.1" in odd.note


def test_cp2k_may_be_given_by_its_program(tmp_path: Path) -> None:
    path = executable(tmp_path / "cp2k.special", CP2K)
    given: dict[str, str] = {}
    program("cp2k", root=str(path)).setup_environment(Configuration(), {}, given)
    assert given == {"CP2K_BINARY_PATH": str(path)}


def test_mrcc_and_its_parts_are_on_the_path(tmp_path: Path) -> None:
    install_stand_in("mrcc", tmp_path)
    paths: dict[str, str] = {}
    program("mrcc", root=str(tmp_path)).setup_environment(Configuration(), paths, {})
    assert paths == {"PATH": str(tmp_path)}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("", r"programs\.ams\.root: name the folder"),
        ("root", r"programs\.ams\.root: .* has no program bin/ams"),
        ("program", r"programs\.ams\.license: name the license file, or set SCMLICENSE"),
        ("license", r"scine_ams_wrapper is not installed: run 'puffin bootstrap'"),
    ],
)
def test_ams_asks_for_one_thing_after_the_other(prepare: str, message: str, tmp_path: Path) -> None:
    if prepare in {"program", "license"}:
        executable(tmp_path / "bin" / "ams", "exit 0")
    license_file = "/opt/license.txt" if prepare == "license" else ""
    ams = program("ams", root=str(tmp_path) if prepare else "", license=license_file)
    with pytest.raises(ProgramError, match=message):
        ams.check_install()
    given: dict[str, str] = {}
    ams.setup_environment(Configuration(), {}, given)
    assert given.get("SCMLICENSE", "") == license_file
    assert given.get("AMSHOME", "") == (str(tmp_path) if prepare else "")


def test_rms_says_how_to_get_it() -> None:
    with pytest.raises(ProgramError, match="julia and diffeqpy cannot be imported: install rms with conda"):
        program("rms").check_install()


# SCINE modules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dftbplus", "parrot"])
def test_a_module_that_is_not_installed_says_how_to_get_it(name: str) -> None:
    module = CATALOGUE[name].module
    with pytest.raises(ProgramError, match=f"{module} is not installed: run 'puffin bootstrap'"):
        program(name, source="pypi").check_install()
    assert program(name, source="pypi").available_models() == []


def test_a_module_whose_root_is_gone() -> None:
    with pytest.raises(ProgramError, match=r"programs\.sparrow\.root: there is no folder /nowhere"):
        program("sparrow", root="/nowhere").check_install()


def test_a_module_without_a_wheel_needs_a_repository() -> None:
    with pytest.raises(ProgramError, match=r"programs\.dftbplus\.source: .* not on PyPI; give a git repository"):
        program("dftbplus", source="pypi").install("/nowhere", "/nowhere", 1)


def test_a_module_without_a_source() -> None:
    with pytest.raises(ProgramError, match=r"programs\.xtb\.source: names no repository"):
        program("xtb").install("/nowhere/repository", "/nowhere/installation", 1)


def test_passwords_in_addresses_are_refused_unseen(tmp_path: Path) -> None:
    private = program("xtb", source="https://me:secret-word@example.org/xtb.git", version="1")
    with pytest.raises(ProgramError, match=r"programs\.xtb\.source: keep passwords out of it") as caught:
        private.install(str(tmp_path / "repository"), str(tmp_path / "installation"), 1)
    assert "secret-word" not in str(caught.value)


def test_a_module_that_is_installed_brings_its_models() -> None:
    pytest.importorskip("scine_sparrow", reason="needs the extra 'scine'")
    sparrow = program("sparrow", source="pypi")
    sparrow.check_install()
    assert {"PM6", "DFTB3"} <= set(sparrow.available_models())
    for name in ("core", "utils", "database", "readuct", "molassembler", "kinetx"):
        program(name, source="pypi").check_install()


def test_a_module_that_lacks_what_jobs_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scine_parrot.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    class Wanting(CATALOGUE["parrot"]):
        features = ("something",)

    with pytest.raises(ProgramError, match=r"scine_parrot lacks something: .*scine_parrot\.py is of another version"):
        Wanting({"available": True, "source": "pypi", "root": "", "version": ""}).check_install()


def test_what_a_module_raises_while_it_is_imported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scine_dftbplus_wrapper.py").write_text("raise RuntimeError('undefined symbol: _ZN5Scine')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProgramError, match="cannot be imported: undefined symbol: _ZN5Scine: run 'puffin bootstrap'"):
        program("dftbplus", source="pypi").check_install()


def test_modules_in_a_root_are_found_there(tmp_path: Path) -> None:
    import sys

    packages = tmp_path / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for folder in (packages, tmp_path / "bin", tmp_path / "lib64", tmp_path / "share" / "xtb"):
        folder.mkdir(parents=True)
    paths: dict[str, str] = {"PATH": "/first"}
    given: dict[str, str] = {}
    program("xtb", root=str(tmp_path)).setup_environment(Configuration(), paths, given)
    assert paths == {
        "PATH": f"/first:{tmp_path}/bin",
        "LD_LIBRARY_PATH": f"{tmp_path}/lib:{tmp_path}/lib64",
        "SCINE_MODULE_PATH": f"{tmp_path}/lib:{tmp_path}/lib64",
        "PYTHONPATH": str(packages),
    }
    assert given == {"XTBPATH": f"{tmp_path}/share/xtb"}


def test_serenity_is_told_its_memory_and_its_basis_sets(tmp_path: Path) -> None:
    (tmp_path / "share" / "serenity" / "data").mkdir(parents=True)
    config = Configuration.of(parse([("test", {"resources": {"memory": 2.5}})]))
    given: dict[str, str] = {}
    program("serenity", root=str(tmp_path)).setup_environment(config, {}, given)
    assert given == {"SERENITY_MEMORY": "2560.0", "SERENITY_RESOURCES": f"{tmp_path}/share/serenity/data/"}


def test_dftbplus_parameters_may_be_elsewhere(tmp_path: Path) -> None:
    given: dict[str, str] = {}
    program("dftbplus", source="/x", parameters="/data/slakos").setup_environment(Configuration(), {}, given)
    assert given == {"DFTBPLUS_PARAM_DIR": "/data/slakos"}


def test_a_module_that_crashes_takes_no_other_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scine_parrot.py").write_text(
        'import os, signal\nprint(\'{"program": "noise"}\')\nos.kill(os.getpid(), signal.SIGSEGV)'
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    install_stand_in("orca", tmp_path / "orca")
    config = configuration(
        parrot={"available": True}, orca={"available": True, "root": str(tmp_path / "orca")}, cp2k={"available": True}
    )
    found = {verdict.program: verdict for verdict in verify(config)}
    assert set(found) == {"parrot", "orca", "cp2k"}
    assert "ended with signal 11" in found["parrot"].problem
    assert (found["orca"].problem, found["orca"].version) == ("", "5.0.3")
    assert "programs.cp2k.root" in found["cp2k"].problem


# The environment -------------------------------------------------------------------------------------------------


def configuration(**programs: dict[str, Any]) -> Configuration:
    off = {name: {"available": False} for name in PROGRAMS if name not in programs}
    return Configuration.of(parse([("test", {"resources": {"cores": 3}, "programs": {**off, **programs}})]))


def test_the_environment_is_that_of_the_available_programs(tmp_path: Path) -> None:
    variables = install_stand_in("orca", tmp_path / "orca")
    install_stand_in("gaussian", tmp_path / "gaussian")
    config = configuration(
        orca={"available": True, "root": str(tmp_path / "orca")},
        gaussian={"available": False, "root": str(tmp_path / "gaussian")},
    )
    assert environment_of(config) == Environment({}, {"OMP_NUM_THREADS": "3", **variables})


def test_a_path_is_added_once_and_only_if_it_is_there(tmp_path: Path) -> None:
    paths = {"PATH": "/bin"}
    add_path(paths, "PATH", tmp_path, Path("/nowhere"), tmp_path)
    add_path(paths, "PATH", tmp_path)
    assert paths == {"PATH": f"/bin:{tmp_path}"}


def test_paths_go_before_those_that_are_there_and_variables_replace() -> None:
    environment = Environment({"PATH": ("/a", "/b")}, {"TURBODIR": "/new"})
    present = {"PATH": "/usr/bin:/b", "TURBODIR": "/old", "HOME": "/home/me"}
    once = merged(environment, present)
    assert once == {"PATH": "/a:/b:/usr/bin", "TURBODIR": "/new", "HOME": "/home/me"}
    assert merged(environment, once) == once


def test_a_process_that_is_set_up_finds_modules_at_once(tmp_path: Path, clean_process: None) -> None:
    (tmp_path / "module_only_for_this_test.py").write_text("VALUE = 42")
    activate(Environment({"PYTHONPATH": (str(tmp_path),)}, {}))
    import module_only_for_this_test

    assert module_only_for_this_test.VALUE == 42
    words = ["python3", "-c", "import module_only_for_this_test"]
    assert subprocess.run(words, capture_output=True).returncode == 0


@pytest.fixture
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    yield
    sys.modules.pop("module_only_for_this_test", None)


AWKWARD = '/a b/it\'s $HOME `id` "x"'


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("before", ["", "/usr/lib:/lib"])
def test_the_script_may_be_sourced_twice(shell: str, before: str, tmp_path: Path) -> None:
    path = tmp_path / "puffin.sh"
    path.write_text(script(Environment({"LD_LIBRARY_PATH": ("/first", AWKWARD)}, {"ORCA_BINARY_PATH": AWKWARD})))
    commands = f'. "{path}"; . "{path}"; printf "%s\\n%s" "$LD_LIBRARY_PATH" "$ORCA_BINARY_PATH"'
    done = subprocess.run(
        [shell, "-eu", "-c", commands], env={"LD_LIBRARY_PATH": before}, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [":".join(filter(None, ["/first", AWKWARD, before])), AWKWARD]


# Packages that scine-puffin imports and hardly uses --------------------------------------------------------------


def test_pymatgen_is_stood_in_for_until_it_is_used() -> None:
    code = (
        "from puffin.jobs import stand_ins; stand_ins.provide()\n"
        "import pymatgen\nfrom pymatgen.core import Lattice\nfrom pymatgen.core.surface import Slab\n"
        "from importlib.util import find_spec; assert find_spec('pymatgen')\n"
        "try: Slab.from_dict({})\nexcept ImportError as error: print(error)\n"
        "try: Lattice(3)\nexcept ImportError as error: print(error)\n"
    )
    import sys

    if stand_ins.find_spec("pymatgen") is not None:
        pytest.skip("pymatgen is installed: nothing stands in for it")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert (
        done.stdout.splitlines()
        == ["pymatgen is not installed, and calculations on periodic slabs need it: install it for the worker"] * 2
    )


def test_a_pymatgen_that_is_installed_is_left_alone(tmp_path: Path) -> None:
    import sys

    (tmp_path / "pymatgen.py").write_text("REAL = True")
    code = "from puffin.jobs import stand_ins; stand_ins.provide(); import pymatgen; assert pymatgen.REAL"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0
