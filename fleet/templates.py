"""The hosts.yaml that `init` writes: short, commented, and valid as it stands. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fleet.inventory import parse_inventory


def hosts_template(
    fleet: str,
    *,
    database_uri: str,
    database_names: Sequence[str],
    hosts: Sequence[str] = (),
    user: str | None = None,
    username: str | None = None,
    password_file: str | None = None,
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

    Raises
    ------
    InventoryError
        What was given does not make a valid file.
    """
    text = _TEMPLATE.format(
        fleet=_scalar(fleet),
        database=_database(database_uri, database_names, username, password_file),
        user=f"  user: {_scalar(user)}" if user else "  # user: chem              # login on the hosts",
        hosts="\n".join(map(_host, hosts or ["localhost"])),
    )
    parse_inventory(text, "hosts.yaml")
    return text


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


def _host(name: str) -> str:
    if name in {"localhost", "127.0.0.1"}:
        return "  localhost: {connection: local}   # this machine, without SSH"
    return f"  {_scalar(name)}: {{}}"


def _scalar(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_TEMPLATE = """\
# What `puffin-fleet deploy` makes of these hosts: a pool of workers on one database.
# `puffin-fleet plan` shows what a deploy would do.
# `puffin-fleet schema > hosts.schema.json` gives editors something to check this file with.

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
  # scratch: /scratch/puffin          # where calculations run: local and fast
  # ssh: {{port: 22, key: ~/.ssh/id_ed25519, jump: gateway.example}}
  reserve: {{cores: 0, memory: 1}}      # memory in GB, kept for the system
  # As many workers as fit, by the scarcer of cores and memory. Give `disk` (GB) where jobs need much;
  # or a list of such shapes, say [{{cores: 16, memory: 64, count: 1}}, {{cores: 2, memory: 4, count: auto}}].
  workers: {{cores: 1, memory: 2, count: auto}}
  # environment: {{ORCA_ROOT: /opt/orca}}
  # puffin:                           # anything of a worker's puffin.yaml
  #   programs: {{orca: {{available: true, root: /opt/orca}}}}

# groups:
#   big: {{workers: [{{cores: 16, memory: 64, count: 2}}]}}

hosts:
{hosts}
  # node1: {{address: 10.0.0.11}}
  # node[02-40]: {{groups: [big]}}      # 39 hosts; the zeros stay

# update: {{max_parallel: 25%, canary: 1, failure_budget: 10%, drain_timeout: 24h}}
# hooks: {{pre_deploy: ./hooks/pre, post_deploy: ./hooks/post}}
"""
