"""Wheels as files: what they are called, where they are kept, and how one is made again from an installation."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import platform as this_machine
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path, PurePosixPath

from fleet.release.tools import BundleError

Progress = Callable[[str], None]
"""Called with one short line when a step that may take seconds begins."""

# The targets that uv can resolve for; a host with a glibc between two of them takes the older one.
_UV_MANYLINUX = (17, 28, *range(31, 41))
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_INSTALLER_FILES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"})


@dataclass(frozen=True)
class Platform:
    """What a wheel must fit.

    Parameters
    ----------
    python
        Major and minor version, as in ``"3.11"``.
    implementation
        Tag of the interpreter, ``"cp"`` for CPython.
    machine
        As ``uname -m`` says: ``"x86_64"``, ``"aarch64"``.
    libc
        ``"glibc"`` or ``"musl"``.
    libc_version
        As in ``"2.36"``.
    """

    python: str
    machine: str
    libc_version: str
    libc: str = "glibc"
    implementation: str = "cp"

    @classmethod
    def here(cls) -> Platform:
        """Return the platform of the running interpreter."""
        libc, version = this_machine.libc_ver()
        return cls(
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            machine=this_machine.machine(),
            libc=libc or "musl",
            libc_version=version or "1.2",
        )

    @property
    def label(self) -> str:
        """Name for people and for cache keys."""
        return f"{self.implementation}{self.python} {self.machine} {self.libc} {self.libc_version}"

    @property
    def _minor(self) -> int:
        return int(self.libc_version.split(".")[1])

    def tags(self) -> tuple[str, ...]:
        """Platform tags that this platform accepts, best first."""
        if self.libc == "musl":
            return tuple(f"musllinux_1_{minor}_{self.machine}" for minor in range(self._minor, -1, -1))
        newest_first = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self._minor, 4, -1)]
        legacy = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
        newest_first += [f"{name}_{self.machine}" for name, minor in legacy.items() if minor <= self._minor]
        return (*newest_first, f"linux_{self.machine}")

    def uv_target(self) -> str:
        """Name of the nearest target that uv knows, for ``--python-platform``."""
        if self.libc == "musl":
            return f"{self.machine}-unknown-linux-musl"
        fitting = [minor for minor in _UV_MANYLINUX if minor <= self._minor]
        if not fitting:
            raise BundleError(
                f"No wheels are published for glibc {self.libc_version} (the oldest is 2.17): "
                "use `release: {install: path}` with an environment made on that host."
            )
        return f"{self.machine}-manylinux_2_{fitting[-1]}"

    def pip_arguments(self) -> list[str]:
        """Arguments that make ``pip download`` choose for this platform instead of the running one."""
        version = self.python.replace(".", "")
        arguments = ["--python-version", self.python, "--implementation", self.implementation]
        for abi in (f"{self.implementation}{version}", "abi3", "none"):
            arguments += ["--abi", abi]
        for tag in self.tags():
            arguments += ["--platform", tag]
        return arguments


@dataclass(frozen=True)
class Wheel:
    """One wheel in the cache of the controller."""

    name: str
    version: str
    filename: str
    sha256: str
    path: Path

    @property
    def requirement(self) -> str:
        """Line of a lock file: this file and no other."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def normalised(name: str) -> str:
    """Return a distribution's name in the one spelling that compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_filename(filename: str) -> tuple[str, str, str]:
    """Split ``name-version[-build]-python-abi-platform.whl`` into name, version and the three tags.

    Raises
    ------
    BundleError
        The name is not that of a wheel.
    """
    parts = filename.removesuffix(".whl").split("-")
    if not filename.endswith(".whl") or len(parts) not in (5, 6):
        raise BundleError(f"{filename} is not the name of a wheel (name-version-python-abi-platform.whl).")
    return normalised(parts[0]), parts[1], "-".join(parts[-3:])


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def wheel_metadata(path: Path) -> Message:
    """Return the METADATA of a wheel.

    Raises
    ------
    BundleError
        The file is not a readable wheel.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            text = archive.read(members[0]).decode()
    except (OSError, zipfile.BadZipFile, IndexError) as error:
        raise BundleError(f"{path} is not a readable wheel: {error}") from error
    return HeaderParser().parsestr(text)


class WheelCache:
    """Content-addressed store of wheels below one directory, shared by all runs of a user.

    Parameters
    ----------
    root
        Directory; made when missing. Every file in it can be deleted at any time.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold the cache's lock, so that two runs do not fetch the same files at once."""
        with (self.root / "lock").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("waiting for another run that uses the same cache")
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield a directory on the cache's file system that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="work-", dir=self.root) as name:
            yield Path(name)

    def add(self, source: Path) -> Wheel:
        """Move a wheel into the store and return its record."""
        sha256 = digest(source)
        wheel = self._record(source.name, sha256)
        wheel.path.parent.mkdir(parents=True, exist_ok=True)
        source.replace(wheel.path)
        return wheel

    def add_copy(self, source: Path) -> Wheel:
        """Copy a wheel that belongs to someone else into the store."""
        with self.workspace() as work:
            return self.add(Path(shutil.copyfile(source, work / source.name)))

    def remember(self, kind: str, key: str, wheels: Iterable[Wheel]) -> None:
        """Note which wheels answer ``key``; see `recall`.

        Parameters
        ----------
        kind
            What kind of question it is; each has a directory of its own.
        key
            The question, as a name for a file.
        wheels
            The answer.
        """
        pairs = [[wheel.filename, wheel.sha256] for wheel in wheels]
        write_atomically(self._note(kind, key), json.dumps(pairs, indent=1).encode())

    def recall(self, kind: str, key: str) -> tuple[Wheel, ...] | None:
        """Return the wheels that answered ``key`` before, or None unless all are here and undamaged."""
        try:
            pairs = json.loads(self._note(kind, key).read_bytes())
            wheels = tuple(self._record(filename, sha256) for filename, sha256 in pairs)
            intact = all(digest(wheel.path) == wheel.sha256 for wheel in wheels)
        except (OSError, ValueError, BundleError):
            return None
        return wheels if intact else None

    def _note(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.json"

    def _record(self, filename: str, sha256: str) -> Wheel:
        name, version, _ = parse_filename(filename)
        return Wheel(name, version, filename, sha256, self.root / "wheels" / sha256 / filename)


def cache_key(*parts: str) -> str:
    """Under what a :class:`WheelCache` remembers an answer: 24 hexadecimal digits of what was asked."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def write_atomically(target: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader sees all of it or nothing.

    Parameters
    ----------
    target
        The file; directories above it are made.
    content
        What shall be in it.
    mode
        Its permissions.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_wheel(target: Path, files: Mapping[str, bytes], dist_info: str) -> None:
    """Write a wheel from its files, adding RECORD; the same files give the same bytes.

    Parameters
    ----------
    target
        Path of the wheel.
    files
        Content by path inside the wheel, without RECORD.
    dist_info
        Name of the ``.dist-info`` directory.
    """
    rows = [f"{name},{_record_hash(files[name])},{len(files[name])}" for name in sorted(files)]
    record = f"{dist_info}/RECORD"
    everything = {**files, record: ("\n".join([*rows, f"{record},,"]) + "\n").encode()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(everything, key=lambda name: (".dist-info/" in name, name)):
            entry = zipfile.ZipInfo(name, date_time=_ZIP_EPOCH)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, everything[name])


def _record_hash(content: bytes) -> str:
    encoded = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={encoded.rstrip(b'=').decode()}"


def repack(distribution: metadata.Distribution, directory: Path) -> Path:
    """Make a wheel again from an installed distribution.

    Byte code, launchers and the installer's own notes are left out: an installer makes them anew.

    Parameters
    ----------
    distribution
        Installed from a wheel, pure Python.
    directory
        Where to write the wheel.

    Returns
    -------
    Path
        The wheel.

    Raises
    ------
    BundleError
        Files are missing, or the installation is not a plain pure Python wheel.
    """
    name = distribution.metadata["Name"]
    files = {str(path): distribution.locate_file(path) for path in distribution.files or ()}
    kept = {path: Path(str(source)) for path, source in files.items() if _belongs_in_wheel(path)}
    dist_info = next((PurePosixPath(path).parts[0] for path in kept if ".dist-info/" in path), None)
    missing = [str(source) for source in kept.values() if not source.is_file()]
    if dist_info is None or missing:
        detail = f"missing {', '.join(missing[:3])}" if missing else "it has no record of its files"
        raise BundleError(f"The installed {name} cannot be packed ({detail}): install it again from a wheel.")
    content = {path: source.read_bytes() for path, source in kept.items()}
    target = directory / f"{dist_info.removesuffix('.dist-info')}-{_pure_tag(content, dist_info, name)}.whl"
    write_wheel(target, content, dist_info)
    return target


def _belongs_in_wheel(path: str) -> bool:
    parts = PurePosixPath(path).parts
    if path.startswith(("..", "/")) or "__pycache__" in parts or path.endswith(".pyc"):
        return False
    return not (parts[0].endswith(".dist-info") and parts[-1] in _INSTALLER_FILES)


def _pure_tag(content: Mapping[str, bytes], dist_info: str, name: str) -> str:
    header = HeaderParser().parsestr(content.get(f"{dist_info}/WHEEL", b"").decode())
    tag = header.get("Tag", "")
    if not tag.endswith("-none-any"):
        raise BundleError(f"The installed {name} is not a pure Python wheel ({tag or 'no tag'}).")
    return str(tag)


def extract_program(wheel: Wheel, program: str, target: Path) -> Path:
    """Take one program out of a wheel's ``.data/scripts``, unless it is there already.

    Parameters
    ----------
    wheel
        The wheel.
    program
        Name of the program.
    target
        Where it goes, executable.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    BundleError
        The wheel has no such program.
    """
    if target.is_file():
        return target
    with zipfile.ZipFile(wheel.path) as archive:
        wanted = f".data/scripts/{program}"
        member = next((name for name in archive.namelist() if name.endswith(wanted)), None)
        if member is None:
            raise BundleError(f"{wheel.filename} contains no program named {program}.")
        write_atomically(target, archive.read(member), mode=0o755)
    return target
