# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One task for the whole fleet: print what its microcode facts come to, write it as JSON and as a page; see the module of this name."""
import json
import os
import time
from collections.abc import Mapping

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.fleet.microcode.plugins.plugin_utils import page_posture, report

display = Display()
COLORS = {"cpus_differ": C.COLOR_ERROR, "not_loaded": C.COLOR_ERROR, "no_file": C.COLOR_WARN, "not_reached": C.COLOR_UNREACHABLE,
          "unknown": C.COLOR_WARN, "pending_reboot": C.COLOR_CHANGED, "nothing_newer": C.COLOR_OK, "not_applicable": C.COLOR_SKIP}
REPLY = 256 << 10  # bytes of states that a result may carry; AWX takes some 700,000 in an event


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _valid, args = self.validate_argument_spec({"results": {"type": "list", "elements": "str", "required": True}, "path": {"type": "path"},
                                                    "page": {"type": "path"}})
        gathered = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        hosts = {str(name): report.assess(tries) for name, tries in _tries(task_vars, args["results"])}
        posture = report.posture(hosts)
        for state, line in report.table(hosts, posture, gathered, _width()):
            display.display(line, color=COLORS.get(state))
        states = {name: {"state": each["state"], "because": each["because"]} for name, each in hosts.items()}
        result.update(changed=False, posture=posture, hosts=states if len(json.dumps(states)) <= REPLY else None,
                      ansible_stats={"data": {"microcode_posture": posture}, "per_host": False, "aggregate": False})
        try:
            result.update(_written(args, self._task.check_mode, path=lambda: report.document(hosts, posture, gathered),
                                   page=lambda: page_posture.render(hosts, posture, gathered)))
        except report.ReportError as exc:
            return {"failed": True, "changed": False, "msg": str(exc)}  # raised, core 2.16 would speak of an exception
        return result


def _written(args, check_mode, **texts):
    """{"path" and "page": where it was written, or None}, of functions that make the texts. Raises ReportError."""
    files = {key: os.path.abspath(args[key]) if args[key] else None for key in texts}
    if files["path"] and files["path"] == files["page"]:
        raise report.ReportError("path and page are both %s; name two files, or leave one empty" % files["path"])
    display.display("")
    for key, path in files.items():
        if path and check_mode:
            display.display("Check mode: %s is not written" % path)
            files[key] = None
        elif path:
            report.write(path, texts[key]())
            display.display(("All of it as JSON: %s" if key == "path" else "As a page for a browser: %s") % path)
    return files


def _tries(task_vars, names):
    """(host, [its results]) of every host of the play, also of those that dropped out of it."""
    hostvars = task_vars["hostvars"]
    for host in task_vars["ansible_play_hosts_all"]:
        found = hostvars.raw_get(host)  # untemplated: nothing a host says is evaluated, and a third of the time
        yield host, [found[name] for name in names if name in found] if isinstance(found, Mapping) else []


def _width():
    """Columns of the terminal; Ansible's own count never goes below 79, which is also what it takes without a terminal."""
    columns = os.environ.get("COLUMNS", "")
    return min(160, max(70, int(columns))) if columns.isdigit() and columns.isascii() else min(160, display.columns)
