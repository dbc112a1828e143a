"""Action `tail`: what the workers of this host wrote, in the order in which they did, and then what is added.

Request: base_dir, fleet, host, or host_root; workers (patterns; none for all); since, until (seconds since 1970, or
null), grep (a regular expression, or null), level (or null), calculation (or null); lines (of each worker, the last
that match, in whole messages; null: all); follow (bool), heartbeat (s), resume {log: position} (where an earlier reader
was, or null).

Reply: a line `<marker> {entry}` each. First {positions {log: position}}, where reading starts; then {messages [[log,
time, text]], positions} with where to resume after these; {cut: log} where something may be missing; {caught_up: true}
when all that was there has been said. Without follow that is the end, and the usual reply comes. With follow
{heartbeat: true} when there is nothing to say, until the reader is gone. A log is `<worker>.log`, which the worker
writes, or `<worker>.out`, which supervisord writes of what the worker prints.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import resource
import select
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fleet.hostside.common import Failure, Json
from fleet.hostside.loglines import LEVELS, Message, MessageFilter
from fleet.hostside.places import Places, host_root
from fleet.hostside.rotation import Last, LogReader, Position, last_messages, pieces

STEP = "reading logs"
PAUSE = 0.2
_NEW_LOGS_EVERY = 2.0
_SILENCE = 5.0
_FULL = 1 << 16
_NAME = re.compile(r"(?P<log>(?P<worker>.+)\.(?:log|out))(?:\.\d+)?")
_NOT_WORKERS = frozenset(("supervisord", "boot"))


def main(request: Json) -> Json:
    """Say what was written, and go on if asked to.

    Parameters
    ----------
    request
        As this module says; so is the reply.
    """
    root = host_root(request) if request.get("host_root") else Places.of(request).host
    speaker = _Speaker(request["marker"])
    tail = Tail(root / "log", [str(each) for each in request.get("workers", ())], _wanted(request), speaker)
    follow = bool(request.get("follow"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a hundred workers have a thousand files
    try:
        count = request.get("lines")
        tail.begin(None if count is None else int(count), request.get("resume"))
        tail.catch_up(flush=not follow)
        speaker.say({"caught_up": True})
        if follow:
            _follow(tail, speaker, float(request.get("heartbeat", 10)))
    except BrokenPipeError:
        os._exit(0)  # the reader is gone; flushing at a normal end would fail again
    return {}


def _wanted(request: Json) -> MessageFilter:
    level = request.get("level")
    if level is not None and level not in LEVELS:
        raise Failure(f"{level!r} is no level", STEP)
    try:
        pattern = re.compile(request["grep"]) if request.get("grep") else None
    except re.error as error:
        version = ".".join(map(str, sys.version_info[:2]))
        raise Failure(f"the pattern is not understood by Python {version} here: {error}", STEP) from error
    return MessageFilter(request.get("since"), request.get("until"), pattern, level, request.get("calculation"))


class _Speaker:
    """Writes entries."""

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self.spoken = time.monotonic()

    def say(self, entry: Json) -> None:
        sys.stdout.write(f"\n{self._marker} {json.dumps(entry)}\n")
        sys.stdout.flush()
        self.spoken = time.monotonic()

    def alive(self) -> None:
        """Say so, where searching takes long: who is silent is taken for lost."""
        if time.monotonic() - self.spoken > _SILENCE:
            self.say({"heartbeat": True})


class Tail:
    """The logs of this host.

    Parameters
    ----------
    directory
        Where they are.
    patterns
        For names of workers; none for all.
    wanted
        What somebody wants to see of them.
    speaker
        Says it.
    """

    def __init__(self, directory: Path, patterns: Sequence[str], wanted: MessageFilter, speaker: _Speaker) -> None:
        self._directory = directory
        self._patterns = patterns or ["*"]
        self._wanted = wanted
        self._speaker = speaker
        self._logs: dict[str, LogReader] = {}

    def begin(self, count: int | None, resume: Json | None) -> None:
        """Choose where to start: with the last messages of each worker, with all, or where somebody was before.

        Parameters
        ----------
        count
            How many lines of each worker; None for all.
        resume
            Positions, as `positions` gave them.
        """
        if resume is not None:
            self._resume(resume)
        elif count is None:
            for name in self._names():
                self._start(name, None)
        else:
            for worker, names in self._workers().items():
                self._begin_worker(worker, names, count)
        self._speaker.say({"positions": {name: log.position() for name, log in self._logs.items()}})

    def _resume(self, positions: Json) -> None:
        for name in sorted({*self._names(), *positions}):
            log = self._logs[name] = LogReader(self._directory / _checked(name))
            if name in positions:
                log.resume(positions[name])
                if log.cut:
                    self._speaker.say({"cut": name})

    def _start(self, name: str, at: tuple[int, int] | None) -> None:
        log = self._logs[name] = LogReader(self._directory / name)
        opened = pieces(log.path)
        if at is None:
            since = self._wanted.since
            old = [since is not None and piece.status().st_mtime < since for piece in opened]
            log.start(opened, old.index(False) if False in old else max(0, len(opened) - 1))
        else:
            log.start(opened, *at)

    def _begin_worker(self, worker: str, names: list[str], count: int) -> None:
        """The last messages of a worker, whichever of its logs they are in."""
        opened = {name: pieces(self._directory / name) for name in names}
        last = [
            (each, name)
            for name, files in opened.items()
            for each in last_messages(files, count, self._wanted, self._speaker.alive)
        ]
        chosen = _fitting(sorted(last, key=lambda pair: pair[0].at), count)
        for name, files in opened.items():
            log = self._logs[name] = LogReader(self._directory / name)
            starts = [(each.piece, each.start) for each, of in chosen if of == name]
            if starts:
                log.start(files, *min(starts))
            elif files:
                log.start(files, len(files) - 1, files[-1].end())

    def _workers(self) -> dict[str, list[str]]:
        workers: dict[str, list[str]] = {}
        for name in self._names():
            workers.setdefault(name.rpartition(".")[0], []).append(name)
        return workers

    def _names(self) -> list[str]:
        try:
            there = [entry.name for entry in self._directory.iterdir()]
        except FileNotFoundError:
            return []  # nothing was ever deployed here
        found = [match for name in there if (match := _NAME.fullmatch(name))]
        return sorted(
            {
                match["log"]
                for match in found
                if match["worker"] not in _NOT_WORKERS
                and any(fnmatchcase(match["worker"], pattern) for pattern in self._patterns)
            }
        )

    def look_for_new(self) -> None:
        """Logs that were not there before are new from their beginning."""
        for name in self._names():
            if name not in self._logs:
                self._logs[name] = LogReader(self._directory / name)

    def catch_up(self, flush: bool) -> None:
        """Say all that is there, merged by time.

        Parameters
        ----------
        flush
            Whether messages count that may go on.
        """
        self._say(heapq.merge(*(self._rising(name, flush) for name in self._logs), key=lambda each: each[0]))

    def _rising(self, name: str, flush: bool) -> Iterator[tuple[float, str, Message, Position]]:
        """The messages of one log keep their order, also where a clock was set back."""
        latest = 0.0
        for message, position in self._logs[name].messages(flush):
            self._speaker.alive()
            if self._wanted.holds(message):
                latest = max(latest, message.at)
                yield latest, name, message, position

    def _say(self, found: Iterable[tuple[float, str, Message, Position]]) -> None:
        messages: list[list[object]] = []
        positions: dict[str, Position] = {}
        size = 0
        for _, name, message, position in found:
            messages.append([name, message.at, message.text])
            positions[name] = position
            size += len(message.text)
            if size >= _FULL:
                self._say_batch(messages, positions)
                messages, positions, size = [], {}, 0
        if messages:
            self._say_batch(messages, positions)

    def _say_batch(self, messages: list[list[object]], positions: dict[str, Position]) -> None:
        resume = {name: position.record() for name, position in positions.items()}
        self._speaker.say({"messages": messages, "positions": resume})

    def positions(self) -> Json:
        """Where each log would be gone on with."""
        return {name: log.position() for name, log in self._logs.items()}


def _fitting(messages: Sequence[tuple[Last, str]], count: int) -> Sequence[tuple[Last, str]]:
    """The last messages that fit into so many lines; whole ones, and one at least where any line is wanted."""
    lines = 0
    for number, (each, _) in enumerate(reversed(messages)):
        lines += each.height
        if lines > count:
            return messages[len(messages) - max(number, min(count, 1)) :]
    return messages


def _checked(name: str) -> str:
    if "/" in name or not _NAME.fullmatch(name):
        raise Failure(f"{name!r} is no log", STEP)
    return name


def _follow(tail: Tail, speaker: _Speaker, heartbeat: float) -> None:
    """Go on until the reader is gone, which ends this process: there is nobody left to reply to."""
    reader = select.poll()
    reader.register(sys.stdout.fileno(), select.POLLERR | select.POLLHUP)
    reader.register(sys.stdin.fileno(), select.POLLIN)  # nothing is sent any more: it can only be its end
    looked = time.monotonic()
    while not reader.poll(PAUSE * 1000):
        if time.monotonic() - looked >= _NEW_LOGS_EVERY:
            tail.look_for_new()
            looked = time.monotonic()
        tail.catch_up(flush=False)
        if time.monotonic() - speaker.spoken >= heartbeat:
            speaker.say({"heartbeat": True, "positions": tail.positions()})
    os._exit(0)
