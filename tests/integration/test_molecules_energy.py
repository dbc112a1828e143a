"""PM6 takes every molecule of the demo as it ships."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.lab.requirements import missing

MOLECULES = Path(__file__).resolve().parents[2] / "examples" / "molecules"


@pytest.mark.parametrize("path", sorted(MOLECULES.glob("*.xyz")), ids=lambda path: path.stem)
def test_pm6_energy(path: Path) -> None:
    if find_spec("scine_sparrow") is None:
        missing("scine-sparrow is not installed: pip install 'puffin-fleet[scine]'")
    import scine_sparrow  # noqa: F401  registers the calculators
    import scine_utilities as utils

    structure, _ = utils.io.read(str(path))
    calculator = utils.core.get_calculator("PM6", "Sparrow")
    calculator.log = utils.core.Log.silent()
    calculator.structure = structure
    calculator.set_required_properties([utils.Property.Energy, utils.Property.Gradients])
    results = calculator.calculate()

    assert math.isfinite(results.energy)
    assert results.energy < 0
    assert abs(results.gradients).max() > 1e-3, "an optimization has nothing left to do"
