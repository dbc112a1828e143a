"""The fleet as Ansible's inventory: groups, hosts, and what Ansible has to know to reach them. Pure.

Only what says where things are goes there. The sections ``puffin`` and ``environment`` stay out: they are the
workers' business, and people keep tokens in them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from fleet.errors import UsageError
from fleet.hosts.hostsfile import Database, Fleet, Host

WHOLE = "puffin_fleet"
"""The group of all hosts of a fleet, so that a playbook does not take the hosts of other inventories for ours."""

_TAKEN = frozenset({"all", "ungrouped", WHOLE})
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_]")
_MONGODB_PORT = 27017

Place = Callable[[str], str]


def to_ansible(fleet: Fleet, hosts: Sequence[Host], source: str, place: Place) -> dict[str, Any]:
    """What ``ansible-inventory --list`` would print of these hosts.

    Parameters
    ----------
    fleet
        The fleet.
    hosts
        Those of it that are wanted.
    source
        Absolute path of hosts.yaml.
    place
        Gives the absolute path of a file that hosts.yaml names.

    Returns
    -------
    dict
        For each group a mapping with its hosts, and in ``_meta.hostvars`` the variables of each host.

    Raises
    ------
    UsageError
        Two groups would have one name in Ansible, or one has a name that means something else there.
    """
    names = group_names(fleet)
    groups: dict[str, Any] = {WHOLE: {"hosts": [host.name for host in hosts]}}
    for group, name in names.items():
        members = [host.name for host in hosts if group in host.groups]
        if members:
            groups[name] = {"hosts": members}
    variables = {host.name: host_variables(fleet, host, source, place) for host in hosts}
    return {"_meta": {"hostvars": variables}, "all": {"children": list(groups)}, **groups}


def group_names(fleet: Fleet) -> dict[str, str]:
    """Ansible's name of each group: letters, digits and underscores.

    Parameters
    ----------
    fleet
        The fleet.

    Raises
    ------
    UsageError
        Two groups would have one name in Ansible, or one has a name that means something else there.
    """
    groups = list(dict.fromkeys(group for host in fleet.hosts for group in host.groups))
    names: dict[str, str] = {}
    problems = []
    for group in groups:
        name = _NOT_ALLOWED.sub("_", group)
        name = f"_{name}" if name[0].isdigit() else name
        other = next((known for known, taken in names.items() if taken == name), None)
        if name in _TAKEN:
            problems.append(f"group '{group}': Ansible has a group '{name}' of its own; rename it")
        if other is not None:
            problems.append(f"groups '{other}' and '{group}' would both be '{name}' in Ansible; rename one")
        names[group] = name
    if problems:
        raise UsageError("\n".join(f"{fleet.source}: {problem}" for problem in problems))
    return names


def host_variables(fleet: Fleet, host: Host, source: str, place: Place) -> dict[str, Any]:
    """What Ansible is told of one host.

    Parameters
    ----------
    fleet
        The fleet.
    host
        The host.
    source
        Absolute path of hosts.yaml.
    place
        Gives the absolute path of a file that hosts.yaml names.
    """
    base_dir = host.base_dir.rstrip("/")
    return {
        **(_local() if host.connection == "local" else _by_ssh(host, place)),
        **_interpreter(fleet.release.python),
        "puffin_hosts_file": source,
        "puffin_fleet_name": fleet.name,
        "puffin_groups": list(host.groups),
        **({"puffin_user": host.user} if host.user else {}),
        "puffin_base_dir": host.base_dir,
        "puffin_directory": f"{base_dir}/{fleet.name}/hosts/{host.name}",
        "puffin_scratch": host.scratch,
        "puffin_python": fleet.release.python,
        "puffin_install": fleet.release.install,
        "puffin_boot": host.boot,
        "puffin_layout": [shape.model_dump(mode="json", include=_OF_A_SHAPE) for shape in host.workers],
        "puffin_reserve": host.reserve.model_dump(mode="json"),
        "puffin_affinity": host.affinity,
        "puffin_database_servers": servers(fleet.database),
    }


_OF_A_SHAPE = {"cores", "memory", "disk", "count", "gpus", "jobs"}


def _local() -> dict[str, Any]:
    return {"ansible_connection": "local"}


def _by_ssh(host: Host, place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {"ansible_host": host.address}
    if host.ssh.port is not None:
        found["ansible_port"] = host.ssh.port
    if host.user is not None:
        found["ansible_user"] = host.user
    key = place(host.ssh.key) if host.ssh.key else ""
    if key:
        found["ansible_ssh_private_key_file"] = key
    verified = _verified(place(host.ssh.known_hosts) if host.ssh.known_hosts else "")
    jump = ["-o", f"ProxyCommand={_through(host.ssh.jump, key, verified)}"] if host.ssh.jump else []
    found["ansible_ssh_common_args"] = shlex.join([*verified, *jump])
    return found


def _verified(known_hosts: str) -> list[str]:
    """As everywhere in this project, no connection is made to a host whose key is not known."""
    words = ["-o", "StrictHostKeyChecking=yes"]
    if known_hosts:
        words += ["-o", f'UserKnownHostsFile="{_literal(known_hosts)}" ~/.ssh/known_hosts ~/.ssh/known_hosts2']
    return words


def _through(jump: str, key: str, verified: Sequence[str]) -> str:
    """The command that goes through a jump host. `ProxyJump` would forget key and known hosts on the way."""
    user, _, place = jump.rpartition("@")
    host, port = _split(place)
    words = ["ssh", *verified]
    words += ["-i", _literal(key)] if key else []
    words += ["-p", port] if port else []
    words += ["-l", user] if user else []
    return f"{_literal(shlex.join(words))} -W '[%h]:%p' {shlex.quote(host)}"


def _literal(text: str) -> str:
    """What follows a percent sign is the name of something else to ssh."""
    return text.replace("%", "%%")


def _interpreter(python: str) -> dict[str, str]:
    """A Python in the user's home is not there for the administrator who prepares a host: Ansible finds its own."""
    return {} if python.startswith("~") else {"ansible_python_interpreter": python}


def servers(database: Database) -> list[dict[str, Any]]:
    """Addresses and ports of the database's servers; none where only the name service knows them.

    Parameters
    ----------
    database
        The section ``database``.
    """
    if database.ip is not None:
        return [{"address": database.ip, "port": database.port or _MONGODB_PORT}]
    scheme, _, rest = (database.uri or "").partition("://")
    if scheme != "mongodb":
        return []
    places = re.split(r"[/?]", rest)[0].rpartition("@")[2].split(",")
    return [_server(place) for place in places if place and "%2F" not in place.upper()]


def _server(place: str) -> dict[str, Any]:
    address, port = _split(place)
    return {"address": address, "port": int(port or _MONGODB_PORT)}


def _split(place: str) -> tuple[str, str]:
    """Address and port; an address with colons stands in brackets where a port follows."""
    match = re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+)(?::(\d+))?", place)
    if match is None:
        return place, ""
    return match[1] or match[3], match[2] or match[4] or ""
