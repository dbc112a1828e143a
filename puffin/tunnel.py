"""The way to a database behind a gateway: ``ssh -N -L`` as a child process, started again whenever it ends.

The local end stays the same for as long as the worker lives, so that all who connect (the worker, its jobs, the C++
driver in them) find the database again after a cut by doing what they do anyway: connecting again.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from puffin.errors import ConfigurationError, DatabaseUnavailable
from puffin.leftovers import MARK
from puffin.settings import GATEWAY, DatabaseSettings, Settings
from puffin.threads import LONGEST_JOIN_S, ends_the_process

_DATABASE_PORT = 27017
# Below the ports that the kernel gives to outgoing connections, which could take ours during a cut.
_LOCAL_PORTS = range(20_000, 32_768)
_PORT_TRIES = 100
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_STABLE_S = 10.0
_LOOK_S = 0.05
# Becomes ssh, and dies with the worker however that ends: prctl(PR_SET_PDEATHSIG, SIGKILL) outlives the exec. Not a
# preexec_fn, which would run Python code in a copy of a process with threads.
_BOUND_TO_PARENT = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("its worker is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
_CHANNEL = re.compile(r"^channel \d+: ")


@dataclass(frozen=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Gateway:
    """The host between here and the database; port 0 is what ssh's own configuration says, else 22."""

    user: str
    host: str
    port: int


def gateway_of(text: str) -> Gateway:
    """Take ``user@gateway[:port]`` apart.

    Parameters
    ----------
    text
        The setting ``database.ssh_tunnel``.

    Raises
    ------
    ConfigurationError
        It has another form.
    """
    found = GATEWAY.fullmatch(text)
    if not found:
        raise ConfigurationError(f"database.ssh_tunnel: must look like user@gateway or user@gateway:port, not {text!r}")
    return Gateway(found["user"], found["host"].strip("[]"), int(found["port"] or 0))


def database_address(settings: DatabaseSettings) -> Address:
    """Where the database is, as the gateway sees it.

    Parameters
    ----------
    settings
        The database section.

    Raises
    ------
    ConfigurationError
        It is not one host: ``mongodb+srv``, several hosts, or a socket file.
    """
    if not settings.uri:
        return Address(settings.ip.strip("[]"), settings.port)
    parts = urlsplit(settings.uri)
    hosts = parts.netloc.rpartition("@")[2]
    if parts.scheme == "mongodb+srv":
        problem = "mongodb+srv:// stands for several hosts"
    elif "," in hosts:
        problem = "it names several hosts"
    elif parts.scheme != "mongodb" or not hosts or "%2f" in hosts.lower():
        problem = "it must look like mongodb://host:port"
    else:
        with contextlib.suppress(ValueError):
            if parts.hostname:
                return Address(parts.hostname, parts.port or _DATABASE_PORT)
        problem = "it must look like mongodb://host:port"
    raise ConfigurationError(
        f"database.uri: {problem}; database.ssh_tunnel leads to one host: name the primary, or leave the tunnel out"
    )


def through(settings: DatabaseSettings, port: int) -> DatabaseSettings:
    """The settings of the same database seen through a tunnel.

    Parameters
    ----------
    settings
        The database section.
    port
        The tunnel's local end.

    Returns
    -------
    DatabaseSettings
        With ``uri`` leading to the local end; credentials and options are kept.
    """
    base = urlsplit(settings.uri or "mongodb://")
    login, at, _ = base.netloc.rpartition("@")
    query = base.query
    if "directconnection=" not in query.lower():
        # A member of a replica set tells its clients to go to addresses that only the gateway can reach.
        query += ("&" if query else "") + "directConnection=true"
    uri = f"mongodb://{login}{at}127.0.0.1:{port}{base.path or '/'}?{query}"
    return replace(settings, uri=uri, ssh_tunnel="")


def command(
    ssh: str, gateway: Gateway, database: Address, port: int, keys: Sequence[str], known_hosts: str
) -> list[str]:
    """The words that start ssh.

    Parameters
    ----------
    ssh
        Path of the program.
    gateway
        Where to log in.
    database
        Where the gateway is to connect to.
    port
        The local end.
    keys
        Private keys to log in with; none: those that ssh finds by itself.
    known_hosts
        File with the gateway's host key; empty: those that ssh finds by itself.
    """
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ExitOnForwardFailure=yes",
        "IdentitiesOnly=yes",
        "ConnectTimeout=10",
        # A cut is noticed well before a lease of a minute runs out.
        "ServerAliveInterval=5",
        "ServerAliveCountMax=3",
        # A master of the user's own would take the forwarding over and outlive this process.
        "ControlMaster=no",
        "ControlPath=none",
        "ForwardAgent=no",
        "ForwardX11=no",
        "PermitLocalCommand=no",
        *([f'UserKnownHostsFile="{_literal(known_hosts)}"'] if known_hosts else []),
    ]
    words = [ssh, "-N", "-T", "-n", *(word for option in options for word in ("-o", option))]
    words += [word for key in keys for word in ("-i", _literal(key))]
    words += ["-L", f"127.0.0.1:{port}:{database}", "-l", gateway.user]
    return [*words, *(["-p", str(gateway.port)] if gateway.port else []), "--", gateway.host]


def _literal(path: str) -> str:
    return path.replace("%", "%%")


class Tunnel:
    """Keeps ssh running.

    Parameters
    ----------
    words
        How to start it.
    route
        From where to where it leads, for people.
    say
        Told what goes wrong, in one line each; called from the tunnel's thread.
    """

    def __init__(self, words: Sequence[str], route: str, say: Callable[[str], None]) -> None:
        self.route = route
        self._words = words
        self._say = say
        self._complaint = ""
        self._has_failed = False
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="tunnel", daemon=True)

    @property
    def complaint(self) -> str:
        """What ssh said last; empty if nothing."""
        return self._complaint

    def start(self) -> None:
        """Start ssh; it is not ready yet when this returns."""
        self._thread.start()

    def close(self) -> None:
        """End ssh, for good."""
        self._closing.set()
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                # It leads a group of its own, with the commands that its configuration may start.
                os.killpg(self._process.pid, signal.SIGKILL)
        self._thread.join(LONGEST_JOIN_S)

    def wait_until_open(self, port: int, patience_s: float) -> None:
        """Wait until something listens at the local end.

        Parameters
        ----------
        port
            The local end.
        patience_s
            For how long, in seconds.

        Raises
        ------
        DatabaseUnavailable
            ssh ended, or took too long.
        """
        deadline = time.monotonic() + patience_s
        while not self._has_failed and time.monotonic() < deadline:
            if _is_open(port):
                return
            time.sleep(_LOOK_S)
        raise DatabaseUnavailable(
            f"database.ssh_tunnel: no tunnel {self.route}: {self._complaint or f'no answer for {patience_s:g} s'}"
        )

    @ends_the_process
    def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._closing.is_set():
            started = time.monotonic()
            reason = self._see_through()
            if self._closing.is_set():
                return
            if time.monotonic() - started >= _STABLE_S:
                pause = _FIRST_PAUSE_S
                self._complaint = ""
            self._complain(reason)
            self._has_failed = True
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _see_through(self) -> str:
        """Run ssh once; return why it ended."""
        with self._lock:
            if self._closing.is_set():
                return ""
            try:
                process = self._process = self._open()
            except OSError as error:
                return f"cannot start ssh: {error.strerror}"
        last = ""
        with process:
            for line in process.stderr or ():
                last = _CHANNEL.sub("", line.strip()) or last
                self._complain(last)
        return last or f"ssh ended with status {process.returncode}"

    def _open(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOUND_TO_PARENT, str(os.getpid()), *self._words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != MARK},  # it belongs to no job
        )

    def _complain(self, text: str) -> None:
        # What it says with every try would fill the log.
        if text != self._complaint:
            self._complaint = text
            self._say(f"tunnel {self.route}: {text}")


@contextmanager
def database_in_reach(
    settings: Settings, say: Callable[[str], None], patience_s: float = 0.0
) -> Iterator[DatabaseSettings]:
    """Keep a tunnel to the database for as long as the context lasts, if the settings ask for one.

    Parameters
    ----------
    settings
        The worker's settings.
    say
        Told, one line each, what goes wrong with the tunnel; called from another thread.
    patience_s
        How long to wait for the tunnel, in seconds; 0: not at all, whoever connects tries again by himself.

    Yields
    ------
    DatabaseSettings
        How to connect.

    Raises
    ------
    ConfigurationError
        There can be no tunnel with these settings.
    DatabaseUnavailable
        There was none within ``patience_s``; or raised inside the context, then with what ssh said last.
    """
    if not settings.database.ssh_tunnel:
        yield settings.database
        return
    port = _free_port()
    tunnel = _tunnel(settings, port, say)
    tunnel.start()
    try:
        if patience_s:
            tunnel.wait_until_open(port, patience_s)
        yield through(settings.database, port)
    except DatabaseUnavailable as error:
        if not tunnel.complaint or tunnel.complaint in str(error):
            raise
        raise DatabaseUnavailable(f"{error}; tunnel {tunnel.route}: {tunnel.complaint}") from error
    finally:
        tunnel.close()


def _tunnel(settings: Settings, port: int, say: Callable[[str], None]) -> Tunnel:
    database = settings.database
    gateway, address = gateway_of(database.ssh_tunnel), database_address(database)
    ssh = shutil.which("ssh")
    keys = [str(Path(key).expanduser().absolute()) for key in settings.resources.ssh_keys]
    known_hosts = str(Path(database.ssh_known_hosts).expanduser().absolute()) if database.ssh_known_hosts else ""
    problems = [] if ssh else ["database.ssh_tunnel: ssh is not installed or not on PATH: install OpenSSH's client"]
    problems += [f"resources.ssh_keys: cannot read {key}" for key in keys if not os.access(key, os.R_OK)]
    if known_hosts and not os.access(known_hosts, os.R_OK):
        problems.append(f"database.ssh_known_hosts: cannot read {known_hosts}")
    if problems or not ssh:
        raise ConfigurationError(*problems)
    words = command(ssh, gateway, address, port, keys, known_hosts)
    return Tunnel(words, f"to {address} through {database.ssh_tunnel}", say)


def _free_port() -> int:
    for _ in range(_PORT_TRIES):
        port = random.choice(_LOCAL_PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise DatabaseUnavailable(
        f"database.ssh_tunnel: no free port between {_LOCAL_PORTS.start} and {_LOCAL_PORTS.stop - 1} on this host"
    )


def _is_open(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
