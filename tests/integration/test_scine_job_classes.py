"""Every job class of SCINE Puffin whose programs are on PyPI, unmodified, on one real worker, with real results.

The jobs form a small exploration, as Chemoton would make it: optimize, find the graph, react, validate, model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database, connect, initialise
from tests.lab.requirements import missing
from tests.lab.worker import ALL_JOBS, Queue, Worker, Workers, queue_of, until

DATABASE = "job_classes"
PATIENCE_S = 120.0

HYDROGEN_CYANIDE = "H 0 0 -1.07\nC 0 0 0\nN 0 0 1.16"
BETWEEN_HCN_AND_HNC = "H 1.0 0.0 0.3\nC 0 0 0\nN 0 0 1.19"
HYDROXYMETHYLENE = "H 1.05 0 -0.3\nC 0 0 0\nO -0.1 1.3 0\nH 0.78 1.7 0.1"
FORMAMIDE = "C 0.0 0.42 0.0\nO 1.2 0.25 0.0\nN -0.94 -0.56 0\nH -0.45 1.43 0\nH -0.64 -1.52 0\nH -1.92 -0.33 0"
FORMIMIDIC_ACID = "C 0 0.42 0\nO 1.25 0 0\nN -0.94 -0.46 0\nH -0.35 1.46 0\nH 1.20 -0.98 0\nH -1.85 -0.03 0"
BUTANE = (
    "C -1.95 -0.12 0\nC -0.57 0.52 0\nC 0.57 -0.52 0\nC 1.95 0.12 0\n"
    "H -2.75 0.62 0\nH -2.08 -0.76 0.88\nH -2.08 -0.76 -0.88\nH -0.46 1.17 0.88\nH -0.46 1.17 -0.88\n"
    "H 0.46 -1.17 0.88\nH 0.46 -1.17 -0.88\nH 2.75 -0.62 0\nH 2.08 0.76 0.88\nH 2.08 0.76 -0.88"
)
# Settings that let a saddle point be found and followed in few steps.
REACTION = {
    "tsopt_optimizer": "bofill",
    "tsopt_bofill_trust_radius": 0.2,
    "irc_convergence_max_iterations": 60,
    "irc_stop_on_error": False,
    "irc_sd_factor": 2.0,
    "irc_irc_initial_step_size": 0.3,
    "spin_propensity_check": 0,
}


class Exploration:
    """Submits calculations with the SCINE library and reads their results with it."""

    def __init__(self, manager: Any, queue: Queue, worker: Worker) -> None:
        self._manager = manager
        self._queue = queue
        self._worker = worker

    def collection(self, name: str) -> Any:
        return self._manager.get_collection(name)

    def model(self, method: str = "PM6") -> Any:
        import scine_database as db

        model = db.Model(method, method, "")
        model.program = "sparrow"
        model.spin_mode = "any"
        return model

    def structure(self, text: str, label: str = "USER_GUESS") -> Any:
        """Enter a structure; coordinates are in angstrom."""
        import scine_database as db
        import scine_utilities as utils

        words = [line.split() for line in text.splitlines()]
        elements = [utils.ElementInfo.element_from_symbol(symbol) for symbol, *_ in words]
        positions = [[float(number) * utils.BOHR_PER_ANGSTROM for number in numbers] for _, *numbers in words]
        structure = db.Structure(db.ID(), self.collection("structures"))
        structure.create(utils.AtomCollection(elements, positions), 0, 1)
        structure.set_label(getattr(db.Label, label))
        structure.set_model(self.model())
        return structure

    def submit(self, order: str, *structures: Any, method: str = "PM6", **settings: Any) -> str:
        import scine_database as db
        import scine_utilities as utils

        calculation = db.Calculation(db.ID(), self.collection("calculations"))
        calculation.create(self.model(method), db.Job(order), [structure.id() for structure in structures])
        if settings:
            calculation.set_settings(utils.ValueCollection(settings))
        calculation.set_status(db.Status.NEW)
        return str(calculation.id())

    def done(self, id_: str) -> Results:
        """Wait for a calculation to be complete."""

        def look() -> dict[str, Any] | None:
            assert self._worker.process.poll() is None, f"the worker ended: {self._worker.log[-2000:]}"
            document = self._queue[id_]
            return document if document["status"] in {"complete", "failed"} else None

        document = until(look, f"{id_} to end", PATIENCE_S)
        assert document["status"] == "complete", document["comment"] + document["raw_output"][-2000:]
        return Results(self, document)

    def run(self, order: str, *structures: Any, **settings: Any) -> Results:
        return self.done(self.submit(order, *structures, **settings))

    def compound(self, structure: Any) -> Any:
        import scine_database as db

        compound = db.Compound(db.ID(), self.collection("compounds"))
        compound.create([structure.id()])
        structure.set_compound(compound.id())
        return compound

    def numbers(self, structure: Any, name: str) -> Any:
        """Read the last property of this name: a number, or an array."""
        import scine_database as db

        kinds = {"electronic_energy": db.NumberProperty, "bond_orders": db.SparseMatrixProperty}
        scalars = ("gibbs", "chemical_potential", "electro", "hardness", "softness", "final_", "max_", "concentration")
        kind = db.NumberProperty if name.startswith(scalars) else kinds.get(name, db.VectorProperty)
        kind = db.DenseMatrixProperty if name in {"hessian", "normal_modes"} else kind
        return kind(structure.get_properties(name)[-1], self.collection("properties")).get_data()

    def energy(self, structure: Any) -> float:
        return float(self.numbers(structure, "electronic_energy"))


@dataclass(frozen=True)
class Results:
    """What a complete calculation left in the database."""

    exploration: Exploration
    document: dict[str, Any]

    @property
    def structures(self) -> list[Any]:
        import scine_database as db

        found = self.document["results"]["structures"]
        return [db.Structure(db.ID(str(id_)), self.exploration.collection("structures")) for id_ in found]

    @property
    def properties(self) -> list[str]:
        """Names of the properties."""
        import scine_database as db

        found = self.document["results"]["properties"]
        collection = self.exploration.collection("properties")
        return sorted(db.Property(db.ID(str(id_)), collection).get_property_name() for id_ in found)

    @property
    def steps(self) -> list[Any]:
        import scine_database as db

        found = self.document["results"]["elementary_steps"]
        return [db.ElementaryStep(db.ID(str(id_)), self.exploration.collection("elementary_steps")) for id_ in found]


@pytest.fixture(scope="module")
def exploration(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exploration]:
    """One worker for all tests here."""
    from importlib.util import find_spec

    if not all(map(find_spec, ("scine_puffin", "scine_database", "scine_sparrow", "scine_readuct"))):
        missing("the SCINE modules are not installed: pip install 'puffin-fleet[scine]'")
    initialise(database_server, DATABASE)
    database = Database(database_server, DATABASE)
    workers = Workers(tmp_path_factory.mktemp("job-classes"), database)
    manager = connect(database_server, DATABASE)
    with contextlib.contextmanager(queue_of)(database) as queue:
        try:
            yield Exploration(manager, queue, workers.start(daemon=ALL_JOBS))
        finally:
            workers.end()
            manager.disconnect()
            queue.client.drop_database(DATABASE)


def ready_to_react(exploration: Exploration, text: str) -> Any:
    """A minimum with graph and compound, as reaction trials want it."""
    import scine_database as db

    [minimum] = exploration.run("scine_geometry_optimization", exploration.structure(text)).structures
    exploration.run("scine_bond_orders", minimum)
    exploration.run("graph", minimum)
    minimum.set_label(db.Label.MINIMUM_OPTIMIZED)
    exploration.compound(minimum)
    return minimum


@pytest.fixture(scope="module")
def hydrogen_cyanide(exploration: Exploration) -> Any:
    return ready_to_react(exploration, HYDROGEN_CYANIDE)


@pytest.fixture(scope="module")
def hydroxymethylene(exploration: Exploration) -> Any:
    return ready_to_react(exploration, HYDROXYMETHYLENE)


@pytest.fixture(scope="module")
def formamide(exploration: Exploration) -> Any:
    return ready_to_react(exploration, FORMAMIDE)


@pytest.fixture(scope="module")
def butane(exploration: Exploration) -> Any:
    return ready_to_react(exploration, BUTANE)


@pytest.fixture(scope="module")
def saddle_point(exploration: Exploration) -> Any:
    guess = exploration.structure(BETWEEN_HCN_AND_HNC, "TS_GUESS")
    [found] = exploration.run("scine_ts_optimization", guess).structures
    return found


# PM6 energies of this test's own, in hartree, from scine_sparrow 5.2.
ENERGY_OF_HCN = -11.558716
ENERGY_OF_HNC = -11.537489
ENERGY_OF_SADDLE_POINT = -11.421658
NEAR = 2e-5


@pytest.mark.parametrize(("method", "expected"), [("PM6", ENERGY_OF_HCN), ("DFTB3", None)])
def test_single_point(exploration: Exploration, hydrogen_cyanide: Any, method: str, expected: float | None) -> None:
    results = exploration.run("scine_single_point", hydrogen_cyanide, method=method)
    assert {"electronic_energy", "atomic_charges"} <= set(results.properties)
    energy = exploration.energy(hydrogen_cyanide)
    assert energy == pytest.approx(
        expected if expected is not None else energy_here(hydrogen_cyanide, method), abs=NEAR
    )
    assert sum(exploration.numbers(hydrogen_cyanide, "atomic_charges")) == pytest.approx(0.0, abs=1e-6)


def energy_here(structure: Any, method: str) -> float:
    import scine_sparrow  # noqa: F401  registers the calculators
    import scine_utilities as utils

    calculator = utils.core.get_calculator(method, "Sparrow")
    calculator.log = utils.core.Log.silent()
    calculator.structure = structure.get_atoms()
    calculator.set_required_properties([utils.Property.Energy])
    return float(calculator.calculate().energy)


def test_geometry_optimization(exploration: Exploration) -> None:
    import numpy

    [minimum] = exploration.run("scine_geometry_optimization", exploration.structure(HYDROGEN_CYANIDE)).structures
    assert exploration.energy(minimum) == pytest.approx(ENERGY_OF_HCN, abs=NEAR)
    hydrogen, carbon, nitrogen = minimum.get_atoms().positions
    angle = numpy.dot(hydrogen - carbon, nitrogen - carbon)
    lengths = numpy.linalg.norm(hydrogen - carbon), numpy.linalg.norm(nitrogen - carbon)
    assert angle == pytest.approx(-lengths[0] * lengths[1], rel=1e-3), "it is linear"
    assert lengths[1] == pytest.approx(2.18, abs=0.1)


def test_hessian(exploration: Exploration, saddle_point: Any) -> None:
    results = exploration.run("scine_hessian", saddle_point)
    assert {"hessian", "normal_modes", "frequencies", "gibbs_free_energy"} <= set(results.properties)
    hessian = exploration.numbers(saddle_point, "hessian")
    assert hessian.shape == (9, 9)
    assert abs(hessian - hessian.T).max() < 1e-6
    frequencies = exploration.numbers(saddle_point, "frequencies")
    assert [frequency < 0 for frequency in frequencies] == [True, False, False], "one imaginary mode, given as negative"


def test_bond_orders(exploration: Exploration) -> None:
    structure = exploration.structure(HYDROGEN_CYANIDE)
    exploration.run("scine_bond_orders", structure)
    orders = exploration.numbers(structure, "bond_orders").toarray()
    assert orders[0, 1] == pytest.approx(0.9, abs=0.15)
    assert orders[1, 2] == pytest.approx(3.0, abs=0.15)
    assert orders[0, 2] < 0.1


def test_graph(exploration: Exploration, hydrogen_cyanide: Any, butane: Any) -> None:
    import scine_molassembler as masm

    for structure, atoms, bonds in ((hydrogen_cyanide, 3, 2), (butane, 14, 13)):
        serialization = masm.JsonSerialization(
            masm.JsonSerialization.base_64_decode(structure.get_graph("masm_cbor_graph")),
            masm.JsonSerialization.BinaryFormat.CBOR,
        )
        graph = serialization.to_molecule().graph
        assert (atoms, bonds) == (graph.V, graph.E)
        assert structure.has_graph("masm_idx_map")


def test_transition_state_optimization(exploration: Exploration, saddle_point: Any) -> None:
    import scine_database as db

    assert saddle_point.get_label() == db.Label.TS_OPTIMIZED
    assert exploration.energy(saddle_point) == pytest.approx(ENERGY_OF_SADDLE_POINT, abs=NEAR)


def test_irc(exploration: Exploration, saddle_point: Any) -> None:
    ends = exploration.run("scine_irc_scan", saddle_point).structures
    energies = sorted(exploration.energy(end) for end in ends)
    assert energies == pytest.approx([ENERGY_OF_HCN, ENERGY_OF_HNC], abs=1e-3), "the two isomers"


def products_of_one_step(exploration: Exploration, results: Results, reactant: Any) -> list[Any]:
    """Check the one elementary step from the reactant over a transition state; return its products."""
    import scine_database as db

    [step] = results.steps
    assert step.get_type() == db.ElementaryStepType.REGULAR
    structures = exploration.collection("structures")
    transition_state = db.Structure(step.get_transition_state(), structures)
    assert transition_state.get_label() == db.Label.TS_OPTIMIZED
    left, right = step.get_reactants(db.Side.BOTH)
    assert [str(id_) for id_ in left] == [str(reactant.id())]
    products = [db.Structure(id_, structures) for id_ in right]
    assert sum(len(product.get_atoms()) for product in products) == len(reactant.get_atoms())
    assert exploration.energy(transition_state) > exploration.energy(reactant)
    assert exploration.energy(transition_state) > sum(map(exploration.energy, products))
    assert [product.get_graph("masm_cbor_graph") for product in products] != [reactant.get_graph("masm_cbor_graph")]
    return products


def falls_apart(exploration: Exploration, results: Results, hydroxymethylene: Any) -> None:
    products = products_of_one_step(exploration, results, hydroxymethylene)
    assert sorted(len(product.get_atoms()) for product in products) == [2, 2], "hydrogen and carbon monoxide"
    assert sum(map(exploration.energy, products)) < exploration.energy(hydroxymethylene) - 0.05


def test_newton_trajectory_1(exploration: Exploration, hydroxymethylene: Any) -> None:
    settings = {"nt_nt_lhs_list": [3], "nt_nt_rhs_list": [1], "nt_nt_total_force_norm": 0.05}
    results = exploration.run("scine_react_complex_nt", hydroxymethylene, **REACTION, **settings)
    falls_apart(exploration, results, hydroxymethylene)


def test_newton_trajectory_2(exploration: Exploration, hydroxymethylene: Any) -> None:
    settings = {"nt_nt_associations": [3, 1], "nt_nt_dissociations": [2, 3], "nt_nt_total_force_norm": 0.05}
    results = exploration.run("scine_react_complex_nt2", hydroxymethylene, **REACTION, **settings)
    falls_apart(exploration, results, hydroxymethylene)


def test_afir(exploration: Exploration, formamide: Any) -> None:
    push = {"afir_afir_lhs_list": [4], "afir_afir_rhs_list": [1], "afir_afir_energy_allowance": 1500.0}
    results = exploration.run("scine_react_complex_afir", formamide, **REACTION, **push)
    [formimidic_acid] = products_of_one_step(exploration, results, formamide)
    assert exploration.energy(formimidic_acid) > exploration.energy(formamide)


def test_artificial_force_alone(exploration: Exploration, hydrogen_cyanide: Any) -> None:
    results = exploration.run("scine_afir", hydrogen_cyanide, afir_afir_lhs_list=[0], afir_afir_rhs_list=[2])
    [pushed] = results.structures
    assert len(pushed.get_atoms()) == 3
    assert pushed.has_graph("masm_cbor_graph")


def test_transition_state_guess(exploration: Exploration, saddle_point: Any) -> None:
    results = exploration.run("scine_react_ts_guess", saddle_point, **REACTION)
    [step] = results.steps
    assert step.has_transition_state()


@pytest.mark.parametrize("order", ["scine_dissociation_cut", "scine_dissociation_cut_with_optimization"])
def test_dissociation_cut(exploration: Exploration, hydrogen_cyanide: Any, order: str) -> None:
    import scine_database as db

    settings = {"dissociations": [0, 1], "charge_propensity_check": 1}
    results = exploration.run(order, hydrogen_cyanide, **settings)
    [step] = results.steps
    assert step.get_type() == db.ElementaryStepType.BARRIERLESS
    _, parts = step.get_reactants(db.Side.BOTH)
    structures = exploration.collection("structures")
    assert sorted(len(db.Structure(part, structures).get_atoms()) for part in parts) == [1, 2]
    charges = {structure.get_charge() for structure in results.structures}
    assert charges == {-1, 0, 1}


def test_bspline(exploration: Exploration, formamide: Any) -> None:
    formimidic_acid = ready_to_react(exploration, FORMIMIDIC_ACID)
    settings = {**REACTION, "tsopt_bofill_follow_mode": 0}
    results = exploration.run("scine_bspline_optimization", formamide, formimidic_acid, **settings)
    [product] = products_of_one_step(exploration, results, formamide)
    assert exploration.energy(product) == pytest.approx(exploration.energy(formimidic_acid), abs=1e-4)


def test_conformers(exploration: Exploration, butane: Any) -> None:
    results = exploration.run("conformers", butane, enforce_bond_order_model=False)
    found = results.structures
    assert len(found) == 3, "four rotamers but for mirror images, less the one it started from"
    assert len({structure.get_graph("masm_decision_list") for structure in found}) == len(found)


def test_conceptual_dft(exploration: Exploration, hydrogen_cyanide: Any) -> None:
    results = exploration.run("scine_conceptual_dft", hydrogen_cyanide)
    assert {"fukui_plus", "fukui_minus", "dual_descriptor", "hardness", "electronegativity"} <= set(results.properties)
    assert sum(exploration.numbers(hydrogen_cyanide, "fukui_plus")) == pytest.approx(1.0, abs=1e-6)
    hardness = exploration.numbers(hydrogen_cyanide, "hardness")
    assert hardness > 0
    assert exploration.numbers(hydrogen_cyanide, "softness") == pytest.approx(1.0 / hardness, rel=0.51)


def test_geometry_validation(exploration: Exploration, hydrogen_cyanide: Any) -> None:
    results = exploration.run("scine_geometry_validation", hydrogen_cyanide)
    assert {"frequencies", "gibbs_free_energy"} <= set(results.properties)
    assert min(exploration.numbers(hydrogen_cyanide, "frequencies")) > 0


def test_kinetic_modelling(exploration: Exploration) -> None:
    import scine_database as db

    structures = [exploration.structure(HYDROGEN_CYANIDE, "MINIMUM_OPTIMIZED") for _ in range(2)]
    compounds = [exploration.compound(structure) for structure in structures]
    reaction = db.Reaction(db.ID(), exploration.collection("reactions"))
    left, right = ([compound.id()] for compound in compounds)
    reaction.create(left, right)
    for compound in compounds:
        compound.add_reaction(reaction.id())
    exploration.run(
        "kinetx_kinetic_modeling",
        *structures,
        time_step=1e-3,
        solver="cash_karp_5",
        batch_interval=1000,
        n_batches=1000,
        energy_label="electronic_energy",
        convergence=1e-10,
        lhs_rates=[3.0],
        rhs_rates=[1.0],
        start_concentrations=[1.0, 0.0],
        reaction_ids=[str(reaction.id())],
        aggregate_ids=[str(compound.id()) for compound in compounds],
        aggregate_types=[db.CompoundOrFlask.COMPOUND, db.CompoundOrFlask.COMPOUND],
        energy_model_program="any",
        instant_barrierless=False,
    )
    final = [exploration.numbers(structure, "final_concentration") for structure in structures]
    assert final == pytest.approx([0.25, 0.75], abs=1e-3), "what the two rates say"


def test_a_job_whose_program_is_not_here_is_left_alone(exploration: Exploration, hydrogen_cyanide: Any) -> None:
    turbomole = exploration.submit("turbomole_single_point", hydrogen_cyanide)
    exploration.run("scine_single_point", hydrogen_cyanide)
    assert exploration._queue.status(turbomole) == "new"
