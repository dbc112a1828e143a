"""Sets a worker up from its configuration and lets it work."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from puffin import cgroup
from puffin.config import Configuration
from puffin.crashes import Crashes, last_lines
from puffin.devices import occupy
from puffin.errors import CannotFork, ConfigurationError, DaemonError, ExitCode, PuffinError
from puffin.hints import nearest
from puffin.identity import Identity
from puffin.jobs.base import JobKind
from puffin.pidfile import PidFile
from puffin.programs.environment import prepare
from puffin.runner import Runner
from puffin.settings import Settings
from puffin.stopping import Signals
from puffin.store import Store, connection_uri, location
from puffin.tunnel import database_in_reach
from puffin.worker import Worker
from puffin.worklog import Log, open_log

_LONGEST_OPERATION_S = 10.0
_CONNECT_TRIES = 30


def slow_connect(manager: Any, config: Configuration) -> None:
    """Connect a ``scine_database.Manager`` to the first database of the configuration; makes no tunnel.

    Tries 30 times; after each failure it waits 1 s and up to 1 s more at random, so that many workers started
    together do not come all at once.

    Parameters
    ----------
    manager
        The manager.
    config
        The configuration.

    Raises
    ------
    RuntimeError
        That of the manager's last try.
    """
    settings = config.settings
    manager.set_uri(connection_uri(settings.database, settings.database.names[0]))
    manager.set_database_name(settings.database.names[0])
    for _ in range(_CONNECT_TRIES):
        try:
            manager.connect()
        # What is thrown here comes from C++, without a common class.
        except Exception as error:  # noqa: BLE001
            # For whoever waits.
            print(f"no connection to {location(settings.database)} yet: {error}", file=sys.stderr)  # noqa: T201
            time.sleep(1.0 + random.uniform(0.0, 1.0))  # noqa: S311 - no secret
        else:
            return
    manager.connect()


def check_setup(config: Configuration) -> dict[str, str]:
    """Find the jobs that this worker accepts, and print them with its resources and programs.

    In a fleet nothing is printed: there the registry tells it, and the logs of many workers would be full of it.

    Parameters
    ----------
    config
        The configuration.

    Returns
    -------
    dict[str, str]
        The accepted orders, each with the distribution that brings it.

    Raises
    ------
    ConfigurationError
        The settings choose processors that cannot be used.
    """
    # Before the process is started that all jobs come from.
    occupy(config.settings.resources)
    settings, missing = prepare(config.settings)
    for name, reason in missing.items():
        print(f"warning: {name} is not offered: {reason}", file=sys.stderr)  # noqa: T201 - as below
    # All jobs come from the process that is asked here: what only others need is not loaded in it.
    kinds = installed_kinds(settings, settings.daemon.jobs)
    for problem in unknown_jobs(settings, kinds):
        print(f"warning: {problem}", file=sys.stderr)  # noqa: T201 - as below
    accepted = {kind.order: kind.provider for kind in accepted_kinds(settings, kinds)}
    if not settings.fleet.name:
        print(_setup_in_words(settings, accepted))  # noqa: T201 - printing is this function's task
    return accepted


def installed_kinds(settings: Settings, wanted: Sequence[str] = ()) -> tuple[JobKind, ...]:
    """Every installed job, accepted or not.

    Parameters
    ----------
    settings
        The worker's settings.
    wanted
        Names of the only jobs that matter, so that providers of none of them need not be loaded; empty for all.
    """
    prepare(settings)
    return Runner(settings.resources.cores, settings.daemon.pid, wanted).job_kinds()


def accepted_kinds(settings: Settings, kinds: tuple[JobKind, ...]) -> tuple[JobKind, ...]:
    """The jobs that a worker accepts.

    Parameters
    ----------
    settings
        The worker's settings.
    kinds
        The jobs that are installed.
    """
    return tuple(kind for kind in kinds if not refusal_of(kind, settings))


def unknown_jobs(settings: Settings, kinds: Sequence[JobKind]) -> list[str]:
    """Jobs that the settings ask for and nobody brings, in words; perhaps another release does.

    Parameters
    ----------
    settings
        The worker's settings.
    kinds
        The jobs that are installed.
    """
    known = [kind.order for kind in kinds]
    lacking = [name for name in settings.daemon.jobs if name not in known]
    return [f"daemon.jobs: no job '{name}' is installed{nearest(name, known)}" for name in lacking]


def refusal_of(kind: JobKind, settings: Settings) -> str:
    """Why a worker does not accept a job; empty if it does.

    Parameters
    ----------
    kind
        The job.
    settings
        The worker's settings.
    """
    only = settings.daemon.jobs
    if only and kind.order not in only:
        return "not listed in daemon.jobs"
    if kind.needs_setting and not getattr(settings.daemon, kind.needs_setting):
        return f"daemon.{kind.needs_setting} is empty"
    return kind.refusal(settings.available_programs)


def _setup_in_words(settings: Settings, accepted: dict[str, str]) -> str:
    resources = settings.resources
    lines = [
        "Resources:",
        f"   {'Threads:':18} {resources.cores:>10d}",
        f"   {'Memory:':18} {resources.memory:>10.3f} GB",
        f"   {'Memory/Thread:':18} {resources.memory / resources.cores:>10.3f} GB",
        f"   {'Disk:':18} {resources.disk:>10.3f} GB",
        f"   {'Disk/Thread:':18} {resources.disk / resources.cores:>10.3f} GB",
        "Programs:",
        *(f"   - {program}" for program in settings.available_programs),
        "Jobs:",
        *(f"   - {order}" for order in accepted),
    ]
    return "\n".join(lines)


def loop(config: Configuration, available_jobs: dict[str, str], logged: Callable[[], None] = lambda: None) -> ExitCode:
    """Work until told to stop. Signals are handled as long as it runs, so it belongs into the main thread.

    Parameters
    ----------
    config
        The configuration.
    available_jobs
        The orders to accept, as :func:`check_setup` returns them.
    logged
        Called when the log is open: from now on it tells whatever goes wrong.

    Returns
    -------
    ExitCode
        How the process should end.

    Raises
    ------
    ConfigurationError, DaemonError, DatabaseError
        The worker cannot start.
    """
    occupy(config.settings.resources)
    settings, missing = prepare(config.settings)
    log = open_log(settings.daemon.log, _name(settings), also_stderr=settings.daemon.mode == "debug")
    for name, reason in missing.items():
        log.warning(f"{name} is not offered: {reason}")
    logged()
    try:
        with database_in_reach(settings, log.warning) as database:
            # Its jobs connect by themselves, and find the way in the settings too.
            code = _work(config, replace(settings, database=database), available_jobs, log)
    except PuffinError as error:
        log.error(f"the worker ends: {error}")
        raise
    except Exception as error:
        # In the background there is nobody else who could be told where it happened.
        log.error("".join(traceback.format_exception(error)).rstrip())
        log.error(f"the worker ends: {type(error).__name__}: {error}")
        raise
    log.info(f"ended with exit code {code.value}")
    return code


def _work(config: Configuration, settings: Settings, available_jobs: dict[str, str], log: Log) -> ExitCode:
    signals = Signals()
    signals.install()
    cgroup.make_room()
    runner = Runner(settings.resources.cores, settings.daemon.pid, settings.daemon.jobs)
    runner.warm_up()
    kinds = {kind.order: kind for kind in runner.job_kinds() if kind.order in available_jobs}
    if not kinds:
        raise ConfigurationError("no job is accepted: see 'puffin jobs' for what each of them needs")
    # One slow answer must not use up the time in which a lease can be renewed.
    longest = min(_LONGEST_OPERATION_S, settings.daemon.lease_in_s / 4)
    store = Store(settings.database, timeout_s=longest, has_pulse=True)
    identity = Identity(
        release=os.environ.get("PUFFIN_RELEASE", ""),
        configuration=config.digest,
        pid=os.getpid(),
        host=settings.fleet.host or socket.gethostname(),
    )
    worker = Worker(
        settings=settings, identity=identity, store=store, runner=runner, kinds=kinds, signals=signals, log=log
    )
    crashes = Crashes(settings.daemon.pid, settings.daemon.crash_window_in_min * 60)
    said = last_lines(settings.daemon.log)
    try:
        count = crashes.begin(time.time())
        code = worker.rest(count, said) if 0 < settings.daemon.crash_limit < count else worker.run()
    except CannotFork:
        # Each time the calculation that it had just taken is lost: a host on which that goes on must come to rest.
        raise
    except PuffinError:
        # It knows what is wrong, such as a database that stays away: no crash.
        crashes.forget()
        raise
    else:
        crashes.forget()
        return code
    finally:
        # A job process that waits for work would be waited for, for ever.
        runner.close()
        store.close()


def _name(settings: Settings) -> str:
    return settings.fleet.worker or settings.daemon.uuid


def kill_daemon(config: Configuration) -> None:
    """Stop a worker without letting its job finish; the job's calculation is given back.

    Parameters
    ----------
    config
        The configuration of that worker.

    Raises
    ------
    DaemonError
        No such worker runs.
    """
    pid_file = PidFile(config["daemon"]["pid"])
    pid = pid_file.owner()
    if pid is None:
        raise DaemonError(f"no worker runs with the file {config['daemon']['pid']}: nothing was killed")
    try:
        os.kill(pid, signal.SIGQUIT)
    except ProcessLookupError:
        return  # it ended just now
    except PermissionError as error:
        raise DaemonError(f"process {pid} belongs to somebody else: nothing was killed") from error
    deadline = time.monotonic() + _LONGEST_OPERATION_S
    while pid_file.owner() == pid:
        if time.monotonic() > deadline:
            # It hangs. Its jobs die with it, and its next start, or any other worker, gives them back.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.05)
