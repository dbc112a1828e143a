"""Turns requirements into wheels for one platform; what was resolved once is not asked of an index again."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fleet
from fleet.release.requirements import SOURCE_ONLY, LockEntry, split_lock
from fleet.release.tools import BundleError, ToolFailed, explain, run_pip, run_tool, uv_program, uv_settings
from fleet.release.wheels import Platform, Progress, Wheel, WheelCache, cache_key, write_atomically

_OVERRIDES = Path(fleet.__file__).parent / "data" / "overrides.txt"


@dataclass(frozen=True)
class Resolver:
    """Turns requirements into wheels in the cache, for one platform."""

    store: WheelCache
    platform: Platform
    progress: Progress
    refresh: bool

    def resolve(self, requirements: Sequence[str]) -> tuple[Wheel, ...]:
        """All wheels that some requirements come to, sorted by name.

        Raises
        ------
        BundleError
            No network, or no such wheel for this platform.
        """
        key = cache_key(*sorted(requirements), self.platform.label, _OVERRIDES.read_text(encoding="utf-8"))
        known = None if self.refresh else self.store.recall("locks", key)
        if known is not None:
            return known
        lock = self.store.root / "locks" / f"{key}.txt"
        if self.refresh or not lock.is_file():
            self.progress(f"resolving requirements for {self.platform.label}")
            write_atomically(lock, self._compile(requirements).encode())
        wheels = self._fetch(split_lock(lock.read_text(encoding="utf-8")))
        self.store.remember("locks", key, wheels)
        return wheels

    def _compile(self, requirements: Sequence[str]) -> str:
        with self.store.workspace() as work:
            source = work / "requirements.in"
            source.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            command = [
                *(uv_program(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
                *("--generate-hashes", "--overrides", str(_OVERRIDES), "--python", sys.executable),
                *("--python-version", self.platform.python, "--python-platform", self.platform.uv_target()),
                *("--only-binary", ":all:", str(source)),
                *(word for name in sorted(SOURCE_ONLY) for word in ("--no-binary", name)),
            ]
            return self._explained(command, "resolve the requirements", uv_settings())

    def _fetch(self, entries: Sequence[LockEntry]) -> tuple[Wheel, ...]:
        ready = [entry for entry in entries if entry.name not in SOURCE_ONLY]
        built = [self._build_pure(entry) for entry in entries if entry.name in SOURCE_ONLY]
        self.progress(f"fetching {len(ready)} wheels for {self.platform.label}")
        with self.store.workspace() as work:
            arguments = ["--only-binary=:all:", *self.platform.pip_arguments(), "--dest", str(work)]
            self._pip("download", arguments, ready, work, "fetch the wheels")
            fetched = [self.store.add(path) for path in sorted(work.glob("*.whl"))]
        return tuple(sorted([*fetched, *built], key=lambda wheel: wheel.name))

    def _build_pure(self, entry: LockEntry) -> Wheel:
        known = self.store.recall("built", cache_key(entry.text))
        if known:
            return known[0]
        self.progress(f"building {entry.name}, which is published without a wheel")
        with self.store.workspace() as work:
            self._pip("wheel", ["--wheel-dir", str(work)], [entry], work, f"build {entry.name}")
            path = next(work.glob("*.whl"))
            if not path.name.endswith("-none-any.whl"):
                raise BundleError(f"{entry.name} is no longer pure Python ({path.name}): it needs a wheel.")
            wheel = self.store.add(path)
        self.store.remember("built", cache_key(entry.text), [wheel])
        return wheel

    def _pip(self, verb: str, arguments: Sequence[str], entries: Sequence[LockEntry], work: Path, what: str) -> None:
        lock = work / "lock.txt"
        lock.write_text("\n".join(entry.text for entry in entries) + "\n", encoding="utf-8")
        run_pip([verb, *arguments, "--require-hashes", "--requirement", str(lock)], what, self.platform.label)

    def _explained(self, command: Sequence[str], what: str, environment: Mapping[str, str]) -> str:
        try:
            return run_tool(command, what, environment)
        except ToolFailed as failure:
            raise explain(failure, self.platform.label) from failure
