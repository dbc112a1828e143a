"""One host of a laboratory: what is on its disk before it is started, and how it starts.

A host is a PID namespace with all that a machine has: network, mounts, host name, devices. When its first process
dies, the kernel kills all others at the same moment, as a power cut does. Its disk is an overlay over another root,
in memory, mounted where the laboratory keeps it, so it outlives the host.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.lab.sshd import BehindSshd

USER = "chemist"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What of the machine below must not show through: it is not the host's.
_HIDDEN = ("home", "media", "mnt", "root", "run", "srv", "tmp", "var/log", "var/tmp", "etc/ssh")
_SCHEDULES = ("etc/cron.d", "etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly")
_CRONTABS = "var/spool/cron/crontabs"
_MODES = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700}

# The first process of a host. Up to pivot_root it sees the machine's files, and the machine's own processes in /proc.
BOOT = f"""
switch=/proc/$LAB_SWITCH/ns/net
echo "$LAB_NAME" > /proc/sys/kernel/hostname
nsenter --net=$switch ip link del "$LAB_PORT" 2>/dev/null || true # of an earlier life; the kernel takes its time
ip link add eth0 address "$LAB_HARDWARE" type veth peer name "$LAB_PORT" netns $switch
ip addr add "$LAB_ADDRESS/24" dev eth0
ip link set lo up
ip link set eth0 up
mount -t overlay -o "lowerdir=$LAB_LOWER,upperdir=$LAB_DISK/upper,workdir=$LAB_DISK/work" lab-root "$LAB_DISK/root"
cd "$LAB_DISK/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755,size=64m lab-run run
mount -t tmpfs -o mode=755,size=1m lab-dev dev
mkdir run/sshd run/lock dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777,size=1g lab-shm dev/shm
for device in null:3 zero:5 full:7 random:8 urandom:9; do
  mknod -m 666 "dev/${{device%:*}}" c 1 "${{device#*:}}"
done
mknod -m 666 dev/tty c 5 0
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
cat proc/sys/kernel/random/uuid > run/boot_id # each start of a machine has its own
mount --bind run/boot_id proc/sys/kernel/random/boot_id
pivot_root . .
umount -l .
echo ready
exec >&2
exec chroot . /usr/bin/env -i PATH={_SYSTEM_PATH} /bin/sh -c '
umask 022
if [ -x /usr/sbin/cron ]; then /usr/sbin/cron; fi
exec "$0" -D -e' "$LAB_SSHD"
"""


@dataclass(frozen=True)
class Machine(BehindSshd):
    """How a host is set up; its state is what runs.

    Parameters
    ----------
    name, index
        Host name, and number from 1, which gives address and cable.
    address, hardware
        Of its one network interface.
    lower
        The root that it has an overlay over.
    sshd
        Path on the host.
    state
        The laboratory's directory.
    disk_size
        Of its disk, in bytes.
    """

    name: str
    index: int
    address: str
    hardware: str
    lower: str
    sshd: str
    state: Path
    disk_size: int

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Machine:
        return cls(**{**stored, "state": Path(stored["state"])})

    def stored(self) -> dict[str, Any]:
        return {**asdict(self), "state": str(self.state)}

    @property
    def user(self) -> str:
        return USER

    @property
    def port(self) -> int:
        return 22

    @property
    def key(self) -> Path:
        return self.state / "client_key"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.state / "ssh_config"

    @property
    def home(self) -> str:
        return f"/home/{USER}"

    @property
    def place(self) -> Path:
        """What the laboratory keeps for it."""
        return self.state / "hosts" / self.name

    @property
    def disk(self) -> Path:
        """Where its disk is mounted, which only the laboratory's own processes see."""
        return self.place / "disk"

    @property
    def log(self) -> Path:
        """What it said while it started, and what its sshd says."""
        return self.place / "log"

    def ssh_words(self, *words: str) -> list[str]:
        """A command line that runs something on it, as its user, through its sshd."""
        settings = {
            "IdentityFile": self.key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.known_hosts,
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": 20,
        }
        options = [word for name, value in settings.items() for word in ("-o", f'{name}="{value}"')]
        return ["ssh", "-F", "none", *options, f"{self.user}@{self.address}", *words]

    def environment(self, switch: int, port: str) -> dict[str, str]:
        """What `BOOT` wants to know."""
        return {
            "LAB_SWITCH": str(switch),
            "LAB_PORT": port,
            "LAB_NAME": self.name,
            "LAB_ADDRESS": self.address,
            "LAB_HARDWARE": self.hardware,
            "LAB_LOWER": self.lower,
            "LAB_DISK": str(self.disk),
            "LAB_SSHD": self.sshd,
        }


def boot_words(switch: int) -> list[str]:
    """A command line that becomes the keeper of a host: the host dies with it."""
    inside = [f"--mount=/proc/{switch}/ns/mnt", f"--net=/proc/{switch}/ns/net"]
    own = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL", "--propagation=private"]
    return ["nsenter", *inside, "unshare", *own, "/bin/sh", "-euc", BOOT]


def make_disk(disk: Path, machine: Machine, neighbours: Sequence[tuple[str, str]], hidden: Path) -> None:
    """Write what the host has of its own: names, a user, keys.

    Parameters
    ----------
    disk
        The host's disk, as this process sees it.
    machine
        The host.
    neighbours
        Names and addresses for its /etc/hosts.
    hidden
        A directory of this machine that must not show through, since no host of a user has it.
    """
    upper, lower = disk / "upper", Path(machine.lower)
    for directory in (upper, disk / "work", disk / "root"):
        directory.mkdir(mode=0o755)
    for name in (*_HIDDEN, *(name for name in _SCHEDULES if (lower / name).is_dir()), str(hidden).lstrip("/")):
        _opaque(upper, name, _MODES.get(name, 0o755))
    _empty_crontabs(upper, lower)
    for path, text, mode in _texts(machine, neighbours):
        target = upper / path
        target.touch(mode=mode)
        target.chmod(mode)
        target.write_text(text)
    shutil.copy(machine.place / "host_key", upper / "etc/ssh/ssh_host_ed25519_key")
    _make_home(upper, lower, machine)


def _opaque(upper: Path, name: str, mode: int) -> Path:
    path = upper
    for part in Path(name).parts:
        path /= part
        path.mkdir(mode=0o755, exist_ok=True)
    path.chmod(mode)
    os.setxattr(path, "trusted.overlay.opaque", b"y")
    return path


def _empty_crontabs(upper: Path, lower: Path) -> None:
    if (lower / _CRONTABS).is_dir():
        status = (lower / _CRONTABS).stat()
        path = _opaque(upper, _CRONTABS, 0o755)
        os.chown(path, status.st_uid, status.st_gid)
        path.chmod(status.st_mode & 0o7777)


def _texts(machine: Machine, neighbours: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, int]]:
    names = "".join(f"{address} {name}\n" for name, address in neighbours)
    number = user_number(Path(machine.lower))
    yield "etc/hostname", f"{machine.name}\n", 0o644
    yield "etc/hosts", f"127.0.0.1 localhost\n{names}", 0o644
    yield "etc/resolv.conf", "", 0o644
    yield "etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444
    yield "etc/crontab", "", 0o644
    yield "etc/passwd", _with(machine, "passwd", f"{USER}:x:{number}:{number}::/home/{USER}:/bin/bash"), 0o644
    yield "etc/group", _with(machine, "group", f"{USER}:x:{number}:"), 0o644
    # "*" is no password; "!" would be a locked account, which sshd refuses without PAM
    yield "etc/shadow", _with(machine, "shadow", f"{USER}:*:19000:0:99999:7:::"), 0o600
    yield "etc/ssh/ssh_host_ed25519_key", "", 0o600
    yield "etc/ssh/sshd_config", sshd_configuration(machine), 0o644


def _with(machine: Machine, name: str, line: str) -> str:
    lines = (Path(machine.lower) / "etc" / name).read_text().splitlines()
    return "\n".join([*(each for each in lines if not each.startswith(f"{USER}:")), line, ""])


def user_number(lower: Path) -> int:
    """An id that neither a user nor a group of a root has."""
    texts = [(lower / "etc" / name).read_text() for name in ("passwd", "group")]
    taken = {line.split(":")[2] for text in texts for line in text.splitlines() if line.count(":") >= 3}
    return next(number for number in range(4200, 60000) if str(number) not in taken)


def sshd_configuration(machine: Machine) -> str:
    return f"""\
Port {machine.port}
ListenAddress {machine.address}
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile none
AllowUsers {machine.user}
UsePAM no
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
MaxStartups 100:30:200
LogLevel VERBOSE
Subsystem sftp internal-sftp
{_no_penalties(machine)}"""


def _no_penalties(machine: Machine) -> str:
    """From OpenSSH 9.8 on, an address that fails to log in is shut out for a while; before, the word is an error."""
    done = subprocess.run(
        ["chroot", machine.lower, machine.sshd, "-T", "-o", "PerSourcePenalties=no", "-f", "/dev/null"],
        capture_output=True,
        text=True,
    )
    return "" if "Bad configuration option" in done.stderr else "PerSourcePenalties no\n"


def _make_home(upper: Path, lower: Path, machine: Machine) -> None:
    home, number = upper / "home" / USER, user_number(lower)
    (home / ".ssh").mkdir(parents=True)
    shutil.copy(machine.key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
    for path, mode in ((home, 0o700), (home / ".ssh", 0o700), (home / ".ssh/authorized_keys", 0o600)):
        os.chown(path, number, number)
        path.chmod(mode)
