"""The directories of one host of one fleet, as they are on the host. Pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from fleet.errors import InventoryError, Problem
from fleet.hosts.hostsfile import path_problem
from fleet.hosts.inventory import Fleet
from fleet.hosts.layout import Worker


@dataclass(frozen=True)
class HostPaths:
    """Directories of one host of one fleet, absolute, as they are on the host.

    Parameters
    ----------
    root
        The host's own directory, ``<base_dir>/<fleet>/hosts/<host>``.
    releases
        Directory of the releases, shared by hosts that share a home directory.
    supervisor
        Environment that holds only supervisor.
    run
        Directory of sockets and pid files; ``<root>/run`` is this directory or a link to it.
    scratch
        Below which calculations run.
    home
        The user's home directory, for ``~`` in settings.
    """

    root: str
    releases: str
    supervisor: str
    run: str
    scratch: str
    home: str


def host_paths(
    *,
    base_dir_abs: str,
    home: str,
    fleet_name: str,
    host_name: str,
    run_dir: str,
    scratch_abs: str,
    supervisor_version: str,
) -> HostPaths:
    """Directories of a host, from what its probe reported.

    Parameters
    ----------
    base_dir_abs
        Directory of all fleets on the host, absolute.
    home
        The user's home directory.
    fleet_name, host_name
        Whose directories.
    run_dir
        Directory for sockets and pid files, as the host chose it.
    scratch_abs
        Below which calculations run, absolute.
    supervisor_version
        The version of supervisor that is to run there.

    Raises
    ------
    InventoryError
        supervisord or Python could not work in one of them.
    """
    base = posixpath.join(base_dir_abs, fleet_name)
    used = {"base_dir": base_dir_abs, "run directory": run_dir, "scratch": scratch_abs}
    problems = tuple(
        Problem(f"{name} on the host is {path!r}: {problem}", path=host_name)
        for name, path in used.items()
        if (problem := path_problem(path) or ("" if path.startswith("/") else "must be absolute"))
    )
    if problems:
        raise InventoryError(problems)
    return HostPaths(
        root=posixpath.join(base, "hosts", host_name),
        releases=posixpath.join(base, "releases"),
        supervisor=posixpath.join(base, "supervisor", supervisor_version),
        run=run_dir,
        scratch=scratch_abs,
        home=home,
    )


def job_directories(fleet: Fleet, workers: tuple[Worker, ...], paths: HostPaths) -> tuple[str, ...]:
    """Directories in which the workers' calculations run, absolute; a deploy makes them.

    Parameters
    ----------
    fleet
        The fleet.
    workers
        Those of one host.
    paths
        Directories of that host.
    """
    return tuple(job_directory(fleet, worker, paths) for worker in workers)


def job_directory(fleet: Fleet, worker: Worker, paths: HostPaths) -> str:
    """Directory in which one worker's calculations run, absolute."""
    return posixpath.join(paths.scratch, fleet.name, worker.name, "jobs")
