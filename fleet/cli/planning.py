"""What plan and deploy share: look at the hosts, and show what there is to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from fleet.cli.options import Chosen
from fleet.cli.output import Board, data_console, note, print_json, report_failures
from fleet.deployment.diffs import Diffs, read_diffs
from fleet.deployment.plantext import PlanLine, grouped, summary, why_consent
from fleet.deployment.survey import Goal, HostWork, survey
from fleet.errors import FleetError, RemoteError
from fleet.hosts.access import Remotes, read_password
from fleet.hosts.names import condensed
from fleet.reach.execute import say_for
from fleet.reach.remote import HostResult
from fleet.release.bundle import default_cache
from fleet.watch.status import status_of
from puffin.errors import DatabaseError
from puffin.records import WorkerRecord

if TYPE_CHECKING:
    from puffin.store import Store

_STYLES = {
    "add": "green",
    "start": "green",
    "remove": "red",
    "recycle": "yellow",
    "restart": "yellow",
    "wait": "yellow",
    "drift": "magenta",
}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True)
class Known:
    """What the database knows of the fleet; no records where it could not be asked."""

    records: Sequence[WorkerRecord] | None = None
    alive: frozenset[str] = frozenset()
    stopped: bool = False


def known_of(chosen: Chosen, store: Store, must: bool) -> Known:
    """Ask the database what a plan depends on, and warn of what is odd.

    Parameters
    ----------
    chosen
        The fleet.
    store
        Its database.
    must
        Whether nothing can be done without; else a note says that the database could not be asked.

    Raises
    ------
    FleetError
        It must be asked and cannot.
    """
    try:
        records = store.registry.workers(chosen.fleet.name, brief=True)
        alive = [status.record.worker for status in status_of(records, store.server_time()) if status.works]
        stopped = store.control.is_stopped(chosen.fleet.name)
    except DatabaseError as error:
        if must:
            raise FleetError(
                f"{error}\n  A deploy watches its workers through the database; check the section 'database' of "
                f"{chosen.fleet.source} and the server"
            ) from error
        note(f"{error}\n  The plan is made from the hosts alone.", "yellow")
        return Known()
    _warn_of_strangers(chosen, records, frozenset(alive))
    if stopped:
        note("The fleet was told to stop: its workers stay down until 'puffin-fleet start'.", "yellow")
    return Known(records, frozenset(alive), stopped)


def _warn_of_strangers(chosen: Chosen, records: Sequence[WorkerRecord], alive: frozenset[str]) -> None:
    known = {host.name for host in chosen.fleet.hosts}
    hosts = sorted({record.host for record in records if record.worker in alive and record.host not in known})
    if hosts:
        note(
            f"Workers run on {', '.join(hosts)}, which {chosen.fleet.source} does not have. To end them put "
            f"the host back, run 'puffin-fleet stop --host {hosts[0]} --supervisord', and remove it again.",
            "yellow",
        )


def survey_chosen(
    chosen: Chosen,
    remotes: Remotes,
    known: Known,
    parallel: int,
    *,
    refresh: bool,
    repair: bool = False,
    back_to: str | None = None,
) -> list[HostResult[HostWork]]:
    """Look at the hosts and work out what there is to do on each.

    Parameters
    ----------
    chosen
        The hosts.
    remotes
        Connections to them.
    known
        What the database knows.
    parallel
        Hosts at a time.
    refresh
        Whether to look for newer versions of what the workers require.
    back_to
        The release to go back to; None for what hosts.yaml asks for.
    repair
        Whether what was changed by hand on the hosts may be undone.
    """
    goal = Goal(
        fleet=chosen.fleet,
        password=read_password(chosen.fleet),
        records=known.records,
        cache=default_cache(),
        alive=known.alive,
        stopped=known.stopped,
        refresh=refresh,
        back_to=back_to,
        repair=repair,
    )
    with Board("Looking at the hosts", len(chosen.hosts)) as board:
        return survey(goal, chosen.hosts, remotes, parallel, say_for(board))


def diffs_of(works: Sequence[HostResult[HostWork]], remotes: Remotes, parallel: int) -> tuple[dict[str, Diffs], int]:
    """Read how files change, and report the hosts that could not be asked.

    Parameters
    ----------
    works
        Of all hosts.
    remotes
        Connections to them.
    parallel
        Hosts at a time.

    Returns
    -------
    diffs, failed
        By host: how its files change. How many hosts could not be asked.
    """
    found = read_diffs(works, remotes, parallel)
    return {each.host: each.value for each in found if each.value is not None}, report_failures(found)


def with_diffs(
    works: Sequence[HostResult[HostWork]], remotes: Remotes, parallel: int
) -> tuple[list[HostResult[HostWork]], dict[str, Diffs]]:
    """Read how files change; a host that cannot be asked has failed, since nobody has seen what would change there.

    Parameters
    ----------
    works
        Of all hosts, in their order, which is kept.
    remotes
        Connections to them.
    parallel
        Hosts at a time.
    """
    found = {each.host: each for each in read_diffs(works, remotes, parallel)}
    errors = {host: each.error for host, each in found.items() if each.error is not None}
    checked = [
        HostResult[HostWork](work.host, error=errors[work.host], seconds=work.seconds) if work.host in errors else work
        for work in works
    ]
    return checked, {host: each.value for host, each in found.items() if each.value is not None}


def show_plans(
    works: Sequence[HostResult[HostWork]], json_lines: bool, diffs: Mapping[str, Diffs] | None = None
) -> None:
    """Print what there is to do on each host, as data.

    Parameters
    ----------
    works
        Of all hosts; those that failed are left to the caller.
    json_lines
        One JSON line for each host, instead of lines for people.
    diffs
        From `diffs_of`, by host; None where nobody asked for them.
    """
    if json_lines:
        for work in works:
            if work.value is not None:
                mine = {} if diffs is None else {"diffs": diffs.get(work.host, {})}
                print_json(work.value.plan.to_json() | mine)
        return
    plans = [work.value.plan for work in works if work.value is not None]
    if diffs is None:
        for hosts, lines in grouped(plans):
            _show_plan(hosts, lines, {})
    else:
        for plan in plans:
            _show_plan((plan.host,), summary(plan), diffs.get(plan.host, {}))
    _say_how_many(works)


def _show_plan(hosts: Sequence[str], lines: Sequence[PlanLine], diffs: Diffs) -> None:
    console = data_console()
    if lines:
        title = Text(condensed(hosts), style="bold")
        console.print(title.append(f"  ({len(hosts)} hosts)", style="dim") if len(hosts) > 1 else title)
    for line in lines:
        console.print(_plan_line(line))
        for text in _diff_lines(line, diffs):
            console.print(text)


def refuse_without_consent(works: Sequence[HostResult[HostWork]]) -> list[HostResult[HostWork]]:
    """Take out the hosts on which a deploy would undo what somebody changed by hand: they have failed.

    Parameters
    ----------
    works
        Of all hosts, in their order, which is kept.
    """
    hint = "see it with 'puffin-fleet plan --diff'; 'puffin-fleet deploy --repair' writes over it"
    refused = []
    for work in works:
        why = why_consent(work.value.plan) if work.value is not None else ""
        error = RemoteError(work.host, "looking for drift", why, hint)
        refused.append(HostResult[HostWork](work.host, error=error, seconds=work.seconds) if why else work)
    return refused


def _say_how_many(works: Sequence[HostResult[HostWork]]) -> None:
    found = [work.value for work in works if work.value is not None]
    if not found:
        return
    same = sum(work.plan.empty for work in found)
    lost = f", {len(works) - len(found)} cannot be deployed" if len(found) < len(works) else ""
    waits = sum(work.plan.empty and work.plan.unproven for work in found)
    open_ = f", {waits} of them not proven yet" if waits else ""
    note(f"{len(found) - same} of {len(works)} hosts to change, {same} as they should be{open_}{lost}.")
    asking = [work.plan.host for work in found if work.plan.needs_consent]
    if asking:
        note(f"Files were changed by hand on {', '.join(asking)}; --repair writes over them.", "yellow")


def _plan_line(line: PlanLine) -> Text:
    text = Text("  ")
    text.append(f"{line.action:8}", style=_STYLES.get(line.action, ""))
    text.append(f" {line.subject}")
    if line.detail:
        text.append(f"  {line.detail}", style="dim")
    return text


def _diff_lines(line: PlanLine, diffs: Diffs) -> list[Text]:
    if line.action != "write":
        return []
    return [Text(f"    {text}", style=_diff_style(text)) for text in diffs.get(line.subject, "").splitlines()]


def _diff_style(line: str) -> str:
    if line.startswith(("---", "+++")):
        return "bold"
    return _DIFF_STYLES.get(line[:1], "")
