"""The laboratory itself: hosts that are apart from each other and from this machine, and that leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fleet.errors import RemoteError
from fleet.reach.ssh import SshRemote
from tests.lab.laboratory import Laboratory, LaboratoryError, greets, interface_numbers, wait_for
from tests.lab.network import Cable, Subnet, free_subnets

ROOT = Path(__file__).parents[2]
PROGRAM = "import time; time.sleep(1000)"


@pytest.fixture(scope="module")
def two(laboratory: Laboratory) -> Laboratory:
    laboratory.up(["left", "right"])
    return laboratory


@pytest.fixture
def left(two: Laboratory) -> Iterator[Laboratory]:
    """The laboratory, for tests that do something to the host ``left``; it is whole again afterwards."""
    yield two
    two.heal("left")
    two.delay("left", 0)
    two.empty("left")
    if not two.runs("left"):
        two.revive("left")


def said(laboratory: Laboratory, name: str, *words: str) -> str:
    done = laboratory.ssh(name, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def namespaces() -> set[str]:
    """All network, mount and PID namespaces that some process is in."""
    found = set()
    for process in psutil.process_iter():
        for kind in ("net", "mnt", "pid"):
            try:
                found.add(str(Path(f"/proc/{process.pid}/ns/{kind}").readlink()))
            except OSError:
                continue
    return found


def held_namespaces_of(laboratory: Laboratory, name: str, stack: contextlib.ExitStack) -> set[str]:
    """Those of a host, held open: the kernel gives their numbers to somebody else's as soon as they are free."""
    place = Path(f"/proc/{laboratory.first_process(name).pid}/ns")
    for kind in ("net", "mnt", "pid"):
        stack.enter_context((place / kind).open("rb"))
    return {str((place / kind).readlink()) for kind in ("net", "mnt", "pid")}


def names(laboratory: Laboratory, name: str) -> set[str]:
    """What runs on a host."""
    found = set()
    for process in laboratory.processes(name):
        with contextlib.suppress(psutil.NoSuchProcess):  # the last command's, which ends just now
            found.add(process.name())
    return found


# --- what a host is ---


def test_hosts_have_names_addresses_and_an_unprivileged_user(two: Laboratory) -> None:
    for name in ("left", "right"):
        assert said(two, name, "cat", "/proc/sys/kernel/hostname") == name
        assert said(two, name, "id", "-un") == two[name].user
        assert said(two, name, "id", "-u") != "0"
    assert two["left"].address != two["right"].address


def test_a_host_has_processes_of_its_own(two: Laboratory) -> None:
    listing = "import pathlib; print(*[p.name for p in pathlib.Path('/proc').iterdir() if p.name.isdigit()])"

    def pids() -> list[str]:
        return said(two, "left", "/usr/bin/python3", "-c", f'"{listing}"').split()

    assert "1" in pids()
    wait_for(lambda: len(pids()) < 12, "only a few processes to be there, once the sessions before have ended")
    assert names(two, "left") <= {"sshd", "cron"}
    assert not {process.pid for process in two.processes("left")} & {process.pid for process in two.processes("right")}


def test_a_host_has_files_of_its_own(two: Laboratory) -> None:
    said(two, "left", "echo from-left | tee ~/note /tmp/note /var/tmp/note")
    assert two.file("left", f"{two['left'].home}/note").read_text() == "from-left\n"
    for place in ("~", "/tmp", "/var/tmp"):
        assert two.ssh("right", f"cat {place}/note").returncode != 0
    assert not Path("/var/tmp/note").exists()
    assert said(two, "left", "ls", "-A", str(ROOT)) == "", "the project's own files must not be there"


def test_hosts_have_host_keys_machine_ids_and_boot_ids_of_their_own(two: Laboratory) -> None:
    for path in ("/etc/ssh/ssh_host_ed25519_key", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        texts = {two.as_root(name, "cat", path).stdout for name in ("left", "right")}
        assert len(texts) == 2, path
        assert "" not in texts
        if Path(path).exists():
            assert Path(path).read_text() not in texts
    assert len(set(two.known_hosts.read_text().splitlines())) == len(two.machines)


def test_hosts_reach_the_controller_and_each_other_and_nothing_else(two: Laboratory) -> None:
    assert said(two, "left", f"bash -c 'head -c 4 < /dev/tcp/{two['right'].address}/22'") == "SSH-"
    with socket.create_server((two.address, 0)) as listening:
        port = listening.getsockname()[1]
        said(two, "left", f"bash -c 'exec 3<>/dev/tcp/{two.address}/{port}'")
    assert said(two, "left", "ip", "route").splitlines() == [
        f"{two.subnet.network} dev eth0 proto kernel scope link src {two['left'].address}"
    ]


# --- what can be done to one ---


def test_a_host_that_is_cut_off_is_unreachable_until_it_is_healed(left: Laboratory) -> None:
    remote = SshRemote("left", left["left"].options)
    assert remote.call("print('before')", 60).stdout.endswith(b"before\n")

    left.cut("left")

    assert not greets(left["left"].address)
    wait_for(lambda: greets(left["right"].address), "the other host to answer as ever")
    with pytest.raises(RemoteError):
        SshRemote("left", left["left"].changed(connect_timeout=2)).call("print()", 20)
    assert left.as_root("left", "cat", "/sys/class/net/eth0/carrier").stdout.strip() == "1", "nobody is told of a cut"

    left.heal("left")

    wait_for(lambda: greets(left["left"].address), "the host to be reachable again")
    # The connection from before the cut is still good: nothing told either side that it was gone.
    assert remote.call("print('after')", 60).stdout.endswith(b"after\n")
    remote.close()


def test_a_delay_holds_every_frame_up(left: Laboratory) -> None:
    def greeting_s() -> float:
        """How long it took; 0 where it came too late, as on a busy machine."""
        started = time.monotonic()
        return time.monotonic() - started if greets(left["left"].address) else 0.0

    left.delay("left", 0.15)
    # A connection and a greeting are two ways there and back.
    assert wait_for(greeting_s, "the host to answer") >= 0.6
    # Segments larger than a frame, and checksums left to the hardware, pass too.
    total = 3_000_000
    done = subprocess.run(left["left"].ssh_words("head", "-c", str(total), "/dev/zero"), capture_output=True)
    assert done.stdout == bytes(total)
    left.delay("left", 0)
    assert left.delay_of("left") == 0
    assert wait_for(greeting_s, "the host to answer")


def test_a_kill_is_a_power_cut(left: Laboratory) -> None:
    said(left, "left", f"echo kept > ~/file; nohup /usr/bin/python3 -c '{PROGRAM}' > /dev/null 2>&1 &")
    left.as_root("left", "touch", "/run/volatile")
    wait_for(lambda: "python3" in names(left, "left"), "the program to run")
    before = left.processes("left")
    boot = said(left, "left", "cat", "/proc/sys/kernel/random/boot_id")

    left.kill("left")

    assert not [process for process in before if process.is_running()]
    assert not greets(left["left"].address)
    assert left.file("left", f"{left['left'].home}/file").read_text() == "kept\n"
    with pytest.raises(LaboratoryError, match="off"):
        left.kill("left")

    left.revive("left")

    assert said(left, "left", "cat", "file") == "kept"  # through ssh, so with the same host key
    assert said(left, "left", "cat", "/proc/sys/kernel/random/boot_id") != boot
    assert left.as_root("left", "ls", "/run/volatile").returncode != 0
    assert "python3" not in names(left, "left")


def test_nobody_is_told_of_a_kill(left: Laboratory) -> None:
    with socket.create_connection((left["left"].address, 22), timeout=30) as connection:
        connection.recv(100)
        left.kill("left")
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.recv(100)


def test_a_host_that_is_cut_off_stays_so_through_a_power_cut(left: Laboratory) -> None:
    left.cut("left")
    left.kill("left")
    left.revive("left")
    assert not greets(left["left"].address)
    left.heal("left")
    wait_for(lambda: greets(left["left"].address), "the host to be reachable again")


def test_a_full_disk_is_full_for_everyone_and_elsewhere_there_is_room(left: Laboratory) -> None:
    left.fill("left")
    for command in ("echo text > ~/more", "echo text > /tmp/more"):
        assert "No space left on device" in left.ssh("left", command).stderr
    assert "No space left on device" in left.as_root("left", "cp", "/etc/passwd", "/etc/more").stderr
    assert left.ssh("right", "echo text > ~/more").returncode == 0

    left.fill("left", leave=100_000)
    assert left.ssh("left", "head -c 50000 /dev/zero > ~/some").returncode == 0
    assert "No space left" in left.ssh("left", "head -c 500000 /dev/zero > ~/some-more").stderr

    left.empty("left")
    assert left.ssh("left", "head -c 500000 /dev/zero > ~/some-more").returncode == 0


# --- nothing is left ---


def test_down_leaves_nothing(can_make_hosts: None, tmp_path: Path) -> None:
    made = Laboratory(tmp_path / "laboratory")
    with contextlib.ExitStack() as stack:
        try:
            made.up(["one", "other"])
            made.delay("one", 0.01)
            made.kill("other")
            # Names of interfaces and numbers of namespaces are given again at once: to the next laboratory.
            interface, own = socket.if_nametoindex(made.subnet.interface), held_namespaces_of(made, "one", stack)
            processes = made.processes("one")
            assert own <= namespaces()
        finally:
            made.down()
        assert not made.state.exists()
        assert interface not in interface_numbers()
        assert not own & namespaces()
    assert not [process for process in processes if process.is_running()]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert not running_with(made.state)
    made.down()  # a second time does no harm


def running_with(state: Path) -> list[psutil.Process]:
    """Processes that have a directory in their environment or command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(state) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.pid != os.getpid()]


def test_everything_dies_with_the_process_that_made_it(can_make_hosts: None, tmp_path: Path) -> None:
    state = tmp_path / "laboratory"
    program = f"""
import pathlib, socket, time
from tests.lab.laboratory import Laboratory
made = Laboratory(pathlib.Path({str(state)!r}))
made.up(["one"])
made.delay("one", 0.01)
print(socket.if_nametoindex(made.subnet.interface), made.first_process("one").pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as creator:
        try:
            assert creator.stdout is not None
            interface, pid = creator.stdout.readline().split()
            assert psutil.pid_exists(int(pid))
            assert int(interface) in interface_numbers()
        finally:
            creator.kill()
    wait_for(lambda: not running_with(state), "all processes to end")
    wait_for(lambda: int(interface) not in interface_numbers(), "the network to go")
    assert "use `down` first" in by_hand(state, "up", "1").stderr
    Laboratory(state).down()
    assert not state.exists()


def by_hand(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.lab", "--state", str(state), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_by_hand(can_make_hosts: None, tmp_path: Path) -> None:
    state = tmp_path / "laboratory"
    try:
        assert by_hand(state, "up", "2").returncode == 0
        assert by_hand(state, "kill", "node2").returncode == 0
        assert by_hand(state, "delay", "node1", "0.02").returncode == 0
        assert by_hand(state, "ssh", "node1", "cat", "/etc/hostname").stdout == "node1\n"
        shown = by_hand(state, "list").stdout.splitlines()
        assert [line.split()[::2] for line in shown] == [["node1", "on,", "0.02"], ["node2", "off"]]
        wrong = by_hand(state, "cut", "node7")
        assert (wrong.returncode, wrong.stderr) == (1, "there is no host 'node7'; there is: node1, node2\n")
    finally:
        assert by_hand(state, "down").returncode == 0
    assert not state.exists()
    assert not running_with(state)


def test_down_cleans_up_after_an_up_that_was_killed(can_make_hosts: None, tmp_path: Path) -> None:
    state = tmp_path / "laboratory"
    command = [sys.executable, "-m", "tests.lab", "--state", str(state), "up", "3"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as creator:
        wait_for(lambda: list(state.glob("hosts/*/log")), "the first host to be started")
        creator.send_signal(signal.SIGKILL)
    assert running_with(state)
    assert by_hand(state, "down").returncode == 0
    assert not state.exists()
    assert not running_with(state)


def test_a_directory_of_something_else_is_left_alone(can_make_hosts: None, tmp_path: Path) -> None:
    (tmp_path / "thesis").touch()
    for verb in ("up", "down"):
        done = by_hand(tmp_path, verb)
        assert done.returncode == 1
        assert done.stderr == f"{tmp_path} holds something else than a laboratory: choose another directory\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


# --- a bare host ---


def test_a_bare_host_has_next_to_nothing(laboratory: Laboratory, bare_lower: Path) -> None:
    laboratory.up(["bare"], lower=bare_lower, sshd="/usr/sbin/sshd")
    for program in ("cc", "gcc", "sudo", "pip", "pip3", "curl", "wget", "git", "systemctl"):
        assert laboratory.ssh("bare", "command", "-v", program).returncode != 0, program
    assert "No module named 'ensurepip'" in laboratory.ssh("bare", "python3", "-c", "'import ensurepip'").stderr
    assert laboratory.ssh("bare", "touch", "/usr/bin/mine").returncode != 0
    version = said(laboratory, "bare", "python3", "-c", "'import sys; print(*sys.version_info[:2])'")
    assert tuple(map(int, version.split())) >= (3, 10)


def test_cron_runs_what_a_user_wants_after_a_start(laboratory: Laboratory, bare_lower: Path) -> None:
    name = "bare-with-cron"
    laboratory.up([name], lower=bare_lower, sshd="/usr/sbin/sshd")
    said(laboratory, name, "echo '@reboot touch ~/started' | crontab -")
    started = laboratory.file(name, f"{laboratory[name].home}/started")
    assert not started.exists()
    laboratory.kill(name)
    laboratory.revive(name)
    wait_for(started.exists, "cron to run the user's line")


# --- pure parts ---


def test_a_subnet_in_use_is_not_taken() -> None:
    routes = '[{"dst": "default"}, {"dst": "10.213.1.0/25"}, {"dst": "10.213.3.7"}, {"dst": "10.213.4.0/22"}]'
    assert [subnet.number for subnet in free_subnets(routes)][:3] == [2, 8, 9]
    assert free_subnets('[{"dst": "10.0.0.0/8"}]') == []
    assert len(free_subnets("")) == 254


def test_addresses_of_hosts_are_told_apart() -> None:
    subnet = Subnet(7)
    addresses = [subnet.host(index) for index in range(1, 251)]
    assert len({subnet.controller, *addresses}) == 251
    assert all(address in {str(each) for each in subnet.network.hosts()} for address in addresses)
    assert len({subnet.hardware(index) for index in range(1, 251)}) == 250
    interfaces = {Subnet(number).interface for number in range(1, 255)}
    assert len(interfaces) == 254
    assert max(map(len, interfaces)) <= 15  # the kernel takes no longer name


@pytest.mark.parametrize(
    ("cut", "delayed", "on_the_bridge"),
    [(False, False, "port3"), (False, True, "line3"), (True, False, None), (True, True, None)],
)
def test_one_end_at_most_is_on_the_bridge(cut: bool, delayed: bool, on_the_bridge: str | None) -> None:
    commands = Cable(3).plug(cut, delayed)
    assert [command.split()[2] for command in commands if " master " in command] == (
        [on_the_bridge] if on_the_bridge else []
    )
