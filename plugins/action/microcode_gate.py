# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One task for the whole fleet: open a rollout, judge it before each wave, close it; see the module of this name."""
import json
import os
import time

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.fleet.microcode.plugins.action.microcode_plan import _hosts
from ansible_collections.fleet.microcode.plugins.action.microcode_report import _width, _written
from ansible_collections.fleet.microcode.plugins.plugin_utils import page_rollout, plan, report, rollout

display = Display()
COLORS = {"done": C.COLOR_OK, "prepared": C.COLOR_CHANGED, "lost": C.COLOR_UNREACHABLE, "failed": C.COLOR_ERROR, "wrong": C.COLOR_ERROR,
          "stale": C.COLOR_WARN, "new": C.COLOR_WARN}
OPTIONS = {
    "state": {"choices": ["opened", "wave", "ended", "closed"], "required": True}, "approved": {"type": "raw"},
    "digest": {"type": "str", "required": True}, "run": {"type": "dict"},
    "budget": {"type": "raw", "default": 0}, "domain_budget": {"type": "raw", "default": 0}, "deadline": {"type": "str"},
    "on_stop": {"choices": ["leave", "roll_back"], "default": "leave"}, "objection": {"type": "str"}, "path": {"type": "path"}, "page": {"type": "path"},
}


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _valid, args = self.validate_argument_spec(OPTIONS, required_if=[("state", each, ("run",)) for each in OPTIONS["state"]["choices"][1:]])
        now = time.strftime(rollout.TIME, time.gmtime())
        try:
            if not args["approved"]:
                raise plan.PlanError("approved: there is no plan. In check mode none is written, and this one is too large to be handed on; make the plan "
                                     "first, then name its file")
            made = plan.check(plan.read(args["approved"]), args["digest"])
            if args["state"] == "opened":
                _lock(args["path"], self._task.check_mode)
                result.update(changed=False, run=rollout.opened(
                    made, *_hosts(None, task_vars, made["options"]["domains"]), set(map(str, task_vars["groups"]["all"])), args, now))
                display.display(_opening(result["run"]))
                return result
            run = args["run"]
            batch = [host for host in task_vars["ansible_play_batch"] if host in run["order"]]
            wave = rollout.position(run, batch[0]) if args["state"] == "wave" and batch else None
            if wave is not None:
                rollout.one_wave(run, wave, task_vars["ansible_play_batch"])
            hosts = _judged(made, run, wave, task_vars["hostvars"])
            verdict = rollout.judged(run, hosts, wave, now, args["objection"])
            if args["state"] != "closed":
                display.display(verdict["line"], color=C.COLOR_ERROR if verdict["stop"] else None)
                if verdict["stop"] and wave is not None:  # at the end it stands in the table
                    display.display("Stopped: %s" % verdict["stop"], color=C.COLOR_ERROR)
            if wave is not None and not verdict["stop"]:
                for name in rollout.members(run, wave):
                    hosts[name]["state"] = "begun"  # in the record, should nobody live to write it anew
            found = rollout.record(made, run, hosts, verdict, now)
            result.update(changed=False, stop=verdict["stop"], counts=verdict["counts"], trouble=verdict["trouble"])
            if wave is not None:
                first = wave > 0 and run["waves"][wave - 1]["canaries"] and not run["waves"][wave]["canaries"]
                result.update(wave=run["waves"][wave]["wave"], after_canaries=first, decisions={} if verdict["stop"] else rollout.work(
                    made, rollout.members(run, wave)))
            if args["state"] == "ended":
                result.update(undo=verdict["undo"], decisions=rollout.work(made, verdict["undo"]))
            if args["state"] == "closed":
                for state, line in rollout.table(made, found, _width()):
                    display.display(line, color=COLORS.get(state))
                kept = {key: found[key] for key in ("digest", "started", "ended", "stopped", "counts")}
                result.update(ansible_stats={"data": {"microcode_rollout": kept}, "per_host": False, "aggregate": False},
                              **_written(args, self._task.check_mode, path=lambda: rollout.document(found), page=lambda: page_rollout.render(made, found)))
                _unlock(args["path"] or "")
            elif args["path"] and not self._task.check_mode:
                report.write(args["path"], rollout.document(found))
        except (plan.PlanError, report.ReportError) as exc:
            return {"failed": True, "changed": False, "msg": str(exc)}  # raised, core 2.16 would speak of an exception
        return result


def _opening(run):
    """One line of what is ahead."""
    words = ["%s in %s" % (report.quantity(len(run["order"]), "host"), report.quantity(len(run["waves"]), "wave"))]
    words += ["%d %s" % (len(run[key]), text) for key, text in (("done", "done already"), ("lost", "not reached"), ("left", "left")) if run[key]]
    return "Rollout of the plan %s: %s" % (run["digest"][:12], ", ".join(words))


def _judged(made, run, wave, hostvars):
    """{host: what has become of it} of every host of the run, before this wave or, with None, at the end."""
    hosts, begun = {}, sum(run["serial"][:wave or 0])
    for name in run["done"]:
        hosts[name] = {"state": "done", "why": None}
    for name in run["lost"]:
        hosts[name] = {"state": "lost", "why": "it was not reached when its facts were to be read"}
    for name, why in run["left"].items():
        hosts[name] = {"state": "new" if name in run["new"] else "stale", "why": why}
    for at, name in enumerate(run["order"]):
        found = hostvars.raw_get(name) if name in hostvars else {}
        said = report.part(found, "rollout_outcome")
        state, why = rollout.outcome(made, name, said, report.part(found, "ansible_facts", "microcode"), at < begun)
        hosts[name] = dict(rollout.course(said, report.part(found, "rollout_undone")), state=state, why=why, action=made["hosts"][name]["action"])
    for name, each in hosts.items():
        each["domains"] = run["domains"].get(name, {})
    return hosts


# --- one rollout at a time on a controller ---

def _lock(path, check_mode):
    """PlanError where a rollout that writes the same record is going on here."""
    if not path or check_mode:
        return
    lock = os.path.abspath(path) + ".lock"
    try:
        with open(lock, encoding="utf-8") as stream:
            held = json.load(stream)
        holder = int(held["pid"])
        if held["started"] and _started(holder) == held["started"] and holder != os.getppid():
            raise plan.PlanError("another rollout goes on here: process %d holds %s. Two at once would work on more hosts than either may; wait for it, "
                                 "or end it" % (holder, lock))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or one that was killed while it wrote
    report.write(lock, json.dumps({"pid": os.getppid(), "started": _started(os.getppid())}))


def _unlock(path):
    """Let go of what this run took; check mode took nothing."""
    try:
        with open(os.path.abspath(path) + ".lock", encoding="utf-8") as stream:
            if json.load(stream)["pid"] == os.getppid():
                os.unlink(stream.name)
    except (OSError, ValueError, KeyError, TypeError):
        pass


def _started(pid):
    """When a process was started, in the kernel's ticks; None for none."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
