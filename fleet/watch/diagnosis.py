"""What is wrong with one host, and what to do about it. Pure: what was found goes in, findings come out."""

from __future__ import annotations

from fleet.hosts.inventory import Fleet, Host
from fleet.watch.deployment_checks import of_deployment
from fleet.watch.examination import Examined
from fleet.watch.findings import Finding
from fleet.watch.machine_checks import of_machine
from fleet.watch.worker_checks import of_worker


def diagnose(fleet: Fleet, host: Host, found: Examined) -> tuple[Finding, ...]:
    """Judge a host.

    Parameters
    ----------
    fleet, host
        What hosts.yaml says.
    found
        What was found on it.
    """
    checked = (*of_machine(host, found), *of_deployment(host, found), *of_worker(fleet, host, found))
    return tuple(
        Finding(host.name, name, how, what, advice.format(host=host.name)) for name, how, what, advice in checked
    )
