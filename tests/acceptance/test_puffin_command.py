"""The command ``puffin`` as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.lab.fixtures_database import Database
from tests.lab.worker import Place, Queue, configuration, lines_of, plugin_path, puffin, until, write_configuration


@pytest.fixture
def place(tmp_path: Path, database: Database) -> Iterator[Place]:
    """A configured worker that is not running; whatever a test starts there is ended."""
    here = Place(tmp_path / f"command-{os.getpid()}-{tmp_path.name}")
    write_configuration(here, configuration(here, database, {}))
    yield here
    for process in psutil.process_iter():
        try:
            if str(here.config) in process.cmdline():
                process.kill()
        except psutil.Error:
            continue


def run(place: Place, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [puffin(), "-c", str(place.config), *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=place.directory,
        env={**os.environ, "PYTHONPATH": plugin_path(place.directory / "plugin"), **environment},
    )


def change(place: Place, section: str, **keys: object) -> None:
    content = yaml.safe_load(place.config.read_text())
    content[section].update(keys)
    write_configuration(place, content)


# Configuration -----------------------------------------------------------------------------------------


def test_configure_writes_a_file_that_works(place: Place) -> None:
    place.config.unlink()
    result = run(place, "configure", PUFFIN_DAEMON_MODE="debug", PUFFIN_RESOURCES_CORES="3")
    assert (result.returncode, result.stderr) == (0, f"wrote {place.config}\n")
    content = yaml.safe_load(place.config.read_text())
    assert content["daemon"]["mode"] == "debug"
    assert content["resources"]["cores"] == 3
    # The name stays, so that stop and kill find the worker that start starts.
    assert content["daemon"]["uuid"].startswith("puffin-")
    assert content["daemon"]["pid"] == ""
    again = run(place, "configure")
    assert again.returncode == 2
    assert "use --force to replace it" in again.stderr
    assert run(place, "configure", "--force").returncode == 0


def test_configure_without_a_file_writes_to_standard_output() -> None:
    result = subprocess.run([puffin(), "configure"], capture_output=True, text=True, timeout=60)
    assert list(yaml.safe_load(result.stdout)) == ["daemon", "database", "resources", "programs", "fleet"]


def test_jobs_says_what_is_accepted_and_why_not(place: Place) -> None:
    lines = {line.split()[0]: line for line in run(place, "jobs").stdout.splitlines()}
    assert lines["sleep"].endswith("accepted")
    assert "lab 1.0" in lines["lab_code"]
    assert lines["lab_needs_orca"].endswith("no: needs orca")
    change(place, "daemon", jobs=["sleep"])
    lines = {line.split()[0]: line for line in run(place, "jobs").stdout.splitlines()}
    assert lines["lab_code"].endswith("no: not listed in daemon.jobs")


def test_it_runs_as_a_module_and_explains_itself() -> None:
    result = subprocess.run([sys.executable, "-m", "puffin", "--help"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    for verb in ("configure", "bootstrap", "start", "stop", "kill", "container", "check", "jobs"):
        assert verb in result.stdout


def test_a_wrong_verb_is_a_usage_error(place: Place) -> None:
    result = run(place, "strat")
    assert result.returncode == 2
    assert "No such command" in result.stderr


# In the background -------------------------------------------------------------------------------------


def test_start_stop(place: Place, queue: Queue) -> None:
    assert run(place, "start").returncode == 0
    [pid_file] = place.directory.glob("*.pid")
    pid = int(pid_file.read_text())
    assert os.getsid(pid) != os.getsid(0), "it is detached from this terminal"
    queue.wait(queue.sleep())
    second = run(place, "start")
    assert second.returncode == 1
    assert "a worker with this uuid runs already" in second.stderr
    stopped = run(place, "stop")
    assert stopped.returncode == 0
    assert "the worker stops when its job is done" in stopped.stderr
    until(lambda: not pid_file.exists(), "the worker to stop")
    assert "found the stop file" in place.log.read_text()
    assert not place.stop.exists()


def test_a_log_that_cannot_be_opened_is_told_at_the_start(place: Place) -> None:
    change(place, "daemon", log="/proc/nowhere/log")
    result = run(place, "start")
    assert result.returncode == 1
    assert "the worker did not start: daemon.log: cannot open /proc/nowhere/log" in result.stderr


def test_why_it_ended_soon_after_the_start_stands_in_its_log_alone(place: Place) -> None:
    change(place, "daemon", jobs=["nothing"])
    assert run(place, "start").returncode == 0
    until(lambda: "the worker ends" in place.log.read_text(), "its end")
    [line] = place.log.read_text().splitlines()
    assert line.endswith("the worker ends: no job is accepted: see 'puffin jobs' for what each of them needs")


def test_kill_gives_the_calculation_back(place: Place, queue: Queue) -> None:
    id_ = queue.sleep(600)
    assert run(place, "start").returncode == 0
    queue.wait(id_, "pending")
    assert run(place, "kill").returncode == 0
    document = queue.wait(id_, "new")
    assert document["executor"] == ""
    nobody = run(place, "kill")
    assert nobody.returncode == 1
    assert "nothing was killed" in nobody.stderr


def test_a_stale_pid_file_kills_no_stranger(place: Place) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        content = yaml.safe_load(place.config.read_text())
        (place.directory / f"{content['daemon']['uuid']}.pid").write_text(f"{stranger.pid}\n")
        assert run(place, "kill").returncode == 1
        assert stranger.poll() is None
        stranger.send_signal(signal.SIGKILL)


def test_what_prevents_a_start_in_the_background_is_told(place: Place) -> None:
    (place.directory / "file").touch()
    change(place, "daemon", job_dir=str(place.directory / "file" / "jobs"), timeout_in_h=0.01)
    change(place, "daemon", pid_dir=str(place.directory / "file" / "run"))
    result = run(place, "start")
    assert result.returncode == 1
    assert "daemon.pid: cannot write" in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_mode_stays_in_this_shell_and_tells_everything(place: Place, queue: Queue) -> None:
    change(place, "daemon", mode="debug", max_number_of_jobs=1)
    id_ = queue.sleep()
    result = run(place, "start")
    assert result.returncode == 0
    assert f"{id_} complete after" in result.stderr
    assert queue.status(id_) == "complete"


def test_without_a_log_file_the_log_is_standard_error(place: Place, queue: Queue) -> None:
    change(place, "daemon", log="", max_number_of_jobs=1)
    id_ = queue.sleep()
    result = run(place, "container")
    assert result.returncode == 0
    assert f"{id_} complete after" in result.stderr


def test_the_setup_is_printed_as_by_scine_puffin(place: Place) -> None:
    change(place, "daemon", idle_timeout_in_h=1e-5)
    change(place, "resources", cores=1, memory=3.0, disk=1.5)
    change(place, "fleet", name="")
    printed = [line.split() for line in run(place, "container").stdout.splitlines()]
    for line in ("Threads: 1", "Memory: 3.000 GB", "Disk: 1.500 GB", "- sparrow", "- sleep"):
        assert line.split() in printed


def test_jobs_use_as_many_threads_as_the_worker_has_cores(place: Place, queue: Queue) -> None:
    change(place, "resources", cores=2)
    change(place, "daemon", max_number_of_jobs=1)
    found = place.directory / "threads"
    id_ = queue.code(f"import os; open({str(found)!r}, 'w').write(os.environ['OMP_NUM_THREADS'])")
    assert run(place, "container", OMP_NUM_THREADS="7").returncode == 0
    assert queue.status(id_) == "complete"
    assert lines_of(found) == ["2"]


def test_worker_and_jobs_use_only_the_chosen_processors(place: Place, queue: Queue) -> None:
    chosen = max(os.sched_getaffinity(0))
    change(place, "resources", cpus=[chosen])
    change(place, "daemon", max_number_of_jobs=1)
    found = place.directory / "processors"
    code = (
        "import os, psutil\n"
        "family = [p.cpu_affinity() for p in psutil.Process().parents() if 'puffin.yaml' in ' '.join(p.cmdline())]\n"
        f"open({str(found)!r}, 'w').write(f'{{sorted(os.sched_getaffinity(0))}} {{family}}')"
    )
    id_ = queue.code(code)
    assert run(place, "container").returncode == 0
    assert queue.status(id_) == "complete"
    assert lines_of(found) == [f"[{chosen}] [[{chosen}]]"]


def test_processors_that_are_not_there_are_refused(place: Place) -> None:
    change(place, "resources", cpus=[0, 98765])
    result = run(place, "container")
    assert result.returncode == 2
    assert "puffin: resources.cpus: 98765 is not on this machine, which has 0" in result.stderr


@pytest.mark.parametrize(("gpus", "seen"), [(["1", "GPU-0a"], "1,GPU-0a"), ([], "7")])
def test_jobs_see_only_the_chosen_gpus(place: Place, queue: Queue, gpus: list[str], seen: str) -> None:
    change(place, "resources", gpus=gpus)
    change(place, "daemon", max_number_of_jobs=1)
    found = place.directory / "gpus"
    names = "('ROCR_VISIBLE_DEVICES', 'CUDA_VISIBLE_DEVICES')"
    code = f"import os; open({str(found)!r}, 'w').write(next(os.environ[n] for n in {names} if n in os.environ))"
    id_ = queue.code(code)
    assert run(place, "container", CUDA_VISIBLE_DEVICES="7").returncode == 0
    assert queue.status(id_) == "complete"
    assert lines_of(found) == [seen]
