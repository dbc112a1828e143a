"""Ways to what a fleet consists of: its hosts, and its database."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.errors import FleetError
from fleet.hosts.database import database_settings
from fleet.hosts.inventory import Fleet, Host
from fleet.reach.local import LocalRemote
from fleet.reach.remote import Remote
from puffin import overlay
from puffin.errors import ConfigurationError
from puffin.settings import DatabaseSettings

if TYPE_CHECKING:
    from puffin.store import Store


class Remotes(Mapping[str, Remote]):
    """One connection to each of some hosts, opened when it is first used and closed together.

    Parameters
    ----------
    fleet
        The fleet.
    hosts
        The hosts.
    """

    def __init__(self, fleet: Fleet, hosts: Sequence[Host]) -> None:
        self._fleet = fleet
        self._open: dict[str, Remote] = {host.name: _remote(fleet, host) for host in hosts}

    def __getitem__(self, name: str) -> Remote:
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def renew(self, host: Host) -> Remote:
        """A new connection to a host, which knows the keys that have been recorded meanwhile.

        Parameters
        ----------
        host
            The host.
        """
        self._open[host.name].close()
        self._open[host.name] = _remote(self._fleet, host)
        return self._open[host.name]

    def close(self) -> None:
        """Close all connections, side by side: a host that hangs must not hold up the others."""
        threads = [threading.Thread(target=remote.close, daemon=True) for remote in self._open.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=2.0)


@contextmanager
def open_remotes(fleet: Fleet, hosts: Sequence[Host]) -> Iterator[Remotes]:
    """Connections to hosts, closed at the end whatever happens.

    Parameters
    ----------
    fleet
        The fleet.
    hosts
        The hosts.
    """
    remotes = Remotes(fleet, hosts)
    try:
        yield remotes
    finally:
        remotes.close()


def _remote(fleet: Fleet, host: Host) -> Remote:
    if host.connection == "local":
        return LocalRemote(host.name, fleet.release.python)
    # Not at the top: a fleet on this machine alone needs no SSH, which takes a quarter of a second to import.
    from fleet.reach.ssh import SshOptions, SshRemote

    options = SshOptions(
        address=host.address,
        user=host.user,
        port=host.ssh.port,
        key=_path(fleet, host.ssh.key),
        jump=host.ssh.jump,
        known_hosts=_path(fleet, host.ssh.known_hosts),
        python=fleet.release.python,
        hosts_file=fleet.source,
    )
    return SshRemote(host.name, options)


def _path(fleet: Fleet, text: str | None) -> Path | None:
    """A path in hosts.yaml, which is relative to that file."""
    return None if text is None else Path(fleet.source).parent / Path(text).expanduser()


def read_password(fleet: Fleet) -> str | None:
    """The database's password, or None where hosts.yaml names none.

    Parameters
    ----------
    fleet
        The fleet.

    Raises
    ------
    FleetError
        The file cannot be read.
    """
    path = _path(fleet, fleet.database.password_file)
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        hint = "correct it in hosts.yaml, where a relative path starts, or write the password there"
        raise FleetError(f"database.password_file: cannot read {path}: {error.strerror}\n  {hint}") from error
    except UnicodeDecodeError as error:
        raise FleetError(f"database.password_file: {path} is not text") from error


def exposed_password(fleet: Fleet) -> Path | None:
    """The file of the database's password where others than its owner may read it; None where all is well.

    Parameters
    ----------
    fleet
        The fleet.
    """
    path = _path(fleet, fleet.database.password_file)
    try:
        return path if path is not None and path.stat().st_mode & 0o077 else None
    except OSError:
        return None  # whoever reads it says so


def open_store(fleet: Fleet, timeout_s: float = 5.0) -> Store:
    """The fleet's database, as it is reached from this machine.

    Parameters
    ----------
    fleet
        The fleet.
    timeout_s
        How long one operation may take, in seconds.

    Raises
    ------
    FleetError
        The settings are no connection.
    """
    # Not at the top: the driver takes long to import, and many verbs ask no database.
    from puffin.store import Store

    try:
        return Store(connection(fleet), timeout_s)
    except ConfigurationError as error:
        raise FleetError(str(error)) from error


def connection(fleet: Fleet) -> DatabaseSettings:
    """How the fleet's database is reached from this machine.

    Parameters
    ----------
    fleet
        The fleet.

    Raises
    ------
    FleetError
        The settings are no connection.
    """
    path = _path(fleet, fleet.database.password_file)
    mapping = {"database": database_settings(fleet.database, str(path) if path else "")}
    try:
        return overlay.parse([(fleet.source, mapping)]).database
    except ConfigurationError as error:
        raise FleetError(str(error)) from error
