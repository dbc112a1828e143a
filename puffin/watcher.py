"""Waits for new calculations in a database that tells of them by itself, so that an idle worker need not ask."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from puffin.clock import boot_time
from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.store import Calculations, Registry
from puffin.threads import LONGEST_JOIN_S, ends_the_process
from puffin.worklog import Log

_HASTE_S = 0.5
_MOST_HASTY_ANSWERS = 20
_LONGEST_PAUSE_S = 0.25


class Proof:
    """Whether the server tells of changes, found out once for all databases on it.

    There are servers that open a change stream and never say anything in it. So the worker changes its own entry in
    the registry and sees whether it hears of that: then what comes later will be told too, and it need not ask.

    Parameters
    ----------
    registry
        The registry, in which the worker has its entry.
    uuid
        The worker's name there.
    """

    def __init__(self, registry: Registry, uuid: str) -> None:
        self._registry = registry
        self._uuid = uuid
        self._lock = threading.Lock()
        self._tried = False
        self._given = False

    @property
    def is_given(self) -> bool:
        """Whether the server has told of a change."""
        return self._given

    def give(self) -> None:
        """Note that it has."""
        self._given = True

    def seek(self) -> None:
        """Find out, unless that has been tried.

        Raises
        ------
        DatabaseUnavailable
            The server does not answer.
        """
        with self._lock:
            if self._tried or self._given:
                return
            try:
                self._given = self._registry.echoes(self._uuid)
            except DatabaseUnavailable:
                raise
            except DatabaseError:
                # Perhaps the streams of calculations are open to this user all the same.
                self._given = False
            self._tried = True


class Watcher:
    """A thread that watches one database as long as its worker waits for work.

    Parameters
    ----------
    calculations
        The calculations of the database.
    proof
        Whether the server's silence means that nothing happens.
    log
        Where to say that the server has to be polled.
    on_news
        Called when there may be work.
    """

    def __init__(self, calculations: Calculations, proof: Proof, log: Log, on_news: Callable[[], None]) -> None:
        self._calculations = calculations
        self._proof = proof
        self._log = log
        self._on_news = on_news
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._watching = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wanted.set()
        self._thread.join(LONGEST_JOIN_S)

    def want(self, wanted: bool) -> None:
        """Begin or cease to wait for work. A busy worker's stream is closed with the next news, which it ignores."""
        if wanted:
            self._wanted.set()
        else:
            self._wanted.clear()

    @property
    def is_trusted(self) -> bool:
        """Whether news would be noticed: the stream is open, and the server is known to tell."""
        return self._watching and self._proof.is_given

    def has_news(self) -> bool:
        """Whether there may be work; says so once."""
        news = self._news.is_set()
        self._news.clear()
        return news

    @ends_the_process
    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            try:
                self._watch()
            except DatabaseUnavailable:
                # Workers that lost the database together must not come back together.
                self._stopping.wait(random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            except DatabaseError as error:
                self._log.info(f"polling {self._calculations.name}: {error}")
                # Who waits for news waits for long.
                self._watching = False
                self._tell()
                return
            finally:
                self._watching = False

    def _watch(self) -> None:
        hasty, asked = 0, boot_time()
        for arrived in self._calculations.news():
            if self._stopping.is_set() or (arrived and not self._wanted.is_set()):
                return
            if arrived:
                self._proof.give()
            # What came before the stream was open is not in it: the first word is always worth a look.
            if arrived or not self._watching:
                self._watching = True
                self._tell()
                self._proof.seek()
            hasty = hasty + 1 if not arrived and boot_time() - asked < _HASTE_S else 0
            self._slow_down(hasty)
            asked = boot_time()

    def _tell(self) -> None:
        self._news.set()
        self._on_news()

    def _slow_down(self, hasty: int) -> None:
        """Not every server waits before it says that there is nothing; it must not be asked without a pause."""
        if hasty > _MOST_HASTY_ANSWERS and not self._proof.is_given:
            raise DatabaseError("the server has change streams, but does not wait for changes")
        if hasty:
            self._stopping.wait(min(_LONGEST_PAUSE_S, 0.01 * 2**hasty))
