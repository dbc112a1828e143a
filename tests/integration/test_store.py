"""The store on a real server: leases, losses, the judge, the registry, events, orders, and errors in words."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from unittest.mock import Mock

import pytest

from puffin.calculations import Claim, Claimant, Status, Usage, Verdict
from puffin.entries import cancellation
from puffin.errors import ConfigurationError, DatabaseError, DatabaseUnavailable
from puffin.judge import Court
from puffin.losses import Loss
from puffin.records import WorkerRecord
from puffin.settings import DaemonSettings, DatabaseSettings, ResourceSettings
from puffin.store import Calculations, Event, Store, connection_uri, wait_until_reachable
from tests.lab.fixtures_database import Database
from tests.lab.worker import Queue, until

RESOURCES = ResourceSettings(cores=4, memory=8.0, disk=8.0)
ME, OTHER = (Claimant(name, 60.0, f"host-of-{name}", name, "lab") for name in ("me", "other"))
USAGE = Usage(1.0, 0.5, 0.1)
DONE = Verdict(Status.COMPLETE, "", "output", USAGE)
LOSS = Loss("host", "it fell", 3)


@pytest.fixture
def calculations(queue: Queue) -> Calculations:
    return queue.store.calculations(queue.name)


@pytest.fixture
def store(queue: Queue) -> Store:
    return queue.store


def claim(calculations: Calculations, claimant: Claimant = ME) -> Claim:
    claimed = calculations.claim(claimant, RESOURCES, ["sleep"], ["any"])
    assert claimed is not None
    return claimed


# Claims and what follows -------------------------------------------------------------------------------


def test_a_calculation_is_claimed_once(calculations: Calculations, queue: Queue) -> None:
    for _ in range(30):
        queue.sleep()
    taken: list[str] = []

    def take_all(name: str) -> None:
        claimant = Claimant(name, 60.0, "h", name, "lab")
        while (found := calculations.claim(claimant, RESOURCES, ["sleep"], ["any"])) is not None:
            taken.append(found.id)

    threads = [threading.Thread(target=take_all, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 30


def test_nothing_is_written_by_one_who_lost_the_calculation(calculations: Calculations, queue: Queue) -> None:
    id_ = queue.sleep()
    first = claim(calculations)
    [seen] = calculations.pending("me")
    assert calculations.reset(seen, LOSS)
    second = claim(calculations, OTHER)
    before = queue[id_]
    assert not calculations.renew(first)
    assert not calculations.finish(first, DONE)
    assert not calculations.requeue(first)
    assert not calculations.lose(first, LOSS)
    assert calculations.complete(first, USAGE, None) is None
    assert not calculations.retract_failure(first, LOSS)
    assert queue[id_] == before
    assert (second.attempt, second.lost_on) == (2, ("host",))
    assert calculations.finish(second, DONE)


def test_the_same_worker_is_fenced_off_from_its_earlier_attempt(calculations: Calculations, queue: Queue) -> None:
    queue.sleep()
    first = claim(calculations)
    assert calculations.requeue(first)
    second = claim(calculations)
    assert not calculations.finish(first, DONE)
    assert calculations.finish(second, DONE)
    assert calculations.status_of(second) is Status.COMPLETE


def test_a_reset_fails_if_anything_happened_since(calculations: Calculations, queue: Queue) -> None:
    queue.sleep()
    held = claim(calculations)
    [seen] = calculations.pending()
    until(lambda: calculations.renew(held) and calculations.pending()[0].renewed != seen.renewed, "a renewal")
    assert not calculations.reset(seen, LOSS)
    [seen] = calculations.pending()
    assert calculations.reset(seen, LOSS)
    assert not calculations.reset(seen, LOSS)


def test_the_last_loss_is_a_failure(calculations: Calculations, queue: Queue) -> None:
    id_ = queue.sleep()
    for _ in range(3):
        assert calculations.lose(claim(calculations), LOSS)
    assert queue[id_]["status"] == "failed"
    assert "lost 3 times" in queue[id_]["comment"]


def test_a_job_that_wrote_its_own_end_is_completed(calculations: Calculations, queue: Queue) -> None:
    id_ = queue.sleep()
    calculations.lose(claim(calculations), LOSS)
    held = claim(calculations)
    assert calculations.complete(held, USAGE, "x") is None, "it is still pending"
    queue.set(id_, status="complete")
    assert calculations.complete(held, USAGE, None) is Status.COMPLETE
    document = queue[id_]
    assert (document["runtime"], document["raw_output"]) == (1.0, "")
    assert "lost_on" not in document["puffin"]


def test_what_is_too_large_is_refused_and_not_unavailable(calculations: Calculations, queue: Queue) -> None:
    queue.sleep()
    held = claim(calculations)
    queue.set(held.id, auxiliaries={"large": "x" * (14 * 2**20)})
    with pytest.raises(DatabaseError) as caught:
        calculations.finish(held, Verdict(Status.COMPLETE, "", "y" * 4 * 2**20, USAGE))
    assert not isinstance(caught.value, DatabaseUnavailable)


def test_cancelled_calculations_are_counted_apart_from_failed_ones(calculations: Calculations, queue: Queue) -> None:
    ids = [queue.sleep() for _ in range(4)]
    queue.set(ids[0], status="failed", executor="", comment=cancellation("ann@desk", "no longer needed"))
    queue.set(ids[1], status="failed", executor="", comment="it was lost too often")
    queue.set(ids[2], status="failed", executor="me", comment=cancellation("ann@desk"))
    assert calculations.count_by_status() == {"cancelled": 1, "failed": 2, "new": 1}
    queue.set(ids[1], executor="", comment=3)
    queue.documents.insert_one({"_id": "somebody else's"})
    assert calculations.count_by_status() == {"cancelled": 1, "failed": 2, "new": 1, "None": 1}


# The judge ---------------------------------------------------------------------------------------------


def test_one_judge_sits_and_another_follows_when_it_has_left(store: Store, queue: Queue) -> None:
    seat = store.judge_seat(queue.name)
    assert seat.look() is None
    assert seat.take(None, "me", 60.0) is not None
    assert seat.take(None, "other", 60.0) is None, "somebody was faster"
    assert seat.stay("me", 60.0) is not None
    assert seat.stay("other", 60.0) is None
    seen = seat.look()
    assert seen is not None
    assert (seen.executor, seen.lease_s) == ("me", 60.0)
    assert seat.take(seen, "other", 60.0) is not None
    assert seat.stay("me", 60.0) is None
    assert seat.take(seen, "me", 60.0) is None, "what was seen is no longer so"


def test_the_judge_learns_the_servers_clock(store: Store, queue: Queue) -> None:
    before = store.server_time()
    now = store.judge_seat(queue.name).take(None, "me", 60.0)
    assert now is not None
    # However long the server takes to answer; it need not cut all its times to milliseconds in the same way.
    slack = timedelta(milliseconds=1)
    assert before - slack <= now <= store.server_time() + slack


def test_who_renews_right_after_the_judge_found_its_lease_lapsed_keeps_its_calculation(
    calculations: Calculations, store: Store, queue: Queue
) -> None:
    """As after a server that answered nobody from just after one look of the judge to just before the next."""
    short, judge = Claimant("short", 1.2, "h", "short", "lab"), Claimant("judge", 1.2, "h", "judge", "lab")
    court = Court(queue.name, store, DaemonSettings(), judge, Mock(), Mock())
    court.look()
    id_ = queue.sleep()
    held = claim(calculations, short)

    def look_when_lapsed() -> None:
        time.sleep(1.4)
        court.look()
        assert queue.status(id_) == "pending", "it was not given the time to renew"

    def is_given_up() -> bool:
        court.look()
        return queue.status(id_) == "new"

    look_when_lapsed()
    assert calculations.renew(held)
    look_when_lapsed()
    # A judge that is held up takes that for a clock that was set, and waits for a whole lease before it judges again.
    until(is_given_up, "what nobody renewed to be given up")


# Workers, events, orders -------------------------------------------------------------------------------


def record(**changes: object) -> WorkerRecord:
    names = {"uuid": "me", "fleet": "lab", "host": "h", "worker": "w", "release": "r", "configuration": "c"}
    numbers = {"pid": 1, "cores": 2, "memory": 1.0, "disk": 1.0}
    values = {**names, **numbers, "programs": ("sparrow",), "jobs": ("sleep",), "state": "idle", **changes}
    return WorkerRecord(**values)


def test_the_registry_remembers_workers(store: Store) -> None:
    store.registry.announce(record(state="starting"))
    store.registry.report(record(state="running", calculation="abc", done=3))
    store.registry.report(record(uuid="elsewhere", fleet="other"))
    [found] = store.registry.workers("lab")
    assert (found.state, found.calculation, found.done, found.programs) == ("running", "abc", 3, ("sparrow",))
    assert found.started is not None
    assert found.seen is not None
    assert found.seen >= found.started
    assert len(store.registry.workers()) == 2
    assert store.registry.forget(["me"]) == 1
    assert store.registry.workers("lab") == []


def test_workers_that_were_stopped_before_they_were_back_are_expected_no_more(store: Store) -> None:
    here = [f"h-{number}" for number in (1, 2, 3)]
    for name in here:
        store.registry.announce(record(uuid=name, worker=name, state="stopped", returns=1))
    store.registry.announce(record(uuid="else", host="elsewhere", worker="else", state="stopped", returns=1))
    store.registry.stay_away("lab", ["h"], lambda worker: worker != "h-3")
    assert {each.worker for each in store.registry.workers("lab") if not each.has_ended} == {"h-3", "else"}
    store.registry.stay_away("lab", [], lambda _: True)
    assert len([each for each in store.registry.workers("lab") if not each.has_ended]) == 2


def test_what_workers_accept_is_kept_once(store: Store, queue: Queue) -> None:
    store.registry.announce(record(uuid="a"))
    store.registry.announce(record(uuid="b"))
    store.registry.announce(record(uuid="c", programs=(), jobs=("sparrow", "sleep")))
    found = {each.uuid: (each.programs, each.jobs) for each in store.registry.workers("lab")}
    same = (("sparrow",), ("sleep",))
    assert found == {"a": same, "b": same, "c": ((), ("sparrow", "sleep"))}
    assert {(each.programs, each.jobs) for each in store.registry.workers("lab", brief=True)} == {((), ())}
    # What comes from the database is a record like any other, although it was not made by calling its class.
    assert all(each == dataclasses.replace(each) for each in store.registry.workers("lab"))
    kept = queue.client[queue.name]["puffin_offers"].count_documents({})
    assert kept == 2


def test_a_worker_of_the_first_release_accepts_what_it_wrote_itself(store: Store, queue: Queue) -> None:
    store.registry.announce(record())
    entries = queue.client[queue.name]["puffin_workers"]
    # As it reports after a rollback: what its successor referred to still stands there.
    entries.update_one({"_id": "me"}, {"$set": {"programs": ["orca"], "jobs": ["command"]}})
    [found] = store.registry.workers("lab")
    assert (found.programs, found.jobs) == (("orca",), ("command",))
    store.registry.announce(record())
    [found] = store.registry.workers("lab")
    assert (found.programs, found.jobs) == (("sparrow",), ("sleep",))
    assert not {"programs", "jobs"} & set(entries.find_one())


def test_a_report_brings_back_what_somebody_removed(store: Store, queue: Queue) -> None:
    store.registry.announce(record())
    kept = store.registry
    kept.report(record(state="idle"))
    for collection in ("puffin_workers", "puffin_offers"):
        queue.client[queue.name][collection].drop()
    kept.report(record(state="running"))
    [found] = store.registry.workers("lab")
    assert (found.state, found.programs, found.jobs) == ("running", ("sparrow",), ("sleep",))


def test_events_are_kept_in_order_and_in_bounds(store: Store, queue: Queue) -> None:
    store.events.prepare(size_bytes=2**20)
    store.events.prepare()
    store.events.write([(float(n), Event(f"kind{n}", "w", "h", "lab")) for n in range(5)])
    store.events.write([(9.0, Event("foreign", "w", "h", "other"))])
    assert [event["kind"] for event in store.events.latest(3, "lab")] == ["kind2", "kind3", "kind4"]
    assert queue.client[queue.name]["puffin_events"].options()["capped"]


def test_orders_to_a_fleet(store: Store) -> None:
    assert not store.control.is_stopped("lab")
    store.control.order_stop("lab", "me")
    assert store.control.is_stopped("lab")
    assert not store.control.is_stopped("other")
    store.control.lift_stop("lab")
    assert not store.control.is_stopped("lab")


# News --------------------------------------------------------------------------------------------------


def test_new_calculations_are_news_and_others_are_not(calculations: Calculations, queue: Queue) -> None:
    assert calculations.offers_change_streams()
    news = calculations.news()
    assert next(news) is False
    told: list[bool] = []

    def listen() -> None:
        with contextlib.suppress(DatabaseUnavailable):  # the end of the stream
            told.extend(filter(None, news))  # a server may also answer that there is nothing yet

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    id_ = queue.sleep()
    until(lambda: told, "news of it")
    held = claim(calculations)
    calculations.finish(held, DONE)
    queue.set(id_, status="new")
    until(lambda: len(told) > 1, "news of it again")
    assert queue.status(id_) == "new"
    # The stream ends behind all that there was to tell.
    queue.documents.drop()
    listening.join(40)
    assert not listening.is_alive()
    assert len(told) == 2, "what became of it is no news"


# Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["http://host", "mongodb://", "nonsense"])
def test_a_uri_that_is_none(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"database\.uri"):
        Store(DatabaseSettings(uri=uri))


def test_a_password_file_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match=r"database\.password_file: cannot read /no/such/file"):
        connection_uri(DatabaseSettings(username="me", password_file="/no/such/file"))


@pytest.fixture
def nowhere() -> Iterator[Store]:
    store = Store(DatabaseSettings(ip="127.0.0.1", port=1), timeout_s=0.2, has_pulse=True)
    yield store
    store.close()


def test_a_server_that_does_not_answer_is_unavailable(nowhere: Store) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        nowhere.check()
    message = str(caught.value)
    assert message.startswith("cannot reach the database at 127.0.0.1:1 while connecting: ")
    assert "Topology" not in message
    assert nowhere.connected_since is None
    with pytest.raises(DatabaseUnavailable):
        wait_until_reachable(nowhere, 0.3)


def test_it_knows_since_when_it_is_connected(store: Store, database: Database) -> None:
    store.check()
    assert until(lambda: store.connected_since, "the driver to have looked") > 0
