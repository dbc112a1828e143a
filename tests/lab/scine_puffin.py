"""A real SCINE Puffin, to work beside ours: its job loop, without the command that wants python-daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.lab.worker import Queue

_PROGRAM = """
import sys
from scine_puffin.config import Configuration
from scine_puffin.jobloop import check_setup, loop
directory, ip, port, name, uuid, cycle_time = sys.argv[1:]
config = Configuration()
config["daemon"].update(
    mode="release", job_dir=directory + "/jobs", software_dir=directory, uuid=uuid, pid=directory + "/pid",
    pid_dir=directory, log=directory + "/log", stop=directory + "/stop", cycle_time_in_s=float(cycle_time),
    touch_time_in_s=1.0, job_reset_time_in_s=7200.0,
)
config["database"].update(ip=ip, port=int(port), name=name)
config["resources"].update(cores=1, memory=4.0, disk=4.0)
loop(config, check_setup(config))
"""


class ScinePuffin:
    """One SCINE Puffin, as a context manager."""

    def __init__(self, directory: Path, queue: Queue, cycle_time_in_s: float = 1.0) -> None:
        self.uuid = f"scine-puffin-{os.getpid()}"
        self._directory = directory / self.uuid
        self._queue = queue
        self._cycle_time_in_s = cycle_time_in_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ScinePuffin:
        (self._directory / "jobs").mkdir(parents=True, exist_ok=True)
        host, port = self._queue.client.address or ("", 0)
        arguments = [str(self._directory), host, str(port), self._queue.name, self.uuid]
        arguments.append(str(self._cycle_time_in_s))
        with (self._directory / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *arguments],
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def console(self) -> str:
        return (self._directory / "console").read_text(errors="replace") + self._log()

    def _log(self) -> str:
        log = self._directory / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def kill(self) -> None:
        """End it with all its processes, as a power cut would."""
        if self._process is None:
            return
        # All at once: a process that forks while its family is being listed would leave one behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
