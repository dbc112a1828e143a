"""The command ``puffin-fleet``. Modules here parse, call and render; they decide nothing."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import click

from fleet.cli.lazy import LazyGroup
from fleet.cli.streams import UnfailingOutput, is_of_output, nobody_reads
from fleet.errors import ExitCode, FleetError
from puffin import __version__
from puffin.errors import DatabaseUnavailable, PuffinError

_VERBS = {
    "init": ("fleet.cli.setup", "write a commented hosts.yaml"),
    "schema": ("fleet.cli.setup", "print the JSON schema of hosts.yaml"),
    "trust": ("fleet.cli.setup", "show and record the keys of hosts"),
    "inventory": ("fleet.cli.inventory", "show the hosts that hosts.yaml describes, also for Ansible"),
    "check": ("fleet.cli.check", "look for what is wrong with hosts, workers and database"),
    "plan": ("fleet.cli.plan", "show what a deploy would change"),
    "deploy": ("fleet.cli.deploy", "bring the hosts to what hosts.yaml says"),
    "rollback": ("fleet.cli.deploy", "go back to a release that the hosts still have"),
    "stop": ("fleet.cli.control", "let the workers finish their jobs and stop"),
    "start": ("fleet.cli.control", "start what was stopped"),
    "restart": ("fleet.cli.restart", "start workers anew, a few hosts at a time"),
    "drain": ("fleet.cli.control", "take a host out of work for maintenance"),
    "resume": ("fleet.cli.control", "let a drained host work again"),
    "scale": ("fleet.cli.scale", "find, or change, the line that says how many workers"),
    "ps": ("fleet.cli.ps", "the fleet's processes on the hosts"),
    "exec": ("fleet.cli.exec:exec_", "run a command on the hosts"),
    "status": ("fleet.cli.status", "what every worker is doing"),
    "top": ("fleet.cli.top", "the same and more, live, on the whole screen"),
    "events": ("fleet.cli.events", "what happened to workers and calculations"),
    "notify": ("fleet.cli.notify", "tell the hooks of what happens: failures, lost hosts, an empty queue"),
    "logs": ("fleet.cli.logs", "what the workers wrote, merged by time"),
    "collect": ("fleet.cli.collect", "fetch logs, failed calculations and the state of hosts"),
    "history": ("fleet.cli.history", "who did what to the hosts"),
    "prune": ("fleet.cli.prune", "remove releases that nothing needs any more"),
    "unlock": ("fleet.cli.unlock", "remove the lock of a command that is gone"),
    "destroy": ("fleet.cli.destroy", "let workers finish, then remove what was deployed"),
    "queue": ("fleet.cli.queue", "put calculations in, look at them, read their results"),
    "completion": ("fleet.cli.completion", "have the shell complete verbs, options and names"),
    "demo": ("fleet.cli.demo", "see it all work, on this machine, in a minute"),
}


_OF_A_DAY = """\
puffin-fleet deploy     bring the hosts to what hosts.yaml says
puffin-fleet status     what every worker is doing, what is wrong first
puffin-fleet logs -f    what they write, all hosts in one
puffin-fleet check      what is wrong, and what to do about it
puffin-fleet stop       let them finish and stay down, until 'start'

New here?  'puffin-fleet demo' shows it all, 'puffin-fleet init' describes hosts
All verbs: 'puffin-fleet --help'; each with examples: 'puffin-fleet VERB --help'"""


@click.group(
    cls=LazyGroup,
    verbs=_VERBS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="puffin-fleet")
@click.pass_context
def cli(context: click.Context) -> None:
    """Run workers for a SCINE database on many hosts.

    \b
    puffin-fleet demo                  see it work here
    puffin-fleet init                  describe your hosts
    puffin-fleet deploy hosts.yaml     put workers on them
    puffin-fleet status                watch them
    puffin-fleet stop                  let them finish and stop

    HOSTS_FILE defaults to $PUFFIN_FLEET, else to hosts.yaml here.

    \b
    Exit codes: 0 done, 1 failed on at least one host, 2 usage, hosts.yaml, or
    nobody there to be asked, 4 locked by somebody else, 130 interrupted, or
    answered with no.
    """
    if context.invoked_subcommand is None:
        click.echo(_OF_A_DAY)


_GOES_ON = frozenset(
    ("collect", "deploy", "destroy", "drain", "prune", "restart", "resume", "rollback", "start", "stop")
)
_TO_THE_END = _GOES_ON | {"demo", "init", "scale", "trust", "unlock"}
"""Verbs that change something, and so do all of it, whether somebody reads what they say of it or not."""

_QUEUE_TO_THE_END = frozenset({"submit", "requeue", "hold", "release", "cancel"})
"""Likewise, of ``queue``."""

_NO_DATABASE = "  see that the server runs; 'puffin-fleet check' tries it from here and from every host"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; the one place where errors become messages and exit codes.

    Parameters
    ----------
    arguments
        The words after the command; those of the process if not given.
    """
    # Modules and records are many objects and no garbage: to look for it after every 700 takes a tenth of the time.
    gc.set_threshold(50_000)
    was_told_to_end = _heed_endings()
    output = UnfailingOutput() if _goes_to_the_end(arguments) else None
    try:
        code = _run(arguments)
        if code == ExitCode.DONE and was_told_to_end():
            code = int(ExitCode.INTERRUPTED)  # somebody swallowed it, as extension modules do while they are imported
        if sys.stdout is not None:  # closed from the start
            sys.stdout.flush()
        if output is not None and output.failure is not None:
            code = code or _not_written(output.failure)
    except (BrokenPipeError, SystemExit):
        # click makes an exit with 1 of a pipe that is read no more.
        if output is not None or not nobody_reads():
            raise
        code = int(ExitCode.DONE)
    except OSError as error:
        if not is_of_output(error):
            raise
        code = _not_written(error)
    sys.exit(code)


def _not_written(error: OSError) -> int:
    click.echo(f"cannot write the output: {error.strerror or error}", err=True)
    return int(ExitCode.FAILED)


def _words(arguments: list[str] | None) -> list[str]:
    """The first two words, of which the first is the verb; empty where there are fewer."""
    return [*(arguments if arguments is not None else sys.argv[1:]), "", ""][:2]


def _goes_to_the_end(arguments: list[str] | None) -> bool:
    verb, second = _words(arguments)
    return verb in _TO_THE_END or (verb == "queue" and second in _QUEUE_TO_THE_END)


def _heed_endings() -> Callable[[], bool]:
    """End as after Ctrl-C when told to end or when the terminal is gone: locks are given back, nothing is left over.

    Returns
    -------
    Callable
        Whether it was told to.
    """
    told = threading.Event()

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        told.set()
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # else somebody wants it otherwise, such as nohup
            signal.signal(number, interrupt)
    return told.is_set


def _interrupted(arguments: list[str] | None) -> str:
    """What Ctrl-C leaves behind, in a few words."""
    if _words(arguments)[0] not in _GOES_ON:
        return "interrupted"
    again = "" if _words(arguments)[0] == "rollback" else ", and the same command again completes the rest"
    return f"interrupted: what hosts were told they go on with{again}"


def _say_what_is_locked(error: BaseException | None) -> None:
    hosts = getattr(error, "still_locked", ())
    if hosts:
        # Only where something was locked, all this is loaded already.
        refusals = importlib.import_module("fleet.deployment.refusals")
        click.echo(refusals.still_locked(hosts), err=True)


def _run(arguments: list[str] | None) -> int:
    try:
        return int(cli.main(arguments, prog_name="puffin-fleet", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo(_interrupted(arguments), err=True)
        _say_what_is_locked(error if isinstance(error, KeyboardInterrupt) else error.__cause__)
        return int(ExitCode.INTERRUPTED)
    except (FleetError, PuffinError) as error:
        click.echo(str(error), err=True)
        if isinstance(error, DatabaseUnavailable):
            click.echo(_NO_DATABASE, err=True)
        return int(error.exit_code)
