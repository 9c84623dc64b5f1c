# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a plan decides as it does for one host, in plain words."""
from ansible.errors import AnsibleFilterError

from ansible_collections.fleet.microcode.plugins.plugin_utils import plan

DOCUMENTATION = r"""
name: explain
short_description: Why a microcode plan decides as it does for one host
version_added: 0.1.0
author: The fleet.microcode authors (@fleet)
description:
  - Gives the whole chain of reasoning for one host of a plan that M(fleet.microcode.microcode_plan) wrote, in plain words.
  - A plan that was changed after it was made is refused.
positional: host
options:
  _input:
    description: The plan, as read from its JSON.
    type: dict
    required: true
  host:
    description: The host's name in the inventory.
    type: str
    required: true
seealso:
  - module: fleet.microcode.microcode_plan
"""

EXAMPLES = r"""
- name: Why is xen01 blocked?
  ansible.builtin.debug:
    msg: "{{ (lookup('ansible.builtin.file', '/var/lib/fleet/plan.json') | from_json | fleet.microcode.explain('xen01')).splitlines() }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: str
"""


def explain(value, host):
    """The filter."""
    try:
        return "\n".join(plan.explain(plan.check(value), host))
    except plan.PlanError as exc:
        raise AnsibleFilterError("fleet.microcode.explain: %s" % exc) from None


class FilterModule:
    """Filters of the collection."""

    def filters(self):
        return {"explain": explain}
