"""Who a worker is: in calculations that it claims, and in the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from puffin.calculations import Claimant
from puffin.records import WorkerRecord
from puffin.settings import Settings


@dataclass(frozen=True)
class Identity:
    """What a worker is besides its settings.

    Parameters
    ----------
    release
        The release it runs.
    configuration
        Hash of its configuration file.
    pid
        Its process id.
    host
        Where it runs.
    """

    release: str
    configuration: str
    pid: int
    host: str


def claimant_of(settings: Settings, identity: Identity) -> Claimant:
    """Who a worker is to the calculations that it claims.

    Parameters
    ----------
    settings
        Its settings.
    identity
        What else it is.
    """
    fleet = settings.fleet
    return Claimant(
        executor=settings.daemon.uuid,
        lease_s=settings.daemon.lease_in_s,
        host=identity.host,
        worker=fleet.worker or settings.daemon.uuid,
        fleet=fleet.name,
        lock=str(Path(settings.daemon.pid).absolute()),
    )


def record_of(settings: Settings, identity: Identity, orders: tuple[str, ...]) -> WorkerRecord:
    """Who a worker is to the registry, as it starts.

    Parameters
    ----------
    settings
        Its settings.
    identity
        What else it is.
    orders
        The jobs that it accepts.
    """
    resources = settings.resources
    return WorkerRecord(
        uuid=settings.daemon.uuid,
        fleet=settings.fleet.name,
        host=identity.host,
        worker=settings.fleet.worker,
        release=identity.release,
        configuration=identity.configuration,
        pid=identity.pid,
        cores=resources.cores,
        memory=resources.memory,
        disk=resources.disk,
        programs=settings.available_programs,
        jobs=orders,
        state="starting",
    )
