"""Files and workers that were changed by hand are told apart from what a deploy did, also one that was cut off."""

from __future__ import annotations

import base64
import dataclasses
import importlib
import itertools
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fleet.deployment.drift import Drift, find_drift
from fleet.deployment.manifest import FileState, Manifest, manifest_of, parse, unfinished
from fleet.deployment.manifest import render as render_manifest
from fleet.deployment.plan import ChangeReason, HostPlan, WorkerChange
from fleet.deployment.planner import plan_host
from fleet.deployment.plantext import summary, why_consent
from fleet.deployment.sides import ObservedHost, ProgramState, RunningWorker
from fleet.hosts.render import RenderedFile
from fleet.hostside.common import digest
from tests.unit.test_plan import HOSTS, RUNNING, W1, W2, deployed, desired, render, states, with_another_section

ROOT = Path(__file__).parents[2]
YAML, SECTION = f"etc/workers/{W1}.yaml", f"etc/conf.d/{W1}.conf"
CHANGED = HOSTS.replace("cycle_time_in_s: 5", "cycle_time_in_s: 6")
BY_HAND = FileState("0" * 64, 0o600)


def manifest(files: tuple[RenderedFile, ...] | None = None) -> Manifest:
    return manifest_of(render() if files is None else files, deploy="d1", release="r1", at="2026-01-02", by="me@here")


def there(changes: Mapping[str, FileState | None] | None = None, **more: Any) -> ObservedHost:
    """A host as it was deployed, but for some files."""
    files = {**states(render()), **(changes or {})}
    found = {path: state for path, state in files.items() if state is not None}
    return dataclasses.replace(deployed(**{"manifest": manifest(), "good": "d1", **more}), files=found)


def lines(plan: HostPlan) -> list[tuple[str, str, str]]:
    return [(line.action, line.subject, line.detail) for line in summary(plan)]


@pytest.mark.parametrize(
    ("changes", "text", "expected"),
    [
        ({}, HOSTS, Drift()),
        ({}, CHANGED, Drift()),  # hosts.yaml was changed, not the host
        ({YAML: BY_HAND}, HOSTS, Drift(files_changed=(YAML,))),
        ({YAML: BY_HAND}, CHANGED, Drift(files_changed=(YAML,))),
        ({YAML: FileState(states(render())[YAML].sha256, 0o644)}, HOSTS, Drift(files_changed=(YAML,))),
        ({YAML: states(render(CHANGED))[YAML]}, CHANGED, Drift()),  # by hand, but as it shall be
        ({YAML: None}, HOSTS, Drift(files_missing=(YAML,))),
        ({"bin/worker": BY_HAND}, HOSTS, Drift(files_changed=("bin/worker",))),
        ({"etc/conf.d/web.conf": BY_HAND}, HOSTS, Drift(files_strange=("etc/conf.d/web.conf",))),
        ({"etc/workers/x.bak": BY_HAND}, HOSTS, Drift(files_strange=("etc/workers/x.bak",))),
        ({"etc/notes.txt": BY_HAND, "bin/mine": BY_HAND}, HOSTS, Drift()),
    ],
)
def test_what_is_drift(changes: Mapping[str, FileState | None], text: str, expected: Drift) -> None:
    plan = plan_host(desired(render(text)), there(changes))
    assert plan.drift == expected
    assert plan.needs_consent == bool(expected.files_changed or expected.files_missing)
    repaired = plan_host(desired(render(text)), there(changes), repair=True)
    assert (repaired.drift, repaired.needs_consent, why_consent(repaired)) == (expected, False, "")
    assert repaired.files_to_write == plan.files_to_write


def test_a_file_changed_by_hand_is_drift_also_where_it_would_be_removed() -> None:
    plan = plan_host(desired(workers=1), there({f"etc/workers/{W2}.yaml": BY_HAND}))
    assert plan.drift.files_changed == (f"etc/workers/{W2}.yaml",)
    assert f"etc/workers/{W2}.yaml" in plan.files_to_remove
    # What is gone already and shall not be there is as it should be.
    assert not plan_host(desired(workers=1), there({f"etc/workers/{W2}.yaml": None})).drift


def test_a_file_made_by_hand_where_a_new_worker_needs_one_is_not_written_over_in_silence() -> None:
    plan = plan_host(desired(workers=3), there({"etc/conf.d/node1-3.conf": BY_HAND}))
    assert plan.drift.files_changed == ("etc/conf.d/node1-3.conf",)
    assert plan.needs_consent


def test_strange_files_and_their_programs_are_left_alone() -> None:
    strange = dict.fromkeys(("etc/conf.d/web.conf", "etc/conf.d/node1-7.conf"), BY_HAND)
    programs = {**RUNNING, "web": ProgramState.RUNNING, "node1-7": ProgramState.RUNNING}
    for repair in (False, True):
        plan = plan_host(desired(), there(strange, programs=programs), repair)
        assert plan.empty
        assert (plan.strangers, plan.drift.files_strange) == (("node1-7", "web"), tuple(sorted(strange)))
    assert ("keep", "etc/conf.d/web.conf", "a file that is not from here; left alone") in lines(plan)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"schema": 2}', '{"schema": 1}', "[" * 100_000])
def test_a_host_without_a_usable_manifest_has_no_drift_of_files(text: str | None) -> None:
    assert parse(text) is None
    found = dataclasses.replace(there({YAML: BY_HAND, "etc/conf.d/old.conf": BY_HAND}), manifest=parse(text))
    plan = plan_host(desired(), found)
    assert not plan.drift
    assert plan.files_to_remove == ("etc/conf.d/old.conf",)


@pytest.mark.parametrize(
    "damage",
    [
        {"files": []},
        {"files": {"a": 1}},
        {"files": {"a": {"sha256": "x", "mode": "9"}}},
        {"before": 3},
        {"files": None},
    ],
)
def test_a_damaged_manifest_is_none(damage: dict[str, Any]) -> None:
    whole = json.loads(render_manifest(manifest()).content)
    assert parse(json.dumps(whole)) == manifest()
    assert parse(json.dumps({**whole, **damage})) is None


def test_a_manifest_is_read_as_it_was_written_and_by_nobody_else() -> None:
    for made in (manifest(), unfinished(manifest(), None, states(render(CHANGED)))):
        file = render_manifest(made)
        assert parse(file.content.decode()) == made
        assert (file.path, file.mode) == ("manifest.json", 0o600)  # there is the digest of a password in it


def test_a_worker_stopped_by_hand_stays_stopped_without_consent() -> None:
    found = there(programs={**RUNNING, W1: ProgramState.STOPPED})
    plan = plan_host(desired(), found)
    assert plan.empty
    assert (plan.drift.workers_stopped, plan.kept_stopped, plan.workers_to_start) == ((W1,), (W1,), ())
    assert lines(plan) == [("drift", W1, "stopped by hand; 'puffin-fleet start' or --repair starts it")]
    plan = plan_host(desired(), found, repair=True)
    assert (plan.drift.workers_stopped, plan.kept_stopped, plan.workers_to_start) == ((W1,), (), (W1,))
    assert ("drift", W1, "stopped by hand; started") in lines(plan)


def test_a_worker_stopped_by_hand_is_given_its_files_and_no_more() -> None:
    found = there(programs={**RUNNING, W1: ProgramState.STOPPED})
    plan = plan_host(desired(render(CHANGED)), found)
    assert YAML in {write.file.path for write in plan.files_to_write}
    assert plan.workers_changed == (WorkerChange(W2, (ChangeReason.SETTINGS,)),)
    assert (plan.kept_stopped, plan.stop_files) == ((W1,), ())
    # supervisord starts a program whose section is new: only a stop file keeps it down.
    plan = plan_host(desired(with_another_section(render(), W1)), found)
    assert (plan.kept_stopped, plan.stop_files) == ((W1,), (W1,))


def test_a_fleet_that_was_told_to_stop_gets_stop_files_where_anything_is_done() -> None:
    found = there(programs={}, supervisord_running=False, told_to_stop=True)
    assert plan_host(desired(), found).empty
    assert plan_host(desired(), found).stop_files == ()
    plan = plan_host(desired(release="r2"), dataclasses.replace(found, stopped=frozenset({W2})))
    assert (plan.kept_stopped, plan.stop_files) == ((W1, W2), (W1,))
    assert not plan.drift


@pytest.mark.parametrize("state", [ProgramState.STOPPED, ProgramState.STOPPING])
@pytest.mark.parametrize(
    "purpose", [{"stopped": frozenset({W1})}, {"stopped_all": True}, {"told_to_stop": True}], ids=str
)
def test_a_worker_stopped_on_purpose_is_no_drift(state: ProgramState, purpose: dict[str, Any]) -> None:
    found = there(programs={**RUNNING, W1: state}, **purpose)
    for repair in (False, True):
        plan = plan_host(desired(), found, repair)
        assert not plan.drift
        assert W1 in plan.kept_stopped


@pytest.mark.parametrize("state", [ProgramState.EXITED, ProgramState.FATAL])
def test_a_worker_that_ended_by_itself_is_started(state: ProgramState) -> None:
    plan = plan_host(desired(), there(programs={**RUNNING, W1: state}))
    assert (plan.workers_to_start, bool(plan.drift)) == ((W1,), False)


def test_consent_is_asked_for_by_name() -> None:
    plan = plan_host(desired(), there({YAML: BY_HAND, SECTION: None}))
    assert why_consent(plan) == f"changed by hand: {YAML}; removed by hand: {SECTION}"
    assert lines(plan)[-2:] == [
        ("drift", YAML, "changed by hand; written over with --repair"),
        ("drift", SECTION, "removed by hand; written again with --repair"),
    ]
    data = plan.to_json()
    assert data["drift"] == {
        "files_changed": [YAML],
        "files_missing": [SECTION],
        "files_strange": [],
        "workers_stopped": [],
    }
    assert data["needs_consent"] is True


# A deploy that is cut off -----------------------------------------------------------------------------


def encoded(file: RenderedFile) -> str:
    return base64.b64encode(file.content).decode()


def request(root: Path, wanted: tuple[RenderedFile, ...]) -> dict[str, Any]:
    """What a deploy of these files asks of a host as it is now."""
    plan = plan_host(desired(wanted), observed(root))
    last = parse(text) if (text := content_of_manifest(root)) else None
    done = manifest(wanted)
    return {
        "fleet_root": str(root.parent),
        "host_root": str(root),
        "run_dir": str(root / "run"),
        "files": [
            {"path": write.file.path, "mode": write.file.mode, "content_b64": encoded(write.file)}
            for write in plan.files_to_write
        ],
        "remove": list(plan.files_to_remove),
        "manifest": {
            "begin": encoded(render_manifest(unfinished(done, last, found(root)))),
            "end": encoded(render_manifest(done)),
        },
    }


def content_of_manifest(root: Path) -> str | None:
    path = root / "manifest.json"
    return path.read_text() if path.exists() else None


def found(root: Path) -> Mapping[str, FileState]:
    paths = [path for name in ("bin", "etc") for path in (root / name).rglob("*")]
    return {
        str(path.relative_to(root)): FileState(digest(path), path.stat().st_mode & 0o7777)
        for path in paths
        if path.is_file() and not path.name.endswith(".new~")
    }


def observed(root: Path) -> ObservedHost:
    return dataclasses.replace(there(), files=found(root), manifest=parse(content_of_manifest(root)))


def apply(root: Path, wanted: tuple[RenderedFile, ...], steps: int) -> bool:
    return act("apply", request(root, wanted), steps)


def act(action: str, content: dict[str, Any], steps: int) -> bool:
    """Act for real, in a process that is gone before one step too many; say whether it came to its end."""
    module = importlib.import_module(f"fleet.hostside.{action}")
    child = os.fork()
    if child == 0:
        end_before(steps + 1)
        try:
            module.main(json.loads(json.dumps(content)))
        except BaseException:  # noqa: BLE001 - the process ends here
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 0


def end_before(step: int) -> None:
    """End this process before it changes a directory for so many times."""
    left = itertools.count(step - 1, -1)

    def cut(event: str, _arguments: object) -> None:
        if event in ("os.rename", "os.remove") and next(left) <= 0:
            os._exit(9)

    sys.addaudithook(cut)


def test_a_deploy_cut_off_anywhere_is_no_drift_whatever_hosts_yaml_says_by_then(tmp_path: Path) -> None:
    root = tmp_path / "fleet" / "host"
    first, second, third = render(workers=2), render(CHANGED, workers=1), render(HOSTS.replace("5}", "7}"), workers=3)
    assert apply(root, first, 1000)
    whole = found(root)
    ways: list[Mapping[str, FileState]] = []
    steps, ended = 0, False
    while not ended:
        ended = apply(root, second, steps)
        ways.append(found(root))
        for wanted in (first, second, third):
            drift = find_drift(wanted, found(root), parse(content_of_manifest(root)))
            assert not drift, f"after {steps} steps: {drift}"
        assert apply(root, first, 1000)
        assert found(root) == whole
        steps += 1
    assert ways[0] == whole
    assert ways[-1] == states(second)
    assert len({frozenset(way.items()) for way in ways}) == 5  # one file written, three removed


def test_what_was_changed_by_hand_stays_told_of_until_it_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "fleet" / "host"
    assert apply(root, render(), 1000)
    (root / "bin" / "worker").write_text("by hand")
    mine = find_drift(render(), found(root), parse(content_of_manifest(root)))
    assert mine == Drift(files_changed=("bin/worker",))
    seen, steps, ended = [], 0, False
    while not ended:
        ended = apply(root, render(), steps)
        seen.append(find_drift(render(CHANGED), found(root), parse(content_of_manifest(root))))
        steps += 1
    assert seen[0] == mine
    assert not seen[-1]
    assert set(seen) == {mine, Drift()}


STRANGE = ("etc/conf.d/web.conf", "etc/conf.d/late.conf")


def test_a_revert_cut_off_anywhere_is_no_drift_and_leaves_alone_what_is_not_ours(tmp_path: Path) -> None:
    root = tmp_path / "fleet" / "host"
    release = root.parent / "releases" / "r1"
    release.mkdir(parents=True)
    (release / ".complete").touch()
    first, second, third = render(workers=2), render(CHANGED, workers=1), render(HOSTS.replace("5}", "7}"), workers=3)
    assert apply(root, first, 1000)
    (root / "current").symlink_to("../releases/r1")
    (root / STRANGE[0]).write_text("once")
    whole = {path: state for path, state in found(root).items() if path not in STRANGE}
    content = {"fleet_root": str(root.parent), "host_root": str(root), "lock": None}
    assert act("good", {**content, "operation": "keep"}, 1000)
    steps, ended = 0, False
    while not ended:
        assert apply(root, second, 1000)
        for path in STRANGE:
            (root / path).write_text("now")
        ended = act("good", {**content, "operation": "restore"}, steps)
        for wanted in (first, second, third):
            drift = find_drift(wanted, found(root), parse(content_of_manifest(root)))
            assert drift == Drift(files_strange=tuple(sorted(STRANGE))), f"after {steps} steps"
        assert {(root / path).read_text() for path in STRANGE} == {"now"}
        steps += 1
    assert {path: state for path, state in found(root).items() if path not in STRANGE} == whole
    assert parse(content_of_manifest(root)) == manifest(first)
    assert steps > 5


def test_a_deploy_that_was_good_here_and_not_elsewhere_is_taken_back_as_well(tmp_path: Path) -> None:
    root = tmp_path / "fleet" / "host"
    for name in ("r1", "r2"):
        release = root.parent / "releases" / name
        release.mkdir(parents=True)
        (release / ".complete").touch()
    content = {"fleet_root": str(root.parent), "host_root": str(root), "lock": None, "undo": "d2"}

    def deploy(wanted: tuple[RenderedFile, ...], name: str, release: str) -> None:
        plan = request(root, wanted)
        done = dataclasses.replace(manifest(wanted), deploy=name)
        plan["manifest"] = {key: base64.b64encode(render_manifest(done).content).decode() for key in ("begin", "end")}
        assert act("apply", {**plan, "current": release}, 1000)
        assert act("good", {**content, "operation": "keep"}, 1000)

    deploy(render(workers=2), "d1", "r1")
    first = found(root)
    steps, ended = 0, False
    while not ended:
        deploy(render(CHANGED, workers=1), "d2", "r2")
        if steps == 0:
            assert act("good", {**content, "operation": "keep"}, 1000)  # asked again, since the answer was lost
        ended = act("good", {**content, "operation": "restore"}, steps)
        if not ended:
            # Whatever it came to, another try ends it.
            assert act("good", {**content, "operation": "restore"}, 1000)
        assert found(root) == first, f"after {steps} steps"
        assert (root / "current").readlink().name == "r1"
        assert not (root / "previous").is_symlink()
        assert parse((root / "good" / "manifest.json").read_text()) == parse(content_of_manifest(root))
        steps += 1
    assert steps > 5


@pytest.mark.parametrize(
    ("more", "unproven"),
    [
        ({}, False),
        ({"good": None}, True),
        ({"good": "d0"}, True),  # an earlier deploy was seen to work, this one not
        ({"good": "d0", "stopped_all": True}, False),  # nobody is there to prove anything
        ({"good": "d0", "stopped": frozenset({W1})}, True),
        ({"good": "d0", "stopped": frozenset({W1, W2})}, False),
        ({"good": None, "manifest": None}, False),
    ],
)
def test_workers_that_no_deploy_saw_healthy_have_yet_to_prove_themselves(more: dict[str, Any], unproven: bool) -> None:
    plan = plan_host(desired(), there(**more))
    assert (plan.empty, plan.unproven) == (True, unproven)
    assert (("wait", "for its workers") in [line[:2] for line in lines(plan)]) is unproven


@pytest.mark.parametrize(
    ("more", "works"),
    [
        ({}, True),
        ({"programs": {**RUNNING, W2: ProgramState.EXITED}}, False),
        ({"programs": {**RUNNING, W2: ProgramState.EXITED}, "stopped": frozenset({W2})}, True),
        ({"stopped_all": True}, False),  # nobody has seen it
        ({"manifest": manifest(()), "programs": {}}, True),  # it has no workers, and shall have none
    ],
)
def test_a_state_works_where_all_run_that_are_not_stopped(more: dict[str, Any], works: bool) -> None:
    files = {file.path: file.sha256 for file in render()}
    running = {name: RunningWorker("r1", files[f"etc/workers/{name}.yaml"][:12]) for name in (W1, W2)}
    assert there(running=running, **more).works is works
