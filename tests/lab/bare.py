"""A root with next to nothing in it, as on a freshly installed host: sshd, Python, cron, and what Debian cannot omit.

Made by debootstrap from the mirror that this machine's apt uses, and kept between runs.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from tests.lab.laboratory import LaboratoryError

_PACKAGES = ("openssh-server", "python3", "cron")
_VERSION = 1
"""To be raised whenever the root is made differently."""

# In memory, since dpkg waits for the disk after each file; the mount ends with the shell.
_BUILD = """
mount -t tmpfs -o size=1200m lab-build "$2"
debootstrap --variant=minbase --include="$3" "$4" "$2/root" "$5"
rm -rf "$2"/root/var/cache/apt/archives/*.deb "$2"/root/var/lib/apt/lists/*
cp -a "$2/root" "$1"
"""


def bare_root(cache: Path) -> Path:
    """The root, made on first use, which takes about a minute.

    Raises
    ------
    LaboratoryError
        debootstrap or a mirror is missing.
    """
    if shutil.which("debootstrap") is None:
        raise LaboratoryError("a bare host needs debootstrap: apt-get install debootstrap")
    mirror, suite = _mirror()
    root = cache / f"bare-{suite}-{_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "bare.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            _build(root, mirror, suite)
    return root


def _build(root: Path, mirror: str, suite: str) -> None:
    fresh, place = root.with_name(f"{root.name}.new"), root.with_name(f"{root.name}.build")
    shutil.rmtree(fresh, ignore_errors=True)
    place.mkdir(exist_ok=True)
    words = [
        "unshare",
        "--mount",
        "/bin/sh",
        "-euc",
        _BUILD,
        "build",
        str(fresh),
        str(place),
        ",".join(_PACKAGES),
        suite,
        mirror,
    ]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    place.rmdir()
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        said = (done.stdout + done.stderr).splitlines()[-5:]
        raise LaboratoryError("debootstrap makes no root here:\n" + "\n".join(said))
    fresh.rename(root)


def _mirror() -> tuple[str, str]:
    """Address and release of the mirror that holds Debian's own packages."""
    if shutil.which("apt-get") is None:
        raise LaboratoryError("a bare host is made from apt's mirror: this is no Debian")
    release = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
    suite = release.get("VERSION_CODENAME", "").strip('"')
    filters = ["Created-By: Packages", f"Codename: {suite}", "Component: main"]
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *filters]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout.strip():
        raise LaboratoryError(f"apt knows no mirror of {suite or 'this release'}: run apt-get update")
    return done.stdout.split()[0], suite
