"""What a job may use, and what it uses."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from puffin.calculations import Claim
from puffin.settings import Settings

GB = 1024**3
SAMPLE_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Limits:
    """The limits of one attempt.

    Parameters
    ----------
    memory_gb
        Memory of all its processes together, in GB; None: not enforced.
    walltime_s
        Seconds it may run, not counting time in which it was frozen; None: unlimited.
    """

    memory_gb: float | None
    walltime_s: float | None

    @classmethod
    def of(cls, claim: Claim, settings: Settings) -> Limits:
        """The limits that apply to a calculation on a worker.

        Parameters
        ----------
        claim
            The attempt; its own request for memory wins over what the worker has.
        settings
            The worker's settings.
        """
        daemon = settings.daemon
        memory = (
            (claim.memory if claim.memory > 0 else settings.resources.memory) if daemon.enforce_memory_limit else None
        )
        hours = daemon.max_walltime_in_h
        asked = claim.settings.get("walltime_s")
        times = [float(asked)] if isinstance(asked, int | float) and asked > 0 else []
        times += [hours * 3600] if hours > 0 else []
        return cls(memory, min(times) if times else None)

    @property
    def none(self) -> bool:
        """Whether nothing is limited."""
        return self.memory_gb is None and self.walltime_s is None

    def sample_interval(self, memory_gb: float) -> float:
        """How long to wait before looking again, in seconds: not long where the limit is near.

        Parameters
        ----------
        memory_gb
            What the job uses now.
        """
        near = self.memory_gb is not None and memory_gb > self.memory_gb / 4
        return SAMPLE_INTERVAL_S / 5 if near else SAMPLE_INTERVAL_S

    def exceeded(self, memory_gb: float, ran_s: float) -> str:
        """Which limit has been exceeded, in words; empty if none.

        Parameters
        ----------
        memory_gb
            What the job uses now.
        ran_s
            For how long it has run.
        """
        if self.memory_gb is not None and memory_gb > self.memory_gb:
            return f"memory limit of {self.memory_gb:.3g} GB exceeded: its processes used {memory_gb:.3g} GB"
        if self.walltime_s is not None and ran_s > self.walltime_s:
            return f"walltime limit of {self.walltime_s:.6g} s exceeded"
        return ""

    def ran_out_of_memory(self, peak_gb: float) -> str:
        """What to say of a job that the kernel did not let have more memory than the limit.

        Parameters
        ----------
        peak_gb
            The most that it had.
        """
        limit = "" if self.memory_gb is None else f" of {self.memory_gb:.3g} GB"
        return f"memory limit{limit} exceeded: its processes used {peak_gb:.3g} GB and wanted more"


def proportional_gb(processes: list[psutil.Process]) -> float:
    """Memory of some processes in GB in which what several of them share counts once; slow to find out.

    Parameters
    ----------
    processes
        The processes. Those that cannot be looked into count as in :func:`resident_gb`.
    """
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.AccessDenied:
            total += int(resident_gb([process]) * GB)
        except psutil.Error:
            continue
    return total / GB


def resident_gb(processes: list[psutil.Process]) -> float:
    """Resident memory of some processes in GB; those that have ended meanwhile count nothing.

    What several of them share counts several times.

    Parameters
    ----------
    processes
        The processes.
    """
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total / GB
