"""Reads from the hosts what files are like before a deploy, where somebody wants to see how they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.deployment import difftext
from fleet.deployment.survey import HostWork
from fleet.errors import RemoteError
from fleet.hosts.access import Remotes
from fleet.reach.execute import ask, fan_out
from fleet.reach.remote import HostResult

Diffs = Mapping[str, str]
"""By path relative to the host's own directory: how the file changes, secrets hidden."""


def read_diffs(works: Sequence[HostResult[HostWork]], remotes: Remotes, parallel: int) -> list[HostResult[Diffs]]:
    """Find out how files will change: one round trip for each host that has some that do.

    Parameters
    ----------
    works
        What has to be done; hosts on which nothing could be found out are passed over.
    remotes
        Connections to the hosts.
    parallel
        Hosts at a time.
    """

    def one(work: HostWork) -> Diffs:
        paths = difftext.wanted_texts(work.plan)
        texts = _texts(work, remotes, paths) if paths else {}
        return difftext.diffs(work.plan, texts, work.observed.files)

    ready = {work.host: work.value for work in works if work.value is not None}
    return fan_out(ready, one, parallel)


def _texts(work: HostWork, remotes: Remotes, paths: Sequence[str]) -> dict[str, str | None]:
    request = {"host_root": work.facts.host_root, "paths": list(paths)}
    texts = ask(remotes[work.host.name], "fetch_texts", request).get("texts")
    if not isinstance(texts, dict) or not all(isinstance(texts.get(path), str | None) for path in paths):
        hint = "this is a defect of puffin-fleet: please report it"
        raise RemoteError(work.host.name, "reading files", "malformed reply", hint)
    return texts
