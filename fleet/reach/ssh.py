"""Hosts reached by SSH. The only module that knows Fabric and paramiko, and all their errors end here.

Fabric gives the connections, jump hosts and ~/.ssh/config; its `run` is not used, since it feeds standard
input byte by byte. Fabric accepts any host key; here no connection is made to a host whose key is not known.
It is one module, however long, since connections, keys and errors are all in the drivers' terms, which no other
module shall know.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shlex
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import paramiko
from fabric import Config, Connection

from fleet.errors import RemoteError
from fleet.reach.answers import gather, no_python
from fleet.reach.packing import frame, remote_command
from fleet.reach.remote import (
    DEFAULT_PYTHON,
    ActionFailed,
    AuthenticationRefused,
    ChangedHostKey,
    CommandResult,
    ConnectionLost,
    UnknownHostKey,
    UnreachableError,
)
from fleet.reach.sending import SENDER_S, Receiver, Sender

STEP = "connect"
ATTEMPTS = 3
"""sshd drops some of many connections made at once (MaxStartups), and a jump host gets all of a fleet's."""

SILENCE = 60.0
"""Seconds without a word after which a stream is taken for lost; its program gives a sign every 10 s."""

_DEAD_AFTER_MS = 20_000
"""Milliseconds for which what was sent may stay unanswered by the host's kernel."""

_NOT_FOUND = 127
"""Exit status of a shell that finds no such program."""

_ENDS_WITHIN_S = 0.2

_BLOCK = 1 << 16

# Everything paramiko logs is also raised, and translated here; without a handler it would go to the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class SshOptions:
    """How to reach a host.

    Parameters
    ----------
    address
        Name or address; also an alias of ~/.ssh/config.
    user, port
        None: what ~/.ssh/config says, else this user and 22.
    key
        Private key; None: those of the agent and of ~/.ssh.
    jump
        Host to go through, as ``[user@]host[:port]``; None: what ~/.ssh/config says.
    known_hosts
        A file looked at before the user's and the system's.
    python
        The Python on the host.
    connect_timeout
        Seconds for each step of connecting.
    ssh_config
        Used instead of ~/.ssh/config and /etc/ssh/ssh_config.
    hosts_file
        The file that names the host, for advice.
    """

    address: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    jump: str | None = None
    known_hosts: Path | None = None
    python: str = DEFAULT_PYTHON
    connect_timeout: float = 10.0
    ssh_config: Path | None = None
    hosts_file: str = "hosts.yaml"

    def trust(self, name: str) -> str:
        """The command that records a host's key."""
        return f"puffin-fleet trust {shlex.quote(self.hosts_file)} --host {name}"


class _Refuse:
    """Refuses hosts without a known key, and says how to make it known."""

    def __init__(self, name: str, options: SshOptions) -> None:
        self._name = name
        self._options = options

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> NoReturn:
        raise UnknownHostKey(
            self._name,
            f"the host key of {hostname} is not known; it shows {key.get_name()} {key.fingerprint}",
            f"compare it with the host's own, then run: {self._options.trust(self._name)}",
            key.fingerprint,
            f"{hostname} {key.get_name()} {key.get_base64()}",
        )


class SshRemote:
    """A `fleet.reach.remote.Remote` over one SSH connection, made at the first use and kept.

    Parameters
    ----------
    name
        Name of the host in hosts.yaml.
    options
        How to reach it.
    """

    def __init__(self, name: str, options: SshOptions) -> None:
        self.name = name
        self.python = options.python
        self.round_trips = 0
        self._options = options
        self._chain: list[Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def connect(self) -> None:
        """See `fleet.reach.remote.Remote`; errors as in :meth:`call`."""
        with self._lock:
            self._connected()

    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        """See `fleet.reach.remote.Remote`.

        Raises
        ------
        UnreachableError, AuthenticationRefused, UnknownHostKey, ChangedHostKey
            No connection can be made.
        ConnectionLost
            It ended before the program did, or the program took too long.
        """
        with self._channel() as channel, _Alarm(channel, timeout) as alarm:
            try:
                channel.exec_command(remote_command(self.python))
                result = _exchange(self.name, channel, frame(program), data, alarm.put_off)
            except ActionFailed:
                # It writes without end: what is still on its way would hold up whatever is asked next.
                self._chain[0].close()
                raise
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise self._lost(alarm.rung, timeout) from error
            if alarm.rung or result.status < 0:
                raise self._lost(alarm.rung, timeout)
            return result

    def stream(self, program: str) -> Iterator[bytes]:
        """See `fleet.reach.remote.Remote`; closing the iterator ends the program on the host."""
        with self._channel() as channel:
            begun, ended = _Alarm(channel, SILENCE), _Alarm(channel, SILENCE)
            try:
                channel.settimeout(SILENCE)
                with begun:
                    channel.exec_command(remote_command(self.python))
                channel.sendall(frame(program))
                while chunk := channel.recv(_BLOCK):
                    yield chunk
                with ended:
                    status = channel.recv_exit_status()
            except (paramiko.SSHException, OSError, EOFError) as error:
                # Where there is no such Python the shell may have ended before it was sent anything.
                if not channel.exit_status_ready() or channel.recv_exit_status() != _NOT_FOUND:
                    raise self._lost(begun.rung or isinstance(error, TimeoutError), SILENCE) from error
                status = _NOT_FOUND
        if status == _NOT_FOUND:
            raise no_python(self.name, "run", self.python)
        if status < 0:
            raise self._lost(ended.rung, SILENCE)

    def close(self) -> None:
        """End the connection, and those to the jump hosts; none is made any more."""
        self._closed = True
        for connection in self._chain:
            connection.close()

    def _lost(self, late: bool, timeout: float) -> ConnectionLost:
        if late:
            return ConnectionLost(self.name, "run", f"no answer within {timeout:g} s", "try again")
        if self._chain and _lives(self._chain[0].transport):
            return ConnectionLost(self.name, "run", "the program on the host was killed", "try again")
        return ConnectionLost(self.name, "run", "the connection was lost", "try again: what is done stays done")

    @contextlib.contextmanager
    def _channel(self) -> Iterator[Any]:
        with self._lock:
            connection = self._connected()
        try:
            channel = connection.create_session()
        except (paramiko.SSHException, OSError, EOFError) as error:
            connection.close()  # so that the next call connects anew
            raise ConnectionLost(self.name, "run", "the host does not answer any more", "try again") from error
        self.round_trips += 1
        try:
            yield channel
        finally:
            with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
                channel.close()

    def _connected(self) -> Connection:
        self._refuse_closed()
        if not self._chain:
            self._chain = _connections(self.name, self._options)
        for connection in reversed(self._chain):  # the jump host first
            if not connection.is_connected:
                _open(self.name, connection, self._options)
        self._refuse_closed()
        return self._chain[0]

    def _refuse_closed(self) -> None:
        """Who waits for a host and asks again must come to an end, also where it was closed while it was opened."""
        if self._closed:
            self.close()
            raise RemoteError(
                self.name, STEP, "the connection was ended here", "the next run completes what is missing"
            )


def _lives(transport: Any) -> bool:
    """Whether a connection is still there; one that ends lets go of its channels first."""
    if transport is not None:
        transport.join(_ENDS_WITHIN_S)
    return transport is not None and bool(transport.is_active())


class _Alarm:
    """Closes a channel when time is up: some of paramiko's waits know no timeout of their own."""

    def __init__(self, channel: Any, seconds: float) -> None:
        self.rung = False
        self._channel = channel
        self._seconds = seconds
        self._deadline = 0.0
        self._over = threading.Event()

    def put_off(self) -> None:
        """Count anew: there was a sign of life."""
        self._deadline = time.monotonic() + self._seconds

    def _watch(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        self.rung = True
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            self._channel.close()

    def __enter__(self) -> _Alarm:
        self.put_off()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *details: object) -> None:
        self._over.set()


def _exchange(
    name: str, channel: Any, program: bytes, data: Iterable[bytes], taken: Callable[[], None]
) -> CommandResult:
    """Feed a program and read both its outputs at the same time, so that none of the three can block it."""
    receiver = Receiver(name, lambda: channel.recv_stderr(_BLOCK), channel.close)
    sender = Sender(channel.sendall, channel.shutdown_write, program, data, taken)
    receiver.start()
    sender.start()
    output = gather(name, lambda: bytes(channel.recv(_BLOCK)))
    status = channel.recv_exit_status()
    errors = receiver.result()
    channel.close()
    sender.join(SENDER_S)
    sender.check()
    return CommandResult(status, output, errors)


def _connections(name: str, options: SshOptions) -> list[Connection]:
    """The connection to the host, and those to its jump hosts, the nearest to us last."""
    config = _config(name, options)
    key = _load_key(name, options.key) if options.key is not None else None
    timeout = max(1, round(options.connect_timeout))
    jump = Connection(options.jump, config=config, connect_timeout=timeout) if options.jump else None
    connection = Connection(
        options.address, options.user, options.port, config=config, gateway=jump, connect_timeout=timeout
    )
    chain = [connection]
    while isinstance(chain[-1].gateway, Connection):
        chain.append(chain[-1].gateway)
    for link in chain:
        _secure(name, link, options, key)
    return chain


def _config(name: str, options: SshOptions) -> Config:
    try:
        if options.ssh_config is None:
            return Config()
        return Config(runtime_ssh_path=str(options.ssh_config))
    except (OSError, paramiko.SSHException) as error:
        hint = "correct ~/.ssh/config" if options.ssh_config is None else f"correct {options.ssh_config}"
        raise RemoteError(name, STEP, f"the SSH configuration cannot be read: {error}", hint) from error


def _secure(name: str, connection: Connection, options: SshOptions, key: paramiko.PKey | None) -> None:
    """Check host keys, and set what may be tried to get in; nothing ever asks for a password."""
    connection.client.set_missing_host_key_policy(_Refuse(name, options))
    for path in _known_hosts(options):
        _load_known_hosts(name, connection, path)
    connection.connect_kwargs = {
        "allow_agent": True,
        "look_for_keys": options.key is None,
        "banner_timeout": options.connect_timeout,
        "auth_timeout": options.connect_timeout,
        "channel_timeout": options.connect_timeout,
        "transport_factory": _transport,
    }
    if options.key is None or connection.original_host != options.address:
        files = [path for path in connection.ssh_config.get("identityfile", ()) if Path(path).is_file()]
        connection.connect_kwargs["key_filename"] = files
    if key is not None:
        connection.connect_kwargs["pkey"] = key


def _transport(*arguments: Any, **options: Any) -> paramiko.Transport:
    """As paramiko makes it, but with the ciphers first that check what they encrypt: an upload costs half the time."""
    transport = paramiko.Transport(*arguments, **options)
    choices = transport.get_security_options()
    choices.ciphers = sorted(choices.ciphers, key=lambda name: "gcm" not in name)
    return transport


def _known_hosts(options: SshOptions) -> list[Path]:
    """The files with the keys of hosts that are there."""
    places = (options.known_hosts, Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))
    return [path.expanduser() for path in places if path is not None and path.expanduser().is_file()]


def _load_known_hosts(name: str, connection: Connection, path: Path) -> None:
    try:
        connection.client.load_system_host_keys(str(path))
    except (OSError, paramiko.SSHException, paramiko.hostkeys.InvalidHostKey) as error:
        raise RemoteError(name, STEP, f"{path} cannot be read: {error}", "correct or remove it") from error


def _load_key(name: str, configured: Path) -> paramiko.PKey | None:
    """Read a private key; None where only the agent can use it, since it has a passphrase."""
    path = configured.expanduser()
    _check_key_file(name, path)
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError):
        return None  # TypeError is how the cryptography library says that it needs a passphrase
    except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        hint = "set ssh.key to a private key, as ssh-keygen makes it"
        raise AuthenticationRefused(name, STEP, f"{path} holds no private key that can be read", hint) from error


def _check_key_file(name: str, path: Path) -> None:
    """As ssh does: a private key must be there, readable for us, and for nobody else."""
    try:
        status = path.stat()
    except OSError as error:
        what = f"the private key {path} cannot be used: {error.strerror}"
        raise AuthenticationRefused(name, STEP, what, "correct ssh.key") from error
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.R_OK):
        what = f"the private key {path} cannot be read"
        raise AuthenticationRefused(name, STEP, what, "check ssh.key and its permissions")
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        what = f"the private key {path} can be read by others"
        raise AuthenticationRefused(name, STEP, what, f"run: chmod 600 {path}")


def _open(name: str, connection: Connection, options: SshOptions) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            connection.open()
        except (ConnectionResetError, EOFError, paramiko.SSHException) as error:
            trouble = _hung_up(connection, error) or error
            connection.client.close()
            if attempt == ATTEMPTS or not _may_pass(trouble):
                raise _translated(name, connection, options, trouble) from error
        except OSError as error:
            connection.client.close()
            raise _translated(name, connection, options, error) from error
        except RemoteError:
            connection.client.close()
            raise
        else:
            _notice_silence(connection.transport)
            return
        time.sleep(random.uniform(0.1, 0.25) * 2**attempt)  # noqa: S311 - spreads the load, guards nothing


def _notice_silence(transport: Any) -> None:
    """Have a connection to a host without power end soon, instead of when the system gives up after many minutes."""
    transport.set_keepalive(15)
    # Through a jump host it is a channel, and the connection below it notices.
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_MS)


def _may_pass(error: Exception) -> bool:
    """Whether sshd may only have been too busy: it hung up before it said who it is."""
    if isinstance(error, paramiko.SSHException):
        return "banner" in str(error)
    return not isinstance(error, (TimeoutError, _HungUp))


class _HungUp(Exception):
    """sshd ended the connection while it was offered keys."""


def _hung_up(connection: Connection, error: Exception) -> Exception | None:
    """What paramiko meant: time was up before there was a session, or sshd ended it.

    It goes on to offer keys where there is no session, and then says so. That is so where the time for the first line
    of sshd, or for agreeing on keys, was over; and where sshd had enough of the keys that were offered.
    """
    if "banner" in str(error) and isinstance(error.__context__, TimeoutError):
        return error.__context__
    if str(error) != "No existing session":
        return None
    transport = connection.client.get_transport()
    return _HungUp() if transport is not None and transport.initial_kex_done else TimeoutError()


def _translated(name: str, connection: Connection, options: SshOptions, error: Exception) -> RemoteError:
    """Say in words what went wrong while connecting."""
    if isinstance(error, paramiko.BadHostKeyException):
        return _changed(name, connection, options, error)
    if isinstance(error, paramiko.AuthenticationException) or "authentication methods" in str(error):
        return _refused(name, connection, options)
    if isinstance(error, _HungUp):
        what = f"{connection.host} port {connection.port} hung up while it was offered keys, perhaps too many"
        hint = "name the right one: ssh.key in hosts.yaml, or IdentityFile with IdentitiesOnly in ~/.ssh/config"
        if options.key is not None:
            hint = "see sshd's log on the host: journalctl -u ssh, or /var/log/auth.log"
        return AuthenticationRefused(name, STEP, what, hint)
    hint = f"check the address and port in {options.hosts_file}, and that sshd runs there"
    return UnreachableError(name, STEP, _unreachable(connection, options, error), hint)


def _unreachable(connection: Connection, options: SshOptions, error: Exception) -> str:
    place = f"{connection.host} port {connection.port}"
    if isinstance(error, socket.gaierror):
        return f"the name {connection.host} cannot be resolved"
    if isinstance(error, TimeoutError):
        return f"{place} does not answer within {options.connect_timeout:g} s"
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        reasons = {(inner.strerror or str(inner)).lower() for inner in error.errors.values()}
        return f"{place}: {', '.join(sorted(reasons))}"
    if isinstance(error, paramiko.ChannelException):
        gateway = connection.gateway.host if isinstance(connection.gateway, Connection) else "the jump host"
        return f"{gateway} cannot reach {place}: {error.text}"
    return f"{place}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"


def _changed(
    name: str, connection: Connection, options: SshOptions, error: paramiko.BadHostKeyException
) -> ChangedHostKey:
    key, expected = error.key, error.expected_key
    port = connection.port
    hostname = connection.host if port == 22 else f"[{connection.host}]:{port}"
    return ChangedHostKey(
        name,
        f"THE HOST KEY OF {hostname} HAS CHANGED: it shows {key.get_name()} {key.fingerprint}, "
        f"known is {expected.get_name()} {expected.fingerprint}. Somebody may be listening in",
        "nothing was sent. If the host was installed anew, make sure of that, remove its old key with: "
        f"{_removal(hostname, options)}, then run: {options.trust(name)}",
        key.fingerprint,
        f"{hostname} {key.get_name()} {key.get_base64()}",
    )


def _removal(hostname: str, options: SshOptions) -> str:
    """The command that removes a host's key from the files in which it is; without -f ssh-keygen looks in one alone."""
    files = [path for path in _known_hosts(options) if paramiko.HostKeys(str(path)).lookup(hostname)]
    return " and ".join(f"ssh-keygen -R {shlex.quote(hostname)} -f {shlex.quote(str(path))}" for path in files)


def _refused(name: str, connection: Connection, options: SshOptions) -> AuthenticationRefused:
    place = f"{connection.host} port {connection.port}"
    if options.key is None:
        tried = "no key of the agent or of ~/.ssh"
        hint = "set ssh.key, or add a key to the agent with ssh-add"
    elif "pkey" not in connection.connect_kwargs:
        tried = f"the key {options.key} has a passphrase, and no key of the agent"
        hint = f"run: ssh-add {options.key}"
    else:
        tried = f"neither the key {options.key} nor any of the agent"
        hint = f"check the user, and that {options.key}.pub is in ~/.ssh/authorized_keys on the host"
    return AuthenticationRefused(name, STEP, f"{place} refuses user {connection.user}: {tried} is accepted", hint)
