"""A host that is bootstrapped by the installed command, and small repositories to build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from puffin.settings import PROGRAMS
from tests.lab.requirements import missing

IDENTITY = {
    "GIT_AUTHOR_NAME": "lab",
    "GIT_AUTHOR_EMAIL": "lab@example.org",
    "GIT_COMMITTER_NAME": "lab",
    "GIT_COMMITTER_EMAIL": "lab@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def need(*commands: str) -> None:
    """Skip, or fail in CI, where a command is not installed."""
    absent = [command for command in commands if shutil.which(command) is None]
    if absent:
        missing(f"{', '.join(absent)} not installed: apt-get install git cmake make g++")


class Host:
    """Directories of one host, and `puffin` run on it.

    Parameters
    ----------
    directory
        Everything is below it.
    puffin
        The command.
    """

    def __init__(self, directory: Path, puffin: Path | None = None) -> None:
        self.directory = directory
        self.software = directory / "soft ware"
        self.config = directory / "puffin.yaml"
        self._puffin = puffin or Path(sys.executable).with_name("puffin")
        directory.mkdir(parents=True, exist_ok=True)
        self.configure()

    def configure(self, programs: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]) -> None:
        """Write the configuration; only these programs are available, or the defaults if none are named."""
        daemon = {
            "uuid": self.directory.name,
            "job_dir": str(self.directory / "jobs"),
            "software_dir": str(self.software),
            "pid_dir": str(self.directory),
            "log": str(self.directory / "puffin.log"),
            "stop": str(self.directory / "puffin.stop"),
            "cycle_time_in_s": 0.2,
        }
        content: dict[str, Any] = {"daemon": daemon, "resources": {"cores": 1, "disk": 0.1}}
        if programs is not None:
            off = {name: {"available": False} for name in PROGRAMS if name not in programs}
            content["programs"] = {**off, **{name: {"available": True, **keys} for name, keys in programs.items()}}
        for name, keys in sections.items():
            content[name] = {**content.get(name, {}), **keys}
        self.config.write_text(yaml.safe_dump(content))

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        present = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(self._puffin), "-c", str(self.config), *words],
            cwd=self.directory,
            env={**present, "COLUMNS": "80", **environment},
            capture_output=True,
            text=True,
        )

    def bootstrap(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("bootstrap", **environment)

    def python(self, code: str) -> str:
        """Run Python code as a person would after sourcing puffin.sh; return what it prints."""
        python = self._puffin.with_name("python")
        commands = f'. ./puffin.sh && exec "{python}" -c "$1"'
        done = subprocess.run(
            ["sh", "-eu", "-c", commands, "sh", code], cwd=self.directory, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log(self, name: str) -> str:
        return (self.software / "log" / f"{name}.log").read_text()

    def current(self, name: str) -> Path:
        [link] = (self.software / "install").glob(f"*/{name}/current")
        return link.resolve()

    def state(self) -> dict[str, int]:
        """Every file of the software with the time of its last change."""
        return {str(path): path.lstat().st_mtime_ns for path in self.software.rglob("*") if not path.is_dir()}


class Repository:
    """A git repository that is written as the test goes on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.directory), *words],
            env={**os.environ, **IDENTITY},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str], tag: str = "") -> str:
        for name, content in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")
        if tag:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")
