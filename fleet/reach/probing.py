"""What a host is asked about itself, and the records in its reply. Pure: `fleet.reach.execute.ask` does the asking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.reach.affinity import Processor
from fleet.reach.facts import (
    Boot,
    Disk,
    Drained,
    Facts,
    FileFact,
    Gpu,
    Hardware,
    Holder,
    Lock,
    Orphan,
    Program,
    Python,
    Release,
    Roomy,
    States,
    Supervisord,
    Wheel,
)
from fleet.reach.reply import Reader

ACTION = "probe"


def probe_request(
    fleet: str,
    host: str,
    base_dir: str,
    scratch: str | None = None,
    python: str | None = None,
    *,
    gpus: bool = False,
    look_around: bool = False,
) -> dict[str, Any]:
    """Build the request of the action `probe`; paths may start with `~`, which is expanded on the host.

    Parameters
    ----------
    fleet, host
        Their names.
    base_dir
        Directory of all fleets on the host.
    scratch
        Below which calculations run; None: not looked at.
    python
        `release.python` as configured; told to the host, where nothing depends on it.
    gpus
        Whether to look for GPUs, which may take seconds.
    look_around
        Whether to look for places fit for scratch.
    """
    place = {"fleet": fleet, "host": host, "base_dir": base_dir, "scratch": scratch, "python": python}
    return {**place, "gpus": gpus, "look_around": look_around}


def parse(host: str, reply: Mapping[str, Any]) -> Facts:
    """Read the reply of a probe.

    Raises
    ------
    RemoteError
        It is not what a probe replies; the message names the entry.
    """
    reader = Reader(host, "", reply)
    return Facts(
        host=host,
        user=reader.text("user"),
        home=reader.text("home"),
        hostname=reader.text("hostname"),
        clock=reader.number("clock"),
        base_dir=reader.text("base_dir"),
        fleet_root=reader.text("fleet_root"),
        host_root=reader.text("host_root"),
        scratch=reader.optional("scratch", reader.text),
        run_dir=reader.text("run_dir"),
        shared=reader.flag("shared"),
        roomy=tuple(Roomy(item.text("path"), item.number("free")) for item in reader.items("roomy")),
        hardware=_hardware(reader.inner("hardware")),
        python=_python(reader.inner("python")),
        releases=tuple(Release(item.text("id"), item.optional("path", item.text)) for item in reader.items("releases")),
        wheels=tuple(
            Wheel(item.text("sha256"), item.text("name"), item.whole("size")) for item in reader.items("wheels")
        ),
        uv_versions=reader.inner("uv").texts("installed"),
        supervisors=reader.texts("supervisors"),
        current=reader.optional("current", reader.text),
        previous=reader.optional("previous", reader.text),
        supervisor=reader.optional("supervisor", reader.text),
        files=_files(reader.inner("files")),
        stop=reader.flag("stop"),
        stopped=frozenset(reader.texts("stopped")),
        recycling=frozenset(reader.texts("recycling")),
        manifest=reader.optional("manifest", reader.text),
        good=reader.optional("good", reader.text),
        supervisord=_supervisord(reader.inner("supervisord")),
        drifted=frozenset(reader.texts("drifted")),
        fresh=frozenset(reader.texts("fresh")),
        orphans=tuple(_orphan(item) for item in reader.items("orphans")),
        lock=_lock(reader.inner("lock")),
        boot=_boot(reader.inner("boot")),
        drained=_drained(reader),
    )


def _drained(reader: Reader) -> Drained | None:
    def read(key: str) -> Drained:
        note = reader.inner(key)
        return Drained(note.text("who"), note.text("why"), note.number("since"))

    return reader.optional("drained", read)


def parse_states(host: str, reply: Mapping[str, Any]) -> States:
    """Read the reply of `states`, or that part of the reply of `control` and `supervise`.

    Raises
    ------
    RemoteError
        It is not what these reply; the message names the entry.
    """
    reader = Reader(host, "", reply)
    pids = reader.inner("pids")
    return States(
        supervisord=_supervisord(reader.inner("supervisord")),
        stop=reader.flag("stop"),
        stopped=frozenset(reader.texts("stopped")),
        recycling=frozenset(reader.texts("recycling")),
        pids={name: pids.whole(name) for name in pids.names()},
        current=reader.optional("current", reader.text),
        clock=reader.number("clock"),
        drained=_drained(reader),
        ending=frozenset(reader.texts("ending")),
        words=reader.optional("words", lambda key: _texts(reader.inner(key))) or {},
        free=reader.optional("free", reader.whole),
    )


def _texts(reader: Reader) -> dict[str, str]:
    return {name: reader.text(name) for name in reader.names()}


def _hardware(reader: Reader) -> Hardware:
    cores, memory = reader.inner("cores"), reader.inner("memory")
    return Hardware(
        cores=cores.whole("cores"),
        physical=cores.optional("physical", cores.whole),
        logical=cores.whole("logical"),
        quota=cores.optional("quota", cores.number),
        cpus=cores.wholes("cpus"),
        processors=tuple(
            Processor(item.whole("cpu"), item.whole("core"), item.whole("node")) for item in cores.items("processors")
        ),
        memory=memory.number("total"),
        disk=_disk(reader.inner("disk")),
        scratch=reader.optional("scratch", lambda key: _disk(reader.inner(key))),
        gpus=reader.optional(
            "gpus", lambda key: tuple(Gpu(item.text("id"), item.text("name")) for item in reader.items(key))
        ),
    )


def _disk(reader: Reader) -> Disk:
    return Disk(
        path=reader.text("path"),
        exists=reader.flag("exists"),
        free=reader.number("free"),
        inodes=reader.whole("inodes"),
        writable=reader.flag("writable"),
    )


def _python(reader: Reader) -> Python:
    return Python(
        executable=reader.text("executable"),
        version=reader.text("version"),
        implementation=reader.text("implementation"),
        machine=reader.text("machine"),
        system=reader.text("system"),
        libc=reader.text("libc"),
        libc_version=reader.text("libc_version"),
        platform=reader.text("platform"),
    )


def _files(reader: Reader) -> tuple[FileFact, ...]:
    found = []
    for path in reader.names():
        entry = reader.inner(path)
        found.append(FileFact(path, entry.text("sha256"), entry.whole("mode")))
    return tuple(found)


def _supervisord(reader: Reader) -> Supervisord:
    return Supervisord(
        running=reader.flag("running"),
        reachable=reader.flag("reachable"),
        pid=reader.optional("pid", reader.whole),
        socket=reader.text("socket"),
        version=reader.optional("version", reader.text),
        problem=reader.optional("problem", reader.text),
        programs=tuple(_program(item) for item in reader.items("programs")),
    )


def _program(reader: Reader) -> Program:
    return Program(
        name=reader.text("name"),
        state=reader.text("state"),
        pid=reader.whole("pid"),
        description=reader.text("description"),
        spawnerr=reader.text("spawnerr"),
        exitstatus=reader.whole("exitstatus"),
        start=reader.whole("start"),
        stop=reader.whole("stop"),
        now=reader.whole("now"),
    )


def _boot(reader: Reader) -> Boot:
    return Boot(
        kind=reader.text("kind"),
        current=reader.flag("current"),
        available=reader.text("available"),
        why=reader.text("why"),
    )


def _orphan(reader: Reader) -> Orphan:
    return Orphan(
        pid=reader.whole("pid"),
        parent=reader.whole("parent"),
        worker=reader.optional("worker", reader.text),
        command=reader.text("command"),
    )


def _lock(reader: Reader) -> Lock:
    return Lock(reader.whole("serial"), reader.optional("holder", lambda key: read_holder(reader.inner(key))))


def read_holder(reader: Reader) -> Holder:
    """Read who holds a lock, in the reply of any action that says so.

    Raises
    ------
    RemoteError
        It is not what these reply; the message names the entry.
    """
    return Holder(
        id=reader.text("id"),
        who=reader.text("who"),
        verb=reader.text("verb"),
        since=reader.number("since"),
        age=reader.number("age"),
        left=reader.number("left"),
    )
