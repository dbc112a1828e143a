"""A laboratory: hosts on this machine that can be cut off, slowed down, filled up, switched off and on again.

What runs is found by a mark in the environment of the few processes that hold everything: one switch, one keeper per
host, one relay per slow cable. They are the state: when they die, the kernel takes hosts, mounts, memory and
network away, and only the laboratory's directory is left. So nothing has to be recorded for a later `down`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from tests.lab import relay
from tests.lab.machine import USER, Machine, boot_words, make_disk
from tests.lab.network import LARGEST_HOST, Cable, Subnet, connect_uplink, free_subnets, switch, uplink
from tests.lab.processes import has_ended
from tests.lab.sshd import keygen

PATIENCE_S = 30.0
START_S = 90.0
"""For a host to start, with cron, supervisord and a worker one after the other."""
DISK_SIZE = 4 << 30
ROOT = "/"
_MARK = "PUFFIN_LABORATORY"
_SWITCH = "switch"
_TOOLS = ("chroot", "ip", "mount", "nsenter", "setpriv", "ssh", "ssh-keygen", "unshare")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROJECT = Path(__file__).resolve().parents[2]
_Found = TypeVar("_Found")


class LaboratoryError(Exception):
    """A laboratory cannot be made here, or something in it did not work."""


def obstacle() -> str | None:
    """Why no laboratory can be made by this process on this machine; None: it can."""
    if os.geteuid() != 0:
        return "a laboratory of hosts needs root, for network namespaces and mounts"
    lacking = [tool for tool in (*_TOOLS, "sshd") if shutil.which(tool, path=_PATH) is None]
    if lacking:
        return f"a laboratory of hosts needs {', '.join(lacking)}: apt-get install iproute2 openssh-server util-linux"
    words = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "mount", "-t", "tmpfs", "lab", "/mnt"]
    tried = subprocess.run(words, capture_output=True, text=True)
    return f"no namespaces and mounts can be made here: {tried.stderr.strip()}" if tried.returncode != 0 else None


def wait_for(look: Callable[[], _Found], what: str, patience_s: float = PATIENCE_S) -> _Found:
    """Look again and again until there is something to see; return it."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise LaboratoryError(f"waited {patience_s:.0f} s in vain: {what}")
        time.sleep(0.02)
    return found


class Laboratory:
    """Hosts in a network of their own.

    Parameters
    ----------
    state
        A directory for keys, logs and the mount points of disks; made when missing, removed by `down`.
    bound
        Whether everything dies with the process that makes it, however that ends.
    """

    def __init__(self, state: Path, bound: bool = True) -> None:
        self.state = state.resolve()
        self._bound = bound
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._found: dict[str, psutil.Process] = {}

    # --- what there is ---

    @property
    def key(self) -> Path:
        return self.state / "client_key"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def subnet(self) -> Subnet:
        try:
            return Subnet(int((self.state / "subnet").read_text()))
        except FileNotFoundError:
            raise LaboratoryError(f"no laboratory runs in {self.state}: make one with `up`") from None

    @property
    def _uplink(self) -> Path:
        """Holds the number that the kernel gave to the controller's end of its cable; it gives none twice."""
        return self.state / "uplink"

    @property
    def address(self) -> str:
        """The controller's address, the only one besides their own that hosts can reach."""
        return self.subnet.controller

    @property
    def machines(self) -> list[Machine]:
        paths = sorted(self.state.glob("hosts/*/machine.json"))
        return sorted((Machine.of(json.loads(path.read_text())) for path in paths), key=lambda found: found.index)

    def __getitem__(self, name: str) -> Machine:
        for machine in self.machines:
            if machine.name == name:
                return machine
        names = ", ".join(machine.name for machine in self.machines) or "none"
        raise LaboratoryError(f"there is no host {name!r}; there is: {names}")

    def runs(self, name: str) -> bool:
        return self._process(f"host {name}") is not None

    def is_cut(self, name: str) -> bool:
        return (self[name].place / "cut").exists()

    def delay_of(self, name: str) -> float:
        """In seconds, each way."""
        path = self[name].place / "delay"
        return float(path.read_text()) if path.exists() else 0.0

    def processes(self, name: str) -> list[psutil.Process]:
        """Every process of a host, as this machine sees them."""
        keeper = self._process(f"host {name}")
        first = keeper.children() if keeper else []
        namespace = _namespace(first[0].pid, "pid") if first else ""
        return [each for each in psutil.process_iter() if namespace and _namespace(each.pid, "pid") == namespace]

    def first_process(self, name: str) -> psutil.Process:
        """The one that started all others of a host, and lives as long as it runs."""
        return self._must(f"host {name}").children()[0]

    def file(self, name: str, path: str) -> Path:
        """A file that a host wrote, wherever it is mounted; also while the host is off."""
        return self._disk(self[name]) / "upper" / path.lstrip("/")

    # --- operations ---

    def up(
        self, names: Sequence[str], lower: Path | None = None, sshd: str | None = None, disk_size: int = DISK_SIZE
    ) -> list[Machine]:
        """Make hosts and start them; the first call makes the network too.

        Parameters
        ----------
        names
            Their host names.
        lower
            A root to lay theirs over; this machine's own by default.
        sshd
            Path of sshd in that root.
        disk_size
            Of each, in bytes.
        """
        if self._process(_SWITCH) is None:
            if self.machines:
                raise LaboratoryError(f"{self.state} holds what is left of a laboratory: use `down` first")
            self._make_network()
        sshd = sshd or shutil.which("sshd", path=_PATH) or "/usr/sbin/sshd"
        first = max((machine.index for machine in self.machines), default=0) + 1
        made = [
            self._machine(name, index, str(lower or ROOT), sshd, disk_size) for index, name in enumerate(names, first)
        ]
        for machine in made:
            self._make_disk(machine)
        for machine in made:
            self._start(machine)
        for machine in made:
            self._wait_until_up(machine)
        return made

    def down(self) -> None:
        """End everything and remove the directory; also what a process left that was killed."""
        self._refuse_other_directories()
        # By its number: once the kernel has taken it away, the name may be that of another laboratory.
        link = int(self._uplink.read_text() or 0) if self._uplink.exists() else 0
        if link:
            _ip([f"link del if{link}"], must=False)
        wait_for(self._all_ended, f"the processes of {self.state} to end")
        for child in self._children.values():
            child.wait()
        if link:
            wait_for(lambda: link not in interface_numbers(), f"interface {link} to go")
        shutil.rmtree(self.state, ignore_errors=True)

    def cut(self, name: str) -> None:
        """Cut a host off: frames vanish in both directions, and neither side is told."""
        (self[name].place / "cut").touch()
        self._plug(self[name])

    def heal(self, name: str) -> None:
        """Take back `cut`; a delay stays."""
        (self[name].place / "cut").unlink(missing_ok=True)
        self._plug(self[name])

    def delay(self, name: str, seconds: float) -> None:
        """Let everything that a host sends or gets take so long, each way; 0 takes that back."""
        path = self[name].place / "delay"
        path.write_text(str(seconds)) if seconds > 0 else path.unlink(missing_ok=True)
        self._plug(self[name])

    def kill(self, name: str) -> None:
        """Switch a host off without warning, also to its peers; when this returns, all is gone but its disk."""
        self._end(f"relay {self[name].name}")
        keeper = self._process(f"host {name}")
        if keeper is None:
            raise LaboratoryError(f"{name} is off already")
        # Off the network first: the kernel ends each connection of a process that dies, a power cut does not.
        self._inside(Cable(self[name].index).plug(cut=True, delayed=False))
        _switch_off(keeper)
        self._wait_for_end(f"host {name}")

    def revive(self, name: str) -> None:
        """Switch a host on again, with its disk, keys and address, and a cable as it was."""
        if self.runs(name):
            raise LaboratoryError(f"{name} runs already")
        self._start(self[name])
        self._wait_until_up(self[name])

    def fill(self, name: str, leave: int = 0) -> None:
        """Make a host's disk full, but for some bytes. (It shrinks; nothing is written.)"""
        machine = self[name]
        for _ in range(20):  # the host may be writing
            status = os.statvfs(self._disk(machine))
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            if self._resize(machine, used + leave):
                return
        raise LaboratoryError(f"the disk of {name} cannot be filled: it is written to all the time")

    def empty(self, name: str) -> None:
        """Take back `fill`."""
        if not self._resize(self[name], self[name].disk_size):
            raise LaboratoryError(f"the disk of {name} cannot be given back its size")

    def ssh(self, name: str, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, as its user, through its sshd."""
        command = self[name].ssh_words(*words)
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout)

    def as_root(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command on a host as its root, without the network."""
        keeper = self._process(f"host {name}")
        if keeper is None:
            raise LaboratoryError(f"{name} is off")
        command = ["nsenter", "-t", str(keeper.children()[0].pid), "-a", *words]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    # --- the network ---

    def _make_network(self) -> None:
        self.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._refuse_other_directories()
        (self.state / "laboratory.log").touch()
        (self.state / "ssh_config").touch()
        if not self.key.exists():
            keygen(self.key)
        self._spawn(_SWITCH, ["unshare", "--mount", "--net", "/bin/sh", "-c", "echo ready; exec sleep infinity"])
        self._wait_until_ready(_SWITCH)
        self._inside(switch())
        pid = self._must(_SWITCH).pid
        routes = subprocess.run(["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, text=True)
        for subnet in free_subnets(routes.stdout):
            first, *others = uplink(subnet, pid)
            if subnet.interface in psutil.net_if_addrs():
                continue
            try:
                _ip([first])
            except LaboratoryError:
                if subnet.interface in psutil.net_if_addrs():
                    continue  # another laboratory was quicker
                raise
            (self.state / "subnet").write_text(str(subnet.number))
            self._uplink.write_text(str(socket.if_nametoindex(subnet.interface)))
            _ip(others)
            self._inside(connect_uplink())
            return
        raise LaboratoryError("no subnet is free: end some laboratories")

    def _refuse_other_directories(self) -> None:
        """What `down` removes must have been made by `up`."""
        if self.state.exists() and any(self.state.iterdir()) and not (self.state / "laboratory.log").exists():
            raise LaboratoryError(f"{self.state} holds something else than a laboratory: choose another directory")

    def _plug(self, machine: Machine) -> None:
        """Bring the cable of a running host to what is asked for."""
        if not self.runs(machine.name):
            return
        cable, delay = Cable(machine.index), self.delay_of(machine.name)
        self._end(f"relay {machine.name}")
        self._inside(cable.unplug(), must=False)
        self._inside(cable.plug(self.is_cut(machine.name), delay > 0))
        if delay > 0:
            words = [sys.executable, str(Path(relay.__file__)), cable.port, cable.wire, str(delay)]
            net = f"--net=/proc/{self._must(_SWITCH).pid}/ns/net"
            self._spawn(f"relay {machine.name}", ["nsenter", net, *words])
            self._wait_until_ready(f"relay {machine.name}")

    def _inside(self, commands: Sequence[str], must: bool = True) -> bool:
        return _ip(commands, must, f"/proc/{self._must(_SWITCH).pid}/ns/net")

    # --- hosts ---

    def _machine(self, name: str, index: int, lower: str, sshd: str, disk_size: int) -> Machine:
        if any(machine.name == name for machine in self.machines):
            raise LaboratoryError(f"there is a host {name!r} already")
        if index > LARGEST_HOST:
            raise LaboratoryError(f"a laboratory has room for {LARGEST_HOST} hosts")
        subnet = self.subnet
        address, hardware = subnet.host(index), subnet.hardware(index)
        machine = Machine(name, index, address, hardware, lower, sshd, self.state, disk_size)
        machine.disk.mkdir(parents=True)
        public = keygen(machine.place / "host_key")
        with self.known_hosts.open("a") as known:
            known.write(f"{address} {public}\n")
        (machine.place / "machine.json").write_text(json.dumps(machine.stored()))
        return machine

    def _make_disk(self, machine: Machine) -> None:
        options = f"mode=755,size={machine.disk_size}"
        done = self._mount("-t", "tmpfs", "-o", options, "lab-disk", str(machine.disk))
        if done.returncode != 0:
            raise LaboratoryError(f"the disk of {machine.name} cannot be mounted: {done.stderr}")
        others = [(each.name, each.address) for each in self.machines]
        make_disk(self._disk(machine), machine, [("controller", self.address), *others], _PROJECT)

    def _disk(self, machine: Machine) -> Path:
        return Path(f"/proc/{self._must(_SWITCH).pid}/root{machine.disk}")

    def _mount(self, *words: str) -> subprocess.CompletedProcess[str]:
        namespace = f"--mount=/proc/{self._must(_SWITCH).pid}/ns/mnt"
        return subprocess.run(["nsenter", namespace, "mount", *words], capture_output=True, text=True)

    def _resize(self, machine: Machine, size: int) -> bool:
        return self._mount("-o", f"remount,size={size}", str(machine.disk)).returncode == 0

    def _start(self, machine: Machine) -> None:
        pid = self._must(_SWITCH).pid
        environment = machine.environment(pid, Cable(machine.index).port)
        self._spawn(f"host {machine.name}", boot_words(pid), machine.log, environment)

    def _wait_until_up(self, machine: Machine) -> None:
        self._wait_until_ready(f"host {machine.name}", machine.log)
        self._plug(machine)
        if not self.is_cut(machine.name):
            wait_for(lambda: greets(machine.address), f"the sshd of {machine.name} to answer; see {machine.log}")

    # --- processes ---

    def _spawn(
        self, role: str, words: Sequence[str], log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        command = [*(("setpriv", "--pdeathsig", "KILL") if self._bound else ()), *words]
        marked = {"PATH": _PATH, _MARK: f"{self.state}", f"{_MARK}_ROLE": role, **(environment or {})}
        with (log or self.state / "laboratory.log").open("ab") as errors:
            self._children[role] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=marked,
                cwd="/",
                start_new_session=True,
            )
        self._found[role] = psutil.Process(self._children[role].pid)

    def _wait_until_ready(self, role: str, log: Path | None = None) -> None:
        child = self._children[role]
        assert child.stdout is not None
        said = child.stdout.readline()
        child.stdout.close()
        if said != b"ready\n":
            child.wait()
            text = (log or self.state / "laboratory.log").read_text()
            raise LaboratoryError(f"{role} did not start:\n{text[-2000:]}")

    def _process(self, role: str) -> psutil.Process | None:
        known = self._found.get(role)
        if known is None:
            known = next((process for process, found in self._marked() if found == role), None)
        if known is None or has_ended(known):
            return None
        self._found[role] = known
        return known

    def _must(self, role: str) -> psutil.Process:
        process = self._process(role)
        if process is None:
            raise LaboratoryError(f"the {role} of {self.state} does not run: use `down`, then `up`")
        return process

    def _marked(self) -> Iterator[tuple[psutil.Process, str]]:
        """The processes that hold this laboratory, with their roles; those inside hosts are not among them."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environment = process.environ()
                if environment.get(_MARK) == str(self.state) and _is_outside(process):
                    yield process, environment.get(f"{_MARK}_ROLE", "")

    def _all_ended(self) -> bool:
        """Kill whatever is left; true when nothing was."""
        found = [process for process, _ in self._marked()]
        for process in found:
            _switch_off(process)
        psutil.wait_procs(found, timeout=0.5)
        return not found

    def _end(self, role: str) -> None:
        process = self._process(role)
        if process is not None:
            process.kill()
            self._wait_for_end(role)

    def _wait_for_end(self, role: str) -> None:
        process = self._found.pop(role)
        wait_for(lambda: has_ended(process), f"{role} to end")
        if role in self._children:
            self._children.pop(role).wait()


def interface_numbers() -> set[int]:
    """The numbers of this machine's network interfaces."""
    return {number for number, _ in socket.if_nameindex()}


def greets(address: str) -> bool:
    """Whether an sshd answers."""
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _ip(commands: Sequence[str], must: bool = True, namespace: str = "") -> bool:
    """Run ``ip`` commands, in a network namespace or in this process's own."""
    words = [*(["nsenter", f"--net={namespace}"] if namespace else []), "ip", "-batch", "-"]
    done = subprocess.run(words, input="\n".join(commands), capture_output=True, text=True)
    if must and done.returncode != 0:
        raise LaboratoryError(f"ip: {done.stderr.strip()}\n" + "\n".join(commands))
    return done.returncode == 0


def _namespace(pid: int, kind: str) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    return ""


def _is_outside(process: psutil.Process) -> bool:
    return _namespace(process.pid, "pid") == _namespace(os.getpid(), "pid")


def _switch_off(keeper: psutil.Process) -> None:
    """Kill the first process of a host, all others with it; the keeper ends when the kernel is done with that."""
    with contextlib.suppress(psutil.Error):
        for victim in keeper.children() or [keeper]:
            victim.kill()


def hosts_yaml(laboratory: Laboratory, fleet: str, database: Mapping[str, object]) -> dict[str, object]:
    """What `puffin-fleet` has to know to reach the hosts; release and workers are for the caller to add."""
    return {
        "fleet": fleet,
        "database": dict(database),
        "release": {"python": "/usr/bin/python3"},
        "defaults": {
            "boot": "none",
            "user": USER,
            "ssh": {"key": str(laboratory.key), "known_hosts": str(laboratory.known_hosts)},
        },
        "update": {"min_healthy_time": "1s", "max_parallel": "100%"},
        "hosts": {machine.name: {"address": machine.address} for machine in laboratory.machines},
    }
