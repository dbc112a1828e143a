"""Where things are on a host."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fleet.hostside.common import Failure, Json, expand, plain_name, read_text
from fleet.hostside.files import private_directory

_OCTAL = re.compile(r"\\([0-7]{3})")
SOCKET = "sv.sock"
ORDERS = "orders"
"""Directory of the stop files. Not in `run`: that may be in memory, and who was stopped stays so after a reboot."""
MUTEX_OF_BOOT = ".boot.lock"
"""In base_dir: a user has one crontab for all of his fleets."""
LONGEST_SOCKET_PATH = 97
"""supervisord binds `<path>.<pid>` first, and the kernel takes 107 bytes."""

NETWORK_FILE_SYSTEMS = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "afs",
        "glusterfs",
        "panfs",
        "pvfs2",
        "orangefs",
        "9p",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "fuse.juicefs",
    )
)

# Only places to choose from.
ROOMY = ("/scratch", "/localscratch", "/local_scratch", "/local", "/data", "/var/tmp", "/tmp")  # noqa: S108
"""Where clusters and workstations have their large local disks, the most telling name first."""

IN_MEMORY = frozenset(("tmpfs", "ramfs"))


class Places(NamedTuple):
    """The directories of one host of one fleet, absolute.

    Parameters
    ----------
    base
        The base_dir of hosts.yaml.
    fleet
        That of the fleet.
    host
        That of the host.
    """

    base: Path
    fleet: Path
    host: Path

    @classmethod
    def of(cls, request: Json) -> Places:
        """The directories that a request names.

        Parameters
        ----------
        request
            With base_dir, fleet and host.

        Raises
        ------
        Failure
            A name is none.
        """
        base = expand(request["base_dir"])
        fleet = base / plain_name(request["fleet"])
        return cls(base, fleet, fleet / "hosts" / plain_name(request["host"]))


def host_root(request: Json) -> Path:
    """The host's own directory: as a probe reported it, else from base_dir, fleet and host.

    So an action needs no probe before it: one round trip does.

    Parameters
    ----------
    request
        With host_root, or with base_dir, fleet and host.

    Raises
    ------
    Failure
        The path is not absolute, or a name is none.
    """
    if not request.get("host_root"):
        return Places.of(request).host
    path = Path(request["host_root"])
    if not path.is_absolute():
        raise Failure(f"host_root {str(path)!r} is not absolute", "checking the request")
    return path


def socket_path(root: Path) -> Path:
    """The socket of supervisord, by a path short enough to connect to.

    Parameters
    ----------
    root
        The host's own directory.
    """
    return Path(os.path.realpath(root / "run")) / SOCKET


def stop_file(root: Path, worker: str | None = None) -> Path:
    """The file that tells one worker, or all of a host, to stop and stay down.

    Parameters
    ----------
    root
        The host's own directory.
    worker
        Its name; None for all.
    """
    return root / ORDERS / (f"stop.{worker}" if worker else "stop")


def stopped(root: Path) -> list[str]:
    """The workers with a stop file of their own.

    Parameters
    ----------
    root
        The host's own directory.
    """
    return sorted(path.name[len("stop.") :] for path in (root / ORDERS).glob("stop.*"))


def drain_file(root: Path) -> Path:
    """The note beside the stop file that says who keeps this host out of the fleet, and why.

    Parameters
    ----------
    root
        The host's own directory.
    """
    return root / ORDERS / "drain"


def drained(root: Path) -> Json | None:
    """Who keeps this host out of the fleet: who, why, since (seconds since 1970); None where nobody does.

    Parameters
    ----------
    root
        The host's own directory.
    """
    path = drain_file(root)
    unknown = {"who": "somebody", "why": "", "since": 0.0}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"who": str(found["who"]), "why": str(found["why"]), "since": float(found["since"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return unknown  # it is there, so the host is drained, whatever it says


def restore_run_directory(root: Path) -> None:
    """Make the directory for sockets again, where it is a place that is empty after a reboot.

    Raises
    ------
    Failure
        It cannot be made: the place is not there yet, or somebody else's.
    """
    run = root / "run"
    if run.is_symlink() and not run.is_dir():
        private_directory(Path(os.readlink(run)))  # noqa: PTH115 - exactly what apply wrote


def run_directory(root: Path, environment: Mapping[str, str], uid: int, system: Path = Path("/")) -> Path:
    """Choose where sockets and pid files live.

    What was chosen once stays (`run` is then a link to it): a later session may see another environment.

    Parameters
    ----------
    root
        The host's own directory.
    environment
        With XDG_RUNTIME_DIR, where there is one.
    uid
        The user's number.
    system
        The root of the system that is looked at.
    """
    run = root / "run"
    if run.is_symlink():
        return Path(os.readlink(run))  # noqa: PTH115 - exactly what apply wrote, not resolved further
    if len(os.fsencode(run / SOCKET)) <= LONGEST_SOCKET_PATH and not on_network(root, system):
        return run
    return _local_run_base(environment, uid, system) / run_name(root)


def run_name(root: Path) -> str:
    """What the directory for sockets is called where it is not in the host's own.

    Parameters
    ----------
    root
        The host's own directory.
    """
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:10]


def _local_run_base(environment: Mapping[str, str], uid: int, system: Path) -> Path:
    """Without lingering, logind removes XDG_RUNTIME_DIR when the SSH session ends, and the socket with it."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    lingers = (system / "var/lib/systemd/linger" / environment.get("USER", "?")).exists()
    if runtime and lingers and Path(runtime).is_dir():
        return Path(runtime) / "puffin-fleet"
    return Path(f"/var/tmp/puffin-fleet-{uid}")  # noqa: S108 - apply checks owner and mode before use


def on_network(path: Path, system: Path = Path("/")) -> bool:
    """Whether a path is on a file system that other hosts may write to.

    Parameters
    ----------
    path
        The path.
    system
        The root of the system that is looked at.
    """
    return file_system(path, read_text(system / "proc/self/mountinfo")) in NETWORK_FILE_SYSTEMS


def roomy_places(user: str, system: Path = Path("/")) -> list[Json]:
    """Directories of this machine's own disks that the user may write to, each disk once.

    Where only a directory of the user's own may be written to, as /scratch/chem, that one counts.

    Parameters
    ----------
    user
        The user's name.
    system
        The root of the system that is looked at.

    Returns
    -------
    list[Json]
        For each path and free, in GB.
    """
    mountinfo = read_text(system / "proc/self/mountinfo")
    seen: set[int] = set()
    found = []
    for name in (each for top in ROOMY for each in (top, f"{top}/{user}")):
        path = system / name[1:]
        kind = file_system(path, mountinfo)
        if not os.access(path, os.W_OK | os.X_OK) or kind in NETWORK_FILE_SYSTEMS | IN_MEMORY:
            continue
        usage, device = os.statvfs(path), path.stat().st_dev
        if device not in seen:
            found.append({"path": name, "free": usage.f_bavail * usage.f_frsize / 1024**3})
        seen.add(device)
    return found


def file_system(path: Path, mountinfo: str) -> str:
    """Find the type of the file system that holds a path, from the text of /proc/self/mountinfo.

    Parameters
    ----------
    path
        The path.
    mountinfo
        That text.
    """
    best, kind = "", ""
    real = os.path.realpath(path)
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])  # spaces are written \040
        holds = real == point or real.startswith(point.rstrip("/") + "/")
        if holds and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest parent that is there.

    Parameters
    ----------
    path
        The path.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def link_name(path: Path) -> str | None:
    """The release a link names, if it is there.

    Parameters
    ----------
    path
        The link.
    """
    # The name alone, not resolved.
    return Path(os.readlink(path)).name if path.is_symlink() and path.exists() else None  # noqa: PTH115


def suffixes(directory: Path, prefix: str) -> list[str]:
    """The workers named by files such as `stop.node1-1`.

    Parameters
    ----------
    directory
        Where they are.
    prefix
        Such as `stop.`.
    """
    return sorted(path.name[len(prefix) :] for path in directory.glob(prefix + "*"))
