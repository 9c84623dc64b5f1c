#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

# Documentation: microcode_facts.yml
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fleet.microcode.plugins.module_utils.facts import gather
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host


def main():
    module = AnsibleModule(
        argument_spec={"sysroot": {"type": "path", "default": "/"}, "gather_subset": {"type": "list", "elements": "str", "default": ["all"]}},
        supports_check_mode=True,
    )
    sysroot = module.params["sysroot"]
    try:
        os.stat(os.path.join(sysroot, "") + ".")
        problem = None if sysroot else "empty; / is the live machine"
    except (OSError, ValueError) as exc:  # ValueError: a NUL byte
        problem = getattr(exc, "strerror", None) or str(exc)
    if problem:
        module.fail_json(msg='sysroot "%s" cannot be read: %s; name a folder of this host under which an image is mounted or a copy lies' % (sysroot, problem))
    try:
        facts = gather(Host(sysroot), module.params["gather_subset"])
    except ValueError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(ansible_facts={"microcode": facts})


if __name__ == "__main__":
    main()
