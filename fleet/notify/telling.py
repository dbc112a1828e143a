"""Tells one hook of one notice: runs a command, or posts to a URL.

A URL may be a secret in itself, as those of chat services are: nothing that is said here holds more of it than the
host.
"""

from __future__ import annotations

import hashlib
import html
import http
import http.client
import json
import os
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from fleet.deployment.hooks import FILE_VARIABLE, check_hooks, path_of
from fleet.errors import FleetError, InventoryError, Problem
from fleet.hosts.inventory import Fleet
from fleet.hosts.values import HookTarget, is_url
from fleet.notify.notices import Kind, Notice, to_json, variables
from puffin import __version__

COMMAND_TIMEOUT_S = 60.0
WEBHOOK_TIMEOUT_S = 10.0
_END_S = 2.0
_LAST_BYTES = 300


class NotTold(FleetError):
    """A hook could not be told; the message says why, without its address."""


class Caller(Protocol):
    """Tells one hook."""

    @property
    def label(self) -> str:
        """What it is, for people."""

    def tell(self, notice: Notice) -> None:
        """Tell it.

        Parameters
        ----------
        notice
            Of what.

        Raises
        ------
        NotTold
            That did not work.
        """

    def close(self) -> None:
        """End what is under way."""


class CommandHook:
    """A program of the operator's. It finds the notice as JSON on its standard input.

    Parameters
    ----------
    path
        The program.
    file
        Path of hosts.yaml, in whose directory it runs.
    timeout_s
        How long it may take, in seconds.
    """

    def __init__(self, path: Path, file: Path, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self._path = path
        self._file = file
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def label(self) -> str:
        """What it is, for people."""
        return str(self._path)

    def tell(self, notice: Notice) -> None:
        """Run it; see :class:`Caller`."""
        # Files, not pipes: what it leaves running in the background is not waited for.
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
            told.write(json.dumps(to_json(notice), ensure_ascii=False).encode() + b"\n")
            told.seek(0)
            process = self._start(notice, told, said)
            try:
                status = process.wait(self._timeout_s)
            except subprocess.TimeoutExpired as error:
                raise NotTold(f"it did not end within {self._timeout_s:g} s, and was ended") from error
            finally:
                self._running = None
                _end(process)
            if status != 0:
                how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
                raise NotTold(f"it {how}{_last_line(said)}")

    def close(self) -> None:
        """End it if it runs."""
        with self._lock:
            self._closed = True
            if self._running is not None:
                _end(self._running)

    def _start(self, notice: Notice, told: IO[bytes], said: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise NotTold("the notifier is ending")
            try:
                self._running = subprocess.Popen(
                    [str(self._path)],
                    env={**os.environ, FILE_VARIABLE: str(self._file), **variables(notice)},
                    cwd=self._file.parent,
                    stdin=told,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise NotTold(f"it cannot be started: {error.strerror or error}") from error
            return self._running


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _last_line(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _LAST_BYTES))
    lines = said.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"; its last line: {last}" if last else ""


@dataclass(frozen=True)
class Webhook:
    """A URL that gets the notice as JSON.

    Parameters
    ----------
    url
        The URL; empty if it is in a file.
    file
        The file with it, read anew each time.
    timeout_s
        How long connecting, and each answer, may take, in seconds.
    """

    url: str
    file: Path | None = None
    timeout_s: float = WEBHOOK_TIMEOUT_S

    def __repr__(self) -> str:
        return f"Webhook({self.label})"

    @property
    def label(self) -> str:
        """What it is, for people."""
        return host_of(self.url) if self.file is None else f"url_file {self.file}"

    def close(self) -> None:
        """Nothing: it ends by itself before long."""

    def tell(self, notice: Notice) -> None:
        """Post it; see :class:`Caller`."""
        request = urllib.request.Request(  # noqa: S310 - is_url lets http and https through alone
            self._address(),
            data=json.dumps(_posted(notice)).encode(),
            headers={"Content-Type": "application/json", "User-Agent": f"puffin-fleet/{__version__}"},
            method="POST",
        )
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout_s):
                return
        # What these say of themselves may hold the URL: only what is known not to is passed on.
        except urllib.error.HTTPError as error:
            raise NotTold(f"it answered {error.code}{_phrase(error.code)}") from None
        except urllib.error.URLError as error:
            raise NotTold(f"it cannot be reached: {_reason(error.reason)}") from None
        except TimeoutError:
            raise NotTold(f"it did not answer within {self.timeout_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotTold(f"it does not answer as a webhook: {type(error).__name__}") from None

    def _address(self) -> str:
        if self.file is None:
            return self.url
        try:
            address = self.file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NotTold(f"{self.file} cannot be read: {getattr(error, 'strerror', 'it is not text')}") from error
        if not is_url(address):
            raise NotTold(f"{self.file} holds no URL such as https://host/path")
        return address


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and the notice would be lost without a word."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _posted(notice: Notice) -> dict[str, Any]:
    # Chat services take <!channel> or <http://...> for more than text; what a calculation wrote must not.
    return {**to_json(notice), "text": html.escape(notice.text, quote=False)}


def _phrase(code: int) -> str:
    with suppress(ValueError):
        return f" {http.HTTPStatus(code).phrase}"
    return ""


def _reason(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return (reason.strerror if isinstance(reason, OSError) else "") or type(reason).__name__


def host_of(url: str) -> str:
    """As much of a URL as may be shown.

    Parameters
    ----------
    url
        The URL.
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."


# What hosts.yaml names ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hooked:
    """The hooks on events of a fleet.

    Parameters
    ----------
    targets
        By kind, the names of its hooks.
    callers
        By name, how to tell it.
    """

    targets: Mapping[Kind, tuple[str, ...]]
    callers: Mapping[str, Caller]


def hooks_on_events(fleet: Fleet) -> Hooked:
    """The hooks on events that hosts.yaml names, after a look at whether they can be told at all.

    Parameters
    ----------
    fleet
        The fleet.

    Raises
    ------
    InventoryError
        A command is no file or cannot be executed, or a file with a URL cannot be read; all of them at once.
    """
    targets: dict[Kind, tuple[str, ...]] = {}
    callers: dict[str, Caller] = {}
    problems: list[Problem] = []
    for kind in Kind:
        for target in getattr(fleet.hooks, kind.value):
            name = _name(kind, target)
            targets[kind] = (*targets.get(kind, ()), name)
            callers[name], wrong = _caller(fleet, target)
            if wrong:
                path = f"hooks.{kind.value}"
                source, line = fleet.places.get(path, (fleet.source, None))
                problems.append(Problem(wrong, path, source, line))
    if problems:
        raise InventoryError(tuple(problems))
    return Hooked(targets, callers)


def problems_of_hooks(fleet: Fleet) -> tuple[Problem, ...]:
    """What is wrong with the hooks of a fleet, those around a deploy and those on events.

    Parameters
    ----------
    fleet
        The fleet.
    """
    problems: list[Problem] = []
    for look in (check_hooks, hooks_on_events):
        try:
            look(fleet)
        except InventoryError as error:
            problems += error.problems
    return tuple(problems)


def _name(kind: Kind, target: HookTarget) -> str:
    """The same from run to run, and says nothing of the address: it is written into the database."""
    address = "\n".join((target.command, target.url, target.url_file))
    return f"{kind.value} {hashlib.sha256(address.encode()).hexdigest()[:16]}"


def _caller(fleet: Fleet, target: HookTarget) -> tuple[Caller, str]:
    if target.url:
        return Webhook(target.url), ""
    # Links stay.
    path = Path(os.path.abspath(path_of(fleet).parent / Path(target.command or target.url_file).expanduser()))  # noqa: PTH100
    if target.url_file:
        return Webhook("", path), "" if os.access(path, os.R_OK) else f"url_file {path} cannot be read"
    if not path.is_file():
        return CommandHook(path, path_of(fleet)), f"no file {path}"
    wrong = "" if os.access(path, os.X_OK) else f"{path} cannot be executed: 'chmod +x' it"
    return CommandHook(path, path_of(fleet)), wrong
