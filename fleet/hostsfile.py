"""The models of hosts.yaml: every key, its type, default, meaning and limits.

Pure. :class:`HostsFile` is the file as it is written; :class:`Fleet` and :class:`Host` are what the rest of
the manager gets, with ranges expanded and defaults, groups and host merged by :mod:`fleet.inventory`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhd])+\Z")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_URI = re.compile(r"mongodb(?:\+srv)?://(?:([^@/]*)@)?[^@/?\s]+(?:/([^?\s]*))?(?:\?(\S*))?\Z")
_SECRET_OPTIONS = re.compile(r"(password|token|secret)[a-z]*[=:]", re.IGNORECASE)
PASSWORD_ADVICE = "put the password in a file and name it in database.password_file"  # noqa: S105 - a sentence


def _refuse(message: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message})


def _name(value: str) -> str:
    if not NAME.match(value):
        raise _refuse("must start with a letter or digit and hold only letters, digits, '.', '_' and '-'")
    return value


def path_problem(value: str) -> str | None:
    """Say why a directory cannot hold a fleet, or return None.

    supervisord reads its settings without any way to quote: what stands behind ' ;' or ' #' is a comment,
    and the directory of its file is part of a glob pattern. Python refuses an environment below a path
    with a colon.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        return "must not hold control characters"
    if re.search(r"\s[;#]", value) or value != value.strip():
        return "must not begin or end with a space, nor hold one before ';' or '#': supervisord cannot read that"
    if re.search(r"[\[\]*?:]", value):
        return "must not hold any of [ ] * ? : since supervisord or Python cannot use such a directory"
    return None


def _directory(value: str) -> str:
    if not value.startswith(("/", "~")):
        raise _refuse("must start with '/' or '~'")
    if problem := path_problem(value):
        raise _refuse(problem)
    return value


def _word(value: str) -> str:
    if not value or value.startswith("-") or re.search(r"\s", value):
        raise _refuse("must be one word that does not start with '-'")
    return value


def _filled(value: str) -> str:
    if not value.strip() or "\n" in value or "\0" in value:
        raise _refuse("must not be empty or hold line breaks")
    return value


def _seconds(value: object) -> object:
    if isinstance(value, str) and _DURATION.match(value):
        parts = re.findall(r"([0-9.]+)([smhd])", value)
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise _refuse("must be a time such as 10s, 5m, 1h30m or 24h")


def _count(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise _refuse("must be auto or a whole number of at least 1")


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, Mapping) else value


def _empty_is_mapping(value: object) -> object:
    return {} if value is None else value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Share(_Section):
    """A number of hosts, or a percentage of them."""

    value: float
    percent: bool = False

    def of(self, total: int, at_least: int = 0) -> int:
        """Number of hosts meant, out of `total`; percentages are rounded down."""
        number = int(total * self.value / 100) if self.percent else int(self.value)
        return max(number, at_least)

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.percent else f"{self.value:g}"


def _share(value: object) -> object:
    if isinstance(value, Share):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Share(value=float(value))
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%", value)):
        number = float(match.group(1))
        if number <= 100:
            return Share(value=number, percent=True)
    raise _refuse("must be a whole number or a percentage such as 25%")


def _some(value: Share) -> Share:
    if value.value <= 0:
        raise _refuse("must be more than 0")
    return value


Name = Annotated[str, AfterValidator(_name)]
Word = Annotated[str, AfterValidator(_word)]
Filled = Annotated[str, AfterValidator(_filled)]
Directory = Annotated[str, AfterValidator(_directory)]
Duration = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=str | float)]
AnyShare = Annotated[Share, BeforeValidator(_share, json_schema_input_type=str | int)]
Gigabytes = Annotated[float, Field(gt=0)]


class Shape(_Section):
    """One kind of worker on a host, and how many of it.

    Memory and disk are in GB. Without `memory` a worker gets 2 GB, without `disk` 5 GB, for each core.
    """

    cores: int = Field(ge=1)
    memory: Gigabytes | None = None
    disk: Gigabytes | None = None
    count: Annotated[int | Literal["auto"], BeforeValidator(_count, json_schema_input_type=int | Literal["auto"])] = 1
    jobs: Annotated[tuple[Filled, ...], Field(strict=False)] = ()


Shapes = Annotated[
    tuple[Shape, ...],
    BeforeValidator(_one_or_many, json_schema_input_type=Shape | list[Shape]),
    Field(strict=False, min_length=1),
]


class Ssh(_Section):
    """How to reach a host. What is not given is taken from ~/.ssh/config, else from ssh's defaults."""

    port: int | None = Field(default=None, ge=1, le=65535)
    key: Filled | None = None
    jump: Word | None = None
    known_hosts: Filled | None = None


class Reserve(_Section):
    """What is kept for the system on each host; memory and disk in GB."""

    cores: int = Field(default=0, ge=0)
    memory: float = Field(default=1.0, ge=0)
    disk: float = Field(default=0.0, ge=0)


class Release(_Section):
    """What is installed on the hosts, and how."""

    package: Filled = "auto"
    extras: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    install: Literal["push", "index", "path"] = "push"
    python: Filled = "python3"
    path: Directory | None = None
    keep: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _path_goes_with_install(self) -> Release:
        if self.install == "path" and self.path is None:
            raise _refuse("install: path needs 'path', the existing environment on the hosts")
        if self.install != "path" and self.path is not None:
            raise _refuse(f"'path' has no meaning with install: {self.install}; drop it or say install: path")
        return self


def check_uri(value: str) -> str:
    match = _URI.match(value)
    if match is None:
        raise _refuse("must look like mongodb://host:port or mongodb+srv://host")
    user, _, options = match.groups()
    if ":" in (user or "") or _SECRET_OPTIONS.search(options or ""):
        raise _refuse(f"must not hold a password: {PASSWORD_ADVICE}")
    return value


def _database_name(value: str) -> str:
    if not re.fullmatch(r"[^\s/\\.\"$*<>:|?,\0]{1,63}", value):
        raise _refuse('must be a database name: no spaces, commas or any of / \\ . " $ * < > : | ?')
    return value


class Database(_Section):
    """The database server and the databases on it, most important first."""

    uri: Annotated[str, AfterValidator(check_uri)] | None = None
    ip: Word | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    names: Annotated[tuple[Annotated[str, AfterValidator(_database_name)], ...], Field(strict=False)] = ()
    username: Filled | None = None
    password_file: Filled | None = None
    tls: bool = False
    tls_ca_file: Filled | None = None

    @model_validator(mode="before")
    @classmethod
    def _other_spellings(cls, data: object) -> object:
        """Bring `name: a,b` into `names`, and name and user out of the connection string."""
        if not isinstance(data, Mapping):
            return data
        if "password" in data:
            raise _refuse(f"a password does not belong in this file: {PASSWORD_ADVICE}")
        if "name" in data and "names" in data:
            raise _refuse("give either 'name' or 'names'")
        found = {key: value for key, value in data.items() if key != "name"}
        if isinstance(data.get("name"), str):
            found["names"] = [part.strip() for part in data["name"].split(",")]
        elif "name" in data:
            raise _refuse("name must be text")
        match = _URI.match(data["uri"]) if isinstance(data.get("uri"), str) else None
        if match and match.group(2) and "names" not in found:
            found["names"] = [match.group(2)]
        if match and match.group(1) and ":" not in match.group(1):
            if "username" in found:
                raise _refuse("the user is named twice, in 'uri' and in 'username': keep one")
            found["username"] = match.group(1)
            found["uri"] = data["uri"].replace(f"{match.group(1)}@", "", 1)
        return found

    @model_validator(mode="after")
    def _complete(self) -> Database:
        if (self.uri is None) == (self.ip is None):
            raise _refuse("give either 'uri' or 'ip' (with 'port')")
        if self.uri is not None and self.port is not None:
            raise _refuse("'port' goes with 'ip'; with 'uri' write it there")
        if not self.names:
            raise _refuse("give 'names', the databases to work on")
        if (self.username is None) != (self.password_file is None):
            raise _refuse("'username' and 'password_file' go together")
        if self.tls_ca_file is not None and not self.tls:
            raise _refuse("'tls_ca_file' goes with 'tls: true'")
        return self


class Update(_Section):
    """How a deploy rolls out. Times are in seconds."""

    max_parallel: Annotated[AnyShare, AfterValidator(_some)] = Share(value=25, percent=True)
    canary: int = Field(default=1, ge=0)
    min_healthy_time: Duration = 10.0
    healthy_deadline: Duration = 300.0
    progress_deadline: Duration = 1800.0
    auto_revert: bool = True
    failure_budget: AnyShare = Share(value=10, percent=True)
    drain_timeout: Duration = 86400.0


class Hooks(_Section):
    """Programs run on this machine before and after a deploy."""

    pre_deploy: Filled | None = None
    post_deploy: Filled | None = None


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise _refuse("is not a name for an environment variable")
    if value.startswith("PUFFIN_"):
        raise _refuse("PUFFIN_ variables would change settings unseen: use the 'puffin' section")
    return value


def _one_line(value: str) -> str:
    if re.search(r"[\0\r\n]", value):
        raise _refuse("must be one line")
    return value


Environment = Mapping[Annotated[str, AfterValidator(_variable)], Annotated[str, AfterValidator(_one_line)]]


class Block(_Section):
    """What can be said for all hosts, a group or one host; the later wins."""

    connection: Literal["ssh", "local"] | None = None
    user: Word | None = None
    base_dir: Directory | None = None
    scratch: Directory | None = None
    ssh: Ssh | None = None
    reserve: Reserve | None = None
    workers: Shapes | None = None
    puffin: Mapping[str, Any] | None = None
    environment: Environment | None = None


class HostBlock(Block):
    address: Word | None = None
    groups: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Host(_Section):
    """One machine, with everything that applies to it merged."""

    name: Name
    address: Word
    connection: Literal["ssh", "local"] = "ssh"
    user: Word | None = None
    base_dir: Directory = "~/.puffin-fleet"
    scratch: Directory
    groups: Annotated[tuple[str, ...], Field(strict=False)] = ()
    ssh: Ssh = Ssh()
    reserve: Reserve = Reserve()
    workers: Shapes
    puffin: Mapping[str, Any] = {}
    environment: Environment = {}


class HostsFile(_Section):
    """hosts.yaml as it is written."""

    model_config = ConfigDict(title="hosts.yaml of puffin-fleet")

    fleet: Name
    database: Database
    release: Annotated[Release, BeforeValidator(_empty_is_mapping)] = Release()
    defaults: Annotated[Block, BeforeValidator(_empty_is_mapping)] = Block()
    groups: Annotated[
        Mapping[Name, Annotated[Block, BeforeValidator(_empty_is_mapping)]], BeforeValidator(_empty_is_mapping)
    ] = {}
    hosts: Annotated[Mapping[str, Annotated[HostBlock, BeforeValidator(_empty_is_mapping)]], Field(min_length=1)]
    update: Annotated[Update, BeforeValidator(_empty_is_mapping)] = Update()
    hooks: Annotated[Hooks, BeforeValidator(_empty_is_mapping)] = Hooks()


class Fleet(_Section):
    """What one hosts.yaml describes."""

    name: Name
    database: Database
    release: Release
    hosts: tuple[Host, ...]
    update: Update
    hooks: Hooks
    source: str
