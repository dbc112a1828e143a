"""A worker whose database is behind a gateway: a real sshd, the installed ssh, a real database server."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.lab.fixtures_database import Database
from tests.lab.fixtures_ssh import HostFactory
from tests.lab.sshd import SshHost, keygen
from tests.lab.worker import ALL_JOBS, Queue, Worker, Workers, puffin, until


@pytest.fixture
def gateway(ssh_hosts: HostFactory) -> SshHost:
    return ssh_hosts("gateway")


@pytest.fixture
def worker(workers: Workers, gateway: SshHost, database: Database) -> Iterator[Worker]:
    worker = workers.make(**sections(gateway, database))
    yield worker
    for process in tunnels(gateway):
        with contextlib.suppress(psutil.Error):
            process.kill()


def sections(gateway: SshHost, database: Database, **changes: Any) -> dict[str, dict[str, Any]]:
    """How the database is named on the gateway, and how to get there."""
    section = {
        "uri": "",
        "ip": database.host,
        "port": database.port,
        "ssh_tunnel": f"{gateway.user}@{gateway.address}:{gateway.port}",
        "ssh_known_hosts": str(gateway.known_hosts),
    }
    keys = changes.pop("ssh_keys", [str(gateway.key)])
    return {"database": {**section, **changes}, "resources": {"ssh_keys": keys}}


def tunnels(gateway: SshHost) -> list[psutil.Process]:
    """The clients of this gateway, whoever started them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, IndexError):
            words = process.cmdline()
            if words[0].endswith("/ssh") and str(gateway.port) in words and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def all_have_ended(gateway: SshHost) -> None:
    """Wait for it: what was killed needs a moment until it is gone, and who killed it does not wait for long."""
    until(lambda: not tunnels(gateway), "the end of each tunnel")


def the_tunnel(gateway: SshHost, besides: int = 0) -> psutil.Process:
    def look() -> psutil.Process | None:
        new = [process for process in tunnels(gateway) if process.pid != besides]
        return new[0] if new and gateway.sessions() else None

    return until(look, "the tunnel")


def cut(gateway: SshHost) -> int:
    """Kill the worker's ssh; return the process id it had."""
    process = the_tunnel(gateway)
    process.kill()
    return process.pid


def local_end(process: psutil.Process) -> str:
    words = process.cmdline()
    return words[words.index("-L") + 1]


def test_the_tunnel_comes_back_while_idle_and_under_a_job(worker: Worker, queue: Queue, gateway: SshHost) -> None:
    worker.start()
    queue.wait(queue.sleep())
    end = local_end(the_tunnel(gateway))

    first = cut(gateway)
    second = the_tunnel(gateway, besides=first)
    assert local_end(second) == end
    queue.wait(queue.sleep())

    running = queue.sleep(4.0)
    queue.wait(running, "pending")
    cut(gateway)
    assert local_end(the_tunnel(gateway, besides=second.pid)) == end
    assert queue.wait(running)["puffin"]["attempt"] == 1
    assert worker.process.poll() is None
    assert worker.stop() == 0
    assert "ssh ended with status -9" in worker.log
    all_have_ended(gateway)


def test_a_gateway_that_hangs_up_is_called_again(worker: Worker, queue: Queue, gateway: SshHost) -> None:
    worker.start()
    queue.wait(queue.sleep())
    for session in gateway.sessions():
        with contextlib.suppress(psutil.NoSuchProcess):
            session.kill()
    queue.wait(queue.sleep())
    assert worker.stop() == 0


@pytest.mark.soak
def test_a_gateway_that_falls_silent_is_called_again(worker: Worker, queue: Queue, gateway: SshHost) -> None:
    """As when the network is cut: nobody closes the connection."""
    worker.start()
    queue.wait(queue.sleep())
    silent = [process for session in gateway.sessions() for process in (session, *session.children())]
    for process in silent:
        process.suspend()
    try:
        queue.wait(queue.sleep(), patience_s=90.0)
    finally:
        for process in silent:
            process.resume()
    assert worker.stop() == 0


def test_the_tunnel_dies_with_a_worker_that_is_killed(worker: Worker, queue: Queue, gateway: SshHost) -> None:
    worker.start()
    queue.wait(queue.sleep())
    the_tunnel(gateway)
    worker.signal(signal.SIGKILL)
    worker.wait()
    all_have_ended(gateway)
    worker.is_gone()


def test_a_scine_job_goes_through_it_too(
    workers: Workers, gateway: SshHost, database: Database, scine_manager: Any, queue: Queue
) -> None:
    """It connects by itself, through the C++ driver."""
    from tests.integration.test_scine_jobs import Chemistry

    chemistry = Chemistry(scine_manager)
    worker = workers.start(daemon=ALL_JOBS, **sections(gateway, database, uri=f"mongodb://localhost:{database.port}/"))
    id_ = chemistry.submit("water", "scine_single_point")
    assert queue.settled(id_)["status"] == "complete"
    assert chemistry.energy(id_) < 0
    local = int(local_end(the_tunnel(gateway)).split(":")[1])

    longer = [chemistry.submit("benzene", "scine_hessian")]

    def look() -> set[int]:
        if queue.status(longer[-1]) == "complete":  # before we came to look
            longer.append(chemistry.submit("benzene", "scine_hessian"))
        return ports_of_jobs(worker)

    assert until(look, "a connection of the job") == {local}
    assert queue.settled(longer[-1])["status"] == "complete"
    assert worker.stop() == 0
    all_have_ended(gateway)


def ports_of_jobs(worker: Worker) -> set[int]:
    """Where the worker's jobs are connected to; what the fork server starts holds no other connections."""
    ports = set()
    for process in worker.below():
        with contextlib.suppress(psutil.Error, IndexError):
            if not process.cmdline()[0].endswith("/ssh"):
                ports |= {found.raddr.port for found in process.net_connections("tcp") if found.raddr}
    return ports


def test_a_wrong_key_is_said_in_the_log(workers: Workers, gateway: SshHost, database: Database, tmp_path: Path) -> None:
    keygen(tmp_path / "stranger")
    worker = workers.start(**sections(gateway, database, ssh_keys=[str(tmp_path / "stranger")]))
    until(lambda: "Permission denied (publickey)" in worker.log, "the reason in the log")
    # ssh may be quicker than the worker, which does not heed signals before it looks for the database.
    until(lambda: "waiting for the database" in worker.log, "the worker to get on without it")
    assert worker.stop() == 0
    all_have_ended(gateway)


def check(worker: Worker, **environment: str) -> str:
    words = [puffin(), "-c", str(worker.place.config), "check"]
    done = subprocess.run(words, capture_output=True, text=True, env={"COLUMNS": "300", **environment}, timeout=120)
    lines = [line for line in done.stdout.splitlines() if " database " in line]
    return "\n".join(lines) or done.stdout + done.stderr


def test_check_goes_through_it(workers: Workers, gateway: SshHost, database: Database) -> None:
    found = check(workers.make(**sections(gateway, database)))
    assert found.startswith("ok")
    assert f"{database.port} through {gateway.user}@{gateway.address}:{gateway.port}, {database.name}" in found
    all_have_ended(gateway)


def test_check_misses_ssh(workers: Workers, gateway: SshHost, database: Database, tmp_path: Path) -> None:
    found = check(workers.make(**sections(gateway, database)), PATH=str(tmp_path))
    assert found.startswith("FAIL")
    assert "ssh is not installed or not on PATH" in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ssh_known_hosts": "{tmp}/empty"}, "Host key verification failed"),
        ({"ssh_keys": ["{tmp}/stranger"]}, "Permission denied (publickey)"),
        ({"ssh_keys": ["{tmp}/nothing"]}, "resources.ssh_keys: cannot read"),
        ({"uri": "mongodb+srv://cluster.example.org/"}, "mongodb+srv:// stands for several hosts"),
        ({"uri": "mongodb://a:1,b:2/"}, "it names several hosts"),
        ({"port": "{free}"}, "Connection refused"),
    ],
)
def test_check_says_what_is_wrong(
    workers: Workers,
    gateway: SshHost,
    database: Database,
    closed_port: int,
    tmp_path: Path,
    changes: dict[str, Any],
    words: str,
) -> None:
    (tmp_path / "empty").touch()
    keygen(tmp_path / "stranger")
    values = {"tmp": str(tmp_path), "free": str(closed_port)}
    filled = {
        key: [text.format(**values) for text in value] if isinstance(value, list) else value.format(**values)
        for key, value in changes.items()
    }
    found = check(workers.make(**sections(gateway, database, **filled)))
    assert found.startswith("FAIL")
    assert words in found
    all_have_ended(gateway)
