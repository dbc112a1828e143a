"""What programs on hosts answer: one reply, or a stream of entries. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from fleet.reach.remote import DEFAULT_PYTHON, ActionFailed, CommandResult, NoPythonError, NotNow

MOST_OUTPUT = 64_000_000
"""Bytes that a program may write to one of its outputs, or to a stream between two entries."""

MOST_NOISE = 1_000_000
"""Bytes of a line in a stream that is not one of ours."""


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
