"""How the database that hosts.yaml names is told to those who connect to it. Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fleet.hosts.inventory import Database


def database_settings(database: Database, password_file: str) -> dict[str, Any]:
    """Section ``database`` of a puffin.yaml.

    Parameters
    ----------
    database
        What hosts.yaml says.
    password_file
        Where the password is for the reader of that section.
    """
    settings: dict[str, Any] = {}
    if database.uri is not None or database.tls:
        settings["uri"] = _connection(database)
    else:
        settings["ip"] = database.ip
        settings["port"] = _port(database)
    settings["name"] = ",".join(database.names)
    if database.username is not None:
        settings["username"] = database.username
        settings["password_file"] = password_file
    return settings


def _connection(database: Database) -> str:
    """Connection string; the worker has no keys of its own for TLS."""
    uri = database.uri or f"mongodb://{database.ip}:{_port(database)}"
    if not database.tls:
        return uri
    scheme, _, rest = uri.partition("://")
    location, question, options = rest.partition("?")
    if "/" not in location:
        location += "/"
    words = [*([options] if question and options else []), "tls=true"]
    if database.tls_ca_file is not None:
        words.append(f"tlsCAFile={quote(database.tls_ca_file)}")
    return f"{scheme}://{location}?{'&'.join(words)}"


def _port(database: Database) -> int:
    return database.port if database.port is not None else 27017
