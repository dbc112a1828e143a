"""init, schema, trust."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.markup import escape

from fleet.cli import options
from fleet.cli.output import note, note_console, print_error, report_failures
from fleet.errors import Declined, ExitCode, FleetError, UsageError
from fleet.hosts.access import Remotes, open_remotes
from fleet.hosts.inventory import Fleet, Host, expand_range, json_schema, parse_inventory
from fleet.hosts.names import condensed
from fleet.hosts.proposal import HostGroup, group
from fleet.hosts.scout import look
from fleet.hosts.templates import HERE, answer_problem, hosts_template, named_hosts
from fleet.reach.remote import UnknownHostKey

_HOST_HELP = "Name, address or range such as node[01-40]; again for more."
_MOST_KEYS = 5
_MOST_HOSTS = 8
"""That `init` looks at."""


@click.command()
@click.argument("path", required=False, default=options.DEFAULT_FILE, metavar="[HOSTS_FILE]")
@click.option("--fleet", "name", help="Name of the fleet.")
@click.option("--database", "uri", metavar="URI", help="mongodb://host:port, without a password.")
@click.option("--name", "names", multiple=True, help="Database to work on; again for more.")
@click.option("--host", "hosts", multiple=True, metavar="[USER@]HOST[:PORT]", help=_HOST_HELP)
@click.option("--user", help="Login on the hosts.")
@click.option("--no-probe", is_flag=True, help="Do not connect to the hosts to see what they have.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def init(
    path: str,
    name: str | None,
    uri: str | None,
    names: tuple[str, ...],
    hosts: tuple[str, ...],
    user: str | None,
    no_probe: bool,
    force: bool,
) -> int:
    """Write a commented hosts.yaml; asks for what is not given.

    Looks at the first hosts, of each range one, and proposes workers that suit their cores, memory and disks.
    Nothing is changed on them; those that cannot be reached are named, and the file is written all the same.

    \b
    puffin-fleet init
    puffin-fleet init --fleet reactions --database mongodb://db:27017 --name explore --host 'node[01-40]'
    """
    if Path(path).exists() and not force:
        raise UsageError(f"{path} exists: use --force to replace it")
    given = {"--fleet": name, "--database": uri, "--name": names, "--host": hosts}
    lacking = [option for option, value in given.items() if not value]
    if lacking and not sys.stdin.isatty():
        raise UsageError(f"nobody can be asked here: give {' and '.join(lacking)}")
    singly = (("--fleet", "fleet", name), ("--database", "database_uri", uri), ("--user", "user", user))
    problems = [_problem(option, key, value) for option, key, value in singly if value]
    problems += [_problem("--name", "database_names", [each]) for each in names]
    problems += [_problem("--host", "hosts", [each]) for each in hosts]
    if any(problems):
        raise UsageError("\n".join(filter(None, problems)))
    template = functools.partial(
        hosts_template,
        name or _asked("Name of the fleet", "reactions", "fleet"),
        database_uri=uri or _asked("Database server", "mongodb://localhost:27017", "database_uri"),
        database_names=list(names) or _asked("Database", "default", "database_names").split(),
        hosts=list(hosts) or _asked("Hosts, separated by spaces", HERE, "hosts").split(),
        user=user,
        source=path,
    )
    _refuse_doubled(template.keywords["hosts"])
    text = template()
    keys = [host.key for host in named_hosts(template.keywords["hosts"])]
    if not no_probe and (groups := _look_at_hosts(parse_inventory(text, path), keys, path)):
        text = template(groups=groups)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    note(f"wrote {path}; look at it, then: puffin-fleet plan {path}")
    return ExitCode.DONE


def _refuse_doubled(hosts: Sequence[str]) -> None:
    """Refuse a host that is given twice; there are no lines yet that could be named."""
    given: dict[str, str] = {}
    for word, host in zip(hosts, named_hosts(hosts), strict=True):
        for name in expand_range(host.key):
            if name in given:
                raise UsageError(f"--host '{word}': {name} is given already, by '{given[name]}'")
            given[name] = word


def _look_at_hosts(fleet: Fleet, keys: Sequence[str], path: str) -> tuple[HostGroup, ...]:
    """What to propose for hosts, as far as they can be reached; what is in the way of the others is said."""
    names = {key: expand_range(key)[0] for key in keys[:_MOST_HOSTS]}
    note(f"looking at {', '.join(names.values())} (--no-probe leaves that out)")
    hosts = [host for host in fleet.hosts if host.name in names.values()]
    results = look(fleet, hosts)
    failed = report_failures(results)
    if failed:
        note(f"for hosts not reached, check 'workers' and 'scratch' in {path}, or write it again: init --force {path}")
    if len(keys) > len(names):
        note(f"not looked at, so that it does not take too long: {', '.join(keys[_MOST_HOSTS:])}")
    seen = {result.host: result.value for result in results if result.value is not None}
    return group({key: seen[name] for key, name in names.items() if name in seen}, names)


def _problem(option: str, key: str, value: str | list[str]) -> str:
    problem = answer_problem(key, value)
    # Of a database's address no word is repeated, since it may be a password's.
    given = f" '{value[0]}'" if isinstance(value, list) else ""
    return f"{option}{given}: {problem}" if problem else ""


def _asked(question: str, default: str, key: str) -> str:
    """An answer; a bad one is asked for again."""

    def checked(answer: str) -> str:
        problem = answer_problem(key, answer.split() if key in {"hosts", "database_names"} else answer)
        if problem:
            raise click.UsageError(problem)
        return answer

    return str(click.prompt(question, default=default, err=True, value_proc=checked))


@click.command()
def schema() -> int:
    """Print the JSON schema of hosts.yaml, for editors.

    \b
    puffin-fleet schema > hosts.schema.json
    puffin-fleet schema | less
    """
    click.echo(json.dumps(json_schema(), indent=2))
    return ExitCode.DONE


@click.command()
@options.hosts_file
@options.yes
def trust(hosts_file: str | None, patterns: tuple[str, ...], yes: bool) -> int:
    """Show the keys of hosts that are not known yet, and record them in known_hosts.

    Compare the fingerprints with what 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' prints on the host.

    \b
    puffin-fleet trust
    puffin-fleet trust --host node7
    """
    chosen = options.choose(hosts_file, patterns)
    failed, base = 0, Path(chosen.fleet.source).parent
    refused: list[FleetError] = []
    with open_remotes(chosen.fleet, chosen.hosts) as remotes:
        for host in chosen.hosts:
            if host.connection == "ssh":
                try:
                    failed += not _trust(host, remotes, base, yes)
                except (Declined, UsageError) as error:
                    refused.append(error)
    here = [host.name for host in chosen.hosts if host.connection != "ssh"]
    if here:
        note(f"{condensed(here)}: this machine, which needs no key")
    if refused:
        *others, last = refused
        for other in others:
            note(str(other), "yellow")
        raise last
    return ExitCode.FAILED if failed else ExitCode.DONE


def _trust(host: Host, remotes: Remotes, base: Path, yes: bool) -> bool:
    """Ask about each key on the way to a host, its own and those of hosts to jump through, until all are known."""
    for recorded in range(_MOST_KEYS):
        try:
            # Only the connection matters: whatever the host says to an empty program, its key was known by then.
            remotes.renew(host).call("", timeout=20)
        except UnknownHostKey as unknown:
            place = unknown.known_hosts_line.split()[0]
            console = note_console()
            console.print(f"[bold]{escape(host.name)}[/]: {escape(place)} shows [bold]{escape(unknown.fingerprint)}[/]")
            options.confirm(f"Is this the key of {place}?", yes, f"recorded for {host.name}")
            _record(host, base, unknown.known_hosts_line)
        except FleetError as error:
            print_error(host.name, error)
            return False
        else:
            if not recorded:
                note(f"{host.name}: its key is known")
            return True
    return False


def _record(host: Host, base: Path, line: str) -> None:
    file = base / Path(host.ssh.known_hosts or "~/.ssh/known_hosts").expanduser()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    unfinished = file.stat().st_size and not file.read_bytes().endswith(b"\n")
    with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
        stream.write(("\n" if unfinished else "") + line + "\n")
    note(f"{host.name}: recorded in {file}")
