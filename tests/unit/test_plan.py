from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from fleet.deployment.difftext import MASK, MASK_CHANGED, mask_secrets, unified_diff
from fleet.deployment.manifest import FileState, manifest_of, unfinished
from fleet.deployment.plan import ChangeReason, HostPlan, Switch, WorkerChange, WriteReason
from fleet.deployment.planner import plan_host
from fleet.deployment.plantext import summary
from fleet.deployment.sides import BootState, DesiredHost, ObservedHost, ProgramState, RunningWorker
from fleet.hosts.inventory import parse_inventory
from fleet.hosts.layout import Worker
from fleet.hosts.paths import host_paths
from fleet.hosts.render import RenderedFile, configuration_hash, render_host

W1, W2 = "node1-1", "node1-2"
RUNNING = {W1: ProgramState.RUNNING, W2: ProgramState.RUNNING}

HOSTS = """\
fleet: lab
database: {uri: "mongodb://db:27017", names: [a], username: chem, password_file: ~/p}
hosts:
  node1:
    workers: {cores: 2, memory: 4}
    puffin: {daemon: {cycle_time_in_s: 5}}
update: {drain_timeout: 90s}
"""


def render(text: str = HOSTS, workers: int = 2, password: str = "geheim") -> tuple[RenderedFile, ...]:
    fleet = parse_inventory(text, "hosts.yaml")
    paths = host_paths(
        base_dir_abs="/base",
        home="/home/chem",
        fleet_name="lab",
        host_name="node1",
        run_dir="/run/x",
        scratch_abs="/scratch",
        supervisor_version="4.3.0",
    )
    layout = tuple(Worker(f"node1-{n}", "node1", 2, 4.0, 10.0) for n in range(1, workers + 1))
    return render_host(fleet, fleet.hosts[0], layout, paths, password)


def desired(files: tuple[RenderedFile, ...] | None = None, workers: int = 2, **more: Any) -> DesiredHost:
    return DesiredHost(
        **{
            "name": "node1",
            "release": "r1",
            "files": render(workers=workers) if files is None else files,
            "workers": tuple(f"node1-{n}" for n in range(1, workers + 1)),
            "wheels": frozenset({"aa", "bb"}),
            "supervisor": "4.3.0",
            **more,
        }
    )


def states(files: tuple[RenderedFile, ...]) -> Mapping[str, FileState]:
    return {file.path: FileState(file.sha256, file.mode) for file in files}


def deployed(files: tuple[RenderedFile, ...] | None = None, **more: Any) -> ObservedHost:
    return ObservedHost(
        **{
            "releases": frozenset({"r1"}),
            "current": "r1",
            "files": states(render() if files is None else files),
            "supervisord_running": True,
            "programs": RUNNING,
            "supervisors": frozenset({"4.3.0"}),
            **more,
        }
    )


def what_is_done(plan: HostPlan) -> dict[str, Any]:
    """Only what differs from doing nothing; file names instead of files."""
    nothing = HostPlan("node1")
    found = {
        field.name: getattr(plan, field.name)
        for field in dataclasses.fields(plan)
        if getattr(plan, field.name) != getattr(nothing, field.name)
    }
    if "files_to_write" in found:
        found["files_to_write"] = {write.file.path: write.reason.value for write in plan.files_to_write}
    return found


def test_an_empty_host_needs_everything() -> None:
    plan = plan_host(desired(), ObservedHost(wheels=frozenset({"aa"})))
    assert what_is_done(plan) == {
        "wheels_to_upload": ("bb",),
        "install_release": "r1",
        "supervisor_to_install": "4.3.0",
        "files_to_write": {file.path: "new" for file in render()},
        "switch_release": Switch(None, "r1"),
        "start_supervisord": True,
        "workers_added": (W1, W2),
    }
    assert not plan.empty


def test_a_second_deploy_has_nothing_to_do() -> None:
    plan = plan_host(desired(), deployed())
    assert what_is_done(plan) == {"unchanged": (W1, W2)}
    assert plan.empty
    assert summary(plan) == ()


@pytest.mark.parametrize("state", [ProgramState.STARTING, ProgramState.BACKOFF, ProgramState.STOPPING])
def test_programs_that_supervisord_is_busy_with_are_left_alone(state: ProgramState) -> None:
    assert plan_host(desired(), deployed(programs={**RUNNING, W1: state})).empty


def test_a_new_release_recycles_every_running_worker() -> None:
    plan = plan_host(desired(release="r2"), deployed())
    assert what_is_done(plan) == {
        "wheels_to_upload": ("aa", "bb"),
        "install_release": "r2",
        "switch_release": Switch("r1", "r2"),
        "workers_changed": tuple(WorkerChange(name, (ChangeReason.RELEASE,)) for name in (W1, W2)),
    }


def test_back_to_a_release_that_is_there_uploads_nothing() -> None:
    plan = plan_host(desired(), deployed(current="r2", releases=frozenset({"r1", "r2"})))
    assert (plan.wheels_to_upload, plan.install_release, plan.switch_release) == ((), None, Switch("r2", "r1"))


@pytest.mark.parametrize(
    ("old", "new", "reasons", "restart"),
    [
        ("cycle_time_in_s: 5", "cycle_time_in_s: 6", (ChangeReason.SETTINGS,), False),
        ("workers: {cores", "environment: {A: x}\n    workers: {cores", (ChangeReason.SETTINGS,), False),
    ],
)
def test_what_changes_a_worker(old: str, new: str, reasons: tuple[ChangeReason, ...], restart: bool) -> None:
    assert old in HOSTS
    plan = plan_host(desired(render(HOSTS.replace(old, new))), deployed())
    assert plan.workers_changed == (WorkerChange(W1, reasons), WorkerChange(W2, reasons))
    assert [change.restart for change in plan.workers_changed] == [restart, restart]
    assert (plan.install_release, plan.switch_release, plan.wheels_to_upload) == (None, None, ())


def test_a_new_password_recycles_the_workers_also_after_a_deploy_that_was_cut_off() -> None:
    new = render(password="neu")
    plan = plan_host(desired(new), deployed())
    assert "etc/database.password" in {write.file.path for write in plan.files_to_write}
    assert {change.reasons for change in plan.workers_changed} == {(ChangeReason.SETTINGS,)}
    old = {name: configuration_hash(content_of(render(), f"etc/workers/{name}.yaml")) for name in (W1, W2)}
    running = {name: RunningWorker("r1", digest) for name, digest in old.items()}
    plan = plan_host(desired(new), deployed(new, running=running))
    assert {change.reasons for change in plan.workers_changed} == {(ChangeReason.SETTINGS,)}


def content_of(files: tuple[RenderedFile, ...], path: str) -> bytes:
    return next(file.content for file in files if file.path == path)


def with_another_section(files: tuple[RenderedFile, ...], worker: str) -> tuple[RenderedFile, ...]:
    path = f"etc/conf.d/{worker}.conf"
    return tuple(
        dataclasses.replace(file, content=file.content + b"startsecs=3\n") if file.path == path else file
        for file in files
    )


def test_another_section_restarts_its_worker_alone() -> None:
    plan = plan_host(desired(with_another_section(render(), W1)), deployed())
    assert plan.workers_changed == (WorkerChange(W1, (ChangeReason.PROGRAM,)),)
    assert plan.workers_changed[0].restart


def test_a_section_that_supervisord_has_not_read_is_not_forgotten() -> None:
    plan = plan_host(desired(), deployed(drifted=frozenset({W2})))
    assert plan.files_to_write == ()
    assert plan.workers_changed == (WorkerChange(W2, (ChangeReason.PROGRAM,)),)


def test_a_file_with_other_permissions_is_put_right_without_touching_a_worker() -> None:
    files = dict(states(render()))
    path = f"etc/workers/{W1}.yaml"
    files[path] = dataclasses.replace(files[path], mode=0o644)
    plan = plan_host(desired(), dataclasses.replace(deployed(), files=files))
    assert [(write.file.path, write.reason) for write in plan.files_to_write] == [(path, WriteReason.MODE)]
    assert plan.unchanged == (W1, W2)


def test_one_worker_changed_by_hand_does_not_concern_its_siblings() -> None:
    files = dict(states(render()))
    files[f"etc/workers/{W1}.yaml"] = FileState("0" * 64, 0o600)
    plan = plan_host(desired(), dataclasses.replace(deployed(), files=files))
    assert [change.name for change in plan.workers_changed] == [W1]
    assert plan.unchanged == (W2,)


def test_workers_that_an_interrupted_deploy_left_on_the_old_are_recycled() -> None:
    contents = {file.path: file.content for file in render()}
    hashes = {name: configuration_hash(contents[f"etc/workers/{name}.yaml"]) for name in (W1, W2)}
    running = {W1: RunningWorker("r0", hashes[W1]), W2: RunningWorker("r1", hashes[W2])}
    plan = plan_host(desired(), deployed(running=running))
    assert plan.workers_changed == (WorkerChange(W1, (ChangeReason.RELEASE,)),)
    plan = plan_host(desired(), deployed(running={W1: RunningWorker("r1", "0" * 12)}))
    assert plan.workers_changed == (WorkerChange(W1, (ChangeReason.SETTINGS,)),)
    assert plan_host(desired(), deployed(running={W2: running[W2]})).empty


@pytest.mark.parametrize("state", [ProgramState.EXITED, ProgramState.FATAL, None])
def test_a_worker_that_is_down_is_started(state: ProgramState | None) -> None:
    programs = {W1: state, W2: ProgramState.RUNNING} if state else {W2: ProgramState.RUNNING}
    plan = plan_host(desired(), deployed(programs=programs))
    assert what_is_done(plan) == {"workers_to_start": (W1,), "unchanged": (W2,)}
    assert not plan.empty


def test_workers_come_back_with_supervisord() -> None:
    plan = plan_host(desired(), deployed(supervisord_running=False, programs={}))
    assert what_is_done(plan) == {"start_supervisord": True, "workers_to_start": (W1, W2)}


@pytest.mark.parametrize("running", [True, False])
def test_what_was_stopped_on_purpose_stays_stopped(running: bool) -> None:
    programs = {W1: ProgramState.EXITED, W2: ProgramState.EXITED} if running else {}
    there = deployed(supervisord_running=running, programs=programs)
    plan = plan_host(desired(), dataclasses.replace(there, stopped_all=True))
    assert what_is_done(plan) == {"kept_stopped": (W1, W2)}
    assert plan.empty
    plan = plan_host(desired(release="r2"), dataclasses.replace(there, stopped=frozenset({W1})))
    assert (plan.kept_stopped, plan.workers_to_start, plan.workers_changed) == ((W1,), (W2,), ())
    assert plan.switch_release == Switch("r1", "r2")


def test_a_worker_that_is_draining_on_request_is_not_recycled() -> None:
    plan = plan_host(desired(release="r2"), deployed(stopped=frozenset({W2})))
    assert [change.name for change in plan.workers_changed] == [W1]
    assert plan.kept_stopped == (W2,)


def test_fewer_workers() -> None:
    plan = plan_host(desired(workers=1), deployed())
    assert what_is_done(plan) == {
        "files_to_remove": (f"etc/conf.d/{W2}.conf", f"etc/workers/{W2}.env", f"etc/workers/{W2}.yaml"),
        "workers_removed": (W2,),
        "unchanged": (W1,),
    }


def test_more_workers() -> None:
    plan = plan_host(desired(workers=3), deployed())
    assert (plan.workers_added, plan.unchanged, plan.stale_stops) == (("node1-3",), (W1, W2), ())
    assert {write.reason for write in plan.files_to_write} == {WriteReason.NEW}


def test_a_stop_file_left_by_a_removed_worker_does_not_stop_a_new_one() -> None:
    plan = plan_host(desired(workers=3), deployed(stopped=frozenset({"node1-3"})))
    assert (plan.workers_added, plan.stale_stops, plan.kept_stopped) == (("node1-3",), ("node1-3",), ())


def test_a_removal_cut_off_half_way_is_finished_but_strangers_are_left_alone() -> None:
    programs = {
        **RUNNING,
        "node1-10": ProgramState.RUNNING,
        "node1-9": ProgramState.RUNNING,
        "web": ProgramState.RUNNING,
    }
    plan = plan_host(desired(), deployed(programs=programs))
    assert (plan.workers_removed, plan.strangers) == (("node1-9", "node1-10"), ("web",))


def test_only_files_of_workers_are_ever_removed() -> None:
    others = ("etc/notes.txt", "etc/conf.d/README", "etc/workers/x.bak", "bin/mine", "etc/workers/sub/x.yaml")
    files = {**states(render()), **{path: FileState("0" * 64, 0o644) for path in others}}
    assert plan_host(desired(), dataclasses.replace(deployed(), files=files)).empty


def test_the_summary_says_what_happens_and_to_which_worker() -> None:
    plan = plan_host(
        desired(with_another_section(render(workers=1), W1), workers=1, release="r2"),
        deployed(programs={**RUNNING, "web": ProgramState.RUNNING}),
    )
    assert [(line.action, line.subject, line.detail) for line in summary(plan)] == [
        ("upload", "2 wheels", ""),
        ("install", "release r2", ""),
        ("write", f"etc/conf.d/{W1}.conf", "changed"),
        ("remove", f"etc/conf.d/{W2}.conf", ""),
        ("remove", f"etc/workers/{W2}.env", ""),
        ("remove", f"etc/workers/{W2}.yaml", ""),
        ("switch", "release to r2", "from r1"),
        ("restart", W1, "release, program; after its calculation"),
        ("remove", W2, "after its calculation"),
        ("keep", "web", "a program under supervisord that is not from here; left alone"),
    ]


def test_the_summary_of_a_stopped_host() -> None:
    lines = summary(plan_host(desired(), deployed(stopped_all=True, programs={})))
    assert [(line.action, line.subject) for line in lines] == [("keep", W1), ("keep", W2)]
    assert "puffin-fleet start" in lines[0].detail


def test_supervisords_own_settings_wait_for_its_next_start() -> None:
    files = {**states(render()), "etc/supervisord.conf": FileState("0" * 64, 0o644)}
    plan = plan_host(desired(), dataclasses.replace(deployed(), files=files))
    assert [line.action for line in summary(plan)] == ["write", "keep"]
    assert plan.unchanged == (W1, W2)


@pytest.mark.parametrize(
    ("wanted", "there", "enable", "disable", "remark"),
    [
        (True, BootState.MISSING, True, False, ""),
        (True, BootState.OUTDATED, True, False, ""),
        (True, BootState.IN_PLACE, False, False, ""),
        (True, BootState.IMPOSSIBLE, False, False, "no cron"),
        (False, BootState.MISSING, False, False, ""),
        (False, BootState.OUTDATED, False, True, ""),
        (False, BootState.IN_PLACE, False, True, ""),
        (False, BootState.IMPOSSIBLE, False, False, ""),
    ],
)
def test_the_start_at_boot(wanted: bool, there: BootState, enable: bool, disable: bool, remark: str) -> None:
    observed = dataclasses.replace(deployed(), boot=there, boot_why="no cron")
    plan = plan_host(dataclasses.replace(desired(), boot=wanted), observed)
    assert (plan.enable_boot, plan.disable_boot, plan.no_boot) == (enable, disable, remark)
    assert plan.empty is not (enable or disable)
    assert [line.action for line in summary(plan)] == ["enable"] * enable + ["disable"] * disable
    assert (plan.to_json()["enable_boot"], plan.to_json()["disable_boot"]) == (enable, disable)


def test_that_nothing_starts_at_boot_is_said_with_the_first_deploy_only() -> None:
    wanted = dataclasses.replace(desired(), boot=True)
    cannot = {"boot": BootState.IMPOSSIBLE, "boot_why": "cron: there is no cron"}
    (*_, last) = summary(plan_host(wanted, ObservedHost(**cannot)))
    assert (last.action, last.subject) == ("note", "no start at boot")
    assert "cron: there is no cron" in last.detail
    assert summary(plan_host(wanted, dataclasses.replace(deployed(), **cannot))) == ()


def test_json_is_plain_and_without_contents() -> None:
    plan = plan_host(desired(release="r2"), deployed(files=()))
    data = json.loads(json.dumps(plan.to_json()))
    assert "geheim" not in json.dumps(data)
    assert data["empty"] is False
    assert data["switch_release"] == {"from": "r1", "to": "r2"}
    assert {"path": "etc/database.password", "mode": "0600", "reason": "new"} in data["files_to_write"]
    assert data["workers_changed"][0] == {
        "worker": W1,
        "how": "restart",
        "reasons": ["release", "settings", "program"],
    }
    assert set(data) == {"empty", "needs_consent", *(field.name for field in dataclasses.fields(plan))}


def test_a_diff_shows_the_change_and_hides_secrets() -> None:
    before = b'a: 1\nuri: "mongodb://u:alt@db"\napi_key: geheim-alt\npassword_file: /x\nsame: 1\n'
    after = b'a: 2\nuri: "mongodb://u:neu@db"\napi_key: geheim-neu\npassword_file: /y\nsame: 1\n'
    assert unified_diff(RenderedFile("etc/x.yaml", 0o600, after), before).splitlines() == [
        "--- a/etc/x.yaml",
        "+++ b/etc/x.yaml",
        "@@ -1,5 +1,5 @@",
        "-a: 1",
        f'-uri: "mongodb://u:{MASK}@db"',
        f"-api_key: {MASK}",
        "-password_file: /x",
        "+a: 2",
        f'+uri: "mongodb://u:{MASK_CHANGED}@db"',
        f"+api_key: {MASK_CHANGED}",
        "+password_file: /y",
        " same: 1",
    ]


def test_a_diff_of_a_secret_a_new_and_an_unchanged_file() -> None:
    secret = RenderedFile("etc/database.password", 0o600, b"geheim", secret=True)
    assert unified_diff(secret, b"alt") == f"--- a/etc/database.password\n+++ b/etc/database.password\n{MASK}\n"
    assert unified_diff(secret, b"geheim") == ""
    assert unified_diff(RenderedFile("f", 0o644, b"a\n"), None).startswith("--- /dev/null\n+++ b/f\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("password: x y", f"password: {MASK}"),
        ('+  "db_password": "x"', f'+  "db_password": {MASK}'),
        ("export API_TOKEN='x'", f"export API_TOKEN= {MASK}"),
        ("  AWS_SECRET_ACCESS_KEY=x", f"  AWS_SECRET_ACCESS_KEY= {MASK}"),
        ("programs: {a: {passwd: x, b: 1}}", f"programs: {{a: {{passwd: {MASK}"),
        ("password_file: /etc/p", "password_file: /etc/p"),
        ("cores: 4", "cores: 4"),
    ],
)
def test_masking(line: str, expected: str) -> None:
    assert mask_secrets(line) == expected


def running_what_is_there() -> Mapping[str, RunningWorker]:
    hashes = {file.path: configuration_hash(file.content) for file in render()}
    return {name: RunningWorker("r1", hashes[f"etc/workers/{name}.yaml"]) for name in (W1, W2)}


def test_a_host_works_when_every_worker_runs_what_the_last_deploy_wrote() -> None:
    wrote = manifest_of(render(), deploy="d", release="r1", at="", by="")
    good = deployed(manifest=wrote, running=running_what_is_there())
    assert good.works
    for change in (
        {"manifest": None},
        {"manifest": unfinished(wrote, None, {})},
        {"current": "r0"},
        {"running": {W1: good.running[W1]}},
        {"running": dict(good.running) | {W2: RunningWorker("r0", good.running[W2].configuration)}},
        {"programs": RUNNING | {W2: ProgramState.BACKOFF}},
        {"files": states(render(HOSTS.replace("time_in_s: 5", "time_in_s: 6")))},
    ):
        assert not dataclasses.replace(good, **change).works, change
