"""The settings of a worker: every section and key, its type, default, meaning and limits.

Pure: what was read from a file or from the environment is passed in as plain mappings. The sections are
frozen; :mod:`puffin.config` puts the dictionary-like face of the SCINE Puffin configuration before them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from puffin.errors import ConfigurationError

Check = Callable[[Any], str | None]

GATEWAY = re.compile(r"(?P<user>[\w.][\w.+-]*)@(?P<host>[\w.][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")
"""``user@gateway`` or ``user@gateway:port``."""


def _option(default: Any, meaning: str, check: Check | None = None, hidden: bool = False) -> Any:
    metadata = {"meaning": meaning, "check": check, "hidden": hidden}
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
    uri: str = _option(
        "",
        "connection string; wins over ip and port. Keep passwords out of it: use password_file",
        hidden=True,
    )
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


class Rejected(Exception):
    """One value cannot be what it should be; the message ends the sentence that the path begins."""


def convert(kind: type[Any], key: str, value: object) -> Any:
    """Turn a value from a file, a program or the environment into what the key holds.

    Parameters
    ----------
    kind
        The section's class.
    key
        The key in that section.
    value
        The value as it was given.

    Returns
    -------
    Any
        The value with the key's type.

    Raises
    ------
    Rejected
        The value has the wrong type or lies outside the key's limits.
    """
    option = _fields(kind)[key]
    converted = _CONVERTERS[str(option.type)](value)
    check = cast("Check | None", option.metadata["check"])
    complaint = check(converted) if check else None
    if complaint:
        raise Rejected(f"{complaint}, not {value!r}")
    return converted


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is most like this one, or nothing.

    Parameters
    ----------
    word
        What was written.
    known
        What could have been meant.

    Returns
    -------
    str
        ``", did you mean 'x'?"`` or an empty string.
    """
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean '{match[0]}'?" if match else ""


def parse(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> Settings:
    """Lay mappings over the defaults, the later over the earlier.

    Parameters
    ----------
    layers
        Pairs of a name for error messages (a file, "environment") and a mapping of sections. Sections and
        keys may be missing.

    Returns
    -------
    Settings
        The settings.

    Raises
    ------
    ConfigurationError
        With every unknown key, wrong type and value out of range of all layers.
    """
    settings, problems = Settings(), []
    for source, mapping in layers:
        settings, found = _overlay(settings, mapping)
        problems += [f"{source}: {path}: {message}" for path, message in found]
    problems += [f"{path}: {message}" for path, message in _contradictions(settings)]
    if problems:
        raise ConfigurationError(*problems)
    return settings


def check_overrides(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a partial configuration.

    Parameters
    ----------
    mapping
        Sections with some of their keys.

    Returns
    -------
    list[tuple[str, str]]
        Pairs of the path of a key ("daemon.cycle_time_in_s") and what is wrong with it.
    """
    return _overlay(Settings(), mapping)[1]


def replace_value(section: Any, path: str, key: str, value: object) -> Any:
    """A section with one value changed.

    Parameters
    ----------
    section
        The frozen section.
    path
        Where it stands, for the error message.
    key
        A key it has.
    value
        The new value.

    Raises
    ------
    ConfigurationError
        The value has the wrong type or is out of range.
    """
    try:
        return dataclasses.replace(section, **{key: convert(type(section), key, value)})
    except Rejected as rejected:
        raise ConfigurationError(f"{path}.{key}: {rejected}") from rejected


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
    for name, option in _fields(kind).items():
        yield name, str(option.type), getattr(defaults, name), option.metadata["meaning"]


def _fields(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    return {option.name: option for option in dataclasses.fields(kind)}


def _plain(section: Any) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(section).items()
    }


def _overlay(settings: Settings, mapping: Mapping[str, Any]) -> tuple[Settings, list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    changes: dict[str, Any] = {}
    for name, keys in mapping.items():
        if name not in SECTIONS and name != "programs":
            problems.append((str(name), f"unknown section{nearest(str(name), [*SECTIONS, 'programs'])}"))
        elif keys is None:
            continue
        elif not isinstance(keys, Mapping):
            problems.append((name, f"must be a section with keys, not {type(keys).__name__}"))
        elif name == "programs":
            changes[name] = _overlay_programs(settings.programs, keys, problems)
        else:
            known = tuple(_fields(SECTIONS[name]))
            changes[name] = _overlay_section(getattr(settings, name), keys, name, known, problems)
    return dataclasses.replace(settings, **changes), problems


def _overlay_programs(
    programs: Mapping[str, ProgramSettings], given: Mapping[str, Any], problems: list[tuple[str, str]]
) -> dict[str, ProgramSettings]:
    result = dict(programs)
    for name, keys in given.items():
        path = f"programs.{name}"
        if name not in PROGRAMS:
            problems.append((path, f"unknown program{nearest(str(name), PROGRAMS)}"))
        elif not isinstance(keys, Mapping):
            problems.append((path, "must be a section with keys such as 'available' and 'root'"))
        else:
            result[name] = _overlay_section(programs[name], keys, path, PROGRAMS[name].keys, problems)
    return result


def _overlay_section(
    section: Any, given: Mapping[str, Any], path: str, known: tuple[str, ...], problems: list[tuple[str, str]]
) -> Any:
    changes = {}
    for key, value in given.items():
        if key not in known:
            problems.append((f"{path}.{key}", f"unknown key{nearest(str(key), known)}"))
            continue
        try:
            changes[key] = convert(type(section), key, value)
        except Rejected as rejected:
            problems.append((f"{path}.{key}", str(rejected)))
    return dataclasses.replace(section, **changes)


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    daemon, database = settings.daemon, settings.database
    if daemon.touch_time_in_s >= daemon.job_reset_time_in_s:
        yield (
            "daemon.touch_time_in_s",
            "must be smaller than daemon.job_reset_time_in_s, or live jobs are taken away",
        )
    if not database.names:
        yield "database.name", "must name at least one database"
    if bool(database.username) != bool(database.password_file):
        yield "database.username", "needs database.password_file, and the other way round"


def _boolean(value: object) -> bool:
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise Rejected(f"must be true or false, not {value!r}")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise Rejected(f"must be a whole number, not {value!r}")


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    raise Rejected(f"must be a number, not {value!r}")


def _text(value: object) -> str:
    if value is None:
        return ""
    # An unquoted version such as 4.1 is a number in YAML.
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return str(value)
    raise Rejected(f"must be text, not {value!r}")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise Rejected(f"must be a list of texts, not {value!r}")


def processors(text: str) -> tuple[int, ...]:
    """Numbers of processors, as the kernel lists them: ``0-3,8``.

    Parameters
    ----------
    text
        The list; may be empty.

    Raises
    ------
    ValueError
        It is no such list.
    """
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        run = range(int(first), int(last or first) + 1)
        if not run:
            raise ValueError(part)
        found.update(run)
    return tuple(sorted(found))


def _numbers(value: object) -> tuple[int, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    try:
        if any(isinstance(item, bool) or not isinstance(item, int | str) for item in items):
            raise ValueError
        return processors(",".join(str(item) for item in items))
    except ValueError:
        raise Rejected(f"must be a list of numbers, not {value!r}") from None


def _device_ids(value: object) -> Devices:
    items = value if isinstance(value, list | tuple) else [value] if isinstance(value, int) else None
    if items is None or any(isinstance(item, bool) for item in items):
        return _texts(value)
    return _texts([str(item) if isinstance(item, int) else item for item in items])


_CONVERTERS: Mapping[str, Callable[[object], Any]] = {
    "bool": _boolean,
    "int": _integer,
    "float": _number,
    "str": _text,
    "tuple[str, ...]": _texts,
    "tuple[int, ...]": _numbers,
    "Devices": _device_ids,
}
