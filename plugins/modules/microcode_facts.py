#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

# Documentation: microcode_facts.yml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fleet.microcode.plugins.module_utils.facts import gather
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host, refusal


def main():
    module = AnsibleModule(
        argument_spec={"sysroot": {"type": "path", "default": "/"}, "gather_subset": {"type": "list", "elements": "str", "default": ["all"]}},
        supports_check_mode=True,
    )
    problem = refusal(module.params["sysroot"])
    if problem:
        module.fail_json(msg=problem)
    try:
        facts = gather(Host(module.params["sysroot"]), module.params["gather_subset"])
    except ValueError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(ansible_facts={"microcode": facts})


if __name__ == "__main__":
    main()
