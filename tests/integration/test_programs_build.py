"""Programs built from small repositories of our own, with the real git, CMake, compiler and uv."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.bootstrapping import Host, Repository, need
from tests.lab.sshd import SshHost

# It stands in for scine_kinetx: a Python package that loads a shared library beside it, as SCINE modules do.
CMAKE = """\
cmake_minimum_required(VERSION 3.15)
project(Tiny CXX)
find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_library(tiny SHARED answer.cpp other.cpp)
install(TARGETS tiny DESTINATION lib)
install(
  DIRECTORY scine_kinetx
  DESTINATION "lib/python${Python3_VERSION_MAJOR}.${Python3_VERSION_MINOR}/site-packages"
)
file(WRITE "${CMAKE_BINARY_DIR}/flavour" "${FLAVOUR}")
install(FILES "${CMAKE_BINARY_DIR}/flavour" DESTINATION share)
"""
PACKAGE = """\
import ctypes
from pathlib import Path

prefix = Path(__file__).resolve().parents[4]
answer = ctypes.CDLL(str(prefix / "lib" / "libtiny.so")).answer
flavour = (prefix / "share" / "flavour").read_text()
NetworkBuilder = integrate = get_integrator = None
"""


def answer(value: str) -> str:
    return f'#ifndef EXTRA\n#define EXTRA 0\n#endif\nextern "C" int answer() {{ return {value} + EXTRA; }}\n'


FILES = {
    "CMakeLists.txt": CMAKE,
    "scine_kinetx/__init__.py": PACKAGE,
    "answer.cpp": answer("1"),
    "other.cpp": "int other() { return 0; }\n",
}
ASK = "import scine_kinetx; print(scine_kinetx.answer(), scine_kinetx.flavour)"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    need("git", "cmake", "make", "c++")
    made = Repository(tmp_path / "tiny repository")
    made.commit(FILES, tag="1.0")
    return made


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def kinetx(repository: Repository, version: str, **keys: str) -> dict[str, dict[str, str]]:
    return {"kinetx": {"source": str(repository.directory), "version": version, **keys}}


def test_a_tag_is_built_once(repository: Repository, host: Host) -> None:
    host.configure(kinetx(repository, "1.0", cxx_compiler_flags="-DEXTRA=40", cmake_flags="-DFLAVOUR='dark sweet'"))
    first = host.bootstrap()
    assert first.returncode == 0, first.stderr
    assert "kinetx        built" in first.stderr
    assert host.python(ASK) == "41 dark sweet"

    # Nothing is built again, and nobody is asked: a tag stays where it is.
    repository.directory.rename(repository.directory.with_name("gone"))
    before = host.state()
    second = host.bootstrap()
    assert second.returncode == 0, second.stderr
    assert "kinetx        built" not in second.stderr
    assert host.state() == before


def test_a_commit_is_built(repository: Repository, host: Host) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.commit({"answer.cpp": answer("2")})
    host.configure(kinetx(repository, commit[:10]))
    assert host.bootstrap().returncode == 0
    assert host.python(ASK).strip() == "1"


def test_a_branch_that_moved_is_built_again_and_only_what_changed(repository: Repository, host: Host) -> None:
    host.configure(kinetx(repository, "main"))
    assert host.bootstrap().returncode == 0
    first_log = host.log("kinetx")
    assert "other.cpp" in first_log
    repository.commit({"answer.cpp": answer("2")})
    assert host.bootstrap().returncode == 0
    assert host.python(ASK).strip() == "2"
    second_log = host.log("kinetx").removeprefix(first_log)
    assert "answer.cpp" in second_log
    assert "other.cpp" not in second_log


def test_changed_flags_build_again(repository: Repository, host: Host) -> None:
    host.configure(kinetx(repository, "1.0", cxx_compiler_flags="-DEXTRA=40"))
    assert host.bootstrap().returncode == 0
    host.configure(kinetx(repository, "1.0"))
    assert host.bootstrap().returncode == 0
    assert host.python(ASK).strip() == "1"


def test_a_build_that_fails_leaves_the_old_one_in_place(repository: Repository, host: Host) -> None:
    host.configure(kinetx(repository, "main"))
    assert host.bootstrap().returncode == 0
    installed = host.current("kinetx")
    repository.commit({"answer.cpp": "this is no C++"})

    failed = host.bootstrap()
    assert failed.returncode == 1
    assert "kinetx: cannot build kinetx" in failed.stderr
    assert str(host.software / "log" / "kinetx.log") in failed.stderr
    assert "answer.cpp" in host.log("kinetx")
    assert host.current("kinetx") == installed
    assert host.python(ASK).strip() == "1"
    assert sorted(path.name for path in installed.parent.iterdir()) == sorted([installed.name, "current"])

    repository.commit({"answer.cpp": answer("3")})
    mended = host.bootstrap()
    assert mended.returncode == 0, mended.stderr
    assert host.python(ASK).strip() == "3"


def test_one_that_fails_does_not_hinder_the_others(repository: Repository, host: Host, tmp_path: Path) -> None:
    broken = Repository(tmp_path / "broken")
    broken.commit({"CMakeLists.txt": "message(FATAL_ERROR no)"}, tag="1.0")
    host.configure({**kinetx(repository, "1.0"), "xtb": {"source": str(broken.directory), "version": "1.0"}})
    done = host.bootstrap()
    assert done.returncode == 1
    assert "xtb: cannot configure xtb" in done.stderr
    assert "kinetx        works" in done.stderr
    assert host.python(ASK).strip() == "1"


def test_a_version_that_is_not_there_names_the_nearest(repository: Repository, host: Host) -> None:
    host.configure(kinetx(repository, "1.00"))
    done = host.bootstrap()
    assert done.returncode == 1
    assert "has no tag, branch or commit '1.00', did you mean '1.0'?" in done.stderr


def test_a_repository_that_cannot_be_reached(host: Host) -> None:
    need("git")
    host.configure({"kinetx": {"source": "/nowhere/at/all.git", "version": "1"}})
    done = host.bootstrap()
    assert done.returncode == 1
    assert "cannot clone /nowhere/at/all.git" in done.stderr


def test_a_clone_and_a_build_that_were_broken_off_are_no_obstacle(repository: Repository, host: Host) -> None:
    host.configure(kinetx(repository, "1.0"))
    # What a killed bootstrap leaves behind.
    (host.software / "build" / ".kinetx.cloning" / "objects").mkdir(parents=True)
    (host.software / "build" / "kinetx").mkdir()
    (host.software / "build" / "kinetx.build" / "CMakeFiles").mkdir(parents=True)
    assert host.bootstrap().returncode == 0
    assert host.python(ASK).strip() == "1"


def test_a_submodule_comes_along(repository: Repository, host: Host, tmp_path: Path) -> None:
    part = Repository(tmp_path / "part")
    part.commit({"value.h": "#define VALUE 5\n"})
    repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(part.directory), "part")
    repository.commit({"answer.cpp": '#include "part/value.h"\n' + answer("VALUE")}, tag="2.0")
    host.configure(kinetx(repository, "2.0"))
    # git refuses submodules in local folders unless it is told otherwise.
    allowed = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}
    done = host.bootstrap(**allowed)
    assert done.returncode == 0, done.stderr
    assert host.python(ASK).strip() == "5"


def test_a_module_may_be_all_python(host: Host, tmp_path: Path) -> None:
    need("git")
    parrot = Repository(tmp_path / "parrot")
    project = "[build-system]\nrequires = []\nbuild-backend = 'own'\nbackend-path = ['.']\n"
    project += "[project]\nname = 'scine_parrot'\nversion = '1.2'\n"
    parrot.commit({"pyproject.toml": project, "own.py": BACKEND}, tag="1.2")
    host.configure({"parrot": {"source": str(parrot.directory), "version": "1.2"}})
    done = host.bootstrap()
    assert done.returncode == 0, done.stderr
    assert host.python("import scine_parrot; print(scine_parrot.SOUND)") == "squawk"
    assert "parrot        works  1.2" in done.stderr


# The smallest build backend there is, so that no package index is needed.
BACKEND = """\
import zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    name, info = "scine_parrot-1.2-py3-none-any.whl", "scine_parrot-1.2.dist-info"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        wheel.writestr("scine_parrot/__init__.py", "SOUND = 'squawk'")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: scine_parrot\\nVersion: 1.2\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


def test_a_private_repository_is_reached_with_the_configured_key(
    repository: Repository, host: Host, ssh_hosts: Callable[..., SshHost]
) -> None:
    server = ssh_hosts()
    for start_up in (".bashrc", ".profile", ".zshenv"):
        (server.home / start_up).write_text("")  # git speaks through the shell and tolerates no greeting
    private = server.home / "private.git"
    repository.git("clone", "--quiet", "--bare", ".", str(private))
    for path in (private, *private.rglob("*")):
        server.own(path)
    source = f"ssh://{server.user}@{server.address}:{server.port}{private}"
    ssh = f"ssh -F {server.ssh_config} -o UserKnownHostsFile={server.known_hosts}"

    host.configure({"kinetx": {"source": source, "version": "1.0"}})
    refused = host.bootstrap(GIT_SSH_COMMAND=f"{ssh} -o BatchMode=yes")
    assert refused.returncode == 1
    assert "kinetx: cannot clone ssh://" in refused.stderr
    assert "kinetx        works" not in refused.stderr, "another one may be installed, but that is not the wanted one"
    host.configure({"kinetx": {"source": source, "version": "1.0"}}, resources={"ssh_keys": [str(server.key)]})
    done = host.bootstrap(GIT_SSH_COMMAND=ssh)
    assert done.returncode == 0, done.stderr
    assert host.python(ASK).strip() == "1"
