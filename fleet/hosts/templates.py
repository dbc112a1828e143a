"""The hosts.yaml that `init` writes: short, commented, and valid as it stands. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.errors import InventoryError, Problem
from fleet.hosts.inventory import parse_inventory
from fleet.hosts.proposal import HostGroup
from fleet.hosts.values import split_place

HERE = "localhost"
"""This machine, as a host without SSH."""

_ANSWERS: dict[str, Any] = {"fleet": "f", "database_uri": "mongodb://db", "database_names": ["d"]}
"""Something good for what must be given."""

_USUAL_SCRATCH = "~/.puffin-fleet/scratch"


def hosts_template(
    fleet: str,
    *,
    database_uri: str,
    database_names: Sequence[str],
    hosts: Sequence[str] = (),
    user: str | None = None,
    username: str | None = None,
    password_file: str | None = None,
    groups: Sequence[HostGroup] = (),
    source: str = "hosts.yaml",
) -> str:
    """Write a commented hosts.yaml.

    Parameters
    ----------
    fleet
        Name of the fleet.
    database_uri
        Connection string without a password; a name and a user in it will do instead of those below.
    database_names
        Databases to work on, most important first.
    hosts
        Names, addresses or ranges such as ``node[01-40]``, also as ``user@host:port``; this machine alone where there
        are none. ``localhost`` is this machine too, reached without SSH.
    user
        Login on the hosts; None for what ~/.ssh/config says.
    username, password_file
        Login at the database.
    groups
        What is proposed for hosts that were looked at; the first group for all others too.
    source
        The file that it is for, as errors call it.

    Raises
    ------
    InventoryError
        What was given does not make a valid file.
    """
    text = _TEMPLATE.format(
        fleet=_scalar(fleet),
        database=_database(database_uri, database_names, username, password_file),
        user=f"  user: {_scalar(user)}" if user else "  # user: chem              # login on the hosts",
        layout=_layout(groups),
        groups=_groups(groups),
        hosts="\n".join(_host(host, _group_of(host, groups)) for host in named_hosts(hosts or [HERE])),
    )
    parse_inventory(text, source)
    return text


def answer_problem(key: str, value: Any) -> str:
    """What is wrong with one thing of which a hosts.yaml shall be made; empty if it is good.

    Parameters
    ----------
    key
        A parameter of :func:`hosts_template`.
    value
        Its value.
    """
    try:
        hosts_template(**{**_ANSWERS, key: value})
    except InventoryError as error:
        return error.problems[0].message
    return ""


@dataclass(frozen=True)
class NamedHost:
    """A host that was given, as the file shall have it.

    Parameters
    ----------
    key
        What it is called in the file.
    address, user, port
        None where the file need not say it.
    """

    key: str
    address: str | None = None
    user: str | None = None
    port: int | None = None


def named_hosts(given: Sequence[str]) -> list[NamedHost]:
    """What hosts are called in the file, which knows one name for this machine.

    Parameters
    ----------
    given
        Hosts as ``[user@]host[:port]``.

    Raises
    ------
    InventoryError
        A port is none.
    """
    found: list[NamedHost] = []
    for word in given:
        user, address, port = split_place(word)
        if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise InventoryError((Problem("must have a port from 1 to 65535", f"hosts.{word}"),))
        if address in {HERE, "127.0.0.1"} and user is None and port is None:
            found.append(NamedHost(HERE))
            continue
        key = re.sub(":+", "-", address).strip("-")  # of IPv6, whose colons no name has
        if any(host.key == key for host in found) and port is not None:
            key = f"{key}-{port}"  # a host may have more than one sshd, as one with containers
        found.append(NamedHost(key, None if key == address else address, user, None if port is None else int(port)))
    return found


def _layout(groups: Sequence[HostGroup]) -> str:
    """What stands in `defaults`."""
    if not groups:
        return _PLAIN_LAYOUT
    return "\n".join(f"  {line}" for line in _proposed(groups[0], None))


def _groups(groups: Sequence[HostGroup]) -> str:
    blocks = [
        f"  {_scalar(group.name or '')}:\n" + "\n".join(f"    {line}" for line in _proposed(group, groups[0]))
        for group in groups[1:]
    ]
    return "\n".join(["groups:", *blocks]) if blocks else _NO_GROUPS


def _proposed(group: HostGroup, defaults: HostGroup | None) -> list[str]:
    """Lines of a block; what `defaults` says is said again where the group wants the usual."""
    proposal, above = group.proposal, defaults.proposal if defaults else None
    disk = f", disk: {proposal.disk:g}" if proposal.disk is not None else ""
    lines = [f"# Found {line}." for line in group.found]
    lines += [
        f"reserve: {{cores: {proposal.reserve_cores}, memory: {proposal.reserve_memory:g}}}"
        "      # memory in GB, kept for the system",
        "# As many workers as fit. Or a list of such shapes, also with `disk` (GB), `jobs`, `gpus`, `programs`.",
        f"workers: {{cores: {proposal.cores}, memory: {proposal.memory:g}{disk}, count: auto}}",
    ]
    if proposal.scratch or (above and above.scratch):
        lines.append(f"scratch: {_scalar(proposal.scratch or _USUAL_SCRATCH)}   # where calculations run")
    if proposal.affinity or (above and above.affinity):
        kind = "numa" if proposal.affinity else "none"
        lines.append(f"affinity: {kind}   # numa: each worker stays on one NUMA node")
    return lines


def _group_of(host: NamedHost, groups: Sequence[HostGroup]) -> str | None:
    return next((group.name for group in groups if host.key in group.hosts), None)


def _database(uri: str, names: Sequence[str], username: str | None, password_file: str | None) -> str:
    lines = [f"  uri: {_scalar(uri)}"]
    if names:
        lines.append(f"  names: [{', '.join(map(_scalar, names))}]      # most important first")
    if username or password_file:
        lines += [f"  username: {_scalar(username or '')}", f"  password_file: {_scalar(password_file or '')}"]
    else:
        lines += [
            "  # username: chem",
            "  # password_file: ~/.secrets/database   # a password never stands in this file",
        ]
    return "\n".join(lines)


def _host(host: NamedHost, group: str | None) -> str:
    groups = f"groups: [{_scalar(group)}]" if group else ""
    if host == NamedHost(HERE):
        return f"  {HERE}: {{connection: local{', ' if groups else ''}{groups}}}   # this machine, without SSH"
    keys = [
        f"address: {_scalar(host.address)}" if host.address else "",
        f"user: {_scalar(host.user)}" if host.user is not None else "",
        f"ssh: {{port: {host.port}}}" if host.port else "",
        groups,
    ]
    return f"  {_scalar(host.key)}: {{{', '.join(key for key in keys if key)}}}"


def _scalar(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_PLAIN_LAYOUT = """\
  # scratch: /scratch/puffin          # where calculations run: local and fast
  reserve: {cores: 0, memory: 1}      # memory in GB, kept for the system
  # As many workers as fit, by the scarcer of cores and memory. Give `disk` (GB) where jobs need much;
  # or a list of such shapes, say [{cores: 16, memory: 64, count: 1}, {cores: 2, memory: 4, count: auto}].
  workers: {cores: 1, memory: 2, count: auto}
  # affinity: numa                    # bind each worker to cores of its own, on one NUMA node if possible"""

_NO_GROUPS = """\
# groups:
#   big: {workers: [{cores: 16, memory: 64, count: 2}]}"""

_TEMPLATE = """\
# What `puffin-fleet deploy` makes of these hosts: a pool of workers on one database.
# `puffin-fleet plan` shows what a deploy would do.
# `puffin-fleet schema > hosts.schema.json` gives editors something to check this file with.
# All keys: docs/hosts.md. Parts can stand in other files: include: [racks/a.yaml, racks/b.yaml].

fleet: {fleet}

database:
{database}

release:
  install: push             # the installation is made here and sent: hosts need no internet
  extras: [scine]           # the SCINE programs and job classes
  # python: python3.11      # on the hosts; 3.10 or newer
  # install: path           # or use an environment that is there already
  # path: /opt/puffin-env

# For all hosts. A group or a host may say each of these again; the later wins:
# defaults, then groups in the order in which a host lists them, then the host.
defaults:
{user}
  # base_dir: ~/.puffin-fleet
  # ssh: {{port: 22, key: ~/.ssh/id_ed25519, jump: gateway.example}}
{layout}
  # environment: {{ORCA_ROOT: /opt/orca}}
  # puffin:                           # anything of a worker's puffin.yaml
  #   programs: {{orca: {{available: true, root: /opt/orca}}}}

{groups}

hosts:
{hosts}
  # node1: {{address: 10.0.0.11}}
  # node[02-40]: {{groups: [big]}}      # 39 hosts; the zeros stay

# update: {{max_parallel: 25%, canary: 1, failure_budget: 10%, drain_timeout: 24h}}
# hooks: {{pre_deploy: ./hooks/pre, post_deploy: ./hooks/post}}
"""
