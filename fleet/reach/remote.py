"""What a connection to a host can do, and the protocol of the programs sent over it. Pure.

A program is one text: the modules of `fleet.hostside` that an action needs, and the request. It goes to the
standard input of the host's own Python, so nothing is installed, no secret is ever in a command line, and
one exec is one round trip. Data, such as files, may follow it there. Its reply is one line of JSON after a
random marker.

Files do not travel by SFTP: where sshd runs an external sftp-server, a shell start-up file that prints
anything breaks it. The same exec as for everything else does not care.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from fleet.errors import FleetError, RemoteError

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = "fleet.hostside"
DEFAULT_PYTHON = "python3"

MOST_OUTPUT = 64_000_000
"""Bytes that a program may write to one of its outputs, or to a stream between two entries."""

MOST_NOISE = 1_000_000
"""Bytes of a line in a stream that is not one of ours."""

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
    """

    source: Path
    target: str
    mode: int = 0o644


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


_LOADER = "import sys; s = getattr(sys.stdin, 'buffer', sys.stdin); exec(s.read(int(s.readline())))"
"""Reads a program of a given length, so that data may follow it. Understood by every Python."""

PYTHON_ARGUMENTS = ("-I", "-S", "-c", _LOADER)
"""Isolated: neither the environment nor the user's site-packages bend what runs."""


def frame(program: str) -> bytes:
    """What goes to the standard input for a program, before any data."""
    text = program.encode()
    return b"%d\n%s" % (len(text), text)


def remote_command(python: str = DEFAULT_PYTHON) -> str:
    """The only command line ever run over SSH: the host's Python, reading its program from standard input.

    Parameters
    ----------
    python
        A name for PATH, or a path; a leading ``~/`` is the home directory on the host.
    """
    executable = f"~/{shlex.quote(python[2:])}" if python.startswith("~/") else shlex.quote(python)
    return f"exec {executable} {shlex.join(PYTHON_ARGUMENTS)}"


# The first lines must be readable by any Python, also version 2, so that an old one says so itself.
_BOOTSTRAP = """\
import sys
if sys.version_info < (3, 10):
    sys.stdout.write("\\n{marker} {too_old}\\n" % sys.version_info[:2])
    sys.stdout.flush()
    sys.exit(0)
import base64, json, types, zlib
modules, request = (json.loads(zlib.decompress(base64.b64decode(part))) for part in ("{modules}", "{request}"))
for name, text in modules:
    module = types.ModuleType(name)
    module.__path__ = []
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
common = sys.modules["{package}.common"]
action = sys.modules["{package}.{action}"]
common.run(action.main, request, "{marker}")
"""
_TOO_OLD = '{{\\"ok\\": false, \\"too_old\\": \\"%d.%d\\"}}'


_IMPORT = re.compile(rf"^from {re.escape(PACKAGE)}(?:\.(\w+))? import \(?([^)\n]*)", re.MULTILINE)
"""With the module's name, or without it and the names of modules; the latter stand on one line."""


def build_program(action: str, request: Mapping[str, Any], marker: str, source: Callable[[str], str]) -> str:
    """Build the text that does one action on a host.

    Parameters
    ----------
    action
        Name of a module of `fleet.hostside` with a function ``main(request)``.
    request
        Goes there as JSON.
    marker
        A random word without spaces, quotes or percent signs, before each line of the reply.
    source
        Gives the text of a module of that package, such as `fleet.hostside.source`.
    """
    return _BOOTSTRAP.format(
        marker=marker,
        modules=_modules(action, source),
        request=_packed(dict(request)),
        package=PACKAGE,
        action=action,
        too_old=_TOO_OLD.format(),
    )


@cache
def _modules(action: str, source: Callable[[str], str]) -> str:
    """The modules an action needs, packed once for all hosts."""
    modules = [("fleet", ""), (PACKAGE, "")]
    return _packed(modules + [(f"{PACKAGE}.{name}", source(name)) for name in _needed(action, source)])


def _packed(content: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(content).encode(), 6)).decode()


def _needed(action: str, source: Callable[[str], str]) -> list[str]:
    """The modules an action imports from its package, each after those that it imports itself."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for neighbour in _neighbours(source(name)):
                visit(neighbour)
            order.append(name)

    visit("common")
    visit(action)
    return order


def _neighbours(text: str) -> Iterator[str]:
    """Modules of the package that a module imports; as text, since ast.parse fails at times in several threads."""
    for module, names in _IMPORT.findall(text):
        yield from [module] if module else [name.strip() for name in names.split(",")]


def parse_reply(host: str, action: str, result: CommandResult, marker: str, python: str) -> dict[str, Any]:
    """Find the reply in the output of a program.

    Parameters
    ----------
    host
        Name of the host.
    action
        Name of the action, for messages.
    result
        What the program wrote, and its status.
    marker
        The word that stands before the reply.
    python
        The Python that was to run it, for messages.

    Raises
    ------
    NoPythonError
        The host has no Python, or only an old one.
    ActionFailed
        The program says that it could not do what was asked, or it ended without a reply.
    """
    step = action.replace("_", " ")
    for line in result.stdout.decode("utf-8", "replace").splitlines():
        if line.startswith(marker + " "):
            return _checked(host, step, _decode(host, step, line[len(marker) + 1 :]), python)
    if _python_is_missing(result):
        raise no_python(host, step, python)
    last = "\n".join(result.stderr.decode("utf-8", "replace").splitlines()[-5:])
    hint = f"the last lines it wrote to standard error:\n{last}" if last else ""
    raise ActionFailed(host, step, f"the program on the host ended without a reply (status {result.status})", hint)


def _decode(host: str, step: str, text: str) -> dict[str, Any]:
    try:
        reply = json.loads(text)
    except ValueError as error:
        raise ActionFailed(host, step, f"the reply is not JSON: {error}") from error
    if not isinstance(reply, dict):
        raise ActionFailed(host, step, "the reply is not a JSON object")
    return reply


def _checked(host: str, step: str, reply: dict[str, Any], python: str) -> dict[str, Any]:
    if reply.get("ok") is True:
        return reply
    if "too_old" in reply:
        raise no_python(host, step, python, f" (it is {reply['too_old']})")
    error = reply.get("error")
    if not isinstance(error, dict):
        raise ActionFailed(host, step, "the reply says neither that it worked nor why not")
    kind = NotNow if error.get("passing") else ActionFailed
    raise kind(host, str(error.get("step") or step), str(error.get("what", "")), str(error.get("hint", "")))


def _python_is_missing(result: CommandResult) -> bool:
    """Whether the shell could not start it: 127, and 1 in csh; status 2 is Python 2, which knows no `-I`."""
    if result.status == 1:
        return b"ommand not found" in result.stderr
    return result.status in (126, 127) or (result.status == 2 and b"nknown option" in result.stderr)


def no_python(host: str, step: str, python: str, found: str = "") -> NoPythonError:
    """The error for a host without a Python that can run our programs.

    Parameters
    ----------
    host
        Name of the host.
    step
        What was to be done.
    python
        The Python that was to do it, as a command.
    found
        What was found instead, in words that follow the host's name.
    """
    what = f"no Python >= 3.10 called {python!r} on {host}{found}"
    return NoPythonError(host, step, what, "install it or set release.python")


def endless(host: str) -> ActionFailed:
    """The error for a host that writes more than any of our programs does."""
    what = "the program on the host, or a start-up file before it, writes without end"
    return ActionFailed(host, "run", what, "look at the start-up files of its user's shell, such as ~/.bashrc")


def gather(host: str, read: Callable[[], bytes]) -> bytes:
    """Read an output to its end.

    Parameters
    ----------
    host
        The host that writes it.
    read
        Gives the next bytes of it; nothing at its end.

    Raises
    ------
    ActionFailed
        It seems to have no end, which would fill the memory of this machine.
    """
    blocks, size = [], 0
    while block := read():
        blocks.append(block)
        size += len(block)
        if size > MOST_OUTPUT:
            raise endless(host)
    return b"".join(blocks)


def parse_stream(host: str, action: str, chunks: Iterable[bytes], marker: str) -> Iterator[dict[str, Any]]:
    """Find the entries that a program writes one after the other; what is not one is noise and skipped.

    Parameters
    ----------
    host
        Name of the host.
    action
        Name of the action, for messages.
    chunks
        The output as it comes.
    marker
        The word that stands before each entry.

    Raises
    ------
    ActionFailed
        The program says that it could not do what was asked, or there is no end of noise.
    """
    step = action.replace("_", " ")
    start = marker.encode() + b" "
    for line in _lines(host, chunks, start):
        entry = _decode(host, step, line.decode("utf-8", "replace"))
        yield entry if "ok" not in entry else _checked(host, step, entry, DEFAULT_PYTHON)


def _lines(host: str, chunks: Iterable[bytes], start: bytes) -> Iterator[bytes]:
    """The lines that begin with a word, without it."""
    rest, noise = b"", 0
    try:
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                noise += len(line)
                if line.startswith(start):
                    noise = 0
                    yield line[len(start) :]
            if max(len(rest), noise) > MOST_OUTPUT or (len(rest) > MOST_NOISE and not rest.startswith(start)):
                raise endless(host)
    finally:
        if isinstance(chunks, Generator):
            chunks.close()  # now, and not when the last traceback is forgotten
