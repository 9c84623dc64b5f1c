#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

# Documentation: microcode_late_load.yml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fleet.microcode.plugins.module_utils import journal
from ansible_collections.fleet.microcode.plugins.module_utils.guests.guest import GuestError
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.module_utils.late_load import load

LIMITS = {"hold": (1, 30, "guests that wait longer lose connections, and their watchdogs may end them"),
          "timeout": (1, 600, "a load takes a second at most; one that does not come back is not helped by waiting")}


def main():
    module = AnsibleModule(
        argument_spec={"revision": {"type": "str", "required": True}, "path": {"type": "path"}, "sha256": {"type": "str"},
                       "guests": {"choices": ["none", "pause"], "default": "none"}, "hold": {"type": "int", "default": 5},
                       "timeout": {"type": "int", "default": 60}},
        supports_check_mode=True,
    )
    said, host, problem, result = module.params, Host(), None, {"failed": True}
    for name, (least, most, why) in sorted(LIMITS.items()):
        if not least <= said[name] <= most:
            module.fail_json(msg="%s: %d is not from %d to %d seconds: %s" % (name, said[name], least, most, why))
    try:
        result = load.run(host, said["revision"], said["path"], said["sha256"], said["guests"], said["hold"], said["timeout"], module.check_mode)
    except (load.Refused, load.Stopped, GuestError, journal.Busy, journal.JournalError) as exc:
        problem = str(exc)
    for text in host.warnings:
        module.warn(text)
    if problem:
        module.fail_json(msg=problem)
    (module.fail_json if result.pop("failed") else module.exit_json)(**result)


if __name__ == "__main__":
    main()
