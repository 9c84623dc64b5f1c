#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

# Documentation: microcode_file.yml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fleet.microcode.plugins.module_utils import journal, place
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host


def main():
    module = AnsibleModule(
        argument_spec={"src": {"type": "path"}, "dest": {"type": "path"}, "sha256": {"type": "str"},
                       "state": {"choices": ["present", "restored"], "default": "present"}, "_content": {"type": "str", "no_log": True}},
        required_if=[("state", "present", ("src", "sha256", "_content"))],
        supports_check_mode=True,
    )
    said = module.params
    try:
        data = place.unpack(said["_content"], said["sha256"]) if said["state"] == "present" else None
        result = place.run(Host(), said["state"], said["dest"], data, module.check_mode)
    except (place.Refused, journal.Busy, journal.JournalError) as exc:
        module.fail_json(msg=str(exc))
    for text in result.pop("warnings"):
        module.warn(text)
    before, after = [dict({"path": result["file"]}, **result[word]) if result[word] else {} for word in ("before", "after")]
    module.exit_json(diff={"before": before, "after": after}, **result)


if __name__ == "__main__":
    main()
