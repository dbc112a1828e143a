"""The files of one host: the wrapper, supervisord's configuration, and each worker's settings. Pure.

What was learnt about supervisord's configuration by running 4.3.0 (a test renders into a directory with a
space, a percent sign and quotes, and starts the real one):

- Nothing can be quoted or escaped but ``%``, which is doubled. ``stdout_logfile`` alone is expanded twice,
  so there it is written four times.
- `` ;`` and `` #`` begin a comment in every value; :func:`fleet.hosts.hostsfile.path_problem` refuses such paths.
- ``command`` is split as a shell would, so :func:`shlex.quote` protects a path; no other value is split.
- ``[include] files`` is split at white space and is a glob pattern. A relative pattern starts from the
  directory of the file it stands in, so it is the only kind that survives a space in that directory.
"""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.errors import FleetError
from fleet.hosts import yamlmap
from fleet.hosts.database import database_settings
from fleet.hosts.inventory import Fleet, Host, deep_merge
from fleet.hosts.layout import Worker
from fleet.hosts.paths import HostPaths, job_directory

PASSWORD_FILE = "etc/database.password"  # noqa: S105 - a path
STAYS_DOWN = (0, 2, 3)
"""Exit codes after which supervisord does not start a worker again: told to stop, configuration, quarantined."""

_FOR_EVER_S = 10 * 365 * 86400
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MADE_HERE = "Written by puffin-fleet; the next deploy undoes changes made here. Change hosts.yaml instead."


@dataclass(frozen=True)
class RenderedFile:
    """One file as it shall be on the host.

    Parameters
    ----------
    path
        Relative to the host's own directory.
    mode
        Permissions, for example 0o600.
    secret
        Whether its content must never be shown.
    """

    path: str
    mode: int
    content: bytes
    secret: bool = False

    def __repr__(self) -> str:
        """Leave the content out: a traceback or a log is no place for it."""
        return f"RenderedFile(path={self.path!r}, mode={self.mode:#o}, secret={self.secret})"

    @property
    def sha256(self) -> str:
        """Digest of the content, as the probe reports it for the file on the host."""
        return hashlib.sha256(self.content).hexdigest()


def render_host(
    fleet: Fleet, host: Host, workers: tuple[Worker, ...], paths: HostPaths, password: str | None
) -> tuple[RenderedFile, ...]:
    """Every file of a host that the manager writes.

    Parameters
    ----------
    fleet, host
        What hosts.yaml says.
    workers
        The host's workers, from :func:`fleet.hosts.layout.lay_out`.
    paths
        Its directories.
    password
        Content of `database.password_file`, or None where hosts.yaml names none. It is written to one file
        and nowhere else.

    Returns
    -------
    tuple[RenderedFile, ...]
        In an order in which they can be written: what refers to a file comes after it.

    Raises
    ------
    FleetError
        hosts.yaml names a password file and no password was given.
    """
    if fleet.database.password_file is not None and password is None:
        raise FleetError(f"database.password_file: {fleet.database.password_file} was not read")
    files = [
        RenderedFile("bin/worker", 0o755, wrapper(paths).encode()),
        RenderedFile("bin/boot", 0o755, boot_program(paths).encode()),
    ]
    if fleet.database.username is not None and password is not None:
        files.append(RenderedFile(PASSWORD_FILE, 0o600, password.encode(), secret=True))
    mark = _password_mark(fleet, password)
    for worker in workers:
        environment = worker_environment(host, worker)
        settings = worker_settings(fleet, host, worker, paths)
        files += [
            RenderedFile(f"etc/workers/{worker.name}.env", 0o600, environment.encode()),
            RenderedFile(
                f"etc/workers/{worker.name}.yaml", 0o600, _settings_file(settings, environment, mark).encode()
            ),
        ]
    files += [
        RenderedFile(f"etc/conf.d/{worker.name}.conf", 0o644, program_section(fleet, worker, paths).encode())
        for worker in workers
    ]
    files += [
        RenderedFile("etc/supervisord.conf", 0o644, supervisord_configuration(paths).encode()),
        RenderedFile("etc/supervisor", 0o644, f"{paths.supervisor}\n".encode()),
    ]
    return tuple(files)


def configuration_hash(content: bytes) -> str:
    """What a worker reports as its configuration: 12 hexadecimal digits of its settings file's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


def worker_uuid(fleet: Fleet, worker: str) -> str:
    """The name by which the database knows a worker; the same in each of its incarnations.

    The sign between fleet and worker is one that neither name can hold, so that no two fleets share a name.
    """
    return f"puffin-{fleet.name}@{worker}"


def wrapper(paths: HostPaths) -> str:
    """Shell script that becomes the worker named by its argument; a verb such as ``check`` may follow.

    The link to the release is read once, so that the release reported is the release run even where the
    link is switched at that moment. A worker that is to stay down waits for longer than ``startsecs`` before
    it ends, or supervisord would take its end for a failure and try again. An order to start again that is there
    at the very beginning is carried out by this start: to obey it once more would be one more end within
    ``startsecs``, of which supervisord forgives few. Variables that would change its settings are dropped: whoever
    started supervisord may have had some, meant for something else.
    """
    return f"""\
#!/bin/sh
# {_MADE_HERE}
set -eu
worker=$1
shift
[ $# -gt 0 ] || set -- container
home={shlex.quote(paths.root)}
told_to_stop() {{
    [ -e "$home/orders/stop" ] || [ -e "$home/orders/stop.$worker" ]
}}
if [ "$1" = container ]; then
    rm -f "$home/run/recycle.$worker"
fi
if [ "$1" = container ] && told_to_stop; then
    sleep 3
    if told_to_stop; then
        exit 0
    fi
fi
for name in $(env | sed -n 's/^\\(PUFFIN_[A-Za-z0-9_]*\\)=.*/\\1/p'); do
    unset "$name"
done
if [ -r "$home/etc/workers/$worker.env" ]; then
    . "$home/etc/workers/$worker.env"
fi
release=$(readlink "$home/current") || release=current
case $release in
    /*) ;;
    *) release=$home/$release ;;
esac
PUFFIN_RELEASE=${{release##*/}}
export PUFFIN_RELEASE
exec "$release/bin/puffin" -c "$home/etc/workers/$worker.yaml" "$@"
"""


def boot_program(paths: HostPaths) -> str:
    """Shell script that starts supervisord when the machine has started, and `stop`s in time before it ends."""
    return f"""\
#!/bin/sh
# {_MADE_HERE}
# Run by systemd or cron when the machine has started; with 'stop' before it ends. Both are told in log/boot.log.
set -eu
home={shlex.quote(paths.root)}
exec >>"$home/log/boot.log" 2>&1
python=$home/current/bin/python
[ -x "$python" ] || python=$home/current/bin/python3
exec "$python" -I -m fleet.hostside.startup "$home" "${{1:-start}}"
"""


def worker_environment(host: Host, worker: Worker) -> str:
    """Shell exports for one worker. What hosts.yaml says wins over the thread counts."""
    variables = {name: str(worker.cores) for name in _THREADS} | dict(host.environment)
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    return f"# {_MADE_HERE}\n" + "".join(lines)


def worker_settings(fleet: Fleet, host: Host, worker: Worker, paths: HostPaths) -> dict[str, Any]:
    """Content of a worker's puffin.yaml.

    Parameters
    ----------
    fleet, host
        Whose worker it is.
    worker
        The worker, with its share of the host.
    paths
        Directories of the host.
    """
    run, log, orders = (posixpath.join(paths.root, name) for name in ("run", "log", "orders"))
    daemon: dict[str, Any] = {
        "mode": "release",
        "uuid": worker_uuid(fleet, worker.name),
        "job_dir": job_directory(fleet, worker, paths),
        "software_dir": posixpath.join(paths.root, "software"),
        "error_dir": posixpath.join(paths.root, "error"),
        "pid": f"{run}/{worker.name}.pid",
        "pid_dir": run,
        "log": f"{log}/{worker.name}.log",
        "stop": f"{orders}/stop.{worker.name}",
        "stop_shared": f"{orders}/stop",
        "recycle": f"{run}/recycle.{worker.name}",
        "remove_stop_file": False,
        "timeout_in_h": -1,  # a worker of a fleet lives until it is told otherwise
    }
    settings: dict[str, Any] = {
        "fleet": {"name": fleet.name, "host": host.name, "worker": worker.name},
        "daemon": daemon,
        "database": database_settings(fleet.database, posixpath.join(paths.root, PASSWORD_FILE)),
        "resources": {"cores": worker.cores, "memory": worker.memory, "disk": worker.disk},
    }
    overrides = _at_home(host.puffin, paths.home)
    if "ip" in (overrides.get("database") or {}):
        settings["database"].pop("uri", None)  # it would win over the host's own address
    settings = deep_merge(settings, overrides)
    # What is said of the worker wins over what is said of its host.
    if worker.jobs:
        settings["daemon"]["jobs"] = list(worker.jobs)
    if worker.programs:
        settings = deep_merge(settings, {"programs": _at_home(worker.programs, paths.home)})
    # Only where there are some: a key more would be another configuration, and recycle every worker there is.
    if worker.cpus:
        settings["resources"]["cpus"] = list(worker.cpus)
    if worker.gpus:
        settings["resources"]["gpus"] = list(worker.gpus)
    return settings


def program_section(fleet: Fleet, worker: Worker, paths: HostPaths) -> str:
    """Write supervisord's section for one worker: only what a deploy rarely changes.

    supervisord restarts a program for any change here; a change of release or settings needs none.

    Parameters
    ----------
    fleet
        The fleet.
    worker
        The worker.
    paths
        Directories of its host.
    """
    command = f"{shlex.quote(posixpath.join(paths.root, 'bin/worker'))} {worker.name}"
    log = posixpath.join(paths.root, "log", f"{worker.name}.out")
    return f"""\
; {_MADE_HERE}
[program:{worker.name}]
command={_value(command)}
directory={_value(paths.root)}
autostart=true
; Not after 0 (asked to stop), 2 (configuration) and 3 (quarantined).
autorestart=unexpected
exitcodes={",".join(map(str, STAYS_DOWN))}
startsecs=2
startretries=3
; TERM lets the calculation end; its own children must not get it.
stopsignal=TERM
stopasgroup=false
killasgroup=true
; A worker is only ever killed by those who say so.
stopwaitsecs={_FOR_EVER_S}
redirect_stderr=true
; The worker keeps its own log; here is only what it says before it can.
stdout_logfile={_value(_value(log))}
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
"""


def supervisord_configuration(paths: HostPaths) -> str:
    """Write supervisord's own file."""
    root, run = _value(paths.root), _value(paths.run)
    return f"""\
; {_MADE_HERE}
[unix_http_server]
file={run}/sv.sock
chmod=0700

[supervisord]
nodaemon=false
directory={root}
pidfile={run}/supervisord.pid
logfile={root}/log/supervisord.log
logfile_maxbytes=10MB
logfile_backups=3
loglevel=info
childlogdir={root}/log
strip_ansi=no
minfds=1024
minprocs=200

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{run}/sv.sock

[include]
files=conf.d/*.conf
"""


def _value(text: str) -> str:
    return text.replace("%", "%%")


def _settings_file(settings: Mapping[str, Any], environment: str, mark: str) -> str:
    # Environment and password are part of how a worker is set up, so they must be part of what its hash is taken from.
    digest = hashlib.sha256(environment.encode()).hexdigest()[:12]
    return f"# {_MADE_HERE}\n# environment: {digest}\n{mark}{yamlmap.write(settings)}"


def _password_mark(fleet: Fleet, password: str | None) -> str:
    """A comment that changes with the password: three bytes of a salted digest, far too little to find it by."""
    if password is None:
        return ""
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), fleet.name.encode(), 1000)
    return f"# password: {digest.hex()[:6]}\n"


def _at_home(value: Any, home: str) -> Any:
    """Put the host's home directory for a leading ``~``."""
    if isinstance(value, Mapping):
        return {key: _at_home(item, home) for key, item in value.items()}
    if isinstance(value, str) and (value == "~" or value.startswith("~/")):
        return home + value[1:]
    return value
