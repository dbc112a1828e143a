"""A job for a worker: the harmonic frequency of a diatomic molecule."""

from __future__ import annotations

import math

from puffin.jobs.base import JobContext, JobKind, Outcome

SPEED_OF_LIGHT = 299_792_458.0  # m/s
DALTON = 1.66053906660e-27  # kg


def kinds() -> list[JobKind]:
    """The jobs that this package offers; the entry point names this function."""
    return [JobKind("harmonic_frequency", "diatomic-jobs 1.0", (), "diatomic_jobs:run")]


def run(context: JobContext) -> Outcome:
    """Print the frequency, in 1/cm, for the settings ``force_constant`` (N/m), ``mass_1`` and ``mass_2`` (u)."""
    try:
        force, *masses = (float(context.claim.settings[name]) for name in ("force_constant", "mass_1", "mass_2"))
        reduced = masses[0] * masses[1] / sum(masses) * DALTON
        frequency = math.sqrt(force / reduced) / (2 * math.pi)
    except KeyError as error:
        return Outcome(success=False, comment=f"the calculation lacks the setting {error}")
    except (ValueError, ZeroDivisionError):
        return Outcome(success=False, comment="force_constant, mass_1 and mass_2 must be numbers above zero")
    print(frequency / (SPEED_OF_LIGHT * 100))
    return Outcome(success=True)
