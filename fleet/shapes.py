"""What ``--json`` prints: one class for each kind of record. Scripts rely on these keys; docs/json.md is made of them.

A key stands in every record unless its class says ``total=False``. Keys may be added; none changes its meaning or type.
However long, it is one module: an interface is read, and its page made, as one catalogue.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict


class Finding(TypedDict):
    """One line for each thing that was looked at, also where all is well."""

    host: Annotated[str | None, "where; null for what concerns the database or the whole fleet"]
    check: Annotated[str, "what was looked at"]
    severity: Annotated[str, "`ok`, `warn` or `fail`"]
    what: Annotated[str, "what was found"]
    next: Annotated[str | None, "what to do about it; null where there is nothing to do"]


class FileToWrite(TypedDict):
    """A file that a deploy writes."""

    path: Annotated[str, "below the host's own directory"]
    mode: Annotated[str, "permissions, octal"]
    reason: Annotated[str, "`new`, `changed`, or `mode` where only the permissions differ"]


# Written so because `from` is a word of the language.
Switch = TypedDict(
    "Switch",
    {
        "from": Annotated[str | None, "the release that runs; null at first"],
        "to": Annotated[str, "the release that will run"],
    },
)


class WorkerChange(TypedDict):
    """A worker that ends and starts anew."""

    worker: Annotated[str, "its name"]
    how: Annotated[str, "`recycle`, or `restart` where its section of supervisord's configuration changed"]
    reasons: Annotated[list[str], "what differs"]


class Drift(TypedDict):
    """What was done by hand since the last deploy."""

    files_changed: Annotated[list[str], "files that a deploy wrote and somebody changed"]
    files_missing: Annotated[list[str], "files that a deploy wrote and somebody removed"]
    files_strange: Annotated[list[str], "files among those of the workers that no deploy wrote; never touched"]
    workers_stopped: Annotated[list[str], "workers that `supervisorctl stop` stopped"]


class _Plan(TypedDict):
    host: Annotated[str, "its name"]
    empty: Annotated[bool, "whether nothing has to be changed"]
    needs_consent: Annotated[bool, "whether a deploy refuses for want of `--repair`"]
    repair: Annotated[bool, "whether `--repair` was given"]
    drift: Annotated[Drift, "what was done by hand since the last deploy"]
    wheels_to_upload: Annotated[list[str], "wheels that the host lacks"]
    install_release: Annotated[str | None, "the release that is installed beside what is there"]
    supervisor_to_install: Annotated[str | None, "the version of supervisor that is installed"]
    files_to_write: Annotated[list[FileToWrite], "files that are written"]
    files_to_remove: Annotated[list[str], "files of workers that go"]
    switch_release: Annotated[Switch | None, "the release that runs, and the one that will"]
    start_supervisord: Annotated[bool, "whether supervisord is started"]
    workers_added: Annotated[list[str], "workers that are new"]
    workers_changed: Annotated[list[WorkerChange], "workers that end after their calculation and start anew"]
    workers_removed: Annotated[list[str], "workers that end after their calculation"]
    workers_to_start: Annotated[list[str], "workers that are there and do not run"]
    drained: Annotated[str, "who keeps the host out of the fleet and why; empty where nobody does"]
    kept_stopped: Annotated[list[str], "workers that somebody stopped and that stay so"]
    unchanged: Annotated[list[str], "workers that nothing happens to"]
    stale_stops: Annotated[list[str], "stop files that are cleared"]
    stop_files: Annotated[list[str], "stop files that are written to keep workers stopped"]
    strangers: Annotated[list[str], "programs under supervisord that are not from here"]
    enable_boot: Annotated[bool, "whether the start at boot is arranged"]
    disable_boot: Annotated[bool, "whether the start at boot is taken back"]
    no_boot: Annotated[str, "why the start at boot cannot be arranged; empty where it can"]
    unproven: Annotated[bool, "whether no deploy has seen the workers healthy yet; the next one waits for them"]


class Plan(_Plan, total=False):
    """One line for each host: what a deploy would change. Paths are relative to the host's own directory."""

    diffs: Annotated[dict[str, str], "with `--diff`: how each file changes, by path, secrets hidden"]


class WorkerOutcome(TypedDict):
    """A worker after a deploy."""

    worker: Annotated[str, "its name"]
    health: Annotated[str, "`healthy`, `starting`, `draining`, `stopped` or `failed`"]


class Deployed(TypedDict):
    """One line for each host."""

    host: Annotated[str, "its name"]
    ok: Annotated[bool, "whether it is as hosts.yaml describes it"]
    outcome: Annotated[
        str,
        "`deployed` or `rolled back`, `unchanged`, `marked` where workers change later; `failed`, `put back` or "
        "`not begun` if not `ok`",
    ]
    release: Annotated[str | None, "the release that it was to get"]
    changed: Annotated[bool | None, "whether anything was changed; null if not `ok`"]
    workers: Annotated[list[WorkerOutcome], "its workers, where it was waited for them"]
    pending: Annotated[list[str], "workers that change when their calculation has ended"]
    later: Annotated[list[str], "workers that wait for the next deploy, where this one did not wait for others"]
    took_s: Annotated[float, "seconds it took"]
    error: Annotated[str, "why not, and what to do; empty if `ok`"]


class Stopped(TypedDict):
    """One line for each host."""

    host: Annotated[str, "its name"]
    ok: Annotated[bool, "whether it could be told"]
    changed: Annotated[bool | None, "whether it was not told so before; null where it could not be told"]
    running: Annotated[list[str] | None, "workers that still run; null where that is not known"]
    by_database: Annotated[bool, "whether it could not be told by SSH, but was through the database"]
    trouble: Annotated[str, "why it could not be reached, also while its workers ended; empty if it was"]
    error: Annotated[str, "what went wrong; empty if nothing"]


class Started(TypedDict):
    """One line for each host."""

    host: Annotated[str, "its name"]
    ok: Annotated[bool, "whether it went well"]
    running: Annotated[list[str] | None, "workers that run; null where that is not known"]
    starting: Annotated[list[str] | None, "those of them that have only just been started"]
    ending: Annotated[list[str] | None, "those of them that were told to end before, and will"]
    drained: Annotated[str, "who keeps the host out of the fleet and why; empty where nobody does"]
    error: Annotated[str, "what went wrong; empty if nothing"]


class Restarted(TypedDict):
    """One line for each host."""

    host: Annotated[str, "its name"]
    ok: Annotated[bool, "whether it went well"]
    workers: Annotated[list[WorkerOutcome], "its workers, where it was waited for them"]
    pending: Annotated[list[str], "workers that restart when their calculation has ended"]
    drained: Annotated[str, "who keeps the host out of the fleet and why; empty where nobody does"]
    error: Annotated[str, "what went wrong; empty if nothing"]


class Scaled(TypedDict):
    """One line: the place in hosts.yaml."""

    file: Annotated[str, "the file"]
    line: Annotated[int, "the line, counted from 1"]
    before: Annotated[str, "what stands there"]
    after: Annotated[str, "what is to stand there"]
    hosts: Annotated[list[str], "hosts for which the line speaks"]
    written: Annotated[bool, "whether it was changed now"]


class Process(TypedDict):
    """One line for each process, orphans first."""

    host: Annotated[str, "where it runs"]
    pid: Annotated[int, "its number"]
    parent: Annotated[int, "its parent's number"]
    kind: Annotated[str, "`supervisord`, `worker`, `helper`, `job` or `stray`"]
    worker: Annotated[str, "whom it serves; empty where that is not known"]
    calculation: Annotated[str, "what it computes; empty where that is not known"]
    orphan: Annotated[bool, "whether nobody looks after it"]
    cpu: Annotated[float, "percent of one core since it began"]
    memory: Annotated[float, "resident, GB"]
    age_s: Annotated[float, "seconds since it began"]
    state: Annotated[str, "the kernel's letter for it; `T` is frozen"]
    command: Annotated[str, "its command line"]


class Executed(TypedDict):
    """One line for each host."""

    host: Annotated[str, "its name"]
    ok: Annotated[bool, "whether the command ended with 0"]
    status: Annotated[int | None, "exit code, or minus the signal; null where it did not end by itself"]
    timed_out: Annotated[bool, "whether it took longer than `--timeout`"]
    took_s: Annotated[float | None, "seconds it took"]
    stdout: Annotated[str, "what it printed"]
    stderr: Annotated[str, "what it printed to standard error"]
    error: Annotated[str, "why it could not be run; empty if it could"]


class Worker(TypedDict):
    """One line for each worker of the fleet, and one for each host of which no worker is known; a worker that was
    started by hand belongs to no fleet. Times are in UTC by the database server's clock; the last five need `--deep`.
    """

    uuid: Annotated[str, "its unique name; empty where it has never reported"]
    fleet: Annotated[str, "its fleet; empty where it has never reported"]
    host: Annotated[str, "its host"]
    worker: Annotated[str, "its name; empty for a host of which no worker is known"]
    release: Annotated[str, "the release it runs"]
    configuration: Annotated[str, "the hash of its settings"]
    pid: Annotated[int, "its process id on its host"]
    cores: Annotated[int, "cores its jobs may use"]
    memory: Annotated[float, "memory its jobs may use, GB"]
    disk: Annotated[float, "disk its jobs may use, GB"]
    programs: Annotated[list[str], "programs it has"]
    jobs: Annotated[list[str], "jobs it accepts"]
    state: Annotated[
        str,
        "`starting`, `idle`, `running`, `frozen`, `draining`, `stopped` or `quarantined`; `lost` where it is silent, "
        "`unreported` where only its host knows it, and for a host of which no worker is known",
    ]
    calculation: Annotated[str, "what it runs; empty if nothing"]
    job: Annotated[str, "the job of that, `job.order` in the database"]
    done: Annotated[int, "calculations since it started"]
    failed: Annotated[int, "those of them that failed"]
    restarts: Annotated[int, "starts after a crash"]
    started: Annotated[str | None, "when it started"]
    seen: Annotated[str | None, "when it last reported"]
    lasting_s: Annotated[float | None, "how long it had its calculation, or was in its state, when it last reported"]
    reports_within_s: Annotated[float | None, "how long it may be silent"]
    memory_used: Annotated[
        float | None, "what its calculation had when it last reported, GB, a second after its start at the earliest"
    ]
    returns: Annotated[int | None, "the process that has ended to be started again at once"]
    since: Annotated[str | None, "since when it has its calculation, or is in its state"]
    age_s: Annotated[float | None, "how long that is now"]
    silent_s: Annotated[float | None, "how long ago it last reported"]
    wanted_release: Annotated[str, "the release to which its host was last deployed"]
    troubles: Annotated[list[str], "what is wrong with it, in words; empty if nothing"]
    drained: Annotated[str, "who keeps its host out of the fleet and why; empty where nobody does"]
    fleet_stopped: Annotated[bool, "whether the whole fleet is told to stop"]
    supervisord: Annotated[str | None, "the state that supervisord gives it; null without `--deep`"]
    alive: Annotated[bool | None, "whether its process runs"]
    orphan: Annotated[bool | None, "whether it runs without supervisord"]
    told_to_stop: Annotated[bool | None, "whether it is told to stop"]
    recycling: Annotated[bool | None, "whether it is told to start again when its calculation has ended"]


class Event(TypedDict):
    """One line for each event."""

    id: Annotated[str, "its own"]
    at: Annotated[str, "when it happened, in UTC, by the clock of the one who noted it"]
    kind: Annotated[
        str,
        "what happened, such as `claimed`, `finished`, `failed`, `given_back` (by its worker), `requeued` (by an "
        "operator), `reset`, `frozen`, `deployed`, `put_back`",
    ]
    worker: Annotated[str, "whom it concerns; for what a person did, who that was"]
    host: Annotated[str, "where"]
    fleet: Annotated[str, "its fleet"]
    calculation: Annotated[str, "the calculation; empty where there is none"]
    detail: Annotated[str, "more, in words"]


class Log(TypedDict):
    """One line for each message."""

    worker: Annotated[str, "who wrote it"]
    text: Annotated[str, "as it stands in the file; has line ends where several lines belong together"]
    time: Annotated[str, "when it was written, in UTC; for a line without a time that of the one before"]
    host: Annotated[str, "where"]
    file: Annotated[str, "`log`, or `out` for what a worker printed"]
    level: Annotated[str, "such as `INFO`; empty for a line that is not of a worker's log"]
    calculation: Annotated[str | None, "the calculation it is about"]
    message: Annotated[str, "the message alone"]


class Collected(TypedDict):
    """One line for each host; `manifest.json` has more."""

    host: Annotated[str, "its name"]
    ok: Annotated[bool, "whether it could be asked, and all that came is here as it was there"]
    files: Annotated[int, "files of the host that are here now, as in the table; also what is made here of its answers"]
    bytes: Annotated[int, "their size"]
    fetched_bytes: Annotated[int, "bytes of its files that were fetched now"]
    problems: Annotated[list[str], "what was left out, and why"]
    error: Annotated[str, "what went wrong; empty if nothing"]


class DeedOnHost(TypedDict):
    """What came of a command on one host."""

    host: Annotated[str, "its name"]
    id: Annotated[str, "of the deed"]
    verb: Annotated[str, "the command"]
    who: Annotated[str, "user@machine"]
    began: Annotated[str | None, "when, in UTC, by the host's clock"]
    ended: Annotated[str | None, "when, in UTC, by the host's clock; null if it has not"]
    outcome: Annotated[str, "`done`, `failed`, `unchanged`, `interrupted` or `running`"]
    error: Annotated[str, "why it failed; may be empty"]
    release: Annotated[str, "the release the host had then; may be empty"]


class Deed(TypedDict):
    """One line for each command that changed hosts, the last one first."""

    id: Annotated[str, "its own"]
    verb: Annotated[str, "the command"]
    who: Annotated[str, "user@machine"]
    began: Annotated[str | None, "when, in UTC, by the clock of the machine where somebody did it"]
    hosts: Annotated[list[DeedOnHost], "what came of it on each host"]
    outcome: Annotated[str, "the worst of all hosts"]


class Removal(TypedDict):
    """Something that nothing needs any more."""

    kind: Annotated[str, "`release`, `wheel`, `tool`, `supervisor` or `cache`"]
    name: Annotated[str, "what it is called"]
    path: Annotated[str, "where it is on the host"]
    bytes: Annotated[int, "bytes that removing it gives back, after those above it"]


class Pruned(TypedDict):
    """One line for each host, or for several that share a home directory."""

    host: Annotated[str, "its name"]
    removals: Annotated[list[Removal], "what is removed; with `--dry-run`, what would be"]
    kept: Annotated[dict[str, str], "by release: why it stays"]
    bytes: Annotated[int, "that all of it gives back"]


class Unlocked(TypedDict):
    """One line for each host that was locked."""

    host: Annotated[str, "its name"]
    ok: Annotated[bool, "whether it went well"]
    removed: Annotated[bool, "whether there still was a lock"]


class Left(TypedDict):
    """Something that stays on a host."""

    path: Annotated[str, "where it is"]
    what: Annotated[str, "what it is"]
    files: Annotated[int, "how many files"]


class Destroyed(TypedDict):
    """One line for each host."""

    host: Annotated[str, "its name"]
    ok: Annotated[bool, "whether it went well"]
    changed: Annotated[bool | None, "whether there was anything to remove; null if not `ok`"]
    left: Annotated[list[Left], "what stays there: logs, failed calculations, lock files"]
    shared: Annotated[list[str], "hosts that go on using what is installed there"]
    error: Annotated[str, "what went wrong; empty if nothing"]


class Submitted(TypedDict):
    """One line for each molecule."""

    id: Annotated[str, "the calculation"]
    database: Annotated[str, "the database it is in"]
    name: Annotated[str, "the molecule's name"]
    added: Annotated[bool, "whether it is new; else the same was there"]
    status: Annotated[str, "its status now"]


class Tally(TypedDict):
    """How many calculations of one kind."""

    status: Annotated[str, "their status"]
    job: Annotated[str, "their job"]
    program: Annotated[str, "their program"]
    count: Annotated[int, "how many"]


class Untaken(TypedDict):
    """Calculations of one kind that wait in vain for the same reason."""

    job: Annotated[str, "the job, `job.order` in the database"]
    program: Annotated[str, "the program, `model.program` in the database"]
    count: Annotated[int, "how many"]
    reason: Annotated[str, "why no worker would take them"]
    cores: Annotated[int, "the least that any of them asks for"]
    memory: Annotated[float, "likewise, in GB"]
    disk: Annotated[float, "likewise, in GB"]


class QueueStatus(TypedDict):
    """One line for each database."""

    database: Annotated[str, "its name"]
    counts: Annotated[dict[str, int], "calculations by status"]
    cancelled: Annotated[int, "how many of the failed ones were cancelled"]
    kinds: Annotated[list[Tally], "calculations by status, job and program"]
    untaken: Annotated[list[Untaken], "what waits and no worker would take"]
    finished_last_hour: Annotated[int, "calculations that ended within the last hour"]
    per_hour: Annotated[float | None, "how many end in an hour; null where none did"]
    left_s: Annotated[float | None, "seconds until all that is taken has ended at that pace"]


class _Calculation(TypedDict):
    id: Annotated[str, "its own"]
    database: Annotated[str, "the database it is in"]
    status: Annotated[str, "`hold`, `new`, `pending`, `complete`, `failed`, `analyzed` or `construction`"]
    job: Annotated[str, "the job, `job.order` in the database"]
    program: Annotated[str, "of its model"]
    method_family: Annotated[str, "of its model"]
    method: Annotated[str, "of its model"]
    basis_set: Annotated[str, "of its model"]
    priority: Annotated[int, "1 is first, 10 last"]
    created: Annotated[str | None, "when it was put in, in UTC"]
    modified: Annotated[str | None, "when it last changed, in UTC"]
    runtime_s: Annotated[float | None, "seconds it took; null while it has not ended"]
    worker: Annotated[str, "who had it last"]
    host: Annotated[str, "where that was"]
    attempt: Annotated[int | None, "how often it was begun; null if never, or only by a SCINE Puffin"]
    comment: Annotated[str, "why it failed"]


class Calculation(_Calculation):
    """One line for each calculation."""

    inputs: Annotated[list[str], "ids of the structures it starts from"]


class Structure(TypedDict):
    """A structure."""

    id: Annotated[str, "its own"]
    name: Annotated[str, "as it was submitted; may be empty"]
    label: Annotated[str, "SCINE's label, such as `user_guess` or `minimum_optimized`"]
    formula: Annotated[str, "such as `H2O`"]
    charge: Annotated[int, "in elementary charges"]
    multiplicity: Annotated[int, "of its spin"]
    elements: Annotated[list[str], "symbols"]
    positions: Annotated[list[list[float]], "x, y, z of each atom, angstrom"]


class _Property(TypedDict):
    name: Annotated[str, "as in the database"]
    value: Annotated[Any, "a number, a text, true or false; for a vector a list of numbers; null for a matrix"]
    unit: Annotated[str, "its unit; empty where it has none or it is not known"]
    structure: Annotated[str, "id of the structure it belongs to"]


class Property(_Property, total=False):
    """Something that was computed."""

    shape: Annotated[list[int], "of a vector or matrix"]


class CalculationOutcome(_Calculation):
    """One line for each calculation, with what came of it."""

    inputs: Annotated[list[Structure], "structures it starts from"]
    name: Annotated[str, "of its molecule"]
    energy_hartree: Annotated[float | None, "electronic energy, hartree"]
    properties: Annotated[list[Property], "what was computed"]
    structures: Annotated[list[Structure], "structures that came out"]


class CalculationEvent(TypedDict):
    """Something that happened to a calculation."""

    at: Annotated[str, "when, in UTC"]
    kind: Annotated[str, "what happened"]
    worker: Annotated[str, "whom it concerns"]
    host: Annotated[str, "where"]
    fleet: Annotated[str, "its fleet"]
    calculation: Annotated[str, "the calculation"]
    detail: Annotated[str, "more, in words"]


class Shown(CalculationOutcome):
    """One line: a calculation with all that is known of it."""

    cores: Annotated[int, "what it asks for"]
    memory: Annotated[float, "what it asks for, GB"]
    disk: Annotated[float, "what it asks for, GB"]
    model: Annotated[dict[str, str], "its model, as in the database"]
    settings: Annotated[dict[str, Any], "its settings"]
    usage: Annotated[dict[str, float], "what it used: `wall_s`, `cpu_s`, `peak_memory_gb`; empty where not known"]
    lost_on: Annotated[list[str], "hosts that it was lost on"]
    raw_output: Annotated[str, "what it printed"]
    events: Annotated[list[CalculationEvent], "what happened to it"]


class Changed(TypedDict):
    """One line for each calculation."""

    id: Annotated[str, "its own"]
    database: Annotated[str, "the database it is in"]
    was: Annotated[str, "its status before"]
    changed: Annotated[bool, "whether it was changed"]
    reason: Annotated[str, "why not; empty if it was"]


class DemoResult(TypedDict):
    """One line for each molecule of the demo."""

    molecule: Annotated[str, "its name"]
    id: Annotated[str, "the calculation"]
    status: Annotated[str, "its status"]
    runtime_s: Annotated[float | None, "seconds it took"]
    worker: Annotated[str, "who ran it"]
    comment: Annotated[str, "why it failed"]
    energy_hartree: Annotated[float | None, "electronic energy, hartree"]


class WorkerFinding(TypedDict):
    """One line for each thing that a worker needs."""

    check: Annotated[str, "what was looked at"]
    severity: Annotated[str, "`ok`, `warn` or `fail`"]
    what: Annotated[str, "what was found, and what to do about it"]


class WorkerShape(TypedDict):
    """Workers of one kind on a host, as hosts.yaml describes them."""

    cores: Annotated[int, "cores of each"]
    memory: Annotated[float, "memory of each, GB"]
    disk: Annotated[float | None, "disk of each, GB"]
    gpus: Annotated[int, "GPUs of each"]
    count: Annotated[int | str, "how many, or `auto`"]
    jobs: Annotated[list[str], "the jobs it takes; empty for all"]


class InventoryHost(TypedDict):
    """One line for each host of hosts.yaml."""

    host: Annotated[str, "its name"]
    connection: Annotated[str, "`ssh` or `local`"]
    address: Annotated[str, "its address; empty for this machine"]
    user: Annotated[str | None, "the user there; null for what `~/.ssh/config` says"]
    groups: Annotated[list[str], "its groups, in order"]
    base_dir: Annotated[str, "where the fleet's files are"]
    scratch: Annotated[str | None, "where its jobs work; null for below base_dir"]
    workers: Annotated[list[WorkerShape], "its workers"]


class Told(TypedDict):
    """One line for each try to tell a hook of something."""

    event: Annotated[str, "`failed`, `quarantined`, `host_lost` or `queue_empty`"]
    id: Annotated[str, "the same each time this is told"]
    at: Annotated[str, "when it happened, in UTC"]
    text: Annotated[str, "it, in words"]
    hook: Annotated[str, "the hook, without what may be secret in its address"]
    told: Annotated[bool, "whether it was told"]
    tries: Annotated[int, "how often that was tried"]
    error: Annotated[str, "why it could not be told; empty if it was"]
    again_at: Annotated[str | None, "when it is tried again; null where it was told, or is given up"]


PRINTED: dict[str, type] = {
    "check": Finding,
    "plan": Plan,
    "deploy": Deployed,
    "rollback": Deployed,
    "stop": Stopped,
    "start": Started,
    "restart": Restarted,
    "drain": Stopped,
    "resume": Started,
    "scale": Scaled,
    "ps": Process,
    "exec": Executed,
    "status": Worker,
    "events": Event,
    "logs": Log,
    "collect": Collected,
    "history": Deed,
    "notify": Told,
    "inventory": InventoryHost,
    "prune": Pruned,
    "unlock": Unlocked,
    "destroy": Destroyed,
    "queue submit": Submitted,
    "queue status": QueueStatus,
    "queue list": Calculation,
    "queue show": Shown,
    "queue results": CalculationOutcome,
    "queue requeue": Changed,
    "queue hold": Changed,
    "queue release": Changed,
    "queue cancel": Changed,
    "demo": DemoResult,
}
"""By verb of ``puffin-fleet``: the record that its ``--json`` prints, one to a line."""
