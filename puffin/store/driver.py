"""The driver: connections, and its errors translated once."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, unquote_plus, urlsplit

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

_UNAUTHORIZED, _LOGIN_REFUSED = 13, 18
_DUPLICATE = 11000
_FOREIGN = "error=ProtocolError("
"""What the driver's view of the servers has where one speaks another protocol: in no other way does it tell."""
_TOO_FEW_MEMBERS = 100
"""Code of the server for a write concern that its set can never satisfy: a mistake in the connection string."""


@contextmanager
def translated(doing: str, where: str) -> Iterator[None]:
    """Let errors of the driver leave as errors of this package.

    Parameters
    ----------
    doing
        What is being done, in words that follow "while".
    where
        Where the database is, without secrets.

    Raises
    ------
    DatabaseUnavailable
        The database is away, or it cannot be told whether it did what was asked; asking again may help.
    DatabaseError
        It refuses, and will again.
    """
    try:
        yield
    except _UNAVAILABLE as error:
        if _FOREIGN in str(error):
            what = f"something answers at {where}, but not a MongoDB server, while {doing}"
            advice = "check address and port of the database, and what listens there"
            raise DatabaseUnavailable(f"{what}: {advice}") from error
        raise DatabaseUnavailable(f"cannot reach the database at {where} while {doing}: {short(error)}") from error
    except pymongo.errors.OperationFailure as error:
        if _is_passing(error):
            what = f"cannot tell whether the database at {where} did it, {doing}: {short(error)}"
            raise DatabaseUnavailable(what) from error
        if error.code == _UNAUTHORIZED:
            raise DatabaseError(
                f"the database at {where} does not allow {doing}: set database.username and database.password_file, or "
                f"see what that user may do ({short(error)})"
            ) from error
        if error.code == _LOGIN_REFUSED:
            raise DatabaseError(
                f"the database at {where} refused the login: check database.username and database.password_file"
            ) from error
        raise DatabaseError(f"the database at {where} refused {doing}: {short(error)}") from error
    except (pymongo.errors.PyMongoError, bson.errors.BSONError) as error:
        raise DatabaseError(f"{doing} failed at {where}: {short(error)}") from error


def only_duplicates(error: BaseException | None) -> bool:
    """Whether all that a write of many refused was there already, and the rest is as safe as was asked for.

    Without errors of its own such a write may still have failed: no majority of the set may have taken it.

    Parameters
    ----------
    error
        What the driver raised.
    """
    if not isinstance(error, pymongo.errors.BulkWriteError) or error.details.get("writeConcernErrors"):
        return False
    problems = error.details.get("writeErrors", ())
    return bool(problems) and all(problem.get("code") == _DUPLICATE for problem in problems)


def _is_passing(error: pymongo.errors.OperationFailure) -> bool:
    """Whether the server was about to stop, to step down, or did not hear from the others of its set in time."""
    if isinstance(error, pymongo.errors.BulkWriteError):
        concerns = error.details.get("writeConcernErrors", ())
        return bool(concerns) and all(concern.get("code") != _TOO_FEW_MEMBERS for concern in concerns)
    unconfirmed = isinstance(error, pymongo.errors.WriteConcernError) and error.code != _TOO_FEW_MEMBERS
    return unconfirmed or error.has_error_label("RetryableWriteError")


def short(error: Exception) -> str:
    """What an error of the driver says, without its view of all servers."""
    if isinstance(error, pymongo.errors.BulkWriteError):
        problems = (*error.details.get("writeErrors", ()), *error.details.get("writeConcernErrors", ()))
        return next((str(problem["errmsg"]) for problem in problems if problem.get("errmsg")), str(error))
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
    options = {"authSource": "admin"} if settings.username else {}
    # What a primary that is cut off from its set says is worth nothing: its writes are lost when it comes back, and
    # others may have been told otherwise meanwhile. Servers before MongoDB 5 do not wait for the others by themselves.
    options["w"] = "majority"
    if "@" in parts.netloc and not settings.username:
        # The path says where to log in, where nothing else does, and it is about to name another database.
        options["authSource"] = quote_plus(unquote_plus(parts.path.strip("/"))) or "admin"
    given = {option.partition("=")[0].lower() for option in parts.query.split("&")}
    if given & {"authsource", "authmechanism"}:
        options.pop("authSource", None)
    added = [f"{key}={value}" for key, value in options.items() if key.lower() not in given]
    query = "&".join(filter(None, [parts.query, *added]))
    name = database or parts.path.strip("/")
    return f"{parts.scheme}://{location}/{name}{f'?{query}' if query else ''}"


def _read_password(path: str) -> str:
    try:
        password = Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"database.password_file: cannot read {path}: {error}") from error
    if not password:
        raise ConfigurationError(f"database.password_file: {path} is empty; write the password into it")
    return password


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


@dataclass(frozen=True)
class Member:
    """One server of a replica set, at the address at which the set tells its clients to go to it."""

    host: str
    port: int
    primary: bool


def members_of(hello: Mapping[str, Any]) -> tuple[Member, ...]:
    """The servers of a replica set that hold data, the primary first; empty where a server is alone.

    Parameters
    ----------
    hello
        What a server says of itself.
    """
    names = [str(name) for name in (*hello.get("hosts", ()), *hello.get("passives", ()))]
    found = []
    for name in names if hello.get("setName") else ():
        host, _, port = name.rpartition(":")
        found.append(Member(host.strip("[]"), int(port), name == hello.get("primary")))
    return tuple(sorted(found, key=lambda member: not member.primary))


class Pulse(monitoring.TopologyListener):
    """Since when the driver has had a server that takes writes, without a break and without another taking over.

    In a replica set the others do not matter: with one of them down all goes on. But after another has become
    primary every lease looks different, since it is that one's clock that counts now.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._writable: frozenset[Any] = frozenset()

    def opened(self, event: monitoring.TopologyOpenedEvent) -> None:
        """Nothing is known yet."""

    def description_changed(self, event: monitoring.TopologyDescriptionChangedEvent) -> None:
        """Note who takes writes now."""
        servers = event.new_description.server_descriptions()
        writable = frozenset(address for address, server in servers.items() if server.is_writable)
        # Any of several routers does, before and after.
        if not writable:
            self.since = None
        elif not writable & self._writable:
            self.since = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._writable = writable

    def closed(self, event: monitoring.TopologyClosedEvent) -> None:
        """Nobody asks any more."""


def _end_without_waiting() -> None:
    """Have the program not wait for the driver's threads when it ends, as the driver asks Python to do.

    They are daemons, and once their client is closed they only sleep, for half a second each time: more than half of
    what a command takes. Where the driver has it elsewhere, the program ends as the driver wants.
    """
    with contextlib.suppress(ImportError, AttributeError):
        monitor = importlib.import_module("pymongo.synchronous.monitor")
        atexit.unregister(monitor._shutdown_resources)


def client(
    settings: DatabaseSettings, timeout_s: float, answer_s: float, listeners: Sequence[Any]
) -> pymongo.MongoClient[dict[str, Any]]:
    """Make the driver's client; it connects when it is first used.

    Parameters
    ----------
    settings
        The database.
    timeout_s
        How long to look for a server, and to wait for a connection.
    answer_s
        How long to wait for an answer.
    listeners
        What the driver tells of its servers.

    Raises
    ------
    ConfigurationError
        The connection string is not one.
    """
    milliseconds = int(timeout_s * 1000)
    _end_without_waiting()
    try:
        return pymongo.MongoClient(
            connection_uri(settings),
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=int(answer_s * 1000),
            # A set that has lost its majority counts as away; without a limit it would be waited for.
            wTimeoutMS=milliseconds,
            # Who owns a calculation is asked where it is decided, whatever the connection string prefers.
            readPreference="primary",
            # The driver's own limits; its default is 10 s.
            heartbeatFrequencyMS=min(10_000, max(500, milliseconds)),
            event_listeners=listeners,
            connect=False,
            appname="puffin",
            tz_aware=False,
        )
    except (pymongo.errors.PyMongoError, ValueError) as error:
        raise ConfigurationError(f"database.uri: {short(error)}") from error
