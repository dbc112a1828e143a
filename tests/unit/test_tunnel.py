"""How the tunnel to the database is put together; nothing is connected here."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from puffin.errors import ConfigurationError
from puffin.overlay import parse
from puffin.settings import DatabaseSettings
from puffin.store import connection_uri
from puffin.tunnel import Address, Gateway, command, database_address, gateway_of, through


@pytest.mark.parametrize(
    ("text", "gateway"),
    [
        ("chem@gate", Gateway("chem", "gate", 0)),
        ("chem@gate.example.org:2222", Gateway("chem", "gate.example.org", 2222)),
        ("c.h-em_1@10.0.0.1:22", Gateway("c.h-em_1", "10.0.0.1", 22)),
        ("chem@[fe80::1]:22", Gateway("chem", "fe80::1", 22)),
    ],
)
def test_a_gateway_is_taken_apart(text: str, gateway: Gateway) -> None:
    assert parse([("file", {"database": {"ssh_tunnel": text}})]).database.ssh_tunnel == text
    assert gateway_of(text) == gateway


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gate", "must look like user@gateway"),
        ("@gate", "must look like user@gateway"),
        ("chem@", "must look like user@gateway"),
        ("chem@gate:", "must look like user@gateway"),
        ("chem@gate:ssh", "must look like user@gateway"),
        ("chem@gate other", "must look like user@gateway"),
        ("-oProxyCommand=x@gate", "must look like user@gateway"),
        ("chem@-oProxyCommand=x", "must look like user@gateway"),
        ("ssh://chem@gate", "must look like user@gateway"),
        ("chem@gate:0", "must be between 1 and 65535"),
        ("chem@gate:70000", "must be between 1 and 65535"),
    ],
)
def test_another_form_is_refused_with_its_key(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse([("file", {"database": {"ssh_tunnel": text}})])
    assert f"database.ssh_tunnel: {words}" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (DatabaseSettings(ip="10.0.0.7", port=27018), Address("10.0.0.7", 27018)),
        (DatabaseSettings(ip="::1"), Address("::1", 27017)),
        (DatabaseSettings(uri="mongodb://db.inside"), Address("db.inside", 27017)),
        (DatabaseSettings(uri="mongodb://chem:a%40b@db.inside:1234/x?tls=true"), Address("db.inside", 1234)),
        (DatabaseSettings(uri="mongodb://[::1]:1234/"), Address("::1", 1234)),
    ],
)
def test_where_the_gateway_connects_to(settings: DatabaseSettings, address: Address) -> None:
    assert database_address(settings) == address


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mongodb+srv://cluster.example.org/", "stands for several hosts"),
        ("mongodb://a:1,b:2/?replicaSet=rs", "several hosts"),
        ("mongodb://%2Ftmp%2Fmongodb.sock/", "must look like mongodb://host:port"),
        ("mongodb://host:word/", "must look like mongodb://host:port"),
        ("http://host/", "must look like mongodb://host:port"),
    ],
)
def test_what_a_tunnel_cannot_lead_to(uri: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=r"database\.uri") as caught:
        database_address(DatabaseSettings(uri=uri))
    assert words in str(caught.value)
    assert "database.ssh_tunnel leads to one host" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (DatabaseSettings(ip="10.0.0.7", port=1), "mongodb://127.0.0.1:20001/x?directConnection=true&w=majority"),
        (DatabaseSettings(uri="mongodb://db"), "mongodb://127.0.0.1:20001/x?directConnection=true&w=majority"),
        (
            DatabaseSettings(uri="mongodb://chem:p%40ss@db:7/?tls=true"),
            "mongodb://chem:p%40ss@127.0.0.1:20001/x?tls=true&directConnection=true&w=majority&authSource=admin",
        ),
        (
            DatabaseSettings(uri="mongodb://db/?directConnection=true"),
            "mongodb://127.0.0.1:20001/x?directConnection=true&w=majority",
        ),
    ],
)
def test_everybody_connects_to_the_local_end(settings: DatabaseSettings, expected: str) -> None:
    local = through(settings, 20001)
    assert local.ssh_tunnel == ""
    assert connection_uri(local, "x") == expected


def test_a_replica_set_is_not_asked_for_its_members() -> None:
    local = through(DatabaseSettings(uri="mongodb://db/?replicaSet=rs"), 20001)
    assert parse_qs(urlsplit(local.uri).query) == {"replicaSet": ["rs"], "directConnection": ["true"]}


def test_the_words_that_start_ssh() -> None:
    words = command(
        "/usr/bin/ssh", Gateway("chem", "gate", 2222), Address("::1", 27017), 20001, ["/k 1", "/50%"], "/a b"
    )
    options = {words[place + 1] for place, word in enumerate(words) if word == "-o"}
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ExitOnForwardFailure=yes", "IdentitiesOnly=yes"} <= options
    assert 'UserKnownHostsFile="/a b"' in options
    assert words[words.index("-L") + 1] == "127.0.0.1:20001:[::1]:27017"
    assert [words[place + 1] for place, word in enumerate(words) if word == "-i"] == ["/k 1", "/50%%"]
    assert words[-6:] == ["-l", "chem", "-p", "2222", "--", "gate"]


def test_ssh_decides_what_is_not_given() -> None:
    words = command("/usr/bin/ssh", Gateway("chem", "gate", 0), Address("db", 27017), 20001, [], "")
    assert "-i" not in words
    assert "-p" not in words
    assert not [word for word in words if word.startswith("UserKnownHostsFile")]
