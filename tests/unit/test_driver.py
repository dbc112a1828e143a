"""What the driver is told and what is read from it; a set with several members exists here only in its own words."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from pymongo import monitoring
from pymongo.errors import BulkWriteError, NotPrimaryError, OperationFailure, WriteConcernError, WTimeoutError
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription
from pymongo.uri_parser import parse_uri

from puffin.errors import DatabaseError, DatabaseUnavailable
from puffin.settings import DatabaseSettings
from puffin.store import Store, connection_uri
from puffin.store.driver import Member, Pulse, members_of, only_duplicates, translated

MEMBERS = ["a:1", "b:1", "c:1"]


def seen(**roles: str) -> TopologyDescription:
    """A replica set as the driver describes it; members that are not named are down."""
    servers = {}
    for name in ("a", "b", "c"):
        hello: dict[str, Any] = {"ok": 1, "setName": "rs", "hosts": MEMBERS, "maxWireVersion": 21}
        hello |= {"isWritablePrimary": roles.get(name) == "primary", "secondary": roles.get(name) == "secondary"}
        address = (name, 1)
        known = ServerDescription(address, Hello(hello), 0.01) if name in roles else ServerDescription(address)
        servers[address] = known
    kind = TOPOLOGY_TYPE.ReplicaSetWithPrimary
    return TopologyDescription(kind, servers, "rs", None, None, None)


@pytest.fixture
def pulse() -> Pulse:
    return Pulse()


def look(pulse: Pulse, **roles: str) -> float | None:
    new = seen(**roles)
    pulse.description_changed(monitoring.TopologyDescriptionChangedEvent(new, new, None))
    return pulse.since


def test_where_a_replica_set_sends_its_clients() -> None:
    said = {"setName": "rs", "hosts": ["a.example:1", "[::1]:2"], "passives": ["p:3"], "primary": "[::1]:2"}
    assert members_of(said) == (Member("::1", 2, True), Member("a.example", 1, False), Member("p", 3, False))
    assert members_of({"isWritablePrimary": True}) == ()


def test_without_a_primary_nobody_is_connected(pulse: Pulse) -> None:
    assert look(pulse) is None
    assert look(pulse, a="secondary", b="secondary") is None
    assert look(pulse, a="primary", b="secondary") is not None
    assert look(pulse, b="secondary") is None


def test_other_members_may_come_and_go(pulse: Pulse) -> None:
    since = look(pulse, a="primary", b="secondary", c="secondary")
    assert look(pulse, a="primary", b="secondary") == since
    assert look(pulse, a="primary") == since
    assert look(pulse, a="primary", b="secondary", c="secondary") == since


def test_after_another_has_taken_over_it_counts_anew(pulse: Pulse) -> None:
    """Also if the driver learns in one moment that the old one is gone and the new one is there."""
    since = look(pulse, a="primary", b="secondary")
    after = look(pulse, a="secondary", b="primary")
    assert since is not None
    assert after is not None
    assert after > since


@pytest.mark.parametrize(
    ("uri", "query"),
    [
        ("mongodb://a,b/?replicaSet=rs", "replicaSet=rs&w=majority"),
        ("mongodb://a/?W=2&replicaSet=rs", "W=2&replicaSet=rs"),
        ("mongodb://a", "w=majority"),
    ],
)
def test_writes_wait_for_the_majority_unless_somebody_chose_otherwise(uri: str, query: str) -> None:
    assert connection_uri(DatabaseSettings(uri=uri)).partition("?")[2] == query


def many(errors: Sequence[int] = (), concerns: Sequence[int] = ()) -> dict[str, Any]:
    """What the driver says of a write of many."""
    problems = [{"index": index, "code": code, "errmsg": f"error {code}"} for index, code in enumerate(errors)]
    return {
        "writeErrors": problems,
        "writeConcernErrors": [{"code": code, "errmsg": f"concern {code}"} for code in concerns],
    }


def test_what_no_majority_has_taken_is_not_taken_for_written() -> None:
    """A submission of which every document is new has no error of its own then."""
    assert only_duplicates(BulkWriteError(many(errors=[11000, 11000])))
    assert not only_duplicates(BulkWriteError(many(errors=[11000, 13])))
    assert not only_duplicates(BulkWriteError(many(errors=[11000], concerns=[64])))
    assert not only_duplicates(BulkWriteError(many(concerns=[64])))
    with pytest.raises(DatabaseUnavailable, match="concern 64"), translated("submitting calculations", "db"):
        raise BulkWriteError(many(concerns=[64]))


def test_the_end_of_a_program_does_not_wait_for_the_threads_of_the_driver() -> None:
    code = """
from pymongo.synchronous import monitor
from puffin.settings import DatabaseSettings
from puffin.store import Store
monitor._shutdown_executors = lambda: print("waits")
store = Store(DatabaseSettings(uri="mongodb://127.0.0.1:9"), timeout_s=0.1)
store.close()
print("ends")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("ends\n", "")


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad Request\r\n\r\n<html>", b"SSH-2.0-OpenSSH_9.2p1\r\n"])
def test_what_is_no_database_is_not_said_to_be_out_of_reach(answer: bytes) -> None:
    class Foreign(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        where = f"127.0.0.1:{server.server_address[1]}"
        store = Store(DatabaseSettings(uri=f"mongodb://{where}"), timeout_s=0.5)
        try:
            with pytest.raises(DatabaseUnavailable) as caught:
                store.check()
        finally:
            store.close()
            server.shutdown()
    assert str(caught.value) == (
        f"something answers at {where}, but not a MongoDB server, while connecting: check address and port of the "
        "database, and what listens there"
    )


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (NotPrimaryError("stepped down"), True),
        (WTimeoutError("waiting for replication timed out", 64), True),
        (WriteConcernError("the primary stepped down while waiting", 189), True),
        (WriteConcernError("not enough data-bearing nodes", 100), False),
        (OperationFailure("interrupted", 11600, {"errorLabels": ["RetryableWriteError"]}), True),
        (OperationFailure("not authorized", 13, {}), False),
        (BulkWriteError(many(concerns=[64])), True),
        (BulkWriteError(many(concerns=[100])), False),
        (BulkWriteError(many(errors=[13])), False),
    ],
)
def test_what_passes_is_told_from_what_stays(error: Exception, passes: bool) -> None:
    with pytest.raises(DatabaseError) as caught, translated("writing", "db"):
        raise error
    assert isinstance(caught.value, DatabaseUnavailable) is passes


@pytest.mark.parametrize(
    ("uri", "authenticates_at"),
    [
        ("mongodb://user:pw@a:1", "admin"),
        ("mongodb://user:pw@a:1/logins", "logins"),
        ("mongodb://user:pw@a:1/?authSource=elsewhere", "elsewhere"),
        ("mongodb://a:1", "explore"),
    ],
)
def test_a_login_in_the_connection_string_is_the_same_for_the_worker_and_its_jobs(
    uri: str, authenticates_at: str
) -> None:
    settings = DatabaseSettings(uri=uri)
    found = parse_uri(connection_uri(settings, "explore"))
    assert found["database"] == "explore"
    assert found["options"].get("authSource", found["database"]) == authenticates_at
    if "@" in uri:
        assert parse_uri(connection_uri(settings))["options"]["authSource"] == authenticates_at
