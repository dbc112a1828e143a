"""What each thing that is found on a host means, and what `check` says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.check import _show, _wrapped
from fleet.errors import FleetError
from fleet.hosts.inventory import Fleet, parse_inventory
from fleet.hostside import places
from fleet.reach.facts import (
    Boot,
    Disk,
    Facts,
    FileFact,
    Hardware,
    Holder,
    Lock,
    Orphan,
    Program,
    Python,
    Supervisord,
)
from fleet.reach.remote import ChangedHostKey, HostResult, NoPythonError, UnknownHostKey, UnreachableError
from fleet.watch import doctor, machine_checks
from fleet.watch.diagnosis import diagnose
from fleet.watch.doctor import DatabaseSeen, addresses, goes_to_members, grouped, of_database, of_hosts
from fleet.watch.examination import Examination, Examined, Limit, Reached, TriedDirectory, WorkerFinding
from fleet.watch.findings import Finding
from puffin.errors import ExitCode
from puffin.severity import Severity
from tests.unit.test_health import RECORD

TEXT = """\
fleet: lab
database: {uri: "mongodb://db:27017", names: [a]}
defaults: {scratch: /scratch, reserve: {cores: 0, memory: 0}}
hosts:
  node1: {workers: {cores: 1, memory: 1, count: 2}}
"""
FLEET = parse_inventory(TEXT, "hosts.yaml")
ROOT = "/base/lab/hosts/node1"
NOW = datetime(2026, 11, 22, 12, 0, 0)


def program(name: str, state: str = "RUNNING", exitstatus: int = 0, spawnerr: str = "") -> Program:
    return Program(name, state, 7, "", spawnerr, exitstatus, 0, 0, 0)


def good() -> Examined:
    """A host on which everything is as it should be."""
    disk = Disk("/base", True, 100.0, 1_000_000, True)
    scratch = replace(disk, path="/scratch")
    programs = (program("node1-1"), program("node1-2"))
    facts = Facts(
        host="node1",
        user="chem",
        home="/home/chem",
        hostname="n1",
        clock=0.0,
        base_dir="/base",
        fleet_root="/base/lab",
        host_root=ROOT,
        scratch="/scratch",
        run_dir=f"{ROOT}/run",
        shared=False,
        hardware=Hardware(4, 4, 8, None, (0, 1, 2, 3), 16.0, disk, scratch),
        python=Python("/usr/bin/python3", "3.11.2", "cpython", "x86_64", "Linux", "glibc", "2.36", "linux"),
        releases=(),
        wheels=(),
        uv_versions=(),
        supervisors=("4.3.0-abc",),
        current="r1",
        previous=None,
        supervisor="/base/lab/supervisor/4.3.0-abc",
        files=tuple(FileFact(f"etc/workers/{each.name}.yaml", "", 0o600) for each in programs),
        stop=False,
        stopped=frozenset(),
        recycling=frozenset(),
        manifest=None,
        supervisord=Supervisord(True, True, 5, f"{ROOT}/run/sv.sock", "4.3.0", None, programs),
        drifted=frozenset(),
        orphans=(),
        lock=Lock(0, None),
        boot=Boot("cron", True, "cron", ""),
    )
    examination = Examination(
        clock_first=100.5,
        clock_last=101.5,
        python_home="",
        base=TriedDirectory("/base", "/base", "ext4", "", "", ""),
        scratch=TriedDirectory("/scratch", "/scratch", "xfs", "", "", ""),
        limits={"nofile": Limit(1024, 4096), "nproc": Limit(-1, -1), "core": Limit(0, -1)},
        release_problem="",
        unfinished=(),
        logs={},
        reachable=(),
        members=(),
        worker="node1-1",
        worker_findings=(
            WorkerFinding("database", Severity.OK, "db:27017, a"),
            WorkerFinding("worker", Severity.WARN, "runs"),
        ),
        worker_problem="",
    )
    return Examined(facts, examination, asked=100.0, answered=102.0)


def held(left: float, id_: str = "20261122T120000Z-1a2b") -> Lock:
    return Lock(3, Holder(id_, "ada@desk", "deploy", since=0.0, age=1000.0, left=left))


LONG_GONE = Lock(3, Holder("20261122T120000Z-1a2b", "ada@desk", "deploy", since=0.0, age=7200.0, left=-60.0))
OTHER = (
    '{"schema": 1, "deploy": "d", "release": "r1", "at": "", "by": "", '
    '"files": {"bin/worker": {"sha256": "0", "mode": "0755"}}}'
)


def with_facts(**changes: Any) -> Examined:
    return replace(good(), facts=replace(good().facts, **changes))


def with_examination(**changes: Any) -> Examined:
    return replace(good(), examination=replace(good().examination, **changes))


def with_supervisord(*programs: Program, **changes: Any) -> Examined:
    daemon = good().facts.supervisord
    return with_facts(supervisord=replace(daemon, programs=programs or daemon.programs, **changes))


def with_disk(free: float = 100.0, inodes: int = 1_000_000) -> Examined:
    hardware = good().facts.hardware
    return with_facts(hardware=replace(hardware, disk=replace(hardware.disk, free=free, inodes=inodes)))


def wrong(found: Examined, fleet: Fleet = FLEET) -> list[Finding]:
    findings = diagnose(fleet, fleet.hosts[0], found)
    return [finding for finding in findings if finding.severity is not Severity.OK]


def test_a_good_host_has_nothing_wrong_and_says_what_was_looked_at() -> None:
    findings = diagnose(FLEET, FLEET.hosts[0], good())
    assert wrong(good()) == []
    assert {finding.check for finding in findings} >= {
        "ssh",
        "python",
        "base_dir",
        "scratch",
        "socket",
        "clock",
        "limits",
    }
    assert {finding.check for finding in findings} >= {"layout", "release", "supervisord", "workers", "orphans", "boot"}
    assert all(finding.advice == "" for finding in findings)


def test_who_holds_a_lock_is_shown_also_where_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    found = with_facts(lock=held(left=700.0))
    assert wrong(found) == []
    _show(grouped(diagnose(FLEET, FLEET.hosts[0], found)), verbose=False)
    assert "ok    node1  lock: locked by ada@desk for 'deploy' since " in capsys.readouterr().out


def test_this_machine_is_not_connected_to() -> None:
    host = FLEET.hosts[0].model_copy(update={"connection": "local"})
    said = {finding.check: finding.what for finding in diagnose(FLEET, host, good())}
    assert said["local"] == "this machine, as chem; no connection is needed"
    assert "ssh" not in said


WRITE, LINK, RUN = ({name: "Read-only"} for name in ("write", "link", "run"))
BASE = TriedDirectory("/base", "/", "nfs4", "", "", "")
LONG = "/" + "x" * 90
OTHER_PYTHON = replace(good().facts.python, implementation="pypy")

CASES: list[tuple[Callable[[], Examined], str, str, str, str]] = [
    (lambda: with_facts(python=OTHER_PYTHON), "fail", "python", "there are no wheels for pypy", "a CPython"),
    (
        lambda: with_examination(python_home="/venv"),
        "warn",
        "python",
        "belongs to the environment /venv",
        "release.python",
    ),
    (
        lambda: with_examination(base=replace(BASE, **WRITE)),
        "fail",
        "base_dir",
        "written in /: Read-only",
        "another base_dir",
    ),
    (
        lambda: with_examination(base=replace(BASE, **LINK)),
        "fail",
        "base_dir",
        "no hard links in / (nfs4)",
        "supervisord",
    ),
    (lambda: with_examination(base=replace(BASE, **RUN)), "fail", "base_dir", "no program can be started", "noexec"),
    (
        lambda: with_examination(base=TriedDirectory("/base", "/base", "ext4", "No space left on device", "", "")),
        *("fail", "base_dir", "No space left on device; 100.0 GB and", "puffin-fleet prune"),
    ),
    (lambda: with_disk(free=0.1), "fail", "base_dir space", "0.1 GB and 1000000 inodes free on the file", "prune"),
    (lambda: with_disk(free=1.0), "warn", "base_dir space", "of /base (ext4)", "takes 0.5 GB with SCINE's programs"),
    (lambda: with_disk(inodes=900), "fail", "base_dir space", "900 inodes", "on another file system"),
    (lambda: with_disk(inodes=9000), "warn", "base_dir space", "9000 inodes", "prune --host node1"),
    (lambda: with_facts(scratch="/a:b"), "fail", "path", "scratch is '/a:b'", "choose another one"),
    (lambda: with_facts(run_dir=LONG), "fail", "socket", "has 99 bytes; a socket's may have 97", "shorter base_dir"),
    (lambda: replace(good(), asked=90.0, answered=92.0), "warn", "clock", "10.0 s ahead of this machine's", "chrony"),
    (lambda: replace(good(), asked=110.0, answered=112.0), "warn", "clock", "10.0 s behind this machine's", "chrony"),
    (lambda: with_examination(limits={"nofile": Limit(256, 512)}), "fail", "limits", "512 open files", "limits.conf"),
    (
        lambda: with_examination(limits={"nproc": Limit(50, 50)}),
        "fail",
        "limits",
        "50 processes at most",
        "limits.conf",
    ),
    (lambda: with_examination(limits={"nproc": Limit(500, -1)}), "warn", "limits", "500 processes and", "limits.conf"),
    (
        lambda: with_facts(hardware=replace(good().facts.hardware, cores=1)),
        *("fail", "layout", "workers ask for 2 cores, the host has 1", "'workers' or 'reserve'"),
    ),
    (lambda: with_supervisord(program("node1-1")), "warn", "layout", "node1-2 not deployed", "deploy --host node1"),
    (lambda: with_examination(release_problem="gone"), "fail", "release", "damaged: gone", "/base/lab/releases/r1"),
    (lambda: with_supervisord(running=False, reachable=False), "fail", "supervisord", "does not run", "deploy --host"),
    (
        lambda: with_supervisord(reachable=False, problem="hangs"),
        "fail",
        "supervisord",
        "does not answer: hangs",
        "log",
    ),
    (lambda: with_supervisord(version="4.2.5"), "warn", "supervisord", "4.2.5 runs, installed is 4.3.0-abc", "stop"),
    (
        lambda: with_facts(orphans=(Orphan(9, 1, "node1-1", "x"),)),
        "fail",
        "orphans",
        "node1-1 (pid 9)",
        "gives their jobs",
    ),
    (lambda: with_facts(orphans=(Orphan(9, 1, None, "orca"),)), "warn", "orphans", "orca (pid 9)", "end them"),
    (lambda: with_facts(drifted=frozenset({"node1-2"})), "warn", "drift", "the files of node1-2", "deploy"),
    (
        lambda: with_supervisord(program("node1-1"), program("node1-2", "STOPPED")),
        *("warn", "drift", "stopped by hand: node1-2", "puffin-fleet start --host node1"),
    ),
    (
        lambda: with_supervisord(program("node1-1"), program("node1-2"), program("web")),
        *("warn", "drift", "not from here: web", "left alone"),
    ),
    (lambda: with_facts(boot=Boot("none", False, "cron", "")), "warn", "boot", "is not arranged", "deploy"),
    (lambda: with_facts(boot=Boot("cron", False, "cron", "")), "warn", "boot", "not as it should be (cron)", "deploy"),
    (lambda: with_facts(boot=Boot("cron", True, "cron", "no daemon")), "warn", "boot", "no daemon", "cron daemon"),
    (
        lambda: with_facts(boot=Boot("none", False, "none", "cron: there is no cron. an administrator can {x}")),
        *("warn", "boot", "not back after a reboot: cron: there is no cron", "an administrator can {x}"),
    ),
    (lambda: with_facts(lock=LONG_GONE), "warn", "lock", "locked by ada@desk for 'deploy'", "unlock --host node1"),
    (
        lambda: with_facts(lock=held(left=440.0)),
        *("warn", "lock", "limit in 7 min); not renewed for 8 min", "was killed: puffin-fleet unlock --host node1"),
    ),
    (lambda: with_facts(lock=held(left=9e8, id_="")), "warn", "lock", "locked by ada@desk", "unlock --host node1"),
    (lambda: with_facts(manifest=OTHER), "warn", "drift", "changed by hand: bin/worker", "plan --diff --host node1"),
    (lambda: with_examination(unfinished=("/base/.a.new~",)), "warn", "leftovers", "/base/.a.new~", "deploy"),
    (
        lambda: with_examination(worker_problem="no bin"),
        "fail",
        "worker check",
        "node1-1 cannot be asked: no bin",
        "deploy",
    ),
    (
        lambda: with_examination(worker_findings=(WorkerFinding("database", Severity.FAIL, "refused the login"),)),
        *("fail", "database", "refused the login", "node1-1 says of itself"),
    ),
    (
        lambda: with_examination(
            worker_findings=(
                WorkerFinding("program sparrow", Severity.FAIL, "not installed: run 'puffin bootstrap'"),
                WorkerFinding("program readuct", Severity.FAIL, "not installed: run 'puffin bootstrap'"),
            )
        ),
        *("warn", "programs", "sparrow, readuct not installed: only jobs", "'release: {extras: [scine]}'"),
    ),
    (
        lambda: with_examination(worker_findings=(WorkerFinding("program orca", Severity.WARN, "old"),)),
        *("warn", "program orca", "old", "node1-1 says of itself"),
    ),
    (
        lambda: with_examination(worker_findings=(WorkerFinding("disk", Severity.FAIL, "taken"),)),
        *("warn", "disk", "taken", "node1-1 says of itself"),
    ),
    (
        lambda: with_examination(worker=None, reachable=(Reached("db:27017", "timed out"),)),
        *("fail", "database", "db:27017 cannot be reached from the host: timed out", "firewalls"),
    ),
    (
        lambda: with_examination(worker=None, members=(Reached("mongo1:27017", "unknown name"), Reached("m2:1", ""))),
        *("fail", "database", "sends its clients to mongo1:27017, which the host cannot reach", "rs.conf()"),
    ),
    (
        lambda: with_examination(members=(Reached("m1:1", ""), Reached("mongo2:27017", "timed out"))),
        *("warn", "database", "mongo2:27017, which the host cannot reach: timed out", "rs.conf()"),
    ),
]


@pytest.mark.parametrize(("found", "severity", "check", "what", "advice"), CASES, ids=[case[3] for case in CASES])
def test_what_is_wrong(found: Callable[[], Examined], severity: str, check: str, what: str, advice: str) -> None:
    (finding,) = wrong(found())
    assert (finding.severity.value, finding.check) == (severity, check)
    assert what in finding.what
    assert advice in finding.advice


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("defaults:", "release: {extras: [scine]}\ndefaults:"),
        TEXT.replace("count: 2}", "count: 2}, puffin: {programs: {sparrow: {available: true}}}"),
    ],
)
def test_a_program_that_was_asked_for_and_is_missing_is_a_failure(text: str) -> None:
    missing = WorkerFinding("program sparrow", Severity.FAIL, "not installed: run 'puffin bootstrap'")
    (finding,) = wrong(with_examination(worker_findings=(missing,)), parse_inventory(text, "hosts.yaml"))
    assert (finding.severity.value, finding.check, finding.what) == ("fail", "program sparrow", "not installed")
    assert "release: {extras: [scine]}" in finding.advice


@pytest.mark.parametrize(
    ("state", "exitstatus", "spawnerr", "what"),
    [
        ("FATAL", 0, "can't find command", "supervisord gave up: can't find command"),
        ("BACKOFF", 1, "", "it ends as soon as it is started"),
        ("EXITED", 3, "", "exit code 3: quarantined after many failures in a row"),
        ("EXITED", 2, "", "exit code 2: its settings are refused"),
    ],
)
def test_a_worker_that_is_down_with_its_last_words(state: str, exitstatus: int, spawnerr: str, what: str) -> None:
    found = with_supervisord(program("node1-1"), program("node1-2", state, exitstatus, spawnerr))
    found = replace(found, examination=replace(found.examination, logs={"node1-2": ("first", "last {words}")}))
    (finding,) = wrong(found)
    assert (finding.severity, finding.check) == (Severity.FAIL, "node1-2")
    assert what in finding.what
    assert finding.what.endswith("\n  first\n  last {words}")
    assert "puffin-fleet logs --host node1" in finding.advice


def test_a_worker_between_its_end_and_its_next_start_is_well() -> None:
    assert wrong(with_supervisord(program("node1-1"), program("node1-2", "EXITED", ExitCode.RECYCLE))) == []


def test_a_worker_that_ended_by_itself_is_odd() -> None:
    (finding,) = wrong(with_supervisord(program("node1-1"), program("node1-2", "EXITED")))
    assert (finding.severity, finding.check) == (Severity.WARN, "node1-2")
    assert "nobody stopped it" in finding.what


def test_a_fleet_that_was_stopped_through_the_database_is_not_wrong() -> None:
    result = HostResult("node1", with_supervisord(program("node1-1", "EXITED"), program("node1-2", "EXITED")))
    hosts = {"node1": FLEET.hosts[0]}
    assert {finding.severity for finding in of_hosts(FLEET, hosts, [result], stopped=True)} == {Severity.OK}
    assert {finding.severity for finding in of_hosts(FLEET, hosts, [result])} == {Severity.OK, Severity.WARN}


def test_what_was_stopped_on_purpose_is_not_wrong() -> None:
    down = with_supervisord(program("node1-1", "EXITED"), program("node1-2", "STOPPED"))
    assert wrong(replace(down, facts=replace(down.facts, stop=True))) == []
    named = replace(down, facts=replace(down.facts, stopped=frozenset({"node1-1", "node1-2"})))
    assert wrong(named) == []


def test_nothing_deployed_is_not_wrong() -> None:
    nothing = with_facts(
        current=None,
        files=(),
        supervisors=(),
        boot=Boot("none", False, "systemd", ""),
        supervisord=Supervisord(False, False, None, "", None, None, ()),
    )
    nothing = replace(nothing, examination=replace(nothing.examination, worker=None, worker_findings=()))
    assert wrong(nothing) == []


def test_an_inaccurate_clock_is_not_blamed_on_the_host() -> None:
    """Where question and answer took long, nobody knows how long each of them took."""
    slow = replace(good(), asked=80.0, answered=102.0)
    assert slow.clock_offset == 10.0
    assert wrong(slow) == []


@pytest.mark.parametrize(
    ("error", "check", "what", "advice"),
    [
        (UnreachableError("node1", "connect", "does not answer", "check the address"), "ssh", "does not", "address"),
        (UnknownHostKey("node1", "not known", "run: puffin-fleet trust", "f", "l"), "ssh", "not known", "trust"),
        (ChangedHostKey("node1", "HAS CHANGED", "ssh-keygen -R", "f", "l"), "ssh", "HAS CHANGED", "ssh-keygen"),
        (NoPythonError("node1", "examine", "no Python", "install it"), "python", "no Python", "install it"),
        (FleetError("something else"), "ssh", "something else", ""),
    ],
)
def test_a_host_that_could_not_be_examined(error: FleetError, check: str, what: str, advice: str) -> None:
    (finding,) = of_hosts(FLEET, {"node1": FLEET.hosts[0]}, [HostResult("node1", error=error)])
    assert (finding.host, finding.check, finding.severity) == ("node1", check, Severity.FAIL)
    assert what in finding.what
    assert advice in finding.advice


# The database -------------------------------------------------------------------------------------------------


def seen(**changes: Any) -> DatabaseSeen:
    whole = DatabaseSeen("db", "", "7.0", NOW, NOW - timedelta(seconds=1), NOW + timedelta(seconds=1))
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("found", "severity", "check", "what"),
    [
        (seen(problem="refused the login"), Severity.FAIL, "database", "refused the login"),
        (seen(clock=NOW + timedelta(seconds=20)), Severity.WARN, "clock", "20.0 s ahead of"),
        (seen(clock=NOW - timedelta(seconds=20)), Severity.WARN, "clock", "20.0 s behind"),
        (seen(stopped=True), Severity.WARN, "fleet", "told to stop"),
        (seen(records=[replace(RECORD, host="gone", seen=NOW)]), Severity.WARN, "workers", "run on gone"),
        (
            seen(records=[replace(RECORD, host="node1", worker="node1-1", seen=NOW - timedelta(hours=1))]),
            *(Severity.WARN, "reports", "node1-1 has not reported for 3600 s"),
        ),
    ],
)
def test_what_is_wrong_with_the_database(found: DatabaseSeen, severity: Severity, check: str, what: str) -> None:
    (finding,) = [each for each in of_database(FLEET, found) if each.severity is not Severity.OK]
    assert (finding.severity, finding.check) == (severity, check)
    assert what in finding.what
    assert finding.advice


def test_a_good_database_is_named_with_its_version() -> None:
    findings = of_database(FLEET, seen(records=[replace(RECORD, host="node1", seen=NOW)]))
    assert {finding.severity for finding in findings} == {Severity.OK}
    assert findings[0].what == "db, server version 7.0"


@pytest.mark.parametrize(
    ("database", "own", "expected"),
    [
        ('{uri: "mongodb://db:27018", names: [a]}', "{}", (("db", 27018),)),
        ('{uri: "mongodb://a,b:2,[::1]:3/x?replicaSet=r", names: [a]}', "{}", (("a", 27017), ("b", 2), ("::1", 3))),
        ("{ip: 10.0.0.1, names: [a]}", "{}", (("10.0.0.1", 27017),)),
        ('{uri: "mongodb://db:27018", names: [a]}', "{ip: 10.0.0.2, port: 5}", (("10.0.0.2", 5),)),
        ('{uri: "mongodb+srv://db.example", names: [a]}', "{}", ()),
        ('{uri: "mongodb://db", names: [a]}', "{ssh_tunnel: me@gateway}", ()),
    ],
)
def test_where_a_host_has_to_reach_the_database(database: str, own: str, expected: Any) -> None:
    text = f"fleet: lab\ndatabase: {database}\nhosts: {{n: {{workers: {{cores: 1}}, puffin: {{database: {own}}}}}}}\n"
    fleet = parse_inventory(text, "hosts.yaml")
    assert addresses(fleet, fleet.hosts[0]) == expected


@pytest.mark.parametrize(
    ("database", "own", "expected"),
    [
        ('{uri: "mongodb://db:27018", names: [a]}', "{}", True),
        ('{uri: "mongodb+srv://db.example", names: [a]}', "{}", True),
        ('{uri: "mongodb://db/?directConnection=true", names: [a]}', "{}", False),
        ('{uri: "mongodb://db", names: [a]}', "{ssh_tunnel: me@gateway}", False),
        ('{uri: "mongodb://db", names: [a]}', "{ip: 10.0.0.2}", False),
    ],
)
def test_whether_a_host_goes_where_the_replica_set_sends_it(database: str, own: str, expected: bool) -> None:
    text = f"fleet: lab\ndatabase: {database}\nhosts: {{n: {{workers: {{cores: 1}}, puffin: {{database: {own}}}}}}}\n"
    fleet = parse_inventory(text, "hosts.yaml")
    assert goes_to_members(fleet, fleet.hosts[0]) is expected


# What is shown ------------------------------------------------------------------------------------------------


def finding(host: str, severity: Severity = Severity.WARN, what: str = "w", advice: str = "") -> Finding:
    return Finding(host, "boot", severity, what, advice)


def test_the_same_finding_on_many_hosts_is_said_once_and_what_is_wrong_first() -> None:
    many = [finding(f"n{number}", advice=f"run: puffin-fleet deploy --host n{number}") for number in range(1, 6)]
    found = grouped([finding("a", Severity.OK), *many, finding("b", Severity.FAIL, advice="run: x --host b")])
    assert [(group.names, group.finding.advice) for group in found] == [
        ("b", "run: x --host b"),
        ("n1, n2, n3 and 2 more", "run: puffin-fleet deploy"),
        ("a", ""),
    ]
    assert [group.names for group in grouped([finding("")])] == ["fleet"]


def test_a_finding_of_each_hosts_own_worker_is_said_once() -> None:
    said = "this is what {}-1 says of itself on the host"
    many = [finding(f"n{number}", what=f"n{number}-1 is slow", advice=said.format(f"n{number}")) for number in (1, 2)]
    (both,) = grouped(many)
    assert (both.names, both.finding.what) == ("n1, n2", "<host>-1 is slow")
    assert both.finding.advice == said.format("<host>")
    (one,) = grouped(many[:1])
    assert (one.finding.what, one.finding.advice) == ("n1-1 is slow", said.format("n1"))


def test_lines_fit_and_commands_stay_in_one_piece() -> None:
    text = "run: puffin-fleet " + "x" * 50 + " then wait\n  a line of a log"
    assert max(len(line) for line in _wrapped(text, 80)) <= 74
    assert _wrapped(text, None) == text.splitlines()
    assert any("x" * 50 in line for line in _wrapped(text, 46))


def test_an_examination_of_this_machine_leaves_nothing(tmp_path: Path) -> None:
    from fleet.hostside import examine
    from fleet.reach import probing
    from fleet.watch.examination import parse_examined

    request = probing.probe_request("lab", "node1", str(tmp_path / "pool"), str(tmp_path / "scratch"))
    before = time.time()
    closed = [["127.0.0.1", 1]]
    found = parse_examined(
        "node1", examine.main({**request, "addresses": closed, "members": closed}), before, time.time()
    )
    assert list(tmp_path.iterdir()) == []
    assert (found.examination.base.tried, found.examination.base.write) == (str(tmp_path), "")
    assert found.examination.base.file_system
    assert found.examination.reachable[0].problem
    assert found.examination.members[0].problem
    assert abs(found.clock_offset) <= found.clock_doubt + 1e-6
    assert doctor.of_hosts(FLEET, {"node1": FLEET.hosts[0]}, [HostResult("node1", found)])


def test_a_wrapper_that_could_only_start_the_worker_is_not_asked(tmp_path: Path) -> None:
    from fleet.hostside import examine

    wrapper = tmp_path / "bin/worker"
    wrapper.parent.mkdir()
    wrapper.write_text("#!/bin/sh\ntouch started\n")
    wrapper.chmod(0o755)
    findings, problem = examine._ask_worker(tmp_path, "node1-1", None)
    assert (findings, "is of an older puffin-fleet" in problem) == ([], True)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("line", "findings"),
    [
        ('{"check": "disk", "severity": "warn", "what": "little"}', [("disk", "warn", "little")]),
        ('{"subject": "disk", "verdict": "FAIL", "detail": "none"}', [("disk", "fail", "none")]),  # release 0.1.0
        ('{"check": "disk", "severity": "bad", "what": "x"}', []),
        ('{"check": "disk", "severity": "ok"}', []),
        ("[]", []),
        ("a warning of some library", []),
    ],
)
def test_what_a_worker_says_of_itself(tmp_path: Path, line: str, findings: list[tuple[str, str, str]]) -> None:
    from fleet.hostside import examine

    wrapper = tmp_path / "bin/worker"
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\n# \"$@\"\ncat <<'END'\n{line}\nEND\n")
    wrapper.chmod(0o755)
    found, problem = examine._ask_worker(tmp_path, "node1-1", None)
    assert [(each["check"], each["severity"], each["what"]) for each in found] == findings
    assert bool(problem) is not bool(findings)


def test_a_lost_release_is_noticed(tmp_path: Path) -> None:
    from fleet.hostside import examine

    assert examine.release_problem(tmp_path) == ""
    (tmp_path / "current").symlink_to("../../releases/r1")
    assert "points to ../../releases/r1, which is not there" in examine.release_problem(tmp_path)
    (tmp_path / "current").unlink()
    target = tmp_path / "release"
    (target / "bin").mkdir(parents=True)
    (tmp_path / "current").symlink_to(target)
    assert "cannot be run: No such file" in examine.release_problem(tmp_path)
    (target / "bin/puffin").write_text("#!/bin/sh\necho broken >&2\nexit 5\n")
    (target / "bin/puffin").chmod(0o755)
    assert examine.release_problem(tmp_path) == "'puffin --version' ends with status 5: broken"


def test_a_socket_may_be_as_long_here_as_the_hosts_find_it() -> None:
    assert machine_checks.LONGEST_SOCKET_PATH == places.LONGEST_SOCKET_PATH
