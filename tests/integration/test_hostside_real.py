"""The programs for hosts on hosts: a real uv, a real supervisord, a disk that is full."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import uv

from fleet.reach import probing
from fleet.reach.execute import ask, follow
from fleet.reach.facts import Facts, States
from fleet.reach.remote import ActionFailed, NotNow, Upload
from fleet.reach.ssh import SshRemote
from fleet.reach.uploading import upload
from tests.lab.requirements import missing
from tests.lab.sshd import Lab, SshHost, end_processes
from tests.lab.worker import until

FLEET = "reactions"


@dataclass(frozen=True)
class Site:
    """A host with uv and supervisor on it, and what a deploy would know of it."""

    host: SshHost
    remote: SshRemote
    wheel: dict[str, str]

    def probe(self) -> Facts:
        return probing.parse("n", ask(self.remote, "probe", self.probe_request))

    @property
    def probe_request(self) -> dict[str, Any]:
        return probing.probe_request(FLEET, "n", self.host.base_dir)

    @property
    def fleet(self) -> Path:
        return Path(self.host.base_dir) / FLEET

    @property
    def root(self) -> Path:
        return self.fleet / "hosts" / "n"

    def install(self, target: str = "supervisor/4.3.0", **request: Any) -> dict[str, Any]:
        content = {
            "fleet_root": str(self.fleet),
            "target": target,
            "provides": ["bin/supervisord"],
            "uv": str(self.fleet / "tools/uv-1/uv"),
            "wheels": [self.wheel],
        }
        return ask(self.remote, "install_release", {**content, **request})

    def apply(self, **request: Any) -> dict[str, Any]:
        content = {"fleet_root": str(self.fleet), "host_root": str(self.root), "run_dir": self.probe().run_dir}
        return ask(self.remote, "apply", {**content, **request})

    def supervise(self, **request: Any) -> dict[str, Any]:
        content = {"host_root": str(self.root), "supervisor": str(self.fleet / "supervisor/4.3.0")}
        return ask(self.remote, "supervise", {**content, **request})

    def control(self, *operations: dict[str, Any]) -> States:
        request = {"host_root": str(self.root), "operations": list(operations)}
        return probing.parse_states("n", ask(self.remote, "control", request))

    def states(self) -> States:
        return probing.parse_states("n", ask(self.remote, "states", {"host_root": str(self.root)}))

    def wait_for(self, **expected: str) -> States:
        """Wait until these workers are in these states; `n_1` stands for `n-1`."""
        deadline = time.monotonic() + 30
        while True:
            states = self.states()
            found = {program.name.replace("-", "_"): program.state for program in states.supervisord.programs}
            if found == expected:
                return states
            assert time.monotonic() < deadline, f"{found} did not become {expected}"
            time.sleep(0.1)

    def end(self, *workers: str) -> None:
        """Signal workers until they have ended: one that is just starting does not obey yet, and is started again."""
        deadline = time.monotonic() + 30
        while True:
            self.control({"operation": "signal", "workers": list(workers), "signal": "TERM"})
            programs = {program.name: program for program in self.states().supervisord.programs}
            ends = [(programs[name].state, programs[name].exitstatus) for name in workers if name in programs]
            # One that was killed by the signal has EXITED as well, but only until supervisord starts it again.
            if ends == [("EXITED", 0)] * len(workers):
                return
            assert time.monotonic() < deadline, programs
            time.sleep(0.3)


def pid_of(states: States, worker: str) -> int:
    return next(program.pid for program in states.supervisord.programs if program.name == worker)


@pytest.fixture(scope="module")
def site(ssh_lab: Lab, supervisor_wheel: tuple[Path, str]) -> Iterator[Site]:
    """A host with supervisor installed from an uploaded wheel by an uploaded uv, as a deploy does it."""
    host = ssh_lab.host("real")
    wheel, digest = supervisor_wheel
    remote = SshRemote("n", host.options)
    made = Site(host, remote, {"sha256": digest, "name": wheel.name})
    upload(
        remote,
        [
            Upload(Path(uv.find_uv_bin()), str(made.fleet / "tools/uv-1/uv"), 0o755),
            Upload(wheel, str(made.fleet / "wheels" / digest / wheel.name)),
        ],
    )
    made.install()
    yield made
    remote.close()
    ssh_lab.remove(host)


@pytest.fixture
def clean(site: Site) -> Iterator[Site]:
    """The same host without anything deployed to it, before and after."""
    yield site
    end_processes(site.root)
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["rm", "-rf", str(site.root)], check=True)


# Installing --------------------------------------------------------------------------------------------


def test_what_was_installed_runs_and_is_not_installed_again(site: Site) -> None:
    supervisord = site.fleet / "supervisor/4.3.0/bin/supervisord"
    assert subprocess.run([supervisord, "--version"], capture_output=True, text=True).stdout.startswith("4.3")
    assert site.install()["installed"] is False
    found = site.probe()
    assert found.supervisors == ("4.3.0",)
    assert [wheel.sha256 for wheel in found.wheels] == [site.wheel["sha256"]]
    assert found.uv_versions == ("1",)


def test_of_two_releases_the_newer_stays_with_its_wheel_and_works(site: Site) -> None:
    site.install("releases/older")
    site.install("releases/newer")
    request = {"fleet_root": str(site.fleet), "keep": 1, "used": ["half"], "carry_out": True}
    reply = ask(site.remote, "prune", {**request, "only": [str(site.fleet / "releases" / "older")]})
    assert [entry["name"] for entry in reply["removals"]] == ["older"]
    assert not (site.fleet / "releases" / "older").exists()
    newer = site.fleet / "releases" / "newer" / "bin" / "supervisord"
    assert subprocess.run([newer, "--version"], capture_output=True, text=True).stdout.startswith("4.3")
    looked = ask(site.remote, "prune", {**request, "carry_out": False})
    assert site.wheel["sha256"] not in {entry["name"] for entry in looked["removals"]}
    assert 0 < reply["removals"][0]["bytes"] < 30e6


def test_a_half_installed_release_is_no_release_and_is_built_again(site: Site) -> None:
    target = site.fleet / "releases" / "half"
    site.install("releases/half")
    (target / ".complete").unlink()
    (target / "bin" / "supervisord").unlink()
    assert "half" not in {release.id for release in site.probe().releases}
    assert site.install("releases/half")["installed"] is True
    assert (target / "bin" / "supervisord").exists()
    assert "half" in {release.id for release in site.probe().releases}


def test_what_uv_says_is_reported(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken-1.0-py3-none-any.whl"
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("broken/__init__.py", "")
    digest = hashlib.sha256(broken.read_bytes()).hexdigest()
    upload(site.remote, [Upload(broken, str(site.fleet / "wheels" / digest / broken.name))])
    with pytest.raises(ActionFailed, match=r"n: installing: uv pip install ended with status \d:\n.*broken"):
        site.install("releases/broken", wheels=[{"sha256": digest, "name": broken.name}])
    assert "broken" not in {release.id for release in site.probe().releases}


def test_a_release_without_what_it_should_provide_is_not_complete(site: Site) -> None:
    with pytest.raises(ActionFailed, match=r"releases/empty has no bin/puffin\n  check release.package"):
        site.install("releases/empty", provides=["bin/puffin"])
    assert not (site.fleet / "releases/empty/.complete").exists()


def test_a_release_that_this_host_cannot_import_is_not_complete(site: Site) -> None:
    site.install("releases/imported", imports=["supervisor.options"])
    assert list((site.fleet / "releases/imported").rglob("options.*.pyc")) != []  # compiled once for all workers
    with pytest.raises(ActionFailed, match=r"(?s)importing what was installed ended .*no_such_module.*release\.extras"):
        site.install("releases/strange", imports=["supervisor.options", "no_such_module"])
    assert not (site.fleet / "releases/strange/.complete").exists()


def test_two_installations_at_once_do_not_disturb_each_other(site: Site) -> None:
    other = SshRemote("n", site.host.options)
    both = [site, Site(site.host, other, site.wheel)]
    with contextlib.ExitStack() as stack:
        stack.callback(other.close)
        results = _at_once([lambda s=s: s.install("releases/twice")["installed"] for s in both])
    assert sorted(results) == [False, True]
    assert (site.fleet / "releases/twice/bin/supervisord").exists()


def _at_once(functions: list[Callable[[], bool]]) -> list[bool]:
    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(function) for function in functions]]


# Supervisord -------------------------------------------------------------------------------------------

WORKER = """\
#!/bin/sh
exec /usr/bin/python3 -c 'import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(1000)' "{root}/etc/workers/$1.yaml"
"""
SUPERVISORD = """\
[unix_http_server]
file=%(here)s/../run/sv.sock
chmod=0700
[supervisord]
logfile=%(here)s/../log/supervisord.log
pidfile=%(here)s/../run/supervisord.pid
childlogdir=%(here)s/../log
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[include]
files = conf.d/*.conf
"""
PROGRAM = """\
[program:{name}]
command=/bin/sh "{root}/bin/worker" {name}
autorestart=unexpected
exitcodes=0
startsecs=0
stopwaitsecs={patience}
stopasgroup=false
killasgroup=true
stdout_logfile=NONE
stderr_logfile=NONE
"""


def entry(path: str, text: str, mode: int = 0o644) -> dict[str, Any]:
    return {"path": path, "mode": mode, "content_b64": base64.b64encode(text.encode()).decode()}


def program(site: Site, name: str, patience: int = 5) -> dict[str, Any]:
    return entry(f"etc/conf.d/{name}.conf", PROGRAM.format(name=name, root=site.root, patience=patience))


def deployed(site: Site, *workers: str) -> list[dict[str, Any]]:
    return [
        entry("bin/worker", WORKER.format(root=site.root), 0o755),
        entry("etc/supervisord.conf", SUPERVISORD),
        *(program(site, name) for name in workers),
    ]


def test_supervisord_is_started_once(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1", "n-2"))
    assert clean.supervise()["started"] is True
    first = clean.wait_for(n_1="RUNNING", n_2="RUNNING")
    again = clean.supervise()
    assert (again["started"], again["added"], again["removed"], again["replaced"]) == (False, [], [], [])
    assert pid_of(clean.states(), "n-1") == pid_of(first, "n-1")
    found = clean.probe()
    assert found.supervisord.reachable
    assert found.supervisord.pid == first.supervisord.pid
    assert found.supervisord.version is not None
    assert found.supervisord.version.startswith("4.3")
    assert found.orphans == ()
    assert psutil.Process(found.supervisord.pid).cwd() == "/"
    socket = clean.root / "run/sv.sock"
    assert socket.stat().st_mode & 0o777 == 0o700


def test_it_goes_on_when_the_connection_is_gone(clean: Site) -> None:
    other = replace(clean, remote=SshRemote("n", clean.host.options))
    other.apply(files=deployed(clean, "n-1"))
    other.supervise()
    before = other.wait_for(n_1="RUNNING")
    other.remote.close()
    after = clean.wait_for(n_1="RUNNING")
    assert (after.supervisord.pid, pid_of(after, "n-1")) == (before.supervisord.pid, pid_of(before, "n-1"))


def test_programs_come_and_go_one_by_one(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1", "n-2"))
    clean.supervise()
    before = clean.wait_for(n_1="RUNNING", n_2="RUNNING")
    clean.apply(files=[program(clean, "n-3")], remove=["etc/conf.d/n-2.conf"])
    found = clean.supervise()
    assert found["added"] == ["n-3"]
    assert (found["removed"], found["pending"]) == ([], [{"name": "n-2", "why": "it is still running"}])
    clean.end("n-2")
    clean.wait_for(n_1="RUNNING", n_2="EXITED", n_3="RUNNING")
    assert clean.supervise()["removed"] == ["n-2"]
    after = clean.wait_for(n_1="RUNNING", n_3="RUNNING")
    assert pid_of(after, "n-1") == pid_of(before, "n-1")


def test_a_changed_program_is_replaced_once_it_has_ended(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1", "n-2"))
    clean.supervise()
    before = clean.wait_for(n_1="RUNNING", n_2="RUNNING")
    clean.apply(files=[program(clean, "n-1", patience=7), program(clean, "n-2", patience=7)])
    clean.end("n-2")
    found = clean.supervise()
    assert found["replaced"] == ["n-2"]
    assert found["pending"] == [{"name": "n-1", "why": "it is still running"}]
    after = clean.wait_for(n_1="RUNNING", n_2="RUNNING")
    assert pid_of(after, "n-1") == pid_of(before, "n-1")
    assert pid_of(after, "n-2") != pid_of(before, "n-2")


ENDING = """\
#!/bin/sh
exec /usr/bin/python3 -c 'import os, sys, time
stop = sys.argv[1] + "/orders/stop"
while not os.path.exists(stop): time.sleep(0.02)
open(sys.argv[1] + "/seen", "w").close()
while os.path.exists(stop): time.sleep(0.02)
time.sleep(0.5)' "{root}" "{root}/etc/workers/$1.yaml"
"""


def test_a_start_that_meets_a_worker_at_its_end_starts_it_again(clean: Site) -> None:
    """It has looked at its order for the last time when that is taken away."""
    clean.apply(files=[*deployed(clean, "n-1"), entry("etc/workers/n-1.yaml", ""), entry("releases/r/x", "")])
    clean.apply(files=[entry("bin/worker", ENDING.format(root=clean.root), 0o755)])
    (clean.root / "current").symlink_to("releases/r")
    clean.supervise()
    before = clean.wait_for(n_1="RUNNING")
    clean.control({"operation": "stop_file"})
    # RUNNING says nothing of how far it has come, and who never saw an order does not obey it.
    until((clean.root / "seen").exists, "the worker to see its order")

    found = ask(clean.remote, "begin", {**clean.probe_request, "patterns": None})

    assert found["told"] == ["n-1"]
    after = clean.wait_for(n_1="RUNNING")
    assert pid_of(after, "n-1") != pid_of(before, "n-1")


def test_workers_are_stopped_and_started_and_supervisord_goes_last(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1", "n-2"))
    clean.supervise()
    clean.wait_for(n_1="RUNNING", n_2="RUNNING")
    with pytest.raises(ActionFailed, match="workers still run: n-1, n-2"):
        clean.control({"operation": "shutdown"})
    clean.end("n-1")
    clean.control({"operation": "recycle"})
    states = clean.wait_for(n_1="EXITED", n_2="RUNNING")
    assert "n-2" in states.recycling
    clean.control({"operation": "clear_recycle"}, {"operation": "start"})
    assert clean.wait_for(n_1="RUNNING", n_2="RUNNING").recycling == frozenset()
    with pytest.raises(ActionFailed, match="supervisord knows no n-9"):
        clean.control({"operation": "start", "workers": ["n-9"]})
    clean.end("n-1", "n-2")
    clean.wait_for(n_1="EXITED", n_2="EXITED")
    found = clean.control({"operation": "shutdown"})
    assert (found.supervisord.running, found.supervisord.problem) == (False, None)
    assert clean.control({"operation": "shutdown"}).supervisord.running is False
    assert not (clean.root / "run/sv.sock").exists()


def test_a_signal_reaches_a_worker(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1"))
    clean.supervise()
    before = clean.wait_for(n_1="RUNNING")
    clean.control({"operation": "signal", "workers": ["n-1"], "signal": "KILL"})
    old = pid_of(before, "n-1")
    until(lambda: pid_of(clean.states(), "n-1") not in (0, old), "the worker to be started again")


def test_workers_that_outlive_supervisord_are_found_and_not_started_twice(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1", "n-2"))
    clean.supervise()
    before = clean.wait_for(n_1="RUNNING", n_2="RUNNING")
    assert before.supervisord.pid is not None
    psutil.Process(before.supervisord.pid).kill()
    workers = [psutil.Process(pid_of(before, worker)) for worker in ("n-1", "n-2")]
    until(lambda: not clean.states().supervisord.running, "supervisord to be gone")
    expected = {("n-1", workers[0].pid), ("n-2", workers[1].pid)}
    # supervisord calls them RUNNING at once: the shell may not have become the worker yet.
    until(
        lambda: {(orphan.worker, orphan.pid) for orphan in clean.probe().orphans} == expected,
        f"{expected} to be found as orphans",
    )
    with pytest.raises(ActionFailed, match=rf"still run: .*n-1 \(pid {workers[0].pid}\)"):
        clean.supervise()
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    assert clean.supervise()["started"] is True
    clean.wait_for(n_1="RUNNING", n_2="RUNNING")


def test_a_supervisord_that_does_not_answer_is_not_one_without_workers(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1"))
    clean.supervise()
    daemon = psutil.Process(clean.wait_for(n_1="RUNNING").supervisord.pid)
    daemon.suspend()
    operations = ("recycle", "shutdown")
    try:
        with ThreadPoolExecutor(len(operations)) as aside:  # each waits for its answer as long as it may
            told = [aside.submit(clean.control, {"operation": operation}) for operation in operations]
        for one in told:
            with pytest.raises(NotNow, match=rf"supervisord runs \(pid {daemon.pid}\) but does not answer"):
                one.result()
    finally:
        daemon.resume()
    assert not list((clean.root / "run").glob("recycle.*"))
    clean.wait_for(n_1="RUNNING")


def test_what_keeps_supervisord_from_starting_is_reported(clean: Site) -> None:
    clean.apply(files=[entry("etc/supervisord.conf", "[supervisord]\nloglevel=nonsense\n")])
    with pytest.raises(ActionFailed, match=r"supervisord ended with status 2: .*nonsense"):
        clean.supervise()
    clean.apply(remove=["etc/supervisord.conf"])
    with pytest.raises(ActionFailed, match=r"supervisord.conf is missing"):
        clean.supervise()


def test_a_configuration_that_supervisord_cannot_read_disturbs_nothing(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1"))
    clean.supervise()
    before = clean.wait_for(n_1="RUNNING")
    clean.apply(files=[entry("etc/conf.d/n-2.conf", "[program:n-2]\nnonsense\n")])
    with pytest.raises(ActionFailed, match="supervisord cannot read its configuration"):
        clean.supervise()
    assert pid_of(clean.wait_for(n_1="RUNNING"), "n-1") == pid_of(before, "n-1")


def test_a_run_directory_elsewhere(clean: Site, ssh_lab: Lab) -> None:
    """Where the home directory is too deep for a socket."""
    place = clean.host.home / "r" / "x"
    clean.apply(files=deployed(clean, "n-1"), run_dir=str(place))
    clean.supervise()
    clean.wait_for(n_1="RUNNING")
    assert clean.probe().run_dir == str(place)
    assert (place / "sv.sock").is_socket()


# A full disk -------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(clean: Site) -> Iterator[Path]:
    """A file system of 1 MB where the host's own directory will be."""
    if os.getuid() != 0:
        missing("a file system of its own needs root")
    clean.apply()
    place = clean.root
    uid = place.stat().st_uid
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=1m,uid={uid}", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_leaves_what_was_there(clean: Site, tiny_disk: Path, tmp_path: Path) -> None:
    clean.apply(files=[entry("etc/workers/n-1.yaml", "old", 0o600)])
    new = [entry("etc/workers/n-1.yaml", "new", 0o600), entry("etc/large", "x" * (2 << 20))]
    with pytest.raises(ActionFailed, match=r"No space left on device: .*etc/large\n  free some space there"):
        clean.apply(files=new)
    source = tmp_path / "large"
    source.write_bytes(b"x" * (2 << 20))
    with pytest.raises(ActionFailed, match=r"No space left on device: .*wheels/large"):
        upload(clean.remote, [Upload(source, str(tiny_disk / "wheels/large"))])
    left = {str(path.relative_to(tiny_disk)): path.read_text() for path in tiny_disk.rglob("*") if path.is_file()}
    assert left.pop(".lock").startswith("process ")
    assert left == {"etc/workers/n-1.yaml": "old"}


# Logs --------------------------------------------------------------------------------------------------


def test_texts_and_log_lines_of_a_host(clean: Site) -> None:
    clean.apply(files=deployed(clean, "n-1"))
    clean.supervise()
    clean.wait_for(n_1="RUNNING")
    request = {"host_root": str(clean.root), "paths": ["etc/supervisord.conf", "etc/none"]}
    texts = ask(clean.remote, "fetch_texts", request)["texts"]
    assert texts == {"etc/supervisord.conf": SUPERVISORD, "etc/none": None}
    (clean.root / "log" / "n-1.log").write_text("said\n")
    log_request: dict[str, Any] = {"host_root": str(clean.root), "lines": 100}
    said = [entry for entry in follow(clean.remote, "tail", log_request) if "messages" in entry]
    assert [(log, text) for entry in said for log, _, text in entry["messages"]] == [("n-1.log", "said")]
