"""A Python for hosts that writes down each program it is given, and disturbs the one that a test has chosen.

It stands in hosts.yaml as `release.python`, so everything that a command does on a host goes through it, whatever
the connection. What it does then comes from outside: a process is killed, a disk is full.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_SCRIPT = """\
#!{python} -IS
import base64, json, os, pathlib, re, signal, subprocess, sys, threading, zlib

here = pathlib.Path(__file__).resolve().parent
size = sys.stdin.buffer.readline()
sent = sys.stdin.buffer.read(int(size))
text = sent.decode()
packed = re.findall(r'"([A-Za-z0-9+/=]{{16,}})"', text)
request = json.loads(zlib.decompress(base64.b64decode(packed[-1])))
action = re.findall(r'fleet[.]hostside[.]([a-z_]+)"', text)[-1]
order = request.get("step") or request.get("operation") or [each["operation"] for each in request.get("operations", ())]
step = " ".join([action, *([order] if isinstance(order, str) else order)])
where = request.get("host_root") or next((each["path"] for each in request.get("files", ())), "")
host = request.get("host") or next((name for name in {names} if "/" + name in where.replace("/hosts/", "/")), "")
calls = here / "calls"
before = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
words = pathlib.Path("/proc/self/cmdline").read_text()
with calls.open("a") as log:
    entry = {{"host": host, "step": step, "argv": words, "environ": dict(os.environ)}}
    log.write(json.dumps(entry) + "\\n")


def run():
    # What follows the program may never end: who listens to a stream leaves its input open.
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    child = subprocess.Popen(["{python}", *sys.argv[1:]], **pipes)
    threading.Thread(target=feed, args=(child.stdin,), daemon=True).start()
    child.stdin = None  # so that communicate leaves it to the other thread
    return (*child.communicate(), child.returncode)


def feed(pipe):
    try:
        pipe.write(size + sent)
        pipe.flush()
        while block := sys.stdin.buffer.read1(1 << 16):
            pipe.write(block)
            pipe.flush()
        pipe.close()
    except OSError:
        pass


def end_session():
    pid = os.getppid()
    while not pathlib.Path(f"/proc/{{pid}}/comm").read_text().startswith("sshd"):
        pid = int(pathlib.Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)


def fill(place):
    with open(place + "/filler", "ab", buffering=0) as stream:
        for block in (1 << 16, 1 << 9, 1):
            try:
                while True:
                    stream.write(b"x" * block)
            except OSError:
                pass


trap = json.loads((here / "traps").read_text()).get(host, {{}})
nth = 1 + sum((call["host"], call["step"]) == (host, step) for call in before)
hit = (trap.get("step"), trap.get("nth")) == (step, nth)
cut = here / f"cut {{host}}"
if cut.exists():
    end_session()
    sys.exit(1)
if hit and trap["does"] == "fill":
    fill(trap["place"])
stdout, stderr, code = run()
if hit and trap["does"] == "kill":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
if hit and trap["does"] in ("cut", "drop"):
    if trap["does"] == "cut":
        cut.touch()
    end_session()
    sys.exit(1)
for stream, output in ((sys.stdout, stdout), (sys.stderr, stderr)):
    stream.buffer.write(output)
    stream.flush()
os._exit(code)  # the other thread may still hold standard input
"""


@dataclass(frozen=True)
class Trap:
    """What is done to one host, and when.

    Parameters
    ----------
    step
        The program at which it happens: the action and what it is asked to do, as in ``lock acquire``.
    does
        ``kill`` the command on the controller, ``cut`` the host's connection for good, ``drop`` it once, all three
        when the program has done its work and before anybody hears of it; or ``fill`` the disk before the program.
    nth
        Which of the host's programs of that kind.
    place
        The directory whose disk is filled.
    """

    step: str
    does: str
    nth: int = 1
    place: str = ""


@dataclass(frozen=True)
class TrapPython:
    """The program, in a directory of its own with what it wrote down."""

    place: Path

    @classmethod
    def make(cls, place: Path, hosts: list[str], python: str = sys.executable) -> TrapPython:
        place.mkdir(mode=0o700)
        made = cls(place)
        names = sorted(hosts, key=len, reverse=True)  # a name may begin with another
        made.path.write_text(_SCRIPT.format(python=python, names=repr(names)))
        made.path.chmod(0o755)
        made.set({})
        return made

    @property
    def path(self) -> Path:
        return self.place / "python"

    def set(self, traps: Mapping[str, Trap]) -> None:
        """Set traps by host, and forget what was written down."""
        (self.place / "traps").write_text(json.dumps({host: asdict(trap) for host, trap in traps.items()}))
        (self.place / "calls").write_text("")

    def heal(self) -> None:
        """Put all connections together again, and set no trap."""
        for cut in self.place.glob("cut *"):
            cut.unlink()
        self.set({})

    def calls(self) -> list[dict[str, object]]:
        """Each program: host, step, argv and environ."""
        return [json.loads(line) for line in (self.place / "calls").read_text().splitlines()]

    def steps(self, host: str) -> list[str]:
        return [str(call["step"]) for call in self.calls() if call["host"] == host]
