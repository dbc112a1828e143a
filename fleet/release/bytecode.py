"""What a worker imports, compiled once here instead of on every host; it travels as one more wheel.

Most of what a new host does until its first worker runs is to compile the database's driver. Python takes what it
finds beside a source only while that source's hash is the one noted in it, so who corrects a file on a host by hand
is not surprised. A host with another Python than this one compiles by itself, as ever.
"""

from __future__ import annotations

import importlib.util
import marshal
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from fleet.release.requirements import BYTECODE, PROJECT
from fleet.release.wheels import Platform, Progress, Wheel, WheelCache, cache_key, write_wheel

_COMPILED = {
    PROJECT: ("puffin",),
    "click": ("click",),
    "psutil": ("psutil",),
    "pymongo": ("bson", "pymongo"),
    "pyyaml": ("yaml",),
}
"""By distribution, the packages that a worker imports before its first job."""

_FORMAT = "1"
"""To be changed with what this module makes of the same wheels."""

_CHECKED_HASH = 0b11
"""The flags of a file that is valid while the hash of its source is the one in it."""


def bytecode_wheel(wheels: Sequence[Wheel], platform: Platform, store: WheelCache, progress: Progress) -> Wheel | None:
    """Compile what workers import; None where the Python here is not that of the hosts.

    Parameters
    ----------
    wheels
        All of the release.
    platform
        Of the hosts.
    store
        Keeps what was compiled.
    progress
        Called with a line before that takes its second.
    """
    if sys.implementation.name != "cpython" or platform.python != "{}.{}".format(*sys.version_info):
        return None
    sources = [wheel for wheel in wheels if wheel.name in _COMPILED]
    key = cache_key(_FORMAT, importlib.util.MAGIC_NUMBER.hex(), *(wheel.sha256 for wheel in sources))
    known = store.recall("bytecode", key)
    if known:
        return known[0]
    progress("compiling what the workers import")
    version = next(wheel.version for wheel in wheels if wheel.name == PROJECT)
    with store.workspace() as work:
        tag = f"cp{platform.python.replace('.', '')}-none-any"
        path = work / f"{BYTECODE.replace('-', '_')}-{version}-{tag}.whl"
        dist_info = f"{BYTECODE.replace('-', '_')}-{version}.dist-info"
        write_wheel(path, {**dict(_compiled(sources)), **_about(version, tag, dist_info)}, dist_info)
        made = store.add(path)
    store.remember("bytecode", key, [made])
    return made


def _about(version: str, tag: str, dist_info: str) -> dict[str, bytes]:
    metadata = f"Metadata-Version: 2.1\nName: {BYTECODE}\nVersion: {version}\n"
    wheel = f"Wheel-Version: 1.0\nGenerator: {PROJECT}\nRoot-Is-Purelib: true\nTag: {tag}\n"
    return {f"{dist_info}/METADATA": metadata.encode(), f"{dist_info}/WHEEL": wheel.encode()}


def _compiled(wheels: Iterable[Wheel]) -> Iterator[tuple[str, bytes]]:
    """Path in the wheel and content of each file of byte code."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel.path) as archive:
            for name in archive.namelist():
                path = PurePosixPath(name)
                if path.suffix == ".py" and path.parts[0] in _COMPILED[wheel.name]:
                    content = _compile(archive.read(name), name)
                    if content is not None:
                        cached = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
                        yield str(cached), content


def _compile(source: bytes, name: str) -> bytes | None:
    """As Python writes it, by PEP 552; None where it is no source for this Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, not ours
            code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        return None
    flags = _CHECKED_HASH.to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code)
