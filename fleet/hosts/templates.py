"""The hosts.yaml that `init` writes: short, commented, and valid as it stands. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fleet.hosts.inventory import parse_inventory
from fleet.hosts.proposal import Group

HERE = "localhost"
"""This machine, as a host without SSH."""

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
    groups: Sequence[Group] = (),
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
        Names, addresses or ranges such as ``node[01-40]``; this machine alone where there are none.
        ``localhost`` is this machine too, reached without SSH.
    user
        Login on the hosts; None for what ~/.ssh/config says.
    username, password_file
        Login at the database.
    groups
        What is proposed for hosts that were looked at; the first group for all others too.

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
        hosts="\n".join(_host(name, _group_of(name, groups)) for name in hosts or [HERE]),
    )
    parse_inventory(text, "hosts.yaml")
    return text


def host_key(name: str) -> str:
    """What a host is called in the file, which knows one name for this machine."""
    return HERE if name in {HERE, "127.0.0.1"} else name


def _layout(groups: Sequence[Group]) -> str:
    """What stands in `defaults`."""
    if not groups:
        return _PLAIN_LAYOUT
    return "\n".join(f"  {line}" for line in _proposed(groups[0], None))


def _groups(groups: Sequence[Group]) -> str:
    blocks = [
        f"  {_scalar(group.name or '')}:\n" + "\n".join(f"    {line}" for line in _proposed(group, groups[0]))
        for group in groups[1:]
    ]
    return "\n".join(["groups:", *blocks]) if blocks else _NO_GROUPS


def _proposed(group: Group, defaults: Group | None) -> list[str]:
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


def _group_of(name: str, groups: Sequence[Group]) -> str | None:
    return next((group.name for group in groups if host_key(name) in group.hosts), None)


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


def _host(name: str, group: str | None) -> str:
    groups = f"groups: [{_scalar(group)}]" if group else ""
    if host_key(name) == HERE:
        return f"  {HERE}: {{connection: local{', ' if groups else ''}{groups}}}   # this machine, without SSH"
    return f"  {_scalar(name)}: {{{groups}}}"


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
