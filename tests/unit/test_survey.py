"""Which hosts can be deployed to, from what a real probe of this machine says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from fleet.cli.deploy import deploy
from fleet.cli.planning import with_diffs
from fleet.deployment.fleet_deploy import needed_by
from fleet.deployment.kits import PREVIOUS, kit_there
from fleet.deployment.survey import Goal, work_out
from fleet.errors import FleetError, RemoteError, UsageError
from fleet.hosts.access import Remotes
from fleet.hosts.inventory import Fleet, parse_inventory
from fleet.hostside import probe
from fleet.reach import probing
from fleet.reach.facts import Facts, FileFact, Program, Release, Supervisord
from fleet.reach.local import LocalRemote
from fleet.reach.remote import CommandResult, ConnectionLost
from puffin.records import WorkerRecord

FLEET = f"""\
fleet: reactions
database: {{uri: "mongodb://db:27017", names: [explore]}}
release: {{install: path, path: {sys.prefix}}}
defaults: {{boot: none, reserve: {{cores: 0, memory: 0, disk: 0}}, workers: {{cores: 1, memory: 0.1, disk: 0.1}}}}
hosts: {{node1: {{}}, node2: {{}}}}
"""
NOTHING = Supervisord(False, False, None, "/r/sv.sock", None, None, ())


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return parse_inventory(FLEET, "hosts.yaml")


def found(tmp_path: Path, host: str = "node1") -> Facts:
    request = probing.probe_request("reactions", host, str(tmp_path / "pool"))
    return probing.parse(host, json.loads(json.dumps(probe.main(request))))


def test_hosts_go_back_together_or_not_at_all(fleet: Fleet, tmp_path: Path) -> None:
    first, second = (replace(found(tmp_path, host), previous="r1") for host in ("node1", "node2"))
    goal = Goal(fleet, None, (), tmp_path, back_to=PREVIOUS)
    assert [work.host for work in work_out(goal, [first, second], print)] == ["node1", "node2"]
    # A bundle is another release on another platform.
    other = replace(second, previous="r2", python=replace(second.python, machine="aarch64"))
    assert len(work_out(goal, [first, other], print)) == 2
    with pytest.raises(
        FleetError, match=r"different releases:\n    node1: r1\n    node2: r2\n  if an earlier rollback was cut off"
    ):
        work_out(goal, [first, replace(second, previous="r2")], print)


def test_a_release_may_be_called_by_the_last_part_of_its_id(tmp_path: Path) -> None:
    there = tuple(Release(id_, None) for id_ in ("0.1.0-3f9a", "0.1.0-55d0", "0.2.0-55d0"))
    facts = replace(found(tmp_path), releases=there, supervisor="../../supervisor/4.3.0-abc")
    assert [kit_there(name, facts).release for name in ("3f9a", "0.2.0-55d0")] == ["0.1.0-3f9a", "0.2.0-55d0"]
    for name in ("55d0", "f9a", "r1"):
        with pytest.raises(RemoteError, match=f"it has no release {name}"):
            kit_there(name, facts)


def test_what_a_host_is_prepared_for_is_needed_before_the_host_names_it(fleet: Fleet, tmp_path: Path) -> None:
    """Another one with the same home directory, but of another platform, may be done by then and tidy up."""
    (work,) = work_out(Goal(fleet, None, (), tmp_path), [found(tmp_path)], print)
    assert work.value
    other = replace(work.value, release="r2", desired=replace(work.value.desired, supervisor="4.3.0-abc"))
    assert needed_by([work.value, other]) == {work.value.release, "existing", "r2", "4.3.0-abc"}


class Lost(LocalRemote):
    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        raise ConnectionLost(self.name, "run", "the connection was lost")


def test_a_host_whose_diff_cannot_be_read_has_failed(fleet: Fleet, tmp_path: Path) -> None:
    """Nobody has seen what would change there."""
    for host in ("node1", "node2"):
        file = tmp_path / "pool/reactions/hosts" / host / "etc/supervisord.conf"
        file.parent.mkdir(parents=True)
        file.write_text("[supervisord]\n")
    works = work_out(Goal(fleet, None, (), tmp_path), [found(tmp_path, host) for host in ("node1", "node2")], print)
    remotes = {"node1": LocalRemote("node1", sys.executable), "node2": Lost("node2")}
    checked, diffs = with_diffs(works, cast("Remotes", remotes), 2)
    assert [(work.host, str(work.error or "")) for work in checked] == [
        ("node1", ""),
        ("node2", "node2: fetch texts: the connection was lost"),
    ]
    assert list(diffs) == ["node1"]
    assert "+[unix_http_server]" in diffs["node1"]["etc/supervisord.conf"]


def test_json_and_diff_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="'puffin-fleet plan --json --diff' has both"):
        CliRunner().invoke(deploy, ["--json", "--diff"], standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize(
    ("pid", "fresh", "reasons"),
    [
        (7, [], ["settings"]),
        (7, ["node1-1"], ["settings"]),
        (6, [], ["settings"]),
        (6, ["node1-1"], []),
    ],
    ids=[
        "its own report",
        "its own, though it began late",
        "its predecessor's",
        "its predecessor's, and it began late",
    ],
)
def test_what_a_worker_runs_that_has_yet_to_report(
    tmp_path: Path, pid: int, fresh: list[str], reasons: list[str]
) -> None:
    fleet = parse_inventory(FLEET.replace("disk: 0.1}", "disk: 0.1, count: 1}"), "hosts.yaml")
    bare = found(tmp_path)
    (planned,) = work_out(Goal(fleet, None, (), tmp_path), [bare], print)
    assert planned.value
    desired = planned.value.desired
    running = Program("node1-1", "RUNNING", 7, "", "", 0, 0, 0, 0)
    seen = replace(
        bare,
        current=desired.release,
        files=tuple(FileFact(file.path, file.sha256, file.mode) for file in desired.files),
        supervisord=replace(NOTHING, running=True, reachable=True, pid=5, programs=(running,)),
        fresh=frozenset(fresh),
    )
    record = WorkerRecord(
        uuid="w",
        fleet="reactions",
        host="node1",
        worker="node1-1",
        pid=pid,
        release=desired.release,
        configuration="before",
        cores=1,
        memory=0.1,
        disk=0.1,
        programs=(),
        jobs=(),
        state="idle",
    )
    (work,) = work_out(Goal(fleet, None, (record,), tmp_path), [seen], print)
    assert work.value
    changes = [reason.value for change in work.value.plan.workers_changed for reason in change.reasons]
    assert changes == reasons


@pytest.mark.parametrize(
    ("supervisord", "message"),
    [
        (NOTHING, ""),
        (replace(NOTHING, running=True, reachable=True, pid=7), ""),
        (
            replace(NOTHING, running=True, pid=7, problem="no answer at /r/sv.sock: timed out"),
            "node1: looking: supervisord runs (pid 7) but does not answer: no answer at /r/sv.sock: timed out",
        ),
    ],
)
def test_a_host_whose_supervisord_is_silent_is_refused(
    fleet: Fleet, tmp_path: Path, supervisord: Supervisord, message: str
) -> None:
    seen = replace(found(tmp_path), supervisord=supervisord)
    (work,) = work_out(Goal(fleet, None, (), tmp_path), [seen], print)
    assert str(work.error or "").partition("\n")[0] == message
