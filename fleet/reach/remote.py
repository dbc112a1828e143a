"""What a connection to a host can do, what comes of it, and how it can fail. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from fleet.errors import FleetError, RemoteError

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_PYTHON = "python3"

Value = TypeVar("Value")
Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the bytes in all."""


@dataclass(frozen=True)
class CommandResult:
    """How a program on a host ended.

    Parameters
    ----------
    status
        Its exit status.
    stdout, stderr
        What it wrote.
    """

    status: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Upload:
    """A file to send.

    Parameters
    ----------
    source
        Where it is on this machine.
    target
        Its absolute path on the host.
    mode
        Its permissions there, from the start.
    packed
        Whether the source is packed by zlib; it is unpacked on the host.
    """

    source: Path
    target: str
    mode: int = 0o644
    packed: bool = False


@dataclass(frozen=True)
class HostResult(Generic[Value]):
    """What came of one host: a value, or the error that ended its part.

    Parameters
    ----------
    host
        Its name in hosts.yaml.
    value
        What the function returned; None where `error` is set.
    error
        Why there is no value.
    seconds
        How long it took.
    """

    host: str
    value: Value | None = None
    error: FleetError | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it worked."""
        return self.error is None


class Remote(Protocol):
    """One host, reached in whatever way. Opened by its first use; errors are `RemoteError`."""

    @property
    def name(self) -> str:
        """Name of the host in hosts.yaml."""

    @property
    def round_trips(self) -> int:
        """Programs run and files sent so far."""

    @property
    def python(self) -> str:
        """The Python on the host, as configured."""

    def connect(self) -> None:
        """Make the connection now, instead of at its first use."""

    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        """Run a program to its end; `data` follows it on its standard input.

        It may take `timeout` seconds from its beginning, or from when the host has taken the last block of data.
        """

    def stream(self, program: str) -> Iterator[bytes]:
        """Run a program and give its output as it comes, until it ends or this iterator is closed."""

    def close(self) -> None:
        """End the connection. Calls that are under way in other threads fail."""


class UnreachableError(RemoteError):
    """No connection: wrong address, nobody listening, no answer in time."""


class ConnectionLost(RemoteError):
    """The connection ended, or the host was silent for too long, in the middle of something."""


class AuthenticationRefused(RemoteError):
    """The host does not let this user in, or there is no usable key to try."""


class HostKeyError(RemoteError):
    """The host's key is not the one that is known, or none is known.

    Parameters
    ----------
    fingerprint
        Of the key that the host showed, as ssh-keygen prints it.
    known_hosts_line
        The line that would make this key known.
    """

    def __init__(self, host: str, what: str, hint: str, fingerprint: str, known_hosts_line: str) -> None:
        super().__init__(host, "connect", what, hint)
        self.fingerprint = fingerprint
        self.known_hosts_line = known_hosts_line


class UnknownHostKey(HostKeyError):
    """Nothing is known about this host's key."""


class ChangedHostKey(HostKeyError):
    """Another key is known for this host: it was installed anew, or somebody is in between."""


class NoPythonError(RemoteError):
    """The host has no Python that can run our programs."""


class ActionFailed(RemoteError):
    """The program ran on the host, and said what it could not do."""


class NotNow(ActionFailed):
    """The host could not do it now, and may in a moment: supervisord did not answer."""
