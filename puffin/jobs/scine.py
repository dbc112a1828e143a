"""Runs the job classes of an installed scine-puffin, unmodified.

They write their results, status, comment and output through ``scine_database`` themselves, and unconditionally; so
just before they write the end of a calculation it is verified here that it is still their worker's. What somebody else
made of it (hold, say) stays.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from puffin.calculations import shorten
from puffin.config import Configuration
from puffin.errors import ProgramError
from puffin.jobs import stand_ins
from puffin.jobs.base import JobContext, JobKind, Outcome
from puffin.output import read_shortened
from puffin.programs.catalogue import CATALOGUE, available_programs
from puffin.programs.module import ScineModule

_TARGET = "puffin.jobs.scine:run"
_TAKEN = 4
_PATIENCE = "serverSelectionTryOnce=false&serverSelectionTimeoutMS=86400000"
"""Lets the driver below the library wait for a database that is away: the worker freezes the job meanwhile."""


def scine_jobs() -> list[JobKind]:
    """Every job class of the installed scine-puffin; none if it, or the database library, is not installed."""
    if find_spec("scine_puffin") is None or find_spec("scine_database") is None:
        return []
    try:
        provider = f"scine-puffin {version('scine-puffin')}"
    except PackageNotFoundError:
        provider = "scine-puffin"
    stand_ins.provide()
    for program in CATALOGUE.values():
        # Importing a calculator registers it; without that every calculation with it fails.
        if program.needed_before_start and issubclass(program, ScineModule) and find_spec(program.module):
            # What cannot be loaded only fails those jobs that need it, and says why there.
            with contextlib.suppress(ProgramError):
                program.initialize()
    package = import_module("scine_puffin.jobs")
    return [_kind(module.name, provider) for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]


def _kind(order: str, provider: str) -> JobKind:
    try:
        required = tuple(_job_class(order).required_programs())
    # The module is somebody else's: whatever it raises only takes this one job away.
    except Exception as error:  # noqa: BLE001
        return JobKind(order, provider, (), _TARGET, writes_own_end=True, problem=f"cannot be imported: {error}")
    problem = "; ".join(filter(None, map(_missing, required)))
    return JobKind(order, provider, required, _TARGET, writes_own_end=True, problem=problem)


def _missing(program: str) -> str:
    kind = CATALOGUE.get(program)
    if kind is None or not issubclass(kind, ScineModule) or find_spec(kind.module):
        return ""
    return f"{program} is not installed: set programs.{program}.available and run 'puffin bootstrap'"


def _job_class(order: str) -> Any:
    name = "".join(word.capitalize() for word in order.split("_"))
    return getattr(import_module(f"scine_puffin.jobs.{order}"), name)


def run(context: JobContext) -> Outcome:
    """Run one job class on its calculation.

    Parameters
    ----------
    context
        The job's surroundings.
    """
    import scine_database as db

    try:
        for program in available_programs(context.settings):
            program.initialize()
    except ProgramError as error:
        return Outcome(success=False, comment=str(error))
    manager = db.Manager()
    manager.set_uri(context.uri + ("&" if "?" in context.uri else "?") + _PATIENCE)
    # The name in the connection string is only where it logs in.
    manager.set_database_name(context.claim.database)
    manager.connect()
    collection = manager.get_collection("calculations")
    calculation = _ended_only_by(context.claim.executor)(db.ID(context.claim.id), collection)
    job = _with_tolerant_output(_job_class(context.claim.order))()
    _prepare(job, context.directory, calculation.id())
    success = bool(job.run(manager, calculation, Configuration.of(context.settings)))
    if success:
        return Outcome(success=True, has_output=True)
    said = calculation.get_comment().strip() if calculation.has_comment() else ""
    comment = said or "the job failed without saying why"
    return Outcome(success=False, comment=comment, has_output=calculation.has_raw_output())


def _ended_only_by(executor: str) -> Any:
    """The class of a calculation that is not ended by a job whose worker has lost it."""
    import scine_database as db

    written = [db.Status.PENDING]

    def leave_if_taken(calculation: Any) -> None:
        if calculation.get_status() == written[-1] and calculation.get_executor() == executor:
            return
        # Into the job's own output.
        print("the calculation was taken or changed by somebody else; its job ends", file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
        # Not by an exception: a job class takes any for a failure, and would write that.
        os._exit(_TAKEN)

    def set_status(self: Any, status: Any) -> None:
        leave_if_taken(self)
        if status == db.Status.FAILED:
            # Its worker writes that, once it knows that neither the machine nor the database was to blame. What is
            # written here would stay if the worker died before it could take it back.
            return
        db.Calculation.set_status(self, status)
        written.append(status)

    def set_executor(self: Any, name: str) -> None:
        leave_if_taken(self)
        db.Calculation.set_executor(self, name)

    return type("OwnCalculation", (db.Calculation,), {"set_status": set_status, "set_executor": set_executor})


def _prepare(job: Any, directory: Path, calculation_id: Any) -> None:
    """Give the job the attempt's directory instead of the ``<job_dir>/<id>`` that it makes for itself."""
    job.prepare(str(directory), calculation_id)
    own = Path(job.work_dir)
    if own != directory and own.parent == directory:
        own.rmdir()
        job.work_dir = str(directory)


def _with_tolerant_output(job_class: Any) -> Any:
    """A job class that does not fail a finished calculation over output that is not UTF-8 or too long to store."""

    def capture_raw_output(self: Any) -> tuple[str, str]:
        output, errors = read_shortened(self.stdout_path), read_shortened(self.stderr_path)
        self._calculation.set_raw_output(shorten(output + errors))
        return output, errors

    return type(job_class.__name__, (job_class,), {"capture_raw_output": capture_raw_output})
