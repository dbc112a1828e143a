"""SSH against a real sshd whose user has start-up files that print noise; the local connection likewise."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import psutil
import pytest

from fleet.errors import RemoteError
from fleet.reach import probing
from fleet.reach.execute import ask, follow
from fleet.reach.local import LocalRemote
from fleet.reach.remote import (
    ActionFailed,
    AuthenticationRefused,
    ChangedHostKey,
    ConnectionLost,
    NoPythonError,
    Remote,
    UnknownHostKey,
    UnreachableError,
    Upload,
)
from fleet.reach.ssh import SshOptions, SshRemote
from fleet.reach.uploading import upload
from tests.lab.sshd import SshHost, keygen
from tests.lab.worker import until

Hosts = Callable[..., SshHost]


@pytest.fixture
def connect() -> Iterator[Callable[[SshOptions], SshRemote]]:
    made: list[SshRemote] = []

    def make(options: SshOptions) -> SshRemote:
        made.append(SshRemote("node1", options))
        return made[-1]

    yield make
    for remote in made:
        remote.close()


Connect = Callable[[SshOptions], SshRemote]

# Every kind of remote ----------------------------------------------------------------------------------


def test_a_program_runs_with_its_data_and_everything_comes_back(remote: Remote) -> None:
    program = "import sys; d = sys.stdin.buffer.read(); sys.stderr.write('to stderr'); print(len(d)); sys.exit(7)"
    found = remote.call(program, 30, [b"x" * 100_000] * 30)
    assert found.status == 7
    assert found.stdout.endswith(b"3000000\n")
    assert found.stderr.endswith(b"to stderr")
    assert remote.round_trips == 1


def test_much_output_on_both_channels_does_not_block(remote: Remote) -> None:
    program = "import sys\nfor n in range(300): sys.stdout.write('o' * 20000); sys.stderr.write('e' * 20000)"
    found = remote.call(program, 60, [b"never read" * 500_000])
    assert (found.stdout.count(b"o" * 20000), found.stderr.count(b"e" * 20000)) == (300, 300)


def test_a_program_that_takes_too_long_is_given_up(remote: Remote) -> None:
    with pytest.raises(ConnectionLost, match=r"no answer within 0.5 s"):
        remote.call("import time; time.sleep(100)", 0.5)
    assert remote.call("print('again')", 30).stdout.endswith(b"again\n")


def test_data_may_take_as_long_as_they_like_while_they_are_taken(remote: Remote) -> None:
    """Twenty hosts may share one slow line."""

    def slowly(pause: float) -> Iterator[bytes]:
        for _ in range(12):
            yield b"x" * 5_000
            time.sleep(pause)

    program = "import sys; print(len(sys.stdin.buffer.read()))"
    # All pauses together are longer than the time, and each so much shorter that a busy machine does not matter.
    assert remote.call(program, 8, slowly(0.7)).stdout.endswith(b"60000\n")
    with pytest.raises(ConnectionLost, match="no answer within 1 s"):
        remote.call(program, 1, slowly(2))


@pytest.mark.parametrize("output", ["stdout", "stderr"])
def test_output_without_end_is_cut_off(remote: Remote, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a start-up file asks a question again and again: it would fill our memory."""
    monkeypatch.setattr("fleet.reach.answers.MOST_OUTPUT", 1_000_000)
    program = f"import sys\nwhile True: sys.{output}.write('again? ' * 10000)"
    with pytest.raises(ActionFailed, match=r"writes without end\n  look at the start-up files"):
        remote.call(program, 60, [b"never read" * 500_000])
    assert remote.call("print('again')", 30).stdout.endswith(b"again\n")


def test_a_local_program_that_is_ended_goes_with_all_that_it_started() -> None:
    program = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nprint(child.pid, flush=True)\nchild.wait()"
    )
    stream = LocalRemote("here", sys.executable).stream(program)
    child = psutil.Process(int(next(stream)))
    stream.close()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()


def test_a_program_that_is_killed_is_an_error(remote: Remote) -> None:
    program = "import os; os.kill(os.getpid(), 9)"
    if isinstance(remote, LocalRemote):
        assert remote.call(program, 30).status == -9
    else:
        with pytest.raises(ConnectionLost, match="the program on the host was killed"):
            remote.call(program, 30)


def test_a_host_without_the_python_asked_for(remote: Remote, ssh_hosts: Hosts) -> None:
    if isinstance(remote, LocalRemote):
        remote = LocalRemote("node1", "python9")
    else:
        remote = SshRemote("node1", ssh_hosts("other").changed(python="python9"))
    with pytest.raises(
        NoPythonError, match=r"no Python >= 3.10 called 'python9' on node1\n  install it or set release"
    ):
        ask(remote, "probe", probing.probe_request("f", "node1", "~/x"))
    with pytest.raises(NoPythonError):
        list(follow(remote, "tail", {"host_root": "/", "follow": True}))
    remote.close()


def test_following_gives_what_is_added_and_ends_the_program_when_closed(remote: Remote, ssh_hosts: Hosts) -> None:
    host = ssh_hosts("logs", base="pool")
    log = host.home / "log" / "w-1.log"
    log.parent.mkdir()
    log.write_text("1\n2\n")
    request = {"host_root": str(host.home), "lines": 1, "follow": True, "heartbeat": 0.1}
    entries = follow(remote, "tail", request)
    assert next(entries)["positions"]["w-1.log"]["offset"] == 2
    ((name, _, text),) = next(entry["messages"] for entry in entries if "messages" in entry)
    assert (name, text) == ("w-1.log", "2")
    assert "heartbeat" in next(entry for entry in entries if "caught_up" not in entry)
    with log.open("a") as stream:
        stream.write("3\n")
    added = next(entry for entry in entries if "messages" in entry)
    assert added["messages"][0][2] == "3"
    assert added["positions"]["w-1.log"]["offset"] == 6
    following = _programs_of_remotes(host.home.parents[1])
    assert following
    close = getattr(entries, "close")  # noqa: B009 - an Iterator promises none, the generator has it
    close()
    remote.close()
    _, still = psutil.wait_procs(following, timeout=40)
    assert still == []


def _programs_of_remotes(lab: Path) -> list[psutil.Process]:
    """Processes that run a program sent by a remote: from this process, or on a host of this laboratory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            here = process.ppid() == os.getpid() or process.environ().get("HOME", "").startswith(str(lab))
            if here and process.cmdline()[1:3] == ["-I", "-S"]:
                found.append(process)
    return found


def one_connection_to(host: SshHost) -> None:
    """Wait until one is left: sshd notices after a while that whoever looked whether it answers is gone."""
    until(lambda: len(host.sessions()) == 1, f"a single connection to {host.name}")


# SSH ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["my pool", 'it\'s "100%" $HOME `x`; *'])
def test_a_probe_of_a_noisy_host_with_an_odd_base_dir(ssh_hosts: Hosts, connect: Connect, base: str) -> None:
    host = ssh_hosts("node1", base=base)
    remote = connect(host.options)
    assert b"Welcome to this cluster" in remote.call("pass", 30).stdout
    found = probing.parse("node1", ask(remote, "probe", probing.probe_request("f", "node1", "~/" + base)))
    assert found.base_dir == host.base_dir
    assert found.user == host.user
    assert remote.round_trips == 2
    one_connection_to(host)


def test_an_unknown_host_key_is_refused(ssh_hosts: Hosts, connect: Connect, tmp_path: Path) -> None:
    host = ssh_hosts("node1")
    with pytest.raises(UnknownHostKey, match=r"puffin-fleet trust hosts.yaml --host node1") as caught:
        connect(host.changed(known_hosts=tmp_path / "none")).call("pass", 30)
    public = host.known_hosts.parent / "host_key.pub"
    shown = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout
    assert caught.value.fingerprint == shown.split()[1]
    assert caught.value.fingerprint in str(caught.value)
    (tmp_path / "trusted").write_text(caught.value.known_hosts_line + "\n")
    assert connect(host.changed(known_hosts=tmp_path / "trusted")).call("pass", 30).status == 0


def test_a_changed_host_key_is_refused_loudly(ssh_hosts: Hosts, connect: Connect, tmp_path: Path) -> None:
    host = ssh_hosts("node1")
    other = keygen(tmp_path / "other")
    (tmp_path / "known").write_text(f"[127.0.0.1]:{host.port} {other}\n")
    with pytest.raises(ChangedHostKey, match=r"HAS CHANGED: .*\n  nothing was sent.*ssh-keygen -R") as caught:
        connect(host.changed(known_hosts=tmp_path / "known")).call("pass", 30)
    # What is advised helps: the key is gone from the file in which it was.
    advised = shlex.split(str(caught.value).partition("with: ")[2].partition(", then run")[0])
    subprocess.run(advised, check=True, capture_output=True)
    with pytest.raises(UnknownHostKey):
        connect(host.changed(known_hosts=tmp_path / "known")).call("pass", 30)


def test_hashed_known_hosts_are_read(ssh_hosts: Hosts, connect: Connect) -> None:
    host = ssh_hosts("node1")
    subprocess.run(["ssh-keygen", "-H", "-f", host.known_hosts], check=True, capture_output=True)
    assert "127.0.0.1" not in host.known_hosts.read_text()
    assert connect(host.options).call("pass", 30).status == 0


def test_a_key_that_the_host_does_not_know(ssh_hosts: Hosts, connect: Connect, tmp_path: Path) -> None:
    host = ssh_hosts("node1")
    keygen(tmp_path / "other")
    with pytest.raises(AuthenticationRefused, match=f"refuses user {host.user}.*{tmp_path}/other") as caught:
        connect(host.changed(key=tmp_path / "other")).call("pass", 30)
    secret = (tmp_path / "other").read_text().splitlines()[2]
    assert secret not in str(caught.value)
    assert "authorized_keys" in str(caught.value)


def test_an_rsa_key_that_the_host_does_not_know(ssh_hosts: Hosts, connect: Connect, tmp_path: Path) -> None:
    words = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(tmp_path / "rsa")]
    subprocess.run(words, check=True)
    with pytest.raises(AuthenticationRefused, match="neither the key"):
        connect(ssh_hosts("node1").changed(key=tmp_path / "rsa")).call("pass", 30)


def test_no_key_at_all(ssh_hosts: Hosts, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(AuthenticationRefused, match=r"no key of the agent or of ~/.ssh"):
        connect(ssh_hosts("node1").changed(key=None)).call("pass", 30)


def test_a_key_with_a_passphrase_is_left_to_the_agent(
    ssh_hosts: Hosts, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ssh_hosts("node1")
    key = tmp_path / "protected"
    key.write_bytes(host.key.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret words", "-f", str(key)], check=True)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(AuthenticationRefused, match=f"has a passphrase.*\n  run: ssh-add {key}"):
        connect(host.changed(key=key)).call("pass", 30)
    with _agent(host.key, tmp_path / "agent.sock"):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent.sock"))
        assert connect(host.changed(key=key)).call("pass", 30).status == 0


def test_a_server_that_hangs_up_after_too_many_keys_is_not_out_of_reach(
    ssh_hosts: Hosts, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [tmp_path / f"key{number}" for number in range(9)]  # sshd allows six tries
    for key in keys:
        keygen(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent.sock"))
    with _agent(keys[0], tmp_path / "agent.sock"):
        subprocess.run(["ssh-add", "-q", *keys[1:]], check=True, capture_output=True)
        with pytest.raises(AuthenticationRefused, match=r"offered keys, perhaps too many\n.*ssh\.key in hosts"):
            connect(ssh_hosts("node1").changed(key=None)).call("pass", 30)


@contextlib.contextmanager
def _agent(key: Path, path: Path) -> Iterator[None]:
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}

    def taken() -> bool:
        done = subprocess.run(["ssh-add", "-q", str(key)], env=environment, capture_output=True)
        return done.returncode == 0

    try:
        until(taken, "the agent to take the key")  # its socket is there before it listens
        yield
    finally:
        agent.terminate()
        agent.wait()


def unusable(tmp_path: Path, kind: str) -> Path:
    key = tmp_path / "key"
    if kind == "open":
        keygen(key)
        key.chmod(0o644)
    elif kind == "garbage":
        key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nnone\n-----END OPENSSH PRIVATE KEY-----\n")
        key.chmod(0o600)
    elif kind == "directory":
        key.mkdir()
    return key


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "cannot be used: No such file or directory\n  correct ssh.key"),
        ("open", "can be read by others\n  run: chmod 600"),
        ("garbage", "holds no private key that can be read"),
        ("directory", "cannot be read"),
    ],
)
def test_a_key_that_cannot_be_used_is_found_before_connecting(
    connect: Connect, tmp_path: Path, closed_port: int, kind: str, message: str
) -> None:
    options = SshOptions("127.0.0.1", port=closed_port, key=unusable(tmp_path, kind))
    with pytest.raises(AuthenticationRefused, match=message):
        connect(options).call("pass", 30)


def test_a_port_where_nobody_listens(connect: Connect, closed_port: int) -> None:
    refused = f"127.0.0.1 port {closed_port}: .*refused\n  check the address and port"
    with pytest.raises(UnreachableError, match=refused):
        connect(SshOptions("127.0.0.1", port=closed_port)).call("pass", 30)


def test_a_name_that_does_not_exist(connect: Connect) -> None:
    with pytest.raises(UnreachableError, match=r"the name nothing.invalid cannot be resolved"):
        connect(SshOptions("nothing.invalid")).call("pass", 30)


@contextlib.contextmanager
def _server(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    serve(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_a_server_that_says_nothing(connect: Connect, ssh_lab: Any) -> None:
    kept: list[socket.socket] = []
    with _server(kept.append) as port:
        options = SshOptions("127.0.0.1", port=port, key=ssh_lab.key, connect_timeout=0.5)
        with pytest.raises(UnreachableError, match=rf"127.0.0.1 port {port} does not answer within 0\.5 s"):
            connect(options).call("pass", 30)
    for connection in kept:
        connection.close()


class Mute(paramiko.ServerInterface):
    """Lets everybody in, and then waits: before it runs anything, or after its output has ended."""

    def __init__(self, runs: bool) -> None:
        self._runs = runs
        self.over = threading.Event()

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._runs:
            channel.shutdown_write()
        else:
            self.over.wait(60)
        return True


@pytest.mark.parametrize("runs", [False, True])
def test_a_server_that_goes_silent_ends_a_stream(
    connect: Connect, ssh_lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    monkeypatch.setattr("fleet.reach.ssh.SILENCE", 0.5)
    key, mute = paramiko.RSAKey.generate(2048), Mute(runs)

    def serve(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        transport.start_server(server=mute)

    with _server(serve) as port:
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")
        remote = connect(SshOptions("127.0.0.1", port=port, key=ssh_lab.key, known_hosts=known))
        found: list[Exception] = []

        def read() -> None:
            try:
                list(remote.stream("pass"))
            except ConnectionLost as error:
                found.append(error)

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        reading.join(30)
        mute.over.set()
    assert "no answer within 0.5 s" in str(found[0])


def test_a_server_that_is_busy_is_tried_again(ssh_hosts: Hosts, connect: Connect) -> None:
    """As sshd does above MaxStartups: it accepts, and hangs up without a word."""
    host = ssh_hosts("node1")
    visits: list[int] = []

    def serve(connection: socket.socket) -> None:
        visits.append(1)
        if len(visits) < 3:
            connection.close()
        else:
            _relay(connection, host.port)

    with _server(serve) as port:
        known = host.known_hosts.read_text().replace(f":{host.port} ", f":{port} ")
        host.known_hosts.write_text(known)
        assert connect(host.changed(port=port)).call("pass", 30).status == 0
    assert len(visits) == 3


def _relay(client: socket.socket, port: int) -> None:
    server = socket.create_connection(("127.0.0.1", port))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                target.sendall(block)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    threading.Thread(target=pump, args=(server, client), daemon=True).start()


def busy(begun: Path) -> str:
    """A program that makes a file when it has begun, and then takes longer than anybody waits."""
    return f"import time; open({str(begun)!r}, 'w').close(); time.sleep(100)"


@contextlib.contextmanager
def once_begun(begun: Path, do: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as such a program runs; whoever does it is gone at the end of the block."""
    over = threading.Event()

    def wait_and_do() -> None:
        while not begun.exists():
            if over.wait(0.02):
                return
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_connection_that_is_cut_in_the_middle(ssh_hosts: Hosts, connect: Connect) -> None:
    host = ssh_hosts("node1")
    remote = connect(host.options)
    assert remote.call("pass", 30).status == 0

    def cut() -> None:
        for session in host.sessions():
            for process in [*session.children(recursive=True), session]:
                # One may be gone by now, because its parent is.
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.name() == "sshd":
                        process.kill()

    with once_begun(host.home / "begun", cut), pytest.raises(ConnectionLost, match="the connection was lost"):
        remote.call(busy(host.home / "begun"), 30)
    assert remote.call("print('again')", 30).stdout.endswith(b"again\n")


def test_closing_ends_a_call_in_another_thread(ssh_hosts: Hosts, connect: Connect) -> None:
    host = ssh_hosts("node1")
    remote = connect(host.options)
    assert remote.call("pass", 30).status == 0
    with once_begun(host.home / "begun", remote.close), pytest.raises(ConnectionLost):
        remote.call(busy(host.home / "begun"), 60)


def test_what_was_closed_is_not_opened_again(ssh_hosts: Hosts, connect: Connect) -> None:
    """Else a host that is asked again and again would go on after Ctrl-C."""
    remote = connect(ssh_hosts("node1").options)
    remote.call("pass", 30)
    remote.close()
    for again in (lambda: remote.call("pass", 30), lambda: list(remote.stream("pass")), remote.connect):
        with pytest.raises(RemoteError, match="the connection was ended here") as caught:
            again()
        assert not isinstance(caught.value, ConnectionLost | UnreachableError)


def test_nothing_that_is_sent_is_seen_in_a_command_line(ssh_hosts: Hosts, connect: Connect) -> None:
    host = ssh_hosts("node1")
    remote = connect(host.options)
    begun, may_end = host.home / "begun", host.home / "may-end"
    seen: list[str] = []

    def watch() -> bool:
        is_last = begun.exists()  # then it runs while all are looked at
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                seen.append(" ".join(process.cmdline()))
        return is_last

    program = (
        f"password = 'kept secret'\nimport os, time\nopen({str(begun)!r}, 'w').close()\n"
        f"while not os.path.exists({str(may_end)!r}): time.sleep(0.02)"
    )
    call = threading.Thread(target=remote.call, args=(program, 60))
    call.start()
    try:
        until(watch, "the program to run while it is watched")
    finally:
        may_end.touch()
        call.join()
    assert any("sys.stdin" in line for line in seen)
    assert not any("kept secret" in line for line in seen)


def test_20_megabytes_arrive(ssh_hosts: Hosts, connect: Connect, tmp_path: Path) -> None:
    host = ssh_hosts("node1")
    source = tmp_path / "large"
    source.write_bytes(os.urandom(20 << 20))
    target = Path(host.base_dir) / "f" / "wheels" / "large file"
    progress: list[int] = []
    remote = connect(host.options)
    upload(remote, [Upload(source, str(target), 0o600)], lambda sent, total: progress.append(sent))
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert target.stat().st_mode & 0o777 == 0o600
    assert progress == sorted(progress)
    assert progress[-1] == 20 << 20
    assert remote.round_trips == 1


# Jump hosts and ~/.ssh/config --------------------------------------------------------------------------


def both_known(tmp_path: Path, *hosts: SshHost) -> Path:
    known = tmp_path / "known_hosts"
    known.write_text("".join(host.known_hosts.read_text() for host in hosts))
    return known


def test_a_host_behind_a_jump_host(ssh_hosts: Hosts, connect: Connect, tmp_path: Path) -> None:
    gateway, host = ssh_hosts("gateway"), ssh_hosts("node1")
    jump = f"{gateway.user}@127.0.0.1:{gateway.port}"
    remote = connect(host.changed(jump=jump, known_hosts=both_known(tmp_path, gateway, host)))
    assert remote.call("print('through')", 30).stdout.endswith(b"through\n")
    one_connection_to(gateway)


def test_the_key_of_a_jump_host_is_checked_too(ssh_hosts: Hosts, connect: Connect) -> None:
    gateway, host = ssh_hosts("gateway"), ssh_hosts("node1")
    with pytest.raises(UnknownHostKey, match=rf"\[127.0.0.1\]:{gateway.port} is not known"):
        connect(host.changed(jump=f"{gateway.user}@127.0.0.1:{gateway.port}")).call("pass", 30)


def test_a_jump_host_that_cannot_reach_the_host(ssh_hosts: Hosts, connect: Connect, closed_port: int) -> None:
    gateway = ssh_hosts("gateway")
    jump = f"{gateway.user}@127.0.0.1:{gateway.port}"
    refused = f"127.0.0.1 cannot reach 127.0.0.1 port {closed_port}: Connect failed"
    with pytest.raises(UnreachableError, match=refused):
        connect(gateway.changed(jump=jump, port=closed_port)).call("pass", 30)


def ssh_config(tmp_path: Path, gateway: SshHost, host: SshHost) -> Path:
    path = tmp_path / "config"
    path.write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {gateway.port}\n User {gateway.user}\n IdentityFile {gateway.key}\n"
        f"Host behind\n HostName 127.0.0.1\n Port {host.port}\n User {host.user}\n ProxyJump gate\n"
        f" IdentityFile {tmp_path}/none\n IdentityFile {host.key}\n"
    )
    return path


def test_the_users_ssh_config_is_honoured(ssh_hosts: Hosts, connect: Connect, tmp_path: Path) -> None:
    gateway, host = ssh_hosts("gateway"), ssh_hosts("node1")
    options = SshOptions(
        "behind", ssh_config=ssh_config(tmp_path, gateway, host), known_hosts=both_known(tmp_path, gateway, host)
    )
    assert connect(options).call("pass", 30).status == 0
    one_connection_to(gateway)
    with pytest.raises(UnknownHostKey, match=rf"\]:{gateway.port} is not known"):
        connect(replace(options, known_hosts=host.known_hosts)).call("pass", 30)


def test_an_ssh_config_that_cannot_be_read(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host\x00 = = =\nnonsense\n")
    with pytest.raises(RemoteError, match=r"the SSH configuration cannot be read: .*\n  correct .*config"):
        connect(SshOptions("127.0.0.1", ssh_config=tmp_path / "config")).call("pass", 30)
