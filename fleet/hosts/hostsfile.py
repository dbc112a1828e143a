"""The models of hosts.yaml: every key, its type, default, meaning and limits.

Pure. :class:`HostsFile` is the file as it is written; :class:`Fleet` and :class:`Host` are what the rest of
the manager gets, with ranges expanded and defaults, groups and host merged by :mod:`fleet.hosts.inventory`. What is
said of a key here goes into the JSON schema and into docs/hosts.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from fleet.hosts.values import (
    NAME,
    PASSWORD_ADVICE,
    URI,
    Address,
    AnyShare,
    Count,
    Devices,
    Directory,
    Duration,
    Environment,
    Filled,
    Gigabytes,
    Name,
    Processors,
    Section,
    Share,
    Targets,
    Word,
    check_uri,
    database_name,
    empty_is_mapping,
    more_than_none,
    one_or_many,
    path_problem,
    refuse,
    seconds,
    share,
)

__all__ = ["NAME", "PASSWORD_ADVICE", "Share", "check_uri", "path_problem"]


class Shape(Section):
    """One kind of worker on a host, and how many of it. Memory and disk are in GB."""

    cores: int = Field(ge=1, description="cores of each worker; OMP, MKL and OpenBLAS get as many threads")
    memory: Gigabytes | None = Field(default=None, description="memory of each worker; 2 GB for each core if not said")
    disk: Gigabytes | None = Field(default=None, description="disk of each worker; 5 GB for each core if not said")
    count: Count = Field(default=1, description="how many workers; auto: as many as fit")
    gpus: int = Field(default=0, ge=0, description="GPUs that each worker has for itself")
    jobs: Annotated[tuple[Filled, ...], Field(strict=False)] = Field(
        default=(), description="the only jobs these workers accept; empty: all whose programs are available"
    )
    programs: Annotated[Mapping[str, Any], BeforeValidator(empty_is_mapping)] = Field(
        default={}, description="settings of programs for these workers, as `puffin.programs`, which they win over"
    )


Shapes = Annotated[
    tuple[Shape, ...],
    BeforeValidator(one_or_many, json_schema_input_type=Shape | list[Shape]),
    Field(strict=False, min_length=1),
]


class Ssh(Section):
    """How to reach a host. What is not given is taken from ~/.ssh/config, else from ssh's defaults."""

    port: int | None = Field(default=None, ge=1, le=65535, description="port of its sshd")
    key: Filled | None = Field(default=None, description="private key")
    jump: Word | None = Field(default=None, description="host to go through, as `[user@]host[:port]`")
    known_hosts: Filled | None = Field(default=None, description="a file of host keys, looked at first")


class Reserve(Section):
    """What is kept for the system on each host; memory and disk in GB."""

    cores: int = Field(default=0, ge=0, description="cores")
    memory: float = Field(default=1.0, ge=0, description="memory")
    disk: float = Field(default=0.0, ge=0, description="disk, where scratch is")


class Release(Section):
    """What is installed on the hosts, and how."""

    package: Filled = Field(default="auto", description="what to install; auto: this project, as it is installed here")
    extras: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        default=(), description="its extras; `scine` brings the SCINE programs and job classes"
    )
    install: Literal["push", "index", "path"] = Field(
        default="push",
        description="push: made here and sent, hosts need no internet; index: hosts fetch it from their own package "
        "index; path: an environment that is there already",
    )
    python: Filled = Field(default="python3", description="Python on the hosts, 3.10 or newer")
    path: Directory | None = Field(default=None, description="that environment, with `install: path`")
    keep: int = Field(default=3, ge=1, description="releases kept on each host")

    @model_validator(mode="after")
    def _path_goes_with_install(self) -> Release:
        if self.install == "path" and self.path is None:
            raise refuse("install: path needs 'path', the existing environment on the hosts")
        if self.install != "path" and self.path is not None:
            raise refuse(f"'path' has no meaning with install: {self.install}; drop it or say install: path")
        return self


def _with_name(schema: dict[str, Any]) -> None:
    schema["properties"]["name"] = {"type": "string", "description": "the databases, separated by commas"}


class Database(Section):
    """The database server and the databases on it."""

    model_config = ConfigDict(json_schema_extra=_with_name)

    uri: Annotated[str, AfterValidator(check_uri)] | None = Field(
        default=None, description="connection string, without a password; or give ip and port"
    )
    ip: Word | None = Field(default=None, description="address of the server")
    port: int | None = Field(default=None, ge=1, le=65535, description="its port, with `ip`; 27017 if not said")
    names: Annotated[tuple[Annotated[str, AfterValidator(database_name)], ...], Field(strict=False)] = Field(
        default=(), description="the databases, most important first; `name: a,b` means the same"
    )
    username: Filled | None = Field(default=None, description="name to log in with")
    password_file: Filled | None = Field(default=None, description="file on this machine that holds the password")
    tls: bool = Field(default=False, description="whether to encrypt")
    tls_ca_file: Filled | None = Field(
        default=None, description="file with the certificates to trust, at the same path here and on the hosts"
    )

    @model_validator(mode="before")
    @classmethod
    def _other_spellings(cls, data: object) -> object:
        """Bring `name: a,b` into `names`, and name and user out of the connection string."""
        if not isinstance(data, Mapping):
            return data
        if "password" in data:
            raise refuse(f"a password does not belong in this file: {PASSWORD_ADVICE}")
        if "name" in data and "names" in data:
            raise refuse("give either 'name' or 'names'")
        found = {key: value for key, value in data.items() if key != "name"}
        if isinstance(data.get("name"), str):
            found["names"] = [part.strip() for part in data["name"].split(",")]
        elif "name" in data:
            raise refuse("name must be text")
        match = URI.match(data["uri"]) if isinstance(data.get("uri"), str) else None
        if match and match.group(2) and "names" not in found:
            found["names"] = [match.group(2)]
        if match and match.group(1) and ":" not in match.group(1):
            if "username" in found:
                raise refuse("the user is named twice, in 'uri' and in 'username': keep one")
            found["username"] = match.group(1)
            found["uri"] = data["uri"].replace(f"{match.group(1)}@", "", 1)
        return found

    @model_validator(mode="after")
    def _complete(self) -> Database:
        if (self.uri is None) == (self.ip is None):
            raise refuse("give either 'uri' or 'ip' (with 'port')")
        if self.uri is not None and self.port is not None:
            raise refuse("'port' goes with 'ip'; with 'uri' write it there")
        if not self.names:
            raise refuse("give 'names', the databases to work on")
        if (self.username is None) != (self.password_file is None):
            raise refuse("'username' and 'password_file' go together")
        if self.tls_ca_file is not None and not self.tls:
            raise refuse("'tls_ca_file' goes with 'tls: true'")
        return self


def _time(usual: str, meaning: str) -> Any:
    """A field with a time whose default is shown as people write it."""
    return Field(default=seconds(usual), description=meaning, json_schema_extra={"default": usual})


def _part(usual: str, meaning: str) -> Any:
    """A field with a number or percentage of hosts."""
    return Field(default=share(usual), description=meaning, json_schema_extra={"default": usual})


class Update(Section):
    """How a deploy rolls out. Times are such as 10s, 5m or 1h30m; a bare number is in seconds."""

    max_parallel: Annotated[AnyShare, AfterValidator(more_than_none)] = _part(
        "25%",
        "hosts whose workers change at a time, a number or a percentage; `--parallel` is only how many are looked at "
        "and installed on at a time. A host whose workers have been finishing calculations for more than six times "
        "`min_healthy_time` no longer counts",
    )
    canary: int = Field(default=1, ge=0, description="hosts that must prove a release before the others begin")
    stagger: Duration = _time("0s", "least time between the beginnings of two hosts")
    min_healthy_time: Duration = _time("10s", "time for which a worker must be healthy to count")
    healthy_deadline: Duration = _time("5m", "time for a worker to become healthy, once idle")
    progress_deadline: Duration = _time("30m", "longest time without progress on a host")
    auto_revert: bool = Field(default=True, description="whether what fails goes back to what it had")
    failure_budget: AnyShare = _part("10%", "hosts that may fail before the rollout halts; rounded up")
    drain_timeout: Duration = _time("24h", "how long running calculations are waited for")

    @model_validator(mode="after")
    def _times_fit(self) -> Update:
        if self.progress_deadline <= self.min_healthy_time:
            raise refuse("progress_deadline must be longer than min_healthy_time, or no host could pass")
        return self


class Hooks(Section):
    """Programs run on this machine before and after a deploy; commands and URLs that `puffin-fleet notify` tells."""

    pre_deploy: Filled | None = Field(default=None, description="before; if it fails, nothing is deployed")
    post_deploy: Filled | None = Field(default=None, description="after")
    failed: Targets = Field(default=(), description="told of calculations that failed")
    quarantined: Targets = Field(
        default=(), description="told of workers that were quarantined, after failures or after crashes"
    )
    host_lost: Targets = Field(default=(), description="told of hosts whose workers are all silent, and should not be")
    queue_empty: Targets = Field(default=(), description="told when the last open calculation has ended")
    host_lost_after: Duration = _time("5m", "how long the workers of a host must be silent")


class Block(Section):
    """What can be said for all hosts, a group or one host; the later wins."""

    connection: Literal["ssh", "local"] | None = Field(
        default=None, description="local: this machine, without SSH; ssh if not said"
    )
    user: Word | None = Field(default=None, description="login on the host; what ~/.ssh/config says if not said")
    base_dir: Directory | None = Field(
        default=None, description="where everything is installed; ~/.puffin-fleet if not said"
    )
    scratch: Directory | None = Field(
        default=None, description="where calculations run: local and fast; `<base_dir>/scratch` if not said"
    )
    ssh: Ssh | None = Field(default=None, description="how to reach the host")
    reserve: Reserve | None = Field(default=None, description="what is kept for the system")
    workers: Shapes | None = Field(default=None, description="one kind of worker, or a list of them; never merged")
    affinity: Literal["none", "cores", "numa"] | None = Field(
        default=None,
        description="cores: each worker is bound to processors of its own; numa: and these are on one NUMA node as far "
        "as possible; none if not said",
    )
    cpus: Processors | None = Field(
        default=None, description="the only processors workers may use, such as 0-15,32; all if not said"
    )
    gpus: Devices | None = Field(
        default=None, description="GPUs for the shapes that ask for some: a list of ids, or auto: what the host has"
    )
    puffin: Mapping[str, Any] | None = Field(
        default=None, description="anything of a worker's puffin.yaml, see [settings of a worker](configuration.md)"
    )
    environment: Environment | None = Field(default=None, description="environment variables of the workers")
    boot: Literal["auto", "none"] | None = Field(
        default=None, description="whether the host starts its workers after a reboot; auto if not said"
    )


class HostBlock(Block):
    """One host, or a range of them."""

    address: Address | None = Field(
        default=None, description="name or address to connect to, also an alias of ~/.ssh/config; the key if not said"
    )
    groups: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="its groups, the later wins"
    )


class Host(Section):
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
    affinity: Literal["none", "cores", "numa"] = "none"
    cpus: Processors = ()
    gpus: Devices = "auto"
    puffin: Mapping[str, Any] = Field(default={})
    environment: Environment = Field(default={})

    @property
    def wants_gpus(self) -> bool:
        """Whether any worker shall have some: only then is the host asked for them, since drivers may take seconds."""
        return any(shape.gpus for shape in self.workers)

    boot: Literal["auto", "none"] = "auto"


# A key with nothing behind it, such as `node1:`, says nothing, and editors shall know that it may.
_Release = Annotated[Release, BeforeValidator(empty_is_mapping, json_schema_input_type=Release | None)]
_Block = Annotated[Block, BeforeValidator(empty_is_mapping, json_schema_input_type=Block | None)]
_HostBlock = Annotated[HostBlock, BeforeValidator(empty_is_mapping, json_schema_input_type=HostBlock | None)]
_Update = Annotated[Update, BeforeValidator(empty_is_mapping, json_schema_input_type=Update | None)]
_Hooks = Annotated[Hooks, BeforeValidator(empty_is_mapping, json_schema_input_type=Hooks | None)]


class HostsFile(Section):
    """hosts.yaml as it is written."""

    model_config = ConfigDict(title="hosts.yaml of puffin-fleet")

    include: Annotated[tuple[Filled, ...], Field(strict=False)] = Field(
        default=(), description="other files of this kind, relative to this one; what this file says wins"
    )
    fleet: Name = Field(description="name of the fleet")
    database: Database = Field(description="where calculations come from")
    release: _Release = Field(default=Release(), description="what is installed on the hosts")
    defaults: _Block = Field(default=Block(), description="what holds for all hosts")
    groups: Annotated[Mapping[Name, _Block], BeforeValidator(empty_is_mapping)] = Field(
        default={}, description="by name, what holds for the hosts that list a group"
    )
    hosts: Annotated[Mapping[str, _HostBlock], Field(min_length=1)] = Field(
        description="the hosts, by name or range: `node[01-40]`, `rack[1-2]n[1-8]`, `n[1,3-5]`"
    )
    update: _Update = Field(default=Update(), description="how a deploy rolls out")
    hooks: _Hooks = Field(default=Hooks(), description="who is told of what happens")


class Fleet(Section):
    """What one hosts.yaml describes."""

    name: Name
    database: Database
    release: Release
    hosts: tuple[Host, ...]
    update: Update
    hooks: Hooks
    source: str
    places: Mapping[str, tuple[str, int | None]] = Field(default={})
    """File and line of each hook, by path: what is wrong with one shows only when it is to be run."""
