"""The queue on a real database server: what is put in, found again, changed and read, beside workers and SCINE."""

from __future__ import annotations

import multiprocessing
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet.queue import chemistry
from puffin.backlog import left_of, untaken
from puffin.calculations import Claim, Claimant, Status
from puffin.changes import Change
from puffin.documents import Model, Molecule, Request
from puffin.entries import Entry, Selection, Sort
from puffin.losses import Loss
from puffin.settings import DatabaseSettings, ResourceSettings
from puffin.store import Queue as Calculations
from puffin.store import Store
from puffin.submissions import Submission
from tests.lab.fixtures_database import Database
from tests.lab.worker import ALL_JOBS, Queue, Workers, lines_of, until

SPARROW = Model(program="sparrow", method_family="PM6", method="PM6")
HYDROGEN = Molecule("hydrogen", ("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 1.4)))
HELIUM = Molecule("helium", ("He",), ((0.0, 0.0, 0.0),))


@pytest.fixture
def people(queue: Queue) -> Calculations:
    """The database as people see it."""
    found = queue.store.queue(queue.name)
    found.prepare()
    return found


def work(*molecules: Molecule, order: str = "scine_single_point", **changes: Any) -> list[Submission]:
    return [Submission(molecule, Request(order, SPARROW, memory=0.5, **changes)) for molecule in molecules]


def everything(people: Calculations, **selection: Any) -> list[Entry]:
    return people.entries(Selection(**selection))


def the_one(people: Calculations, id_: str) -> Entry:
    (found,) = people.find(id_)
    return found


# In ----------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_submitted_again(people: Calculations) -> None:
    first = people.submit(work(HYDROGEN, HELIUM))
    second = people.submit(work(HELIUM, HYDROGEN))
    assert [(done.added, done.status) for done in first] == [(True, Status.NEW)] * 2
    assert [(done.added, done.id) for done in second] == [(False, first[1].id), (False, first[0].id)]
    assert len(everything(people)) == 2


def submit_in_step(uri: str, name: str, rounds: int, barrier: Any) -> None:
    store = Store(DatabaseSettings(uri=uri, name=name))
    for number in range(rounds):
        molecules = [Molecule("helium", ("He",), ((float(number), 0.0, float(z)),)) for z in range(5)]
        barrier.wait(60)
        store.queue(name).submit(work(*molecules))
    store.close()


def test_two_who_submit_the_same_at_once_add_it_once(people: Calculations, queue: Queue, database: Database) -> None:
    processes, rounds = multiprocessing.get_context("fork"), 10
    barrier = processes.Barrier(2)
    words = (database.uri, queue.name, rounds, barrier)
    both = [processes.Process(target=submit_in_step, args=words) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    documents = list(queue.documents.find())
    assert len(documents) == len({document["puffin"]["key"] for document in documents}) == 5 * rounds
    structures = {document["_id"] for document in queue.client[queue.name]["structures"].find()}
    assert len(structures) == 5 * rounds
    assert {id_ for document in documents for id_ in document["structures"]} == structures


def test_the_same_twice_in_one_submission(people: Calculations) -> None:
    first, second = people.submit(work(HELIUM, HELIUM))
    assert (first.added, second.added) == (True, False)
    assert first.id == second.id


def test_again_adds_a_calculation_but_no_structure(people: Calculations, queue: Queue) -> None:
    people.submit(work(HELIUM))
    (again,) = people.submit(work(HELIUM), again=True)
    (hessian,) = people.submit(work(HELIUM, order="scine_hessian"))
    assert again.added
    assert hessian.added
    assert len(everything(people)) == 3
    assert queue.client[queue.name]["structures"].count_documents({}) == 1


def test_of_several_the_newest_tells_the_status(people: Calculations, queue: Queue) -> None:
    (first,) = people.submit(work(HELIUM))
    queue.set(first.id, status="failed")
    (second,) = people.submit(work(HELIUM), again=True)
    queue.set(second.id, status="complete")
    (found,) = people.submit(work(HELIUM))
    assert (found.id, found.status, found.added) == (second.id, Status.COMPLETE, False)


def test_a_calculation_is_found_after_its_job_completed_the_model(people: Calculations, queue: Queue) -> None:
    (first,) = people.submit(work(HELIUM))
    queue.set(first.id, **{"status": "complete", "model.spin_mode": "restricted"})
    assert not people.submit(work(HELIUM))[0].added


def test_scine_reads_what_was_submitted(people: Calculations, scine_manager: Any) -> None:
    import scine_database as db

    settings: dict[str, Any] = {"a": 1, "b": 2.5, "c": True, "d": "text", "e": [1, 2], "f": [1.5], "g": ["x"]}
    settings |= {"h": [[1], [2, 3]], "i": []}
    nested = {"j": {"k": [1.0], "l": 2}}
    (done,) = people.submit(work(HYDROGEN, settings={**settings, **nested}, cores=2, priority=3))
    calculation = db.Calculation(db.ID(done.id), scine_manager.get_collection("calculations"))
    found = calculation.get_settings().as_dict()
    assert found.pop("j").as_dict() == nested["j"]
    assert found == settings
    assert (calculation.get_job().order, calculation.get_job().cores) == ("scine_single_point", 2)
    assert (calculation.get_priority(), calculation.get_status()) == (3, db.Status.NEW)
    assert calculation.get_model().program == "sparrow"
    structure = db.Structure(calculation.get_structures()[0], scine_manager.get_collection("structures"))
    assert structure.get_atoms().positions.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]]
    assert (structure.get_charge(), structure.get_multiplicity()) == (0, 1)


def test_an_empty_database_is_made_ready(database: Database) -> None:
    name = f"{database.name}_empty"
    store = Store(DatabaseSettings(uri=database.uri, name=name))
    people = store.queue(name)
    try:
        assert not people.is_initialised()
        chemistry.prepare_database(database.uri, name)
        assert people.is_initialised()
        people.prepare()
        people.prepare()
        assert people.submit(work(HELIUM))[0].added
        with database.server.client() as client:
            assert client[name]["_db_meta_data"].count_documents({}) == 1
            assert "puffin_key" in client[name]["calculations"].index_information()
    finally:
        store.close()
        with database.server.client() as client:
            client.drop_database(name)


# The key and the worker --------------------------------------------------------------------------------


def claim(queue: Queue, executor: str = "w") -> Claim:
    found = queue.store.calculations(queue.name).claim(
        Claimant(executor, 60.0, "host", "worker-1", "lab"), ResourceSettings(), ["scine_single_point"], ["sparrow"]
    )
    assert found is not None
    return found


def test_the_key_outlives_claim_loss_and_requeue(people: Calculations, queue: Queue) -> None:
    (done,) = people.submit(work(HELIUM))
    key = queue[done.id]["puffin"]["key"]
    calculations = queue.store.calculations(queue.name)
    taken = claim(queue)
    assert taken.attempt == 1
    assert calculations.renew(taken)
    assert calculations.lose(taken, Loss("host", "test", 5))
    taken = claim(queue)
    assert (taken.attempt, taken.lost_on) == (2, ("host",))
    assert people.change(Change.CANCEL, [the_one(people, done.id)])
    assert people.change(Change.REQUEUE, [the_one(people, done.id)])
    assert claim(queue).attempt == 3
    assert queue[done.id]["puffin"]["key"] == key
    assert people.submit(work(HELIUM))[0].id == done.id


def test_a_calculation_that_scine_submitted(people: Calculations, queue: Queue, scine_manager: Any) -> None:
    import scine_database as db

    calculation = db.Calculation(db.ID(), scine_manager.get_collection("calculations"))
    calculation.create(db.Model("PM6", "PM6", "", ""), db.Job("sleep"), [])
    calculation.set_status(db.Status.NEW)
    id_ = calculation.id().string()
    entry = the_one(people, id_)
    assert (entry.status, entry.order, entry.attempt, entry.runtime_s) == (Status.NEW, "sleep", None, None)
    for change, status in ((Change.HOLD, "hold"), (Change.RELEASE, "new"), (Change.CANCEL, "failed")):
        assert people.change(change, [the_one(people, id_)], "why")
        assert queue.status(id_) == status
    assert calculation.get_comment() == "why"
    assert people.details(entry) is not None


# Changes -----------------------------------------------------------------------------------------------


def test_what_changed_meanwhile_is_left_alone(people: Calculations, queue: Queue) -> None:
    done = people.submit(work(HYDROGEN, HELIUM))
    entries = everything(people)
    taken = claim(queue)
    (held,) = people.change(Change.HOLD, entries)
    assert held.id in {item.id for item in done} - {taken.id}
    assert queue.status(taken.id) == "pending"


def test_another_attempt_than_the_one_seen_is_not_cancelled(people: Calculations, queue: Queue) -> None:
    people.submit(work(HELIUM))
    calculations = queue.store.calculations(queue.name)
    taken = claim(queue)
    seen = the_one(people, taken.id)
    assert calculations.requeue(taken)
    again = claim(queue)
    assert people.change(Change.CANCEL, [seen]) == []
    assert calculations.renew(again)


def test_after_a_cancel_the_attempt_can_write_nothing(people: Calculations, queue: Queue) -> None:
    people.submit(work(HELIUM))
    taken = claim(queue)
    people.change(Change.CANCEL, [the_one(people, taken.id)], "why")
    calculations = queue.store.calculations(queue.name)
    assert not calculations.renew(taken)
    assert calculations.status_of(taken) is None
    assert not calculations.retract_failure(taken, Loss("host", "test", 5))
    assert (queue.status(taken.id), queue[taken.id]["comment"]) == ("failed", "why")


def test_many_changes_at_once_each_happen_once(people: Calculations) -> None:
    people.submit([Submission(HELIUM, Request("sleep", Model(), settings={"n": n})) for n in range(50)])
    entries = everything(people)
    changed: list[list[Entry]] = []
    threads = [threading.Thread(target=lambda: changed.append(people.change(Change.HOLD, entries))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.status for entry in everything(people)} == {Status.HOLD}
    assert len(everything(people)) == 50


@pytest.mark.parametrize("change", [Change.HOLD, Change.CANCEL])
def test_a_running_job_is_killed(
    people: Calculations, queue: Queue, workers: Workers, tmp_path: Path, change: Change
) -> None:
    note = tmp_path / "note"
    code = f"import os, time; print(os.getpid(), file=open({str(note)!r}, 'a'), flush=True); time.sleep(600)"
    worker = workers.start(daemon={"lease_in_s": 6.0})
    id_ = queue.code(code)
    job = int(until(lambda: lines_of(note), "the job to begin")[0])
    assert psutil.pid_exists(job)
    assert people.change(change, [the_one(people, id_)], "why")
    # Its worker learns of it with the next renewal, within a third of the lease; the rest is for a busy machine.
    until(lambda: not psutil.pid_exists(job), "the job to be killed", patience_s=20.0)
    after = queue.sleep()
    queue.wait(after)
    assert queue.status(id_) == ("hold" if change is Change.HOLD else "failed")
    assert worker.stop() == 0
    assert len(lines_of(note)) == 1


# Out ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(people: Calculations, queue: Queue) -> dict[str, str]:
    """Calculations of many kinds, by a name each."""
    ids = {}
    for name, order, program, fields in (
        ("a", "scine_single_point", "sparrow", {"status": "complete", "runtime": 5.0, "executor": "u1"}),
        ("b", "scine_hessian", "orca", {"status": "failed", "puffin.worker": "node7-1", "executor": "u2"}),
        ("c", "sleep", "any", {"status": "new"}),
        ("d", "sleep", "any", {"status": "hold", "puffin.worker": "node8-1"}),
    ):
        ids[name] = queue.submit(order, model={"program": program})
        queue.set(ids[name], **fields)
    return ids


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, "abcd"),
        ({"statuses": (Status.NEW, Status.FAILED)}, "bc"),
        ({"orders": ("scine_*",)}, "ab"),
        ({"orders": ("scine_h*", "sleep")}, "bcd"),
        ({"programs": ("orca",)}, "b"),
        ({"workers": ("node?-1",)}, "bd"),
        ({"workers": ("u1",)}, "a"),
        ({"workers": ("u*",), "orders": ("*hess*",)}, "b"),
        ({"orders": ("scine.*",)}, ""),
    ],
)
def test_selections(people: Calculations, mixed: dict[str, str], selection: dict[str, Any], expected: str) -> None:
    assert {entry.id for entry in everything(people, **selection)} == {mixed[name] for name in expected}
    assert people.count(Selection(**selection)) == len(expected)


def test_the_newest_first_and_a_limit(people: Calculations, mixed: dict[str, str], queue: Queue) -> None:
    now = queue.store.server_time()
    for minutes, name in enumerate("dbac"):
        queue.set(mixed[name], _lastmodified=now - timedelta(minutes=10 * minutes))
    assert [entry.id for entry in everything(people)] == [mixed[name] for name in "dbac"]
    assert [entry.id for entry in people.entries(Selection(), reverse=True, limit=1)] == [mixed["c"]]
    recent = Selection(since=now - timedelta(minutes=15))
    assert [entry.id for entry in people.entries(recent)] == [mixed["d"], mixed["b"]]
    assert people.entries(Selection(), Sort.JOB)[0].order == "scine_hessian"
    assert [entry.id for entry in people.entries(Selection(timed=True), Sort.RUNTIME)] == [mixed["a"]]


def test_counts_and_pace(people: Calculations, mixed: dict[str, str], queue: Queue) -> None:
    counts = {(tally.order, tally.status.value): tally.count for tally in people.tallies()}
    assert counts == {
        ("scine_single_point", "complete"): 1,
        ("scine_hessian", "failed"): 1,
        ("sleep", "new"): 1,
        ("sleep", "hold"): 1,
    }
    now = queue.store.server_time()
    # The failed one never ran: it has no runtime, and says nothing about the pace.
    finished, ended = people.ended_since(now - timedelta(hours=1))
    assert (finished, [end.runtime_s for end in ended]) == (1, [5.0])
    assert people.ended_since(now + timedelta(hours=1)) == (0, [])


def test_what_is_too_large_for_every_worker_is_not_waited_for(
    people: Calculations, queue: Queue, workers: Workers
) -> None:
    workers.start(resources={"cores": 2, "memory": 1.0})
    large = queue.sleep(cores=3, memory=0.5)
    too_much = queue.sleep(cores=1, memory=4.0)
    queue.wait(queue.sleep(cores=2, memory=0.5))
    records = queue.store.registry.workers()
    found = untaken(people.tallies(), records, queue.store.server_time())
    assert {(each.tally.cores, each.tally.memory, each.tally.count, each.reason) for each in found} == {
        (3, 0.5, 1, "needs 3 cores: no worker has that; the most is 2 cores"),
        (1, 4.0, 1, "needs 4 GB memory: no worker has that; the most is 1 GB memory"),
    }
    assert left_of(people.tallies(), found) == 0
    assert [queue.status(id_) for id_ in (large, too_much)] == ["new", "new"]


def test_the_beginning_of_an_id(people: Calculations, mixed: dict[str, str]) -> None:
    assert [entry.id for entry in people.find(mixed["a"])] == [mixed["a"]]
    # Not only the eight digits of the second: the four need not be of one.
    common = os.path.commonprefix(list(mixed.values()))  # noqa: RUF071 - of characters is what is wanted
    assert len(people.find(common, limit=3)) == 3
    assert len(people.find(common, limit=9)) == 4
    assert people.find("f" * 24) == []


def test_what_a_scine_job_found(people: Calculations, queue: Queue, workers: Workers) -> None:
    (done,) = people.submit(work(HYDROGEN, order="scine_geometry_optimization"))
    (hessian,) = people.submit(work(HYDROGEN, order="scine_hessian"))
    worker = workers.start(daemon=ALL_JOBS)
    for id_ in (done.id, hessian.id):
        queue.wait(id_)
    assert worker.stop() == 0
    first, second = people.outcomes([the_one(people, done.id), the_one(people, hessian.id)])
    assert first.name == "hydrogen"
    assert [structure.label for structure in first.structures] == ["user_optimized"]
    assert first.energy == first.number("electronic_energy", first.structures[0].id)
    assert second.energy is not None
    assert first.energy is not None
    assert first.energy < second.energy
    shapes = {item.name: item.shape for item in second.properties}
    assert (shapes["hessian"], shapes["frequencies"]) == ((6, 6), (1,))
    details = people.details(the_one(people, done.id))
    assert details is not None
    assert "energy" in details.raw_output
    assert details.usage["wall_s"] > 0
    kinds = [event["kind"] for event in queue.store.events.about(done.id)]
    assert kinds == ["claimed", "finished"]
