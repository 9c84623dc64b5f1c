# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One task for the whole fleet: decide for every host how it comes to its microcode, and in which wave; see the module of this name."""
import json
import textwrap
import time
from collections.abc import Mapping

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
    "page": {"type": "path"},
}


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _valid, args = self.validate_argument_spec(OPTIONS)
        try:
            made, hosts, domains = _plan(args, task_vars)
            for action, line in plan.table(made, _width()):
                display.display(line, color=COLORS.get(action))
            for name in args["explain"]:
                display.display("\n" + "\n".join(textwrap.fill(line, _width(), subsequent_indent="   ") for line in plan.explain(made, name)))
            result.update(changed=False, digest=made["digest"], summary=made["summary"], waves=_waves(made["waves"]),
                          **_written(args, self._task.check_mode, path=lambda: plan.document(made), page=lambda: page_plan.render(made, hosts, domains)))
        except (plan.PlanError, policy.RuleError, report.ReportError) as exc:
            return _failed(str(exc))  # raised, core 2.16 would speak of an exception
        result["ansible_stats"] = {"data": {"microcode_plan": {"digest": made["digest"], "summary": made["summary"]}}, "per_host": False, "aggregate": False}
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
    options = {key: args[key] for key in ("late", "guests", "hold_days", "accept", "target")}
    planned = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return plan.make(hosts, rules, options, planned, domains, limits, args["wave_sizes"]), hosts, domains


def _hosts(recorded, task_vars, limits):
    """({host: its facts or None}, {host: {domain variable: value}}) of a recorded fleet, or of every host of the play, also of those that dropped out."""
    hostvars, hosts, domains = task_vars["hostvars"], {}, {}
    reached = set(task_vars["ansible_play_hosts"])
    for host in task_vars["ansible_play_hosts_all"] if recorded is None else recorded:
        found = hostvars.raw_get(host)  # untemplated: nothing a host says is evaluated, and a third of the time
        found = found if isinstance(found, Mapping) else {}
        if recorded is None:
            hosts[host] = report.part(found, "ansible_facts", "microcode") if host in reached else None  # what a cache has of a lost one may be old
        else:
            hosts[host] = recorded[host]
        domains[host] = {variable: _value(hostvars, host, variable, found[variable]) for variable in limits if found.get(variable) is not None}
    for variable in limits:
        if hosts and not any(variable in each for each in domains.values()):
            raise plan.PlanError("domains: no host has the variable %s; it is a variable of hosts or groups in the inventory, such as rack or pool" % variable)
    return hosts, domains


def _value(hostvars, host, variable, value):
    """A host's domain as text; a template of the inventory is evaluated."""
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        try:
            value = hostvars[host][variable]
        except AnsibleError as exc:
            raise plan.PlanError("domains: the variable %s of %s cannot be evaluated: %s" % (variable, host, report.clean(str(exc)))) from None
    return str(value)


def _waves(arranged):
    """The waves with their hosts; without where that would be too much for an event."""
    found = [dict(wave, count=len(wave["hosts"])) for wave in arranged]
    return found if len(json.dumps(found)) <= REPLY else [dict(wave, hosts=None) for wave in found]
