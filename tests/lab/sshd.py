"""Hosts on this machine: a real sshd on a loopback port each, with its own home directory and host key.

As root, one logs in as an unprivileged user made for this; else as oneself.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from fleet.reach.ssh import SshOptions
from tests.lab.requirements import missing

LAB_USER = "puffin-lab"
NOISE = """\
echo "Welcome to this cluster! Today's message: 100% \\"quoted\\""
echo '{"ok": false}'
echo "a warning" >&2
"""


def find_sshd() -> str:
    """sshd must be started by its absolute path, and is not on everybody's PATH."""
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None or shutil.which("ssh-keygen") is None:
        missing("sshd is not installed: apt-get install openssh-server")
    return found


def lab_user() -> str:
    """The user to log in as; made on the first use where we are root."""
    if os.getuid() != 0:
        return getpass.getuser()
    try:
        pwd.getpwnam(LAB_USER)
    except KeyError:
        # "*" is no password; "!" would be a locked account, which sshd refuses without PAM
        words = ["useradd", "--system", "--create-home", "--shell", "/bin/bash", "--password", "*", LAB_USER]
        made = subprocess.run(words, capture_output=True, text=True)
        if made.returncode != 0:
            _wait_for_lab_user(made.stderr)
    return LAB_USER


def _wait_for_lab_user(error: str) -> None:
    """Of several processes that run tests at the same time one makes the user, and the others are refused."""
    deadline = time.monotonic() + 20
    while LAB_USER not in (entry.pw_name for entry in pwd.getpwall()):
        if time.monotonic() >= deadline:
            raise RuntimeError(f"the user {LAB_USER} cannot be made: {error}")
        time.sleep(0.1)


class BehindSshd:
    """A host of a test, with all that is needed to log in."""

    @property
    def options(self: Any) -> SshOptions:
        return SshOptions(
            address=self.address,
            user=self.user,
            port=self.port,
            key=self.key,
            known_hosts=self.known_hosts,
            ssh_config=self.ssh_config,
            python="/usr/bin/python3",  # whatever else this machine has, the lab user can read this one
        )

    def changed(self, **changes: Any) -> SshOptions:
        """Its options, but for some."""
        return replace(self.options, **changes)


@dataclass(frozen=True)
class SshHost(BehindSshd):
    """One host: how to reach it, and where it keeps its things."""

    name: str
    address: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    ssh_config: Path
    home: Path
    base_dir: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def own(self, path: Path) -> Path:
        """Give a file made by the test to the user of this host."""
        if os.getuid() == 0:
            shutil.chown(path, self.user, pwd.getpwnam(self.user).pw_gid)
        return path

    def sessions(self) -> list[psutil.Process]:
        """The processes that serve connections to this host."""
        return psutil.Process(self.process.pid).children()


class Lab:
    """A directory for hosts, and all that runs in it.

    Parameters
    ----------
    sshd
        Path of sshd.
    """

    def __init__(self, sshd: str) -> None:
        self._sshd = sshd
        self.root = Path(tempfile.mkdtemp(prefix="puffin-lab-"))
        self.root.chmod(0o755)
        self.user = lab_user()
        self.key = self.root / "client_key"
        self.ssh_config = self.root / "empty_ssh_config"
        self.ssh_config.touch()
        keygen(self.key)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    def host(self, name: str, base: str = "my pool") -> SshHost:
        """Start a host; `base` is the name of its base_dir in its home directory."""
        place = self.root / name
        home = place / "home"
        home.mkdir(parents=True)
        (place / "tmp").mkdir()
        for start_up in (".bashrc", ".profile", ".zshenv"):
            (home / start_up).write_text(NOISE)
        for path in (home, *home.iterdir(), place / "tmp"):
            if os.getuid() == 0:
                shutil.chown(path, self.user, pwd.getpwnam(self.user).pw_gid)
        public = keygen(place / "host_key")
        process, port = self._start(place, home)
        known = place / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {public}\n")
        return SshHost(
            name=name,
            address="127.0.0.1",
            port=port,
            user=self.user,
            key=self.key,
            known_hosts=known,
            ssh_config=self.ssh_config,
            home=home,
            base_dir=str(home / base),
            process=process,
        )

    def _start(self, place: Path, home: Path) -> tuple[subprocess.Popen[bytes], int]:
        for _ in range(5):
            port = free_port()
            self._write_configuration(place, home, port)
            process = subprocess.Popen(
                [self._sshd, "-D", "-f", str(place / "sshd_config"), "-E", str(place / "sshd.log")],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            if _answers(process, port):
                return process, port
            process.kill()
            process.wait()
        raise RuntimeError(f"sshd does not start:\n{(place / 'sshd.log').read_text()}")

    def _write_configuration(self, place: Path, home: Path, port: int) -> None:
        shutil.copy(self.key.with_suffix(".pub"), place / "authorized_keys")
        configuration = place / "sshd_config"
        text = f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host_key
PidFile {place}/sshd.pid
AuthorizedKeysFile {place}/authorized_keys
AllowUsers {self.user}
StrictModes no
UsePAM no
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
MaxStartups 100:30:200
LogLevel VERBOSE
SetEnv HOME={home} TMPDIR={place}/tmp
"""
        # From OpenSSH 9.8 on, an address that fails to log in is shut out for a while.
        configuration.write_text(text + "PerSourcePenalties no\n")
        if subprocess.run([self._sshd, "-t", "-f", configuration], capture_output=True).returncode != 0:
            configuration.write_text(text)

    def close(self) -> None:
        """End everything that was started in this laboratory, and remove it."""
        end_processes(self.root)
        shutil.rmtree(self.root, ignore_errors=True)

    def remove(self, host: SshHost) -> None:
        """End everything of one host, and remove it."""
        end_processes(self.root / host.name)
        host.process.wait()
        shutil.rmtree(self.root / host.name, ignore_errors=True)


def keygen(path: Path) -> str:
    """Make a key pair; give the public key."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    return path.with_suffix(".pub").read_text().strip()


def free_port() -> int:
    """A loopback port on which nobody listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A loopback port on which nobody listens, nor can meanwhile: one that is only free may soon be another test's."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield int(kept.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            time.sleep(0.02)
    return False


def end_processes(place: Path) -> None:
    """End the processes that were started with something below a directory of ours, by their ids."""
    for _ in range(50):
        found = processes_in(place)
        if not found:
            return
        # supervisord goes first: it would start the others again
        supervisors = [process for process in found if _is_supervisord(process)]
        for process in supervisors or found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(supervisors or found, timeout=0.2)


def _is_supervisord(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(word.endswith("/supervisord") for word in process.cmdline())
    return False


def processes_in(place: Path) -> list[psutil.Process]:
    """Processes whose command line or home directory lies below a directory."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in ours and _is_in(process, place)]


def _is_in(process: psutil.Process, place: Path) -> bool:
    prefix = f"{place}/"
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if any(prefix in word for word in process.cmdline()):
            return True
        return process.environ().get("HOME", "").startswith(prefix)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
