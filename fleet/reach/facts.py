"""What hosts report of themselves, as frozen records. Pure: `fleet.reach.probing` reads them from replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.reach.affinity import Processor

ALIVE = frozenset({"STARTING", "RUNNING", "BACKOFF", "STOPPING"})
"""What supervisord says of a program that has a process, or will have one by itself."""


@dataclass(frozen=True)
class Disk:
    """A place for files; `free` in GB (1024**3 bytes); `exists` may be false where it can still be made."""

    path: str
    exists: bool
    free: float
    inodes: int
    writable: bool


@dataclass(frozen=True)
class Gpu:
    """A GPU; `id` is what CUDA_VISIBLE_DEVICES and its like take."""

    id: str
    name: str


@dataclass(frozen=True)
class Roomy:
    """A directory on a local disk that may be written to; `free` in GB (1024**3 bytes)."""

    path: str
    free: float


@dataclass(frozen=True)
class Hardware:
    """What a host has to offer to workers.

    Parameters
    ----------
    cores
        Usable ones: physical where known, within affinity and control group quota.
    physical, logical
        Physical cores (None where not told) and logical processors within the affinity.
    quota
        Processor quota of the control group, in cores; None without one.
    cpus
        One logical processor per usable physical core.
    memory
        GB (1024**3 bytes), within the limit of the control group.
    disk, scratch
        Where base_dir and scratch are; scratch is None where none is configured.
    processors
        All logical processors that may be used, with core and NUMA node.
    gpus
        GPUs; None where the probe was not asked to look for them.
    """

    cores: int
    physical: int | None
    logical: int
    quota: float | None
    cpus: tuple[int, ...]
    memory: float
    disk: Disk
    scratch: Disk | None
    processors: tuple[Processor, ...] = ()
    gpus: tuple[Gpu, ...] | None = None


@dataclass(frozen=True)
class Python:
    """What decides which wheels fit; `libc` is ``glibc``, ``musl`` or empty."""

    executable: str
    version: str
    implementation: str
    machine: str
    system: str
    libc: str
    libc_version: str
    platform: str


@dataclass(frozen=True)
class Release:
    """A complete installation; `path` is what it links to, where it is an existing environment."""

    id: str
    path: str | None


@dataclass(frozen=True)
class Wheel:
    """A wheel that was uploaded; its digest is checked when it is installed."""

    sha256: str
    name: str
    size: int


@dataclass(frozen=True)
class FileFact:
    """A file under the host's own directory: relative path, SHA-256 in hex, permission bits."""

    path: str
    sha256: str
    mode: int


@dataclass(frozen=True)
class Program:
    """A program as supervisord sees it; `start`, `stop` and `now` are seconds of the host's clock."""

    name: str
    state: str
    pid: int
    description: str
    spawnerr: str
    exitstatus: int
    start: int
    stop: int
    now: int

    @property
    def alive(self) -> bool:
        """Whether it has a process, or will have one by itself."""
        return self.state in ALIVE


@dataclass(frozen=True)
class Supervisord:
    """supervisord on a host; `problem` says why it runs but does not answer."""

    running: bool
    reachable: bool
    pid: int | None
    socket: str
    version: str | None
    problem: str | None
    programs: tuple[Program, ...]

    @property
    def silent(self) -> bool:
        """Whether it runs without answering: nothing is known of its programs then."""
        return self.running and not self.reachable


@dataclass(frozen=True)
class Orphan:
    """A process of our workers that no supervisord looks after; `worker` is None for what a job left behind."""

    pid: int
    parent: int
    worker: str | None
    command: str


@dataclass(frozen=True)
class Holder:
    """Who holds the lock of a host, by the host's clock.

    Parameters
    ----------
    id
        Of the deed, see `fleet.deployment.deed.Deed`.
    who
        As user@machine.
    verb
        What for.
    since
        When it was taken, seconds since 1970.
    age
        Seconds since then.
    left
        Seconds until it runs out unless it is renewed; below 0 it may be taken over.
    """

    id: str
    who: str
    verb: str
    since: float
    age: float
    left: float

    @property
    def expired(self) -> bool:
        """Whether its time is over, so that somebody else may take the lock."""
        return self.left < 0


@dataclass(frozen=True)
class Lock:
    """The lock of a host.

    Parameters
    ----------
    serial
        Changes whenever somebody who held the lock, and may have changed the host, gives it back.
    holder
        Who holds it now; None if nobody.
    """

    serial: int
    holder: Holder | None


@dataclass(frozen=True)
class Drained:
    """A host that is kept out of the fleet: by whom, why, and since when (seconds since 1970)."""

    who: str
    why: str
    since: float

    def __str__(self) -> str:
        return f"drained by {self.who}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True)
class States:
    """The cheap look at the workers of a host.

    Parameters
    ----------
    stop
        Whether the whole host is told to stop.
    stopped, recycling
        The workers that have a stop or recycle file.
    pids
        The workers whose own pid file names a process that runs.
    current
        The release that `current` points to.
    clock
        The host's time, seconds since 1970.
    drained
        Who keeps the host out of the fleet; None where nobody does.
    ending
        The workers whose present process has been told to end, which it does when its calculation is done.
    words
        By worker that was asked about, what it said last.
    free
        What its user may still write where the fleet keeps its things, in bytes; None where that is not known.
    """

    supervisord: Supervisord
    stop: bool
    stopped: frozenset[str]
    recycling: frozenset[str]
    pids: Mapping[str, int]
    current: str | None
    clock: float
    drained: Drained | None = None
    ending: frozenset[str] = frozenset()
    words: Mapping[str, str] = field(default_factory=dict)
    free: int | None = None


@dataclass(frozen=True)
class Boot:
    """Whether workers are back after a reboot.

    Parameters
    ----------
    kind
        What starts them: "systemd", "cron" or "none".
    current
        Whether that is as a deploy would write it.
    available
        What a deploy could use.
    why
        Why there is nothing, or what is doubtful about what there is; may be empty.
    """

    kind: str
    current: bool
    available: str
    why: str


@dataclass(frozen=True)
class Facts:
    """Everything a probe finds. Paths are absolute on the host.

    Parameters
    ----------
    host
        Name of the host in hosts.yaml.
    user, home, hostname
        Who we are there.
    clock
        The host's time, seconds since 1970.
    base_dir, fleet_root, host_root, scratch, run_dir
        The directories; `run_dir` is `<host_root>/run`, or elsewhere with that a link to it.
    shared
        Whether base_dir is on a network file system.
    releases, wheels, uv_versions, supervisors
        What is installed and uploaded.
    current, previous
        Releases that the host's links name.
    supervisor
        Path of the environment that its supervisord is started from; None before the first deploy.
    files
        What is in `bin` and `etc`.
    stop, stopped, recycling
        Stop file of the whole host; workers with stop and recycle files.
    manifest
        Text of manifest.json, or None.
    good
        Id of the deploy whose state is kept as the last good one; None where none is.
    drifted
        Programs whose section on disk is not the one that supervisord runs with.
    fresh
        Workers whose process began after all that it reads was written.
    lock
        Who is changing this host.
    boot
        Whether workers are back after a reboot.
    roomy
        Local disks for scratch; empty where the probe was not asked to look around.
    drained
        Who keeps the host out of the fleet; None where nobody does.
    """

    host: str
    user: str
    home: str
    hostname: str
    clock: float
    base_dir: str
    fleet_root: str
    host_root: str
    scratch: str | None
    run_dir: str
    shared: bool
    hardware: Hardware
    python: Python
    releases: tuple[Release, ...]
    wheels: tuple[Wheel, ...]
    uv_versions: tuple[str, ...]
    supervisors: tuple[str, ...]
    current: str | None
    previous: str | None
    supervisor: str | None
    files: tuple[FileFact, ...]
    stop: bool
    stopped: frozenset[str]
    recycling: frozenset[str]
    manifest: str | None
    supervisord: Supervisord
    drifted: frozenset[str]
    orphans: tuple[Orphan, ...]
    lock: Lock
    boot: Boot
    roomy: tuple[Roomy, ...] = ()
    drained: Drained | None = None
    good: str | None = None
    fresh: frozenset[str] = frozenset()

    def file(self, path: str) -> FileFact | None:
        """The file at a relative path, if it is there."""
        return next((file for file in self.files if file.path == path), None)
