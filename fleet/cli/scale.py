"""scale."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import click
from rich.text import Text

from fleet.cli import completion, options
from fleet.cli.output import data_console, note, print_json
from fleet.errors import ExitCode, InventoryError, UsageError
from fleet.hosts.includes import gather
from fleet.hosts.inventory import Fleet, Host, Shape, parse_inventory
from fleet.hosts.scaling import Edit, find_edit
from fleet.hostside.common import Failure
from fleet.hostside.files import write


def _number(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value == "auto":
        return value
    if not (value.isascii() and value.isdigit() and int(value) >= 1):
        none = "; 'puffin-fleet drain' or 'destroy' a host that is to run none" if value == "0" else ""
        raise click.BadParameter(f"'{value}' is neither a number of workers, at least 1, nor 'auto'{none}")
    return str(int(value))


@click.command()
@click.argument("target", metavar="HOST|GROUP", shell_complete=completion.hosts_and_groups)
@click.argument("count", metavar="N", callback=_number)
@click.argument("hosts_file", required=False, metavar="[HOSTS_FILE]")
@options.as_json
@click.option("--write", "is_to_write", is_flag=True, help="Change that value in the file; nothing else in it.")
def scale(target: str, count: str, hosts_file: str | None, json_lines: bool, is_to_write: bool) -> int:
    """Find the line of hosts.yaml that gives HOST or GROUP its number of workers, and show what to write there.

    With --write it is written. Nothing happens on the hosts before the next deploy, which lets surplus workers finish
    their calculations.

    \b
    puffin-fleet scale node7 6
    puffin-fleet scale big auto --write
    """
    chosen = options.choose(hosts_file, ())
    texts = _Texts()
    source = chosen.fleet.source
    document = gather(texts.read(source), source, texts.read)
    edit = find_edit(document, chosen.fleet, texts.found, target, count)
    _check(chosen.fleet, texts, edit)
    changes = edit.before != edit.after or edit.text != texts.found[edit.file]
    if changes and is_to_write:
        _write(edit)
    if json_lines:
        shown = {"file": edit.file, "line": edit.line, "before": edit.before, "after": edit.after}
        print_json({**shown, "hosts": list(edit.hosts), "written": changes and is_to_write})
        return ExitCode.DONE
    if not changes:
        note(f"{edit.file}:{edit.line} says so already.")
        return ExitCode.DONE
    _show(texts.found[edit.file], edit)
    done = "written" if is_to_write else "to write it: the same with --write"
    note(f"{edit.file}:{edit.line} {done}; 'puffin-fleet deploy' then starts workers, or ends them when they are done")
    return ExitCode.DONE


def _write(edit: Edit) -> None:
    path = Path(edit.file).expanduser()
    try:
        write(path.resolve(), edit.text.encode(), path.stat().st_mode & 0o777)
    except (OSError, Failure) as error:
        raise UsageError(f"cannot write {edit.file}: {error}") from error


class _Texts:
    """The files as they are, kept as they were read."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def read(self, name: str) -> str:
        with Path(name).expanduser().open(encoding="utf-8", newline="") as stream:
            self.found[name] = stream.read()
        return self.found[name]


def _check(fleet: Fleet, texts: _Texts, edit: Edit) -> None:
    """Read the whole as it would be: exactly the wanted hosts must differ, in nothing but the count."""
    changed = {**texts.found, edit.file: edit.text}
    try:
        after = parse_inventory(
            changed[fleet.source], fleet.source, read_file=changed.__getitem__, environment=os.environ
        )
    except InventoryError as error:
        raise UsageError(f"{edit.file}:{edit.line} cannot be changed safely: {error}") from error
    wanted = Fleet(**{**dict(fleet), "hosts": tuple(_scaled(host, edit) for host in fleet.hosts)})
    if after != wanted:
        raise UsageError(f"{edit.file}:{edit.line}: more than the number of workers would change; change it by hand")


def _scaled(host: Host, edit: Edit) -> Host:
    if host.name not in edit.hosts:
        return host
    count: int | str = edit.count if edit.count == "auto" else int(edit.count)
    shapes: tuple[Shape, ...] = tuple(shape.model_copy(update={"count": count}) for shape in host.workers)
    return host.model_copy(update={"workers": shapes})


def _show(before: str, edit: Edit) -> None:
    console = data_console()
    lines = difflib.unified_diff(before.splitlines(), edit.text.splitlines(), edit.file, edit.file, n=1, lineterm="")
    for line in lines:
        style = "red" if line.startswith("-") else "green" if line.startswith("+") else "dim"
        console.print(Text(line, style=style))
