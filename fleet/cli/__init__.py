"""The command ``puffin-fleet``. Modules here parse, call and render; they decide nothing."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

from fleet.errors import ExitCode, FleetError
from puffin import __version__
from puffin.errors import PuffinError

_VERBS = {
    "init": ("fleet.cli.setup", "write a commented hosts.yaml"),
    "schema": ("fleet.cli.setup", "print the JSON schema of hosts.yaml"),
    "trust": ("fleet.cli.setup", "show and record the keys of hosts"),
    "plan": ("fleet.cli.deploy", "show what a deploy would change"),
    "deploy": ("fleet.cli.deploy", "bring the hosts to what hosts.yaml says"),
    "stop": ("fleet.cli.control", "let the workers finish their jobs and stop"),
    "start": ("fleet.cli.control", "start what was stopped"),
    "status": ("fleet.cli.watch", "what every worker is doing"),
    "logs": ("fleet.cli.watch", "what the workers wrote, merged by time"),
    "demo": ("fleet.cli.demo", "see it all work, on this machine, in a minute"),
}


class _LazyGroup(click.Group):
    """Imports a verb's module only when that verb is used: ``--help`` must be quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = getattr(import_module(_VERBS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in _VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS:
            from puffin.settings import nearest

            ctx.fail(f"no verb '{args[0]}'{nearest(args[0], _VERBS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="puffin-fleet")
def cli() -> None:
    """Run workers for a SCINE database on many hosts.

    \b
    puffin-fleet demo                  see it work here
    puffin-fleet init                  describe your hosts
    puffin-fleet deploy hosts.yaml     put workers on them
    puffin-fleet status                watch them
    puffin-fleet stop                  let them finish and stop

    HOSTS_FILE defaults to $PUFFIN_FLEET, else to hosts.yaml here.

    \b
    Exit codes: 0 done, 1 failed on at least one host, 2 usage or hosts.yaml,
    4 locked by somebody else, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; the one place where errors become messages and exit codes.

    Parameters
    ----------
    arguments
        The words after the command; those of the process if not given.
    """
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        return int(cli.main(arguments, prog_name="puffin-fleet", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was begun is completed by running the same command again", err=True)
        return int(ExitCode.INTERRUPTED)
    except (FleetError, PuffinError) as error:
        click.echo(str(error), err=True)
        return int(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has had enough of it.
        sys.stderr.close()
        return int(ExitCode.DONE)
