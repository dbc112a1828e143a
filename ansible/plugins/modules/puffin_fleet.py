#!/usr/bin/python
# Part of Puffin Fleet, under the BSD 3-Clause License; see LICENSE.
"""Module: bring the hosts of a fleet to a state, by way of the command puffin-fleet on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: puffin_fleet
short_description: Deploy, start, stop, drain or remove the workers of a fleet
version_added: 0.1.0
author:
  - The Puffin Fleet developers
description:
  - Runs C(puffin-fleet) and reports exactly what changed on which host.
  - The command opens connections of its own to all hosts of the fleet, many at a time. The module therefore runs
    once, where C(puffin-fleet) and C(hosts.yaml) are, which is the controller; see the examples.
  - In check mode it asks for a plan (C(puffin-fleet plan)), and nothing is changed. With V(stopped) a host that cannot
    be looked at is a warning then, since it may read the order in the database.
  - Options that change how calculations end, O(now) above all, are off unless said otherwise. No running calculation
    is disturbed without them.
requirements:
  - The command C(puffin-fleet).
options:
  state:
    description:
      - V(deployed) brings the hosts to what C(hosts.yaml) says; workers that were stopped on purpose stay so.
      - V(started) starts workers that were stopped; see O(resume) for drained hosts.
      - V(stopped) lets workers finish their calculations and stop. They stay stopped until V(started).
      - V(drained) does that to hosts that need maintenance; they stay down through deploys and V(started) until they
        are resumed. Needs O(hosts).
      - V(restarted) starts workers anew, a few hosts at a time. It always changes something if workers run.
      - V(absent) lets workers finish, then removes what was deployed. Logs and failed calculations stay.
    type: str
    choices: [deployed, started, stopped, drained, restarted, absent]
    default: deployed
  hosts_file:
    description: The description of the fleet. If nothing is said, E(PUFFIN_FLEET), else C(hosts.yaml) in the
      directory in which the module runs.
    type: path
  hosts:
    description: Names of hosts, or shell patterns such as V(node*). All hosts of the fleet if empty.
    type: list
    elements: str
    default: []
  now:
    description: Give running calculations back to the queue instead of waiting for them.
    type: bool
    default: false
  wait:
    description: Wait until calculations are done and workers have changed or ended. Without, they are told and do so
      when they are idle. Has no meaning with V(started) and V(absent), nor with V(deployed) and V(restarted) where
      O(now) is set, since there is nothing to wait for.
    type: bool
    default: true
  timeout:
    description: With V(stopped), V(drained) and V(absent), seconds to wait for workers to end. The module fails if
      some still run then; they have been told and end when their calculations do.
    type: float
  repair:
    description: With V(deployed), also undo what was changed by hand on the hosts, such as files that were edited.
    type: bool
    default: false
  refresh:
    description: With V(deployed), look for newer versions of what the workers require.
    type: bool
    default: false
  resume:
    description: With V(started), also let drained hosts work again.
    type: bool
    default: false
  why:
    description: With V(drained), the reason, for those who look at the fleet meanwhile.
    type: str
    default: ''
  parallel:
    description: Hosts at a time. The command's own default if nothing is said.
    type: int
  lock_timeout:
    description: With V(deployed), V(restarted) and V(absent), seconds to wait for somebody else who changes the same
      hosts.
    type: float
    default: 0.0
  executable:
    description: The command C(puffin-fleet). If nothing is said, E(PUFFIN_FLEET_EXECUTABLE), else it is looked for on
      the PATH, then beside the Python that runs the module.
    type: path
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: With O(state=deployed) how each file changes, secrets hidden; else which hosts change.
  platform:
    support: full
    platforms: posix
seealso:
  - plugin: puffin.fleet.hosts_yaml
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Bring all hosts to what hosts.yaml says
  puffin.fleet.puffin_fleet:
    hosts_file: hosts.yaml
  delegate_to: localhost
  run_once: true

- name: Take a rack out of work before its maintenance, in an hour at most
  puffin.fleet.puffin_fleet:
    state: drained
    hosts_file: hosts.yaml
    hosts: ["rack2-*"]
    why: new switch
    timeout: 3600
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
plan:
  description: What C(puffin-fleet plan --json) said of each host before anything was done. Hosts that could not be
    looked at are missing. Empty with V(stopped) and V(drained) outside check mode, since a power cut waits for no plan.
  type: list
  elements: dict
  returned: always
  sample: [{"host": "node1", "empty": false, "workers_added": ["node1-1"]}]
changed_hosts:
  description: The hosts that changed, or in check mode would change.
  type: list
  elements: str
  returned: always
  sample: [node1]
failed_hosts:
  description: The hosts that failed, and why.
  type: dict
  returned: always
  sample: {"node3": "connect: no answer within 10 s"}
summary:
  description: What changes on which host, in words.
  type: list
  elements: str
  returned: always
  sample: ["node1: add node1-1, node1-2"]
outcome:
  description: What the command said of each host; empty in check mode, and where there was nothing to do.
  type: list
  elements: dict
  returned: always
  sample: [{"host": "node1", "ok": true, "changed": true}]
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.puffin.fleet.plugins.module_utils import command

FAILURE = re.compile(r"(\S+) failed(?: at)?:? (.+)")
VERBS = {
    "deployed": "deploy",
    "started": "start",
    "stopped": "stop",
    "drained": "drain",
    "restarted": "restart",
    "absent": "destroy",
}
ENDING = ("stopped", "drained")
"""States in which hosts are told at once, before anything is looked at."""

ARGUMENTS = {
    "state": {"type": "str", "choices": list(VERBS), "default": "deployed"},
    "hosts_file": {"type": "path"},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "now": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "float"},
    "repair": {"type": "bool", "default": False},
    "refresh": {"type": "bool", "default": False},
    "resume": {"type": "bool", "default": False},
    "why": {"type": "str", "default": ""},
    "parallel": {"type": "int"},
    "lock_timeout": {"type": "float", "default": 0.0},
    "executable": {"type": "path"},
}


# What a plan says of a host ------------------------------------------------------------------------------


def is_deployed(plan):
    """Whether the host has a release."""
    switch = plan["switch_release"]
    return switch is None or switch["from"] is not None


def workers_of(plan):
    """The workers that the host has or shall have."""
    changed = [change["worker"] for change in plan["workers_changed"]]
    names = [*plan["workers_added"], *plan["workers_to_start"], *plan["kept_stopped"], *plan["unchanged"], *changed]
    return set(names)


def will_change(plan, options):
    """Whether a host is not yet in the state that is asked for."""
    state, kept = options["state"], set(plan["kept_stopped"])
    if state == "deployed":
        return not plan["empty"]
    if state == "drained":
        return not plan["drained"]
    if not is_deployed(plan):
        return False
    if state == "started":
        down = bool(kept or plan["workers_to_start"] or plan["start_supervisord"])
        return down and (options["resume"] or not plan["drained"])
    if state == "absent":
        return True
    return bool(workers_of(plan) - kept)


def has_to_be_seen(plans, options):
    """Whether workers are waited for that no deploy has seen healthy yet: the last one was cut off, or did not wait."""
    waits = options["wait"] or options["now"]
    return options["state"] == "deployed" and waits and any(plan.get("unproven") for plan in plans)


# Command lines -------------------------------------------------------------------------------------------


def chosen(options):
    """The words that say which fleet and which hosts."""
    words = [options["hosts_file"]] if options["hosts_file"] else []
    words += [word for pattern in options["hosts"] for word in ("--host", pattern)]
    return words + (["--parallel", str(options["parallel"])] if options["parallel"] else [])


def plan_words(options, diff):
    """The words that ask for a plan."""
    flags = [f"--{name}" for name in ("refresh", "repair") if options[name] and options["state"] == "deployed"]
    return ["plan", "--json", *flags, *(["--diff"] if diff else []), *chosen(options)]


def action_words(options):
    """The words that bring the hosts to the state; several commands where one takes only one pattern."""
    state, verb = options["state"], VERBS[options["state"]]
    words = ["--json", *_how(state, options)]
    if state == "drained":
        rest = [*(["--why", options["why"]] if options["why"] else []), *chosen({**options, "hosts": []})]
        # All are told before any is waited for.
        told = len(options["hosts"]) > 1 and options["wait"]
        ways = [["--no-wait", "--json"], words] if told else [words]
        return [[verb, pattern, *way, *rest] for way in ways for pattern in options["hosts"]]
    if state == "started" and options["resume"]:
        rest = [*words, *chosen({**options, "hosts": []})]
        resumed = [["resume", pattern, *rest] for pattern in options["hosts"] or ["*"]]
        # 'resume' leaves a stop of the whole fleet in the database, and whatever it starts would stop again.
        return [*resumed, [verb, *words, *chosen(options)]]
    return [[verb, *words, *chosen(options)]]


def _how(state, options):
    words = ["--yes"] if state != "started" else []
    words += ["--now"] if options["now"] and state != "started" else []
    if not options["wait"] and state in ENDING:
        words += ["--no-wait"]
    elif not options["wait"] and not options["now"] and state in ("deployed", "restarted"):
        words += ["--when-idle"]
    if state == "deployed":
        words += [f"--{name}" for name in ("refresh", "repair") if options[name]]
    if state in ("stopped", "drained", "absent") and options["timeout"] is not None:
        words += ["--timeout", f"{options['timeout']:g}"]
    if state in ("deployed", "restarted", "absent") and options["lock_timeout"]:
        words += ["--lock-timeout", f"{options['lock_timeout']:g}"]
    return words


# What commands say ---------------------------------------------------------------------------------------


def failures_in(text):
    """The hosts of which a command says on standard error that they failed, and why."""
    found = {}
    last = None
    for line in text.splitlines():
        match = FAILURE.match(line)
        if match:
            last = match[1]
            found[last] = match[2]
        elif last and line.startswith("  "):
            found[last] += f" ({line.strip()})"
        else:
            last = None
    return found


def failures_of(said, records):
    """The hosts that failed, by what was said of each and by what was complained of."""
    complaints = failures_in(said.err) if said.code != command.DONE else {}
    failed = {
        record["host"]: complaints.get(record["host"]) or record.get("error") or "it was not finished"
        for record in records
        if record.get("ok") is False
    }
    return {**complaints, **failed}


def summary_of(plans, hosts, options):
    """What changes on which host, in words."""
    if options["state"] != "deployed":
        present = {plan["host"]: f"{_state_of(plan)} -> " for plan in plans}
        return [f"{host}: {present.get(host, '')}{options['state']}" for host in hosts]
    return [f"{plan['host']}: {'; '.join(_deeds(plan))}" for plan in plans if plan["host"] in hosts]


def _deeds(plan):
    """What a deploy does on a host, as far as people care."""
    written = [write["path"] for write in plan["files_to_write"]]
    changes = [f"{change['worker']} ({', '.join(change['reasons'])})" for change in plan["workers_changed"]]
    found = {
        "install release": [plan["install_release"]] if plan["install_release"] else [],
        "use release": [plan["switch_release"]["to"]] if plan["switch_release"] else [],
        "write": written if len(written) < 4 else [f"{len(written)} files"],
        "remove": [*plan["files_to_remove"], *plan["workers_removed"]],
        "add": plan["workers_added"],
        "start": plan["workers_to_start"],
        "change": changes,
        "leave stopped": plan["kept_stopped"],
    }
    words = [f"{verb} {', '.join(what)}" for verb, what in found.items() if what]
    boot = {"enable_boot": "start at boot", "disable_boot": "start at boot no longer"}
    return words + [text for key, text in boot.items() if plan[key]]


def diff_of(plans, hosts, options):
    """What diff mode shows."""
    if options["state"] == "deployed":
        texts = [text for plan in plans for text in _file_diffs(plan)]
        return [{"prepared": "\n".join(texts) + "\n"}] if texts else []
    if not hosts:
        return []
    present = {plan["host"]: _state_of(plan) for plan in plans}
    before = "".join(f"{host}: {present.get(host, 'not ' + options['state'])}\n" for host in hosts)
    return [{"before": before, "after": "".join(f"{host}: {options['state']}\n" for host in hosts)}]


def _file_diffs(plan):
    return [f"{plan['host']}: {path}\n{text}".rstrip("\n") for path, text in plan.get("diffs", {}).items()]


def _state_of(plan):
    if plan["drained"]:
        return "drained"
    if not is_deployed(plan):
        return "absent"
    return "stopped" if workers_of(plan) <= set(plan["kept_stopped"]) else "started"


# The module ----------------------------------------------------------------------------------------------


class Work:
    """One call of the module.

    Parameters
    ----------
    module
        With options, check mode and the way out.
    """

    def __init__(self, module):
        self.module = module
        self.options = module.params
        self.plans = []
        self.failed = {}
        self.changed = []
        self.outcome = []

    def run(self):
        """Look, do what there is to do, and report."""
        try:
            self._program = command.find(self.options["executable"])
            at_once = self.options["state"] in ENDING and not self.module.check_mode
            if not at_once:
                self._look()
            to_do = self.changed or self.failed or has_to_be_seen(self.plans, self.options)
            if at_once or (not self.module.check_mode and to_do):
                self._act()
        except command.CommandError as error:
            self.module.fail_json(msg=str(error), **self._report())
        if self.failed:
            reasons = "\n".join(f"{host}: {why}" for host, why in sorted(self.failed.items()))
            self.module.fail_json(msg=f"{len(self.failed)} hosts failed:\n{reasons}", **self._report())
        self.module.exit_json(**self._report())

    def _look(self):
        said = self._say(plan_words(self.options, self.module._diff))
        self.plans = [record for record in said.records() if "workers_added" in record]
        self.failed = failures_of(said, [])
        if said.code != command.DONE and not self.failed:
            raise command.CommandError(said.complaint())
        if self.options["state"] == "deployed":
            self._refuse_without_consent()
        if self.options["state"] == "stopped":
            self._only_warn()
        self.changed = [
            plan["host"] for plan in self.plans if plan["host"] not in self.failed and will_change(plan, self.options)
        ]

    def _only_warn(self):
        """It may read the stop in the database."""
        for host, why in self.failed.items():
            self.module.warn(f"{host} cannot be looked at: {why}")
        self.failed = {}

    def _refuse_without_consent(self):
        for plan in self.plans:
            if plan["needs_consent"]:
                drift = plan["drift"]
                files = ", ".join([*drift["files_changed"], *drift["files_missing"]])
                self.failed[plan["host"]] = f"files were changed by hand: {files}; 'repair: true' writes over them"

    def _act(self):
        complaints = {}
        for words in action_words(self.options):
            said = self._say(words)
            records = [record for record in said.records() if "host" in record]
            self.outcome += records
            complaints.update(failures_of(said, records))
            if self.options["state"] in (*ENDING, "deployed"):
                # More than one record of a host where it was told first, and then waited for.
                self.changed = list({record["host"]: None for record in self.outcome if record.get("changed")})
            if said.code != command.DONE and not complaints:
                raise command.CommandError(self._still_running(records) or said.complaint())
        self.failed = complaints
        if self.options["state"] != "deployed":
            self.changed = [host for host in self.changed if host not in self.failed]

    def _still_running(self, records):
        names = [name for record in records for name in record.get("running") or ()]
        if self.options["state"] not in ENDING or not names:
            return ""
        return f"still running: {', '.join(names)}; they were told, and end when their calculations do"

    def _say(self, words):
        said = command.run([self._program, *words])
        if said.code not in (command.DONE, command.FAILED):
            raise command.CommandError(said.complaint())
        return said

    def _report(self):
        report = {
            "changed": bool(self.changed),
            "changed_hosts": sorted(self.changed),
            "failed_hosts": self.failed,
            "plan": [{name: value for name, value in plan.items() if name != "diffs"} for plan in self.plans],
            "summary": summary_of(self.plans, self.changed, self.options),
            "outcome": self.outcome,
        }
        if self.module._diff:
            report["diff"] = diff_of(self.plans, sorted(self.changed), self.options)
        return report


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        required_if=[("state", "drained", ("hosts",))],
    )
    if module.params["state"] == "drained" and not module.params["hosts"]:
        module.fail_json(msg="state 'drained' needs 'hosts': say which hosts are to be drained, '*' for all")
    Work(module).run()


if __name__ == "__main__":
    main()
