"""The settings of a worker: every section and key, its type, default, meaning and limits; pure.

The sections are frozen. :mod:`puffin.overlay` lays over them what was read from a file or from the environment;
:mod:`puffin.config` puts the dictionary-like face of the SCINE Puffin configuration before them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Check = Callable[[Any], str | None]

GATEWAY = re.compile(r"(?P<user>[\w.][\w.+-]*)@(?P<host>[\w.][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")
"""``user@gateway`` or ``user@gateway:port``."""


def _option(default: Any, meaning: str, check: Check | None = None) -> Any:
    metadata = {"meaning": meaning, "check": check}
    if isinstance(default, list | tuple):
        return field(default_factory=lambda: tuple(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _at_least(limit: float) -> Check:
    return lambda value: None if value >= limit else f"must be at least {limit:g}"


def _above(limit: float) -> Check:
    return lambda value: None if value > limit else f"must be greater than {limit:g}"


def _one_of(*choices: str) -> Check:
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def _port(value: int) -> str | None:
    return None if 0 < value < 65536 else "must be between 1 and 65535"


def _gateway(value: str) -> str | None:
    found = GATEWAY.fullmatch(value)
    if value and not found:
        return "must look like user@gateway or user@gateway:port"
    return _port(int(found["port"])) if found and found["port"] else None


Devices = tuple[str, ...]
"""Ids of devices; numbers pass for ids."""


def _devices(value: Devices) -> str | None:
    good = all(re.fullmatch(r"[\w:/.-]+", item) for item in value)
    return None if good else "must be numbers or UUIDs without spaces and commas"


@dataclass(frozen=True)
class DaemonSettings:
    """How the worker process behaves. Times are in the unit that ends a key's name."""

    mode: str = _option(
        "release", "release: detach and log to a file; debug: stay in this shell", _one_of("release", "debug")
    )
    job_dir: str = _option("/scratch/puffin/jobs", "where running calculations have their directories")
    software_dir: str = _option("/scratch/puffin/software", "where bootstrap installs programs")
    error_dir: str = _option("", "where the directories of failed calculations are archived; empty: nowhere")
    archive_dir: str = _option("", "where the directories of completed calculations are archived; empty: nowhere")
    uuid: str = _option("", "unique name of this worker; empty, uuid1 or uuid4: generated")
    pid: str = _option("", "file with the process id; empty: <pid_dir>/<uuid>.pid")
    pid_dir: str = _option("/scratch/puffin/", "directory of the file with the process id")
    log: str = _option("/scratch/puffin/puffin.log", "log file; empty: standard error")
    stop: str = _option(
        "/scratch/puffin/puffin.stop",
        "file that, once there, lets the running job end and then stops the worker",
    )
    stop_shared: str = _option("", "a second stop file, for all workers of a host; a worker never removes it")
    recycle: str = _option("", "file that, once there, lets the running job end and then exits 75, to be started again")
    remove_stop_file: bool = _option(True, "whether the stop file is removed when it is obeyed")
    cycle_time_in_s: float = _option(
        10.0, "longest wait between two looks for work where the server has no change streams", _above(0)
    )
    timeout_in_h: float = _option(
        48.0, "how long the worker lives; its job is then killed and given back; 0 or less: for ever"
    )
    idle_timeout_in_h: float = _option(-1.0, "how long the worker stays without work; 0 or less: for ever")
    touch_time_in_s: float = _option(1500.0, "time between two touches of the running calculation, at most", _above(0))
    job_reset_time_in_s: float = _option(
        7200.0,
        "age of the last touch after which another SCINE Puffin's calculation counts as lost",
        _above(0),
    )
    repeated_failure_stop: int = _option(
        100, "consecutive failures after which they are given back and the worker stops", _at_least(1)
    )
    max_number_of_jobs: int = _option(-1, "jobs after which the worker stops; 0 or less: never")
    enforce_memory_limit: bool = _option(True, "whether a job above its memory limit is killed")
    lease_in_s: float = _option(60.0, "time for which a claim is valid without being renewed", _at_least(1))
    max_attempts: int = _option(5, "how often a calculation may be lost with its worker before it fails", _at_least(1))
    crash_limit: int = _option(
        10,
        "crashes within `crash_window_in_min`, or jobs lost in a row, after which the worker is quarantined (exit code "
        "3); 0: never",
        _at_least(0),
    )
    crash_window_in_min: float = _option(30.0, "time for which a crash counts", _above(0))
    max_walltime_in_h: float = _option(-1.0, "time after which a job is killed and fails; 0 or less: never")
    jobs: tuple[str, ...] = _option([], "the only jobs to accept; empty: all whose programs are available")
    commands: tuple[str, ...] = _option([], "paths of the programs that the job 'command' may run; empty: none")


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the database server is, and which databases on it to work on."""

    ip: str = _option("127.0.0.1", "address of the database server")
    port: int = _option(27017, "port of the database server", _port)
    name: str = _option("default", "database; several, most important first, are separated by commas")
    uri: str = _option("", "connection string; wins over ip and port. Keep passwords out of it: use password_file")
    username: str = _option("", "name to log in with")
    password_file: str = _option("", "file that holds the password, readable by its owner only")
    ssh_tunnel: str = _option(
        "",
        "user@gateway or user@gateway:port through which to reach the server, with the keys in resources.ssh_keys; "
        "ip or uri is then the one server as the gateway sees it. With TLS its certificate must name 127.0.0.1 too; "
        "let the server ask for a password, since everybody on this host can connect to the tunnel's local end",
        _gateway,
    )
    ssh_known_hosts: str = _option("", "file with the gateway's host key; empty: ssh's own, ~/.ssh/known_hosts")

    @property
    def names(self) -> tuple[str, ...]:
        """The databases, most important first."""
        return tuple(name.strip() for name in self.name.split(",") if name.strip())


@dataclass(frozen=True)
class ResourceSettings:
    """What the jobs of this worker may use together. Memory and disk are in GB."""

    cores: int = _option(1, "threads; larger calculations are not taken", _at_least(1))
    memory: float = _option(1.0, "memory in GB; larger calculations are not taken", _above(0))
    disk: float = _option(5.0, "disk space in GB; larger calculations are not taken", _above(0))
    ssh_keys: tuple[str, ...] = _option([], "keys for private repositories and for the tunnel to the database")
    cpus: tuple[int, ...] = _option(
        [], "numbers of the processors that worker and jobs may use, such as [0, 1] or '0-3,8'; empty: any"
    )
    gpus: Devices = _option(  # noqa: RUF009 - a tuple like the others, which the alias hides
        [], "GPUs that jobs may use, by number or UUID; empty: what the environment says", _devices
    )


@dataclass(frozen=True)
class FleetSettings:
    """Who this worker is in a fleet; empty for a worker started by hand."""

    name: str = _option("", "the fleet")
    host: str = _option("", "the host, as hosts.yaml calls it")
    worker: str = _option("", "the worker's name on its host")


@dataclass(frozen=True)
class ProgramSettings:
    """One program. Not every program has every key: see :data:`PROGRAMS`."""

    available: bool = _option(False, "whether jobs may use the program")
    source: str = _option("", "pypi, or a git repository or folder to build from")
    root: str = _option("", "folder in which the program is installed already; nothing is built then")
    version: str = _option("", "version, tag, branch or commit; also written into the models of results")
    march: str = _option("native", "processor to build for")
    cxx_compiler_flags: str = _option("", "flags for the C++ compiler")
    cmake_flags: str = _option("", "flags for CMake")
    license: str = _option("", "license file; empty: what SCMLICENSE says")
    parameters: str = _option("", "folder with the parameters; empty: that of the installation")


_BUILT = ("available", "source", "root", "version", "march", "cxx_compiler_flags", "cmake_flags")
_INSTALLED = ("available", "source", "root", "version")


@dataclass(frozen=True)
class ProgramKind:
    """The keys a program has and their defaults."""

    keys: tuple[str, ...]
    defaults: ProgramSettings


def _wheel(version: str, available: bool = True, keys: tuple[str, ...] = _BUILT) -> ProgramKind:
    return ProgramKind(keys, ProgramSettings(available=available, source="pypi", version=version))


def _repository(name: str, version: str, own_key: str) -> ProgramKind:
    source = f"https://github.com/qcscine/{name}.git"
    return ProgramKind((*_BUILT, own_key), ProgramSettings(source=source, version=version))


def _external(version: str) -> ProgramKind:
    return ProgramKind(_INSTALLED, ProgramSettings(version=version))


PROGRAMS: Mapping[str, ProgramKind] = {
    "ams": _repository("ams_wrapper", "release/1.0.0", "license"),
    "readuct": _wheel("6.1.0"),
    "core": _wheel("6.0.2"),
    "utils": _wheel("10.1.0"),
    "database": _wheel("1.5.0"),
    "sparrow": _wheel("5.2.0"),
    "molassembler": _wheel("3.0.1"),
    "swoose": _wheel("3.0.0", available=False),
    "turbomole": _external("7.2.0"),
    "orca": _external("4.1"),
    "dftbplus": _repository("dftbplus_wrapper", "release/1.0.0", "parameters"),
    "cp2k": _external(""),
    "serenity": _wheel("4.0.0", available=False),
    "gaussian": _external("g09 Rev. D.01"),
    "xtb": _wheel("3.0.2", available=False),
    "kinetx": _wheel("3.1.0"),
    "rms": _external("main"),
    "mrcc": _external("march2022"),
    "parrot": _wheel("1.0.0", available=False, keys=_INSTALLED),
}
"""Every program a worker knows, in the order in which ``configure`` writes them."""


@dataclass(frozen=True)
class Settings:
    """All settings of one worker."""

    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    resources: ResourceSettings = field(default_factory=ResourceSettings)
    programs: Mapping[str, ProgramSettings] = field(
        default_factory=lambda: {name: kind.defaults for name, kind in PROGRAMS.items()}
    )
    fleet: FleetSettings = field(default_factory=FleetSettings)

    @property
    def available_programs(self) -> tuple[str, ...]:
        """Names of the programs that jobs may use."""
        return tuple(name for name, program in self.programs.items() if program.available)


SECTIONS: Mapping[str, type[Any]] = {
    "daemon": DaemonSettings,
    "database": DatabaseSettings,
    "resources": ResourceSettings,
    "fleet": FleetSettings,
}
"""The sections with fixed keys; ``programs`` is the one without."""

SECRET_KEYS = frozenset({("database", "uri")})
"""Keys whose value may carry a password and is therefore never shown."""


def with_identity(settings: Settings, uuid: str, pid: str) -> Settings:
    """The settings with the worker's unique name and the path of its process id filled in.

    Parameters
    ----------
    settings
        The settings.
    uuid
        The name.
    pid
        The path.
    """
    return dataclasses.replace(settings, daemon=dataclasses.replace(settings.daemon, uuid=uuid, pid=pid))


def to_mapping(settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings as plain nested dictionaries, in the order in which a file lists them.

    Parameters
    ----------
    settings
        The settings.

    Returns
    -------
    dict[str, dict[str, Any]]
        Sections of keys; lists instead of tuples, programs with the keys they have.
    """
    mapping: dict[str, dict[str, Any]] = {
        name: _plain(getattr(settings, name)) for name in ("daemon", "database", "resources")
    }
    mapping["programs"] = {
        name: {key: getattr(program, key) for key in PROGRAMS[name].keys} for name, program in settings.programs.items()
    }
    mapping["fleet"] = _plain(settings.fleet)
    return mapping


def options(kind: type[Any]) -> Iterator[tuple[str, str, Any, str]]:
    """Each key of a section with its type, default and meaning.

    Parameters
    ----------
    kind
        The section's class.

    Yields
    ------
    tuple[str, str, Any, str]
        Key, type, default, meaning.
    """
    defaults = kind()
    for name, option in fields_of(kind).items():
        yield name, str(option.type), getattr(defaults, name), option.metadata["meaning"]


def fields_of(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a section, by key.

    Parameters
    ----------
    kind
        The section's class.
    """
    return {option.name: option for option in dataclasses.fields(kind)}


def _plain(section: Any) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(section).items()
    }
