"""Action `command`: run a command of the operator's, and send what it says as it says it.

Request: base_dir, fleet, host, words [command, arguments], shell (bool: one text for /bin/sh), as_worker (a worker
whose environment, settings and release it gets, or null), timeout (s, or null).
Reply, as a stream: `<marker> {stream: "out"|"err", text}` as it comes, `<marker> {heartbeat: true}` in between, and
last `<marker> {ok, status, seconds, timed_out}`. A status below 0 is the number of the signal that ended it.

Its standard input is closed. It runs in a session of its own, which ends with it, with its time, and when nobody
listens any more.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from fleet.hostside.common import Failure, Json, clean_environment, expand, os_failure, plain_name
from fleet.hostside.places import host_root, link_name

STEP = "running the command"
_HEARTBEAT_S = 10.0
_LOOK_S = 0.2
_GRACE_S = 3.0
_BLOCK = 1 << 16
_OF_A_SHELL = " \t\n;|&<>()$`*?\"'~"


class Gone(Exception):
    """Nobody listens any more."""


def main(request: Json) -> Json:
    """Run it to its end.

    Parameters
    ----------
    request
        As this module says; so is the reply.

    Raises
    ------
    Failure
        The command cannot be started, or there is no such worker.
    """
    began = time.monotonic()
    process = _begin(request)
    limit = request.get("timeout")
    timed_out = False
    try:
        timed_out = _relay(process, request["marker"], None if limit is None else began + float(limit))
    except (Gone, BrokenPipeError):
        _end(process)
        os._exit(0)
    _end(process)
    return {"status": process.wait(), "seconds": time.monotonic() - began, "timed_out": timed_out}


def _begin(request: Json) -> subprocess.Popen[bytes]:
    words = [str(word) for word in request["words"]]
    if request.get("shell"):
        words = ["/bin/sh", "-c", *words]
    environment = clean_environment(os.environ)
    if request.get("as_worker"):
        root, worker = host_root(request), plain_name(request["as_worker"])
        words = _as_worker(root, worker, words)
        # So that 'puffin' without -c is that worker's.
        environment["PUFFIN_CONFIG"] = str(_settings_of(root, worker))
        environment["PUFFIN_RELEASE"] = link_name(root / "current") or ""
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=expand("~"),
            env=environment,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        hint = "see whether it is installed and in PATH"
        if any(sign in words[0] for sign in _OF_A_SHELL):
            hint = "no shell looks at it: say --shell for text with spaces or signs such as ; | * $"
        raise Failure(f"no command {words[0]!r} here", STEP, hint) from error
    except OSError as error:
        raise os_failure(error, STEP, words[0]) from error


def _as_worker(root: Path, worker: str, words: list[str]) -> list[str]:
    """What bin/worker does before it becomes the worker: its environment, and its release first in PATH."""
    if not _settings_of(root, worker).is_file():
        raise Failure(f"there is no worker {worker} in {root}", STEP, "'puffin-fleet status' shows the workers")
    script = 'if [ -r "$1" ]; then . "$1"; fi; PATH=$2/current/bin:$PATH; export PATH; shift 2; exec "$@"'
    return ["/bin/sh", "-c", script, "sh", str(root / "etc/workers" / f"{worker}.env"), str(root), *words]


def _settings_of(root: Path, worker: str) -> Path:
    return root / "etc/workers" / f"{worker}.yaml"


def _relay(process: subprocess.Popen[bytes], marker: str, deadline: float | None) -> bool:
    """Send what it says until it has ended and said all; return whether its time was over before."""
    assert process.stdout is not None  # noqa: S101 - these are pipes
    assert process.stderr is not None  # noqa: S101 - likewise
    decoder = codecs.getincrementaldecoder("utf-8")
    streams: dict[IO[bytes], tuple[str, codecs.IncrementalDecoder]] = {
        process.stdout: ("out", decoder("replace")),
        process.stderr: ("err", decoder("replace")),
    }
    listener = select.poll()
    listener.register(sys.stdout.fileno(), select.POLLERR | select.POLLHUP)
    listener.register(sys.stdin.fileno(), select.POLLIN)  # nothing is sent any more: it can only be its end
    spoken = time.monotonic()
    drained = 0
    while streams:
        readable, _, _ = select.select(list(streams), [], [], _LOOK_S)
        for stream in readable:
            name, decode = streams[stream]
            block = os.read(stream.fileno(), _BLOCK)
            text = decode.decode(block, not block)
            if text:
                _say(marker, {"stream": name, "text": text})
                spoken = time.monotonic()
            if not block:
                del streams[stream]
        if listener.poll(0):
            raise Gone
        if time.monotonic() - spoken > _HEARTBEAT_S:
            _say(marker, {"heartbeat": True})
            spoken = time.monotonic()
        if deadline is not None and time.monotonic() > deadline:
            return True
        if not readable and process.poll() is not None:
            # Something it left behind may hold its output open for ever.
            drained += 1
            if drained > 1:
                return False
    while process.poll() is None:
        if listener.poll(_LOOK_S * 1000):
            raise Gone
        if deadline is not None and time.monotonic() > deadline:
            return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole session, kindly first where it still runs."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _say(marker: str, entry: Json) -> None:
    sys.stdout.write(f"\n{marker} {json.dumps(entry)}\n")
    sys.stdout.flush()
