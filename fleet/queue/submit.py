"""Molecules in files become calculations in a database: looked over first, then written in pieces."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fleet.queue.chemistry import MoleculeReader
from fleet.queue.frames import Flaw
from fleet.queue.model import JobTemplate
from puffin.calculations import Status
from puffin.documents import Model, Molecule, Request
from puffin.hints import nearest
from puffin.settings import PROGRAMS
from puffin.store import Queue
from puffin.submissions import Submission, Submitted

CHUNK = 500
"""Calculations per write; what is held in memory at a time."""

METHODS = {
    "sparrow": ("PM6", "AM1", "RM1", "PM3", "MNDO", "DFTB0", "DFTB2", "DFTB3"),
    "xtb": ("GFN0", "GFN1", "GFN2", "GFNFF"),
}
"""Of the programs that have a few methods and no others; their module is not imported for it."""

SETTINGS = {"sleep": ("time",), "command": ("program", "arguments")}
"""Of the jobs whose settings are all known here. SCINE's refuse what they do not know when they run."""

_NATIVE_JOBS = ("sleep",)
_WAITING = (Status.NEW, Status.HOLD)


@dataclass(frozen=True)
class Survey:
    """What a look at files found.

    Parameters
    ----------
    molecules
        How many there are.
    problems
        What is wrong, each with its file and line.
    """

    molecules: int
    problems: tuple[str, ...]


def survey(files: Iterable[Path], wanted: JobTemplate, advance: Callable[[], None]) -> Survey:
    """Read all files, and keep nothing of them but what is wrong.

    Parameters
    ----------
    files
        The files.
    wanted
        What is to be done with the molecules.
    advance
        Called after each file.
    """
    molecules = 0
    problems: list[str] = []
    with MoleculeReader(wanted.charge, wanted.multiplicity) as reader:
        for path in files:
            for found in reader.read(path):
                if isinstance(found, Flaw):
                    problems.append(_problem(path, found))
                else:
                    molecules += 1
            advance()
    return Survey(molecules, tuple(problems))


def submit(
    queue: Queue, files: Iterable[Path], wanted: JobTemplate, again: bool
) -> Iterator[list[tuple[Molecule, Submitted]]]:
    """Add the calculations, in pieces; molecules that cannot be read are left out.

    Parameters
    ----------
    queue
        Where to.
    files
        The files.
    wanted
        What is to be done with the molecules.
    again
        Whether to add calculations that are there already.

    Yields
    ------
    list[tuple[Molecule, Submitted]]
        What became of one piece, once it is written.
    """
    request = request_of(wanted)
    with MoleculeReader(wanted.charge, wanted.multiplicity) as reader:
        good = (found for path in files for found in reader.read(path) if isinstance(found, Molecule))
        while piece := list(islice(good, CHUNK)):
            done = queue.submit([Submission(molecule, request) for molecule in piece], again)
            yield list(zip(piece, done, strict=True))


def request_of(wanted: JobTemplate) -> Request:
    """The calculation, without a structure.

    Parameters
    ----------
    wanted
        What is to be done.
    """
    return Request(
        order=wanted.order,
        model=wanted.model,
        settings=wanted.settings,
        cores=wanted.cores,
        memory=wanted.memory,
        disk=wanted.disk,
        priority=wanted.priority,
    )


def asks_for_other(done: Submitted, wanted: JobTemplate) -> bool:
    """Whether a calculation that was there, and waits or may run again, has other needs than it would have now.

    Parameters
    ----------
    done
        What became of a submission.
    wanted
        What was submitted.
    """
    now = (wanted.cores, wanted.memory, wanted.disk)
    return done.status in {*_WAITING, Status.FAILED} and done.needs not in {None, now}


def advice_on_others(others: Sequence[Submitted]) -> str:
    """What to do about calculations for which :func:`asks_for_other` holds.

    Parameters
    ----------
    others
        The calculations.
    """
    first = others[0]
    cores, memory, disk = first.needs or (1, 1.0, 1.0)
    waiting = [done.id for done in others if done.status in _WAITING]
    cancel = f"cancel what waits, as with 'puffin-fleet queue cancel {waiting[0]}', then " if waiting else ""
    return (
        f"{len(others)} of those ask for something else than now, such as {first.id} for --cores {cores} "
        f"--memory {memory:g} --disk {disk:g}. To change that, {cancel}submit with --again."
    )


def order_problem(order: str, by_workers: Iterable[str], installed: Sequence[str]) -> str:
    """Why a job's order cannot be meant; empty if it is known.

    Parameters
    ----------
    order
        The order.
    by_workers
        Those that any worker accepts.
    installed
        Those that are installed on this machine.
    """
    known = sorted({*by_workers, *installed, *_NATIVE_JOBS})
    if order in known:
        return ""
    near = difflib.get_close_matches(order, known, n=3, cutoff=0.5)
    near = near or [name for name in known if order in name or order in name.replace("_", "")][:5]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"--job: no job '{order}': {hint}"


def program_problem(program: str, by_workers: Iterable[str]) -> str:
    """Why a program cannot be meant; empty if it is known.

    Parameters
    ----------
    program
        The program; ``a/b`` for two that work together.
    by_workers
        Those that any worker has.
    """
    known = sorted({"any", *PROGRAMS, *by_workers})
    unknown = [] if program in known else [part for part in program.split("/") if part not in known]
    if not unknown:
        return ""
    hint = nearest(unknown[0], known) or f"; known are {', '.join(known)}"
    return f"--program: no program '{unknown[0]}'{hint}"


def method_problem(model: Model) -> str:
    """Why a program cannot calculate with a method; empty if it can, or if that is not known here.

    Parameters
    ----------
    model
        The program and the method.
    """
    known = METHODS.get(model.program, ())
    if not known or model.method_family.upper() in known:
        return ""
    hint = nearest(model.method.upper(), known) or f"; it has {', '.join(known)}"
    return f"--method: {model.program} has no method '{model.method}'{hint}"


def unknown_settings(order: str, settings: Iterable[str]) -> list[str]:
    """What to say of settings that a job does not know; nothing where it is not known here which it has.

    Parameters
    ----------
    order
        The job's order.
    settings
        Names of settings.
    """
    known = SETTINGS.get(order, ())
    unknown = [name for name in settings if known and name not in known]
    hints = [nearest(name, known) or f"; it has {', '.join(known)}" for name in unknown]
    return [f"--setting {name}: {order} knows no such setting{hint}" for name, hint in zip(unknown, hints, strict=True)]


def _problem(path: Path, flaw: Flaw) -> str:
    return f"{path}:{flaw.line}: {flaw.what}" if flaw.line else f"{path}: {flaw.what}"
