"""The job classes of SCINE Puffin, unmodified, on a real worker; submitted and read with the SCINE library."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from puffin.calculations import reason_of
from tests.lab.scine_puffin import ScinePuffin
from tests.lab.worker import ALL_JOBS, Queue, Worker, Workers, until

pytest.importorskip("scine_database", reason="needs the extra 'scine'")
pytest.importorskip("scine_puffin", reason="needs the extra 'scine'")

MOLECULES = Path(__file__).resolve().parents[2] / "examples" / "molecules"


@dataclass(frozen=True)
class Chemistry:
    """Submits and reads calculations as Chemoton would."""

    manager: Any

    def submit(self, molecule: str, order: str, method: str = "PM6", settings: dict[str, Any] | None = None) -> str:
        import scine_database as db
        import scine_utilities as utils

        atoms, _ = utils.io.read(str(MOLECULES / f"{molecule}.xyz"))
        structure = db.Structure(db.ID(), self.manager.get_collection("structures"))
        structure.create(atoms, 0, 1)
        structure.set_label(db.Label.USER_GUESS)
        model = db.Model(method, method, "")
        model.program = "sparrow"
        model.spin_mode = "restricted"
        structure.set_model(model)
        calculation = db.Calculation(db.ID(), self.manager.get_collection("calculations"))
        calculation.create(model, db.Job(order), [structure.id()])
        if settings:
            calculation.set_settings(utils.ValueCollection(settings))
        calculation.set_status(db.Status.NEW)
        return str(calculation.id())

    def calculation(self, id_: str) -> Any:
        import scine_database as db

        return db.Calculation(db.ID(id_), self.manager.get_collection("calculations"))

    def energy(self, id_: str) -> float:
        import scine_database as db

        calculation = self.calculation(id_)
        results = calculation.get_results()
        structures = results.structure_ids or calculation.get_structures()
        structure = db.Structure(structures[0], self.manager.get_collection("structures"))
        [found] = [
            number
            for item in structure.get_properties("electronic_energy")
            if (number := db.NumberProperty(item, self.manager.get_collection("properties"))).get_calculation()
            == calculation.id()
        ]
        return float(found.get_data())


@pytest.fixture
def chemistry(scine_manager: Any) -> Chemistry:
    return Chemistry(scine_manager)


@pytest.fixture
def worker(workers: Workers) -> Worker:
    return workers.start(daemon=ALL_JOBS)


def energy_computed_here(molecule: str, method: str) -> float:
    import scine_sparrow  # noqa: F401  registers the calculators
    import scine_utilities as utils

    atoms, _ = utils.io.read(str(MOLECULES / f"{molecule}.xyz"))
    calculator = utils.core.get_calculator(method, "Sparrow")
    calculator.log = utils.core.Log.silent()
    # What the SCINE job sets: a result to 1e-8 needs the same convergence on both sides.
    calculator.settings["spin_mode"] = "restricted"
    calculator.settings["self_consistence_criterion"] = 1e-9
    calculator.structure = atoms
    calculator.set_required_properties([utils.Property.Energy])
    return float(calculator.calculate().energy)


def test_energies_are_those_of_the_library(worker: Worker, queue: Queue, chemistry: Chemistry) -> None:
    cases = [(molecule, method) for molecule in ("water", "methane", "benzene") for method in ("PM6", "DFTB3", "AM1")]
    tight = {"self_consistence_criterion": 1e-9}
    ids = {case: chemistry.submit(case[0], "scine_single_point", case[1], tight) for case in cases}
    for (molecule, method), id_ in ids.items():
        document = queue.settled(id_)
        assert document["status"] == "complete", document["comment"]
        assert chemistry.energy(id_) == pytest.approx(energy_computed_here(molecule, method), abs=1e-8)
        assert document["executor"] == worker.uuid
        assert document["puffin"]["attempt"] == 1
        calculation = chemistry.calculation(id_)
        assert calculation.get_runtime() == document["runtime"] > 0
        assert calculation.get_job().cores == 1


@pytest.mark.parametrize("order", ["scine_geometry_optimization", "scine_bond_orders", "scine_hessian"])
def test_other_kinds_of_jobs(worker: Worker, queue: Queue, chemistry: Chemistry, order: str) -> None:
    import scine_database as db

    id_ = chemistry.submit("water", order)
    document = queue.settled(id_)
    assert document["status"] == "complete", document["comment"]
    assert document["puffin"]["usage"]["wall_s"] == document["runtime"]
    results = chemistry.calculation(id_).get_results()
    assert results.property_ids
    for property_id in results.property_ids:
        assert db.Property(property_id, chemistry.manager.get_collection("properties")).exists()


def test_a_job_that_fails_leaves_the_reason(worker: Worker, queue: Queue, chemistry: Chemistry) -> None:
    unknown = chemistry.submit("water", "scine_single_point", "NOSUCHMETHOD")
    document = queue.settled(unknown)
    assert document["status"] == "failed"
    assert document["comment"].strip()
    assert isinstance(document["runtime"], float)
    until(lambda: reason_of(document["comment"]) in worker.log, "the worker to say why")
    assert queue.wait(chemistry.submit("water", "scine_single_point"))["puffin"]["attempt"] == 1


def test_what_an_operator_sets_while_a_job_runs_is_not_overwritten(
    workers: Workers, queue: Queue, chemistry: Chemistry
) -> None:
    """Also if the job ends before the worker renews its lease, which is long here, and so learns of it."""
    worker = workers.start(daemon={**ALL_JOBS, "lease_in_s": 600.0})
    id_ = chemistry.submit("caffeine", "scine_geometry_optimization")
    queue.wait(id_, "pending")
    queue.set(id_, status="hold")
    until(lambda: "not written: the calculation is no longer ours" in worker.log, "the job to end")
    assert queue.status(id_) == "hold"
    queue.wait(chemistry.submit("water", "scine_single_point"))


def test_the_worker_itself_stays_free_of_the_scine_libraries(
    worker: Worker, queue: Queue, chemistry: Chemistry
) -> None:
    queue.wait(chemistry.submit("water", "scine_single_point"))
    maps = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "scine" not in maps


def test_what_a_dead_scine_puffin_leaves_is_taken_over(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    id_ = queue.sleep(600.0)
    with ScinePuffin(tmp_path, queue) as other:
        assert queue.wait(id_, "pending")["executor"] == other.uuid
    queue.set(id_, settings={"time": 0})
    heir = workers.start(daemon={**ALL_JOBS, "lease_in_s": 1.0, "job_reset_time_in_s": 1.5, "touch_time_in_s": 1.0})
    document = queue.wait(id_)
    assert document["executor"] == heir.uuid
    assert document["puffin"]["attempt"] == 1


def test_neither_touches_what_the_other_runs(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    theirs = queue.sleep(600.0)  # else it would take ours, where our worker is slow to start
    with ScinePuffin(tmp_path, queue) as other:
        queue.wait(theirs, "pending")
        # It touches its calculation each second; our judge looks more often than that.
        worker = workers.start(
            daemon={**ALL_JOBS, "lease_in_s": 1.0, "job_reset_time_in_s": 8.0, "touch_time_in_s": 1.0}
        )
        ours = queue.sleep(9.0)
        assert queue.wait(ours)["executor"] == worker.uuid
        assert (queue.status(theirs), queue[theirs]["executor"]) == ("pending", other.uuid)
    assert queue.events("reset") == []


def test_each_takes_what_the_other_gave_back(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    id_ = queue.sleep(600.0)
    worker = workers.start(daemon=ALL_JOBS)
    queue.wait(id_, "pending")
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0
    queue.set(id_, settings={"time": 0})
    with ScinePuffin(tmp_path, queue) as other:
        assert queue.wait(id_)["executor"] == other.uuid
