"""`puffin bootstrap`, `puffin.sh` and `puffin check` as a person uses them; a program that costs has a stand-in."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.bootstrapping import Host
from tests.lab.fixtures_database import Database
from tests.lab.worker import Queue

ORCA = """\
#!/bin/sh
echo "ORCA_BINARY_PATH=$ORCA_BINARY_PATH"
echo "                         Program Version 4.1.2 -  RELEASE  -"
echo "                             ****ORCA TERMINATED NORMALLY****"
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "my host")


def install_orca(host: Host, text: str = ORCA) -> Path:
    orca = host.directory / "orca 4" / "orca"
    orca.parent.mkdir()
    orca.write_text(text)
    orca.chmod(orca.stat().st_mode | stat.S_IXUSR)
    return orca


def rows(output: str) -> dict[str, str]:
    """The verdicts of `puffin check` by subject; the worst where there are several."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        verdict, subject = line[:4].strip(), line[6:].split("  ")[0].strip()
        if verdict:
            found[subject] = "FAIL" if "FAIL" in (verdict, found.get(subject)) else verdict
    return found


def test_a_program_given_by_its_root_is_in_the_script(host: Host) -> None:
    orca = install_orca(host)
    host.configure({"orca": {"root": str(orca.parent)}})
    done = host.bootstrap()
    assert done.returncode == 0, done.stderr
    assert "orca          works  4.1.2  models DFT, HF, PM3" in done.stderr
    assert host.python("import os; print(os.environ['ORCA_BINARY_PATH'])") == str(orca)
    assert host.bootstrap().returncode == 0


def test_a_host_that_is_ready(host: Host, database: Database) -> None:
    orca = install_orca(host)
    host.configure({"orca": {"root": str(orca.parent)}}, database={"uri": database.uri, "name": database.name})
    done = host.run("check")
    assert done.returncode == 0, done.stdout
    found = rows(done.stdout)
    assert set(found.values()) == {"ok"}
    assert {"configuration", "database", "folder", "disk", "memory", "cores", "program orca", "jobs"} <= set(found)
    assert "4.1.2; DFT, HF, PM3" in done.stdout
    assert "sleep" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "/" not in line), "paths stay in one piece"


@pytest.mark.parametrize(
    ("sections", "subject", "detail"),
    [
        ({"database": {"uri": "mongodb://127.0.0.1:9"}}, "database", "127.0.0.1:9"),
        ({"resources": {"cores": 4096}}, "cores", "4096 promised"),
        ({"resources": {"memory": 1e6}}, "memory", "1e+06 GB promised"),
        ({"resources": {"disk": 1e9}}, "disk", "1e+09 GB promised"),
        ({"daemon": {"pid_dir": "/proc/puffin"}}, "folder", "cannot write in /proc"),
        ({"daemon": {"jobs": ["no_such_job"]}}, "jobs", "0 of "),
        ({"programs": {"orca": {"available": True, "root": "/no/orca"}}}, "program orca", "/no/orca has no program"),
    ],
)
def test_each_thing_that_keeps_a_worker_from_working(
    host: Host, database: Database, sections: dict[str, dict[str, object]], subject: str, detail: str
) -> None:
    here = {"uri": database.uri, "name": database.name}
    host.configure({}, **{"database": here, **{name: keys for name, keys in sections.items() if name != "programs"}})
    if "programs" in sections:
        host.configure(sections["programs"], database=here)
    done = host.run("check")
    assert done.returncode == 1
    assert {name for name, verdict in rows(done.stdout).items() if verdict == "FAIL"} == {subject}
    assert detail in " ".join(done.stdout.split())
    assert "A worker started now would not work: 1 of " in done.stderr


def test_a_program_that_does_not_work_is_not_offered(host: Host, database: Database) -> None:
    install_orca(host, "#!/bin/sh\necho 'license expired'\n")
    root = str(host.directory / "orca 4")
    host.configure({"orca": {"root": root}}, database={"uri": database.uri, "name": database.name})
    done = host.run("check")
    assert done.returncode == 1
    assert rows(done.stdout)["program orca"] == "FAIL"
    assert "license expired" in done.stdout
    failed = host.bootstrap()
    assert failed.returncode == 1
    assert "puffin: orca: " in failed.stderr


def test_a_worker_without_its_programs_says_so_and_offers_the_rest(
    host: Host, database: Database, queue: Queue
) -> None:
    host.configure(
        {"orca": {"root": "/no/orca"}},
        database={"uri": database.uri, "name": database.name},
        daemon={"idle_timeout_in_h": 1e-5},
    )
    done = host.run("container")
    assert done.returncode == 0, done.stderr
    assert "orca is not offered: programs.orca.root: /no/orca has no program orca" in done.stderr
    [worker] = queue.store.registry.workers()
    assert "orca" not in worker.programs
    assert worker.jobs == ("sleep",)


def test_a_configuration_that_cannot_be_read_ends_the_check(host: Host) -> None:
    host.config.write_text("resources: {kores: 2}\ndatabase: {port: 0}\n")
    done = host.run("check")
    assert done.returncode == 2
    assert "resources.kores: unknown key, did you mean 'cores'?" in done.stderr
    assert "database.port: must be between 1 and 65535" in done.stderr


def test_on_a_terminal_progress_is_shown_and_cleared(host: Host) -> None:
    host.configure({})
    master, slave = pty.openpty()
    puffin = Path(sys.executable).with_name("puffin")
    process = subprocess.Popen(
        [str(puffin), "-c", str(host.config), "bootstrap"], cwd=host.directory, stderr=slave, stdout=slave
    )
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(master)
    assert process.wait() == 0
    assert b"environment" in shown
    assert b"\r" in shown
