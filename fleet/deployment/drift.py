"""What was changed on a host by hand since the last deploy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet import shapes
from fleet.deployment.manifest import FileState, Manifest
from fleet.hosts.render import RenderedFile

_OURS = ("etc/conf.d/", "etc/workers/")


@dataclass(frozen=True)
class Drift:
    """What was changed by hand, and is repaired only with consent.

    Parameters
    ----------
    files_changed
        Files that are neither as a deploy left them nor as they shall be: their content or their permissions.
    files_missing
        Files that a deploy wrote, that shall be there, and that are gone.
    files_strange
        Files among those of the workers that no deploy wrote and that hosts.yaml does not ask for. They are
        somebody else's: shown, never touched.
    workers_stopped
        Workers that ``supervisorctl stop`` stopped, or is stopping: they are down, and have no stop file.
    """

    files_changed: tuple[str, ...] = ()
    files_missing: tuple[str, ...] = ()
    files_strange: tuple[str, ...] = ()
    workers_stopped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files_changed or self.files_missing or self.files_strange or self.workers_stopped)

    def to_json(self) -> shapes.Drift:
        """Plain data for ``--json``."""
        return {
            "files_changed": list(self.files_changed),
            "files_missing": list(self.files_missing),
            "files_strange": list(self.files_strange),
            "workers_stopped": list(self.workers_stopped),
        }


def find_drift(
    files: Iterable[RenderedFile],
    there: Mapping[str, FileState],
    manifest: Manifest | None,
    workers_stopped: Iterable[str] = (),
) -> Drift:
    """Find what was changed by hand.

    Parameters
    ----------
    files
        The host's files as they shall be.
    there
        The host's files as they are.
    manifest
        What the last deploy wrote. Without one there is nothing to hold the files against, so none has drifted.
    workers_stopped
        Workers that were stopped by hand.
    """
    stopped = tuple(workers_stopped)
    if manifest is None:
        return Drift(workers_stopped=stopped)
    wanted = {file.path: FileState(file.sha256, file.mode) for file in files}
    ours = {path for path in there if path in wanted or manifest.knows(path)}
    changed = (path for path in ours if there[path] != wanted.get(path) and not manifest.accepts(path, there[path]))
    missing = (
        path for path in manifest.files if path not in there and path in wanted and not manifest.accepts(path, None)
    )
    strange = (path for path in there if path not in ours and path.startswith(_OURS))
    return Drift(tuple(sorted(changed)), tuple(sorted(missing)), tuple(sorted(strange)), stopped)


def changed_by_hand(manifest: Manifest | None, there: Mapping[str, FileState]) -> tuple[str, ...]:
    """Files that are not as the last deploy left them, whatever hosts.yaml says now.

    Parameters
    ----------
    manifest
        What the last deploy wrote; without one there is nothing to hold the files against.
    there
        The host's files as they are.
    """
    if manifest is None:
        return ()
    known = {*manifest.files, *(path for path in there if manifest.knows(path))}
    return tuple(sorted(path for path in known if not manifest.accepts(path, there.get(path))))
