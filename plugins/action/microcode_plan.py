# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One task for the whole fleet: decide for every host how it comes to its microcode, and in which wave; see the module of this name."""
import json
import textwrap
import time

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.fleet.microcode.plugins.action.microcode_report import REPLY, _width, _written
from ansible_collections.fleet.microcode.plugins.plugin_utils import page_plan, plan, policy, report, waves

display = Display()
COLORS = {"early": C.COLOR_CHANGED, "late": C.COLOR_CHANGED, "firmware_first": C.COLOR_WARN, "blocked": C.COLOR_ERROR, "unknown": C.COLOR_WARN}
OPTIONS = {
    "facts": {"type": "dict"}, "rules": {"type": "raw"}, "late": {"choices": ["never", "allowed"], "default": "never"},
    "guests": {"choices": ["none", "pause"], "default": "none"}, "hold_days": {"type": "int", "default": 0},
    "accept": {"type": "list", "elements": "str", "default": []}, "target": {"type": "raw", "default": "newest_staged"},
    "domains": {"type": "dict", "default": {}}, "wave_sizes": {"type": "list", "elements": "int", "default": list(waves.SIZES)},
    "explain": {"type": "list", "elements": "str", "default": []}, "path": {"type": "path"},
    "page": {"type": "path"}, "approved": {"type": "raw"}, "digest": {"type": "str"},
}


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _valid, args = self.validate_argument_spec(OPTIONS, required_by={"approved": ("digest",)})
        try:
            made, hosts, domains = (_approved if args["approved"] else _plan)(args, task_vars)
            progress = plan.progress(made, hosts) if args["approved"] else None
            for action, line in plan.table(made, _width()) + (plan.progress_table(progress, _width()) if progress else []):
                display.display(line, color=COLORS.get(action))
            for name in args["explain"]:
                display.display("\n" + "\n".join(textwrap.fill(line, _width(), subsequent_indent="   ") for line in plan.explain(made, name)))
            states = {kind: {"hosts": sorted(found)} for kind, found in progress.items()} if progress else None
            result.update(changed=False, digest=made["digest"], summary=made["summary"], waves=_counted(made["waves"]), states=states and _counted(states),
                          **_written(args, self._task.check_mode, path=lambda: plan.document(made), page=lambda: page_plan.render(made, hosts, domains)))
        except (plan.PlanError, policy.RuleError, report.ReportError) as exc:
            return _failed(str(exc))  # raised, core 2.16 would speak of an exception
        packed = plan.pack(made)
        kept = {"digest": made["digest"], "summary": made["summary"], "packed": packed if packed and len(packed) <= REPLY else None}
        result["packed"] = None if result["path"] else kept["packed"]  # where a file was written, that is the plan
        result["ansible_stats"] = {"data": {"microcode_plan": kept}, "per_host": False, "aggregate": False}
        return result


def _failed(text):
    return {"failed": True, "changed": False, "msg": text}


def _plan(args, task_vars):
    """(the plan that is asked for, {host: its facts or None}, {host: {domain variable: value}})."""
    limits = {}
    for variable, most in args["domains"].items():
        if not str(most).isdecimal():
            raise plan.PlanError("domains: %s: %s is no number of hosts that may be worked on at once" % (variable, report.clean(str(most))))
        limits[str(variable)] = int(most)
    rules = policy.load(args["rules"] or ())
    hosts, domains = _hosts(args["facts"], task_vars, limits)
    for variable in limits:
        if hosts and not any(variable in each for each in domains.values()):
            raise plan.PlanError("domains: no host has the variable %s; it is a variable of hosts or groups in the inventory, such as rack or pool" % variable)
    options = {key: args[key] for key in ("late", "guests", "hold_days", "accept", "target")}
    planned = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    made = plan.make(hosts, rules, options, planned, domains, limits, args["wave_sizes"])
    return plan.reached(made, args["digest"]) if args["digest"] else made, hosts, domains


def _approved(args, task_vars):
    """The same of a plan that was approved; nothing is decided anew."""
    made = plan.check(plan.read(args["approved"]), args["digest"])
    return made, *_hosts(args["facts"], task_vars, made["options"]["domains"])


def _hosts(recorded, task_vars, limits):
    """({host: its facts or None}, {host: {domain variable: value}}) of a recorded fleet, or of every host of the play, also of those that dropped out."""
    hostvars, hosts, domains = task_vars["hostvars"], {}, {}
    reached = set(task_vars["ansible_play_hosts"])
    for host in task_vars["ansible_play_hosts_all"] if recorded is None else recorded:
        # untemplated: nothing a host says is evaluated, and a third of the time; of a host that no inventory has, core 2.19 raises
        found = hostvars.raw_get(host) if host in hostvars else {}
        if recorded is None:
            hosts[host] = report.part(found, "ansible_facts", "microcode") if host in reached else None  # what a cache has of a lost one may be old
        else:
            hosts[host] = recorded[host]
        domains[host] = {variable: _value(hostvars, host, variable, found[variable]) for variable in limits if found.get(variable) is not None}
    return hosts, domains


def _value(hostvars, host, variable, value):
    """A host's domain as text; a template of the inventory is evaluated."""
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        try:
            value = hostvars[host][variable]
        except AnsibleError as exc:
            raise plan.PlanError("domains: the variable %s of %s cannot be evaluated: %s" % (variable, host, report.clean(str(exc)))) from None
    return str(value)


def _counted(groups):
    """Waves or states with the count of their hosts; without the hosts where they would be too much for an event."""
    found = {key: dict(group, count=len(group["hosts"])) for key, group in (groups.items() if isinstance(groups, dict) else enumerate(groups))}
    if len(json.dumps(found)) > REPLY:
        found = {key: dict(group, hosts=None) for key, group in found.items()}
    return found if isinstance(groups, dict) else list(found.values())
