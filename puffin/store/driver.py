"""The driver: connections, and its errors translated once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import bson
import pymongo
import pymongo.errors
from pymongo import monitoring
from pymongo.collection import Collection

from puffin.errors import ConfigurationError, DatabaseError, DatabaseUnavailable
from puffin.settings import DatabaseSettings

Documents = Collection[dict[str, Any]]


_UNAVAILABLE = (
    pymongo.errors.AutoReconnect,
    pymongo.errors.ConnectionFailure,
    pymongo.errors.ExecutionTimeout,
    pymongo.errors.WaitQueueTimeoutError,
    pymongo.errors.WTimeoutError,
)


@contextmanager
def translated(doing: str, where: str) -> Iterator[None]:
    try:
        yield
    except _UNAVAILABLE as error:
        raise DatabaseUnavailable(f"cannot reach the database at {where} while {doing}: {short(error)}") from error
    except pymongo.errors.OperationFailure as error:
        if error.code == 18:
            raise DatabaseError(
                f"the database at {where} refused the login: check database.username and database.password_file"
            ) from error
        raise DatabaseError(f"the database at {where} refused {doing}: {short(error)}") from error
    except (pymongo.errors.PyMongoError, bson.errors.BSONError) as error:
        raise DatabaseError(f"{doing} failed at {where}: {short(error)}") from error


def short(error: Exception) -> str:
    # The driver appends its whole view of the topology, which helps nobody who reads a log.
    return str(error).split(", Timeout:")[0].split(", full error:")[0].split(" (configured timeouts:")[0]


def connection_uri(settings: DatabaseSettings, database: str = "") -> str:
    """The connection string, credentials included: a secret.

    Parameters
    ----------
    settings
        The database section.
    database
        Name of the database to put in.

    Returns
    -------
    str
        A ``mongodb://`` string for the driver and for ``scine_database``.

    Raises
    ------
    ConfigurationError
        ``password_file`` cannot be read, or ``uri`` is no connection string.
    """
    base = settings.uri or f"mongodb://{settings.ip}:{settings.port}"
    parts = urlsplit(base)
    if parts.scheme not in {"mongodb", "mongodb+srv"} or not parts.netloc:
        raise ConfigurationError("database.uri: must look like mongodb://host:port")
    location = parts.netloc
    if settings.username:
        password = _read_password(settings.password_file)
        location = f"{quote_plus(settings.username)}:{quote_plus(password)}@{location.rpartition('@')[2]}"
    query = f"?{parts.query}" if parts.query else ""
    if settings.username and "authSource" not in query:
        query += ("&" if query else "?") + "authSource=admin"
    name = database or parts.path.strip("/")
    return f"{parts.scheme}://{location}/{name}{query}"


def _read_password(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"database.password_file: cannot read {path}: {error}") from error


def location(settings: DatabaseSettings) -> str:
    """Where the database is, without credentials, to be shown to people.

    Parameters
    ----------
    settings
        The database section.
    """
    if settings.uri:
        return urlsplit(settings.uri).netloc.rpartition("@")[2]
    return f"{settings.ip}:{settings.port}"


class Pulse(monitoring.ServerHeartbeatListener):
    """Since when the driver has found the server well each time it looked."""

    def __init__(self) -> None:
        self.since: float | None = None

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        """Nothing to note."""

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        """Note the first success after a failure."""
        if self.since is None:
            self.since = time.clock_gettime(time.CLOCK_BOOTTIME)

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        """Note that the connection is broken."""
        self.since = None


def client(
    settings: DatabaseSettings, timeout_s: float, answer_s: float, listeners: Sequence[Any]
) -> pymongo.MongoClient[dict[str, Any]]:
    milliseconds = int(timeout_s * 1000)
    try:
        return pymongo.MongoClient(
            connection_uri(settings),
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=int(answer_s * 1000),
            # The driver's own limits; its default is 10 s.
            heartbeatFrequencyMS=min(10_000, max(500, milliseconds)),
            event_listeners=listeners,
            connect=False,
            appname="puffin",
            tz_aware=False,
        )
    except (pymongo.errors.PyMongoError, ValueError) as error:
        raise ConfigurationError(f"database.uri: {short(error)}") from error
