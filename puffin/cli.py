"""The command ``puffin``: one worker, from its configuration to its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
from click.core import ParameterSource

from puffin import __version__
from puffin.errors import ConfigurationError, PuffinError

_NAMED = "puffin.named"
"""Whether the command line itself names a configuration file."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    default="",
    envvar="PUFFIN_CONFIG",
    help="Configuration file (YAML); else that of $PUFFIN_CONFIG.",
)
@click.version_option(__version__, prog_name="puffin")
@click.pass_context
def cli(context: click.Context, path: str) -> None:
    """Run one worker for a SCINE database.

    \b
    puffin -c puffin.yaml configure    write a configuration with the defaults
    puffin -c puffin.yaml check        see whether a worker started now would work
    puffin -c puffin.yaml start        start it in the background
    puffin -c puffin.yaml stop         let it finish its job and stop
    """
    context.obj = path
    context.meta[_NAMED] = context.get_parameter_source("path") is ParameterSource.COMMANDLINE


@cli.command()
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.pass_context
def configure(context: click.Context, force: bool) -> None:
    """Write the configuration: defaults, overlaid by the environment.

    Without -c it goes to standard output.
    """
    from puffin.config import Configuration

    # A file that only the environment names is somebody's already.
    path = context.obj if context.meta[_NAMED] else ""
    config = Configuration()
    config.load()
    # The uuid stays in the file: without it stop and kill could not find the worker that start has started.
    config["daemon"]["pid"] = ""
    if not path:
        click.echo(config.to_yaml(), nl=False)
        return
    if Path(path).exists() and not force:
        raise ConfigurationError(f"{path} exists: use --force to replace it")
    config.dump(path)
    click.echo(f"wrote {path}", err=True)


@cli.command()
@click.pass_obj
def bootstrap(path: str) -> None:
    """Install the available programs and write puffin.sh.

    What is installed already is left alone: a second run does nothing.
    """
    from puffin.bootstrap import bootstrap as run
    from puffin.config import Configuration

    config = Configuration()
    config.load(path or None)
    run(config)


@cli.command()
@click.pass_obj
def start(path: str) -> int:
    """Start a worker in the background."""
    code = _start(path, detach=True)
    click.echo("started; what it does stands in its log (daemon.log), 'check' tells whether it can work", err=True)
    return code


@cli.command()
@click.pass_obj
def container(path: str) -> int:
    """Run a worker in the foreground, as supervisord and containers need it.

    \b
    Exit codes: 0 asked to stop, 75 recycle (start again), 3 quarantined
    after repeated failures, 2 configuration, 1 anything else.
    """
    return _start(path, detach=False)


def _start(path: str, detach: bool) -> int:
    from puffin.config import Configuration
    from puffin.daemon import start_daemon

    config = Configuration()
    config.load(path or None)
    return int(start_daemon(config, detach=detach))


@cli.command()
@click.pass_obj
def stop(path: str) -> None:
    """Let the worker finish its job, then stop."""
    from puffin.config import Configuration
    from puffin.daemon import stop_daemon

    config = Configuration()
    config.load(path or None)
    stop_daemon(config)
    click.echo(f"wrote {config['daemon']['stop']}: the worker stops when its job is done", err=True)


@cli.command()
@click.pass_obj
def kill(path: str) -> None:
    """Stop the worker at once; its calculation is given back."""
    from puffin.config import Configuration
    from puffin.jobloop import kill_daemon

    config = Configuration()
    config.load(path or None)
    kill_daemon(config)


@cli.command()
@click.pass_obj
def jobs(path: str) -> None:
    """List the installed jobs, and why this worker does not accept some."""
    from puffin.config import Configuration
    from puffin.jobloop import installed_kinds, refusal_of

    config = Configuration()
    config.load(path or None)
    settings = config.settings
    kinds = installed_kinds(settings)
    width = max((len(kind.order) for kind in kinds), default=0)
    for kind in kinds:
        refusal = refusal_of(kind, settings)
        verdict = f"no: {refusal}" if refusal else "accepted"
        click.echo(f"{kind.order:{width}}  {kind.provider:20}  {verdict}")


@cli.command()
@click.option("--json", "json_lines", is_flag=True, help="Print JSON lines instead of a table.")
@click.pass_obj
def check(path: str, json_lines: bool) -> int:
    """Check everything a worker needs; exit 1 if one started now would not work.

    Database, folders, disk, memory, cores, the available programs (each is
    used for a moment), their models, the jobs that would be accepted.
    """
    import json
    import shutil

    from puffin.check import examine, table
    from puffin.config import Configuration
    from puffin.severity import Severity

    config = Configuration()
    config.load(path or None)
    findings = examine(config)
    bad = sum(finding.severity is Severity.FAIL for finding in findings)
    if json_lines:
        for finding in findings:
            record = {"check": finding.check, "severity": finding.severity.value, "what": finding.what}
            click.echo(json.dumps(record))
        return 1 if bad else 0
    shades = {Severity.OK: "green", Severity.WARN: "yellow", Severity.FAIL: "red"}
    for line in table(findings, shutil.get_terminal_size().columns):
        word = line[:4].strip().lower()
        shade = shades[Severity(word)] if word else None
        click.echo(click.style(line[:4], fg=shade) + line[4:])
    if bad:
        click.echo(f"\nA worker started now would not work: {bad} of {len(findings)} checks failed.", err=True)
    return 1 if bad else 0


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; the one place where errors become messages and exit codes.

    Parameters
    ----------
    arguments
        The words after the command; those of the process if not given.
    """
    sys.exit(_exit_code_of(lambda: cli.main(arguments, prog_name="puffin", standalone_mode=False)))


def _exit_code_of(command: Callable[[], int | None]) -> int:
    try:
        return int(command() or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except PuffinError as error:
        for line in str(error).splitlines():
            click.echo(f"puffin: {line}", err=True)
        return int(error.exit_code)
