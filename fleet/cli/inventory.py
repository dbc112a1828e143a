"""inventory."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.text import Text

from fleet.cli import options
from fleet.cli.output import Column, print_json, print_table
from fleet.errors import ExitCode, UsageError
from fleet.hosts.ansible import to_ansible
from fleet.hosts.inventory import Host, Shape

_COLUMNS = (
    Column("HOST"),
    Column("ADDRESS", cut=12),
    Column("USER", spare=1),
    Column("GROUPS", spare=2),
    Column("WORKERS", cut=12),
)


@click.command()
@options.hosts_file
@options.as_json
@click.option("--ansible", is_flag=True, help="As Ansible reads it: groups, hosts, and how to reach them.")
def inventory(hosts_file: str | None, patterns: tuple[str, ...], json_lines: bool, ansible: bool) -> int:
    """Show the hosts that hosts.yaml describes, ranges, defaults and groups resolved; asks nobody.

    Secrets are not part of it. What --ansible prints is what the inventory plugin puffin.fleet.hosts_yaml reads.

    \b
    puffin-fleet inventory
    puffin-fleet inventory --ansible hosts.yaml > inventory.json
    """
    if ansible and json_lines:
        raise UsageError("--ansible is JSON already: leave --json out")
    chosen = options.choose(hosts_file, patterns)
    directory = Path(chosen.fleet.source).absolute().parent

    def place(text: str) -> str:
        return str(directory / Path(text).expanduser())

    source = str(Path(chosen.fleet.source).absolute())
    if ansible:
        click.echo(json.dumps(to_ansible(chosen.fleet, chosen.hosts, source, place), indent=2, ensure_ascii=False))
    elif json_lines:
        for host in chosen.hosts:
            print_json(_record(host))
    else:
        print_table(_COLUMNS, [_row(host) for host in chosen.hosts])
    return ExitCode.DONE


def _record(host: Host) -> dict[str, object]:
    shapes = [shape.model_dump(mode="json", exclude={"programs"}) for shape in host.workers]
    return {
        "host": host.name,
        "connection": host.connection,
        "address": host.address,
        "user": host.user,
        "groups": list(host.groups),
        "base_dir": host.base_dir,
        "scratch": host.scratch,
        "workers": shapes,
    }


def _row(host: Host) -> list[Text | str]:
    address = Text("this machine", style="dim") if host.connection == "local" else Text(host.address)
    if host.connection == "ssh" and host.ssh.port:
        address.append(f":{host.ssh.port}")
    return [host.name, address, host.user or "", ", ".join(host.groups), "; ".join(map(_shape, host.workers))]


def _shape(shape: Shape) -> str:
    each = f"{shape.cores} core{'' if shape.cores == 1 else 's'}"
    each += f" {shape.gpus} GPU{'' if shape.gpus == 1 else 's'}" if shape.gpus else ""
    return f"{each}, as many as fit" if shape.count == "auto" else f"{shape.count} x {each}"
