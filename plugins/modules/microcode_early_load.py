#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

# Documentation: microcode_early_load.yml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fleet.microcode.plugins.module_utils import journal
from ansible_collections.fleet.microcode.plugins.module_utils.early import order
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host


def main():
    module = AnsibleModule(
        argument_spec={"state": {"choices": ["present", "absent"], "default": "present"}, "revision": {"type": "str"}, "file": {"type": "path"},
                       "sha256": {"type": "str"}, "kernels": {"type": "list", "elements": "str", "default": []}, "timeout": {"type": "int", "default": 600}},
        required_if=[("state", "present", ("revision",))],
        supports_check_mode=True,
    )
    said, host, problem, result = module.params, Host(), None, {"failed": True}
    if not 10 <= said["timeout"] <= 7200:
        module.fail_json(msg="timeout: %d is not from 10 to 7200 seconds: an initrd takes seconds to make, on slow machines minutes" % said["timeout"])
    try:
        result = order.run(host, said["state"], said["revision"], said["file"], said["sha256"], said["kernels"], said["timeout"], module.check_mode)
    except (order.Refused, order.Stopped, journal.Busy, journal.JournalError, OSError) as exc:
        problem = str(exc)
    for text in host.warnings:
        module.warn(text)
    if problem:
        module.fail_json(msg=problem)
    (module.fail_json if result.pop("failed") else module.exit_json)(**result)


if __name__ == "__main__":
    main()
