# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state that the assessment gives a host, for inventories and conditions."""
from ansible_collections.fleet.microcode.plugins.plugin_utils import report

DOCUMENTATION = r"""
name: state
short_description: The state of a host's microcode in one word
version_added: 0.1.0
author: The fleet.microcode authors (@fleet)
description:
  - Gives the state that the assessment (M(fleet.microcode.microcode_report)) gives a host with these facts.
options:
  _input:
    description: The facts, as M(fleet.microcode.microcode_facts) returns them.
    type: dict
    required: true
seealso:
  - module: fleet.microcode.microcode_facts
  - module: fleet.microcode.microcode_report
"""

EXAMPLES = r"""
# fleet.constructed.yml: groups by state over cached facts
plugin: ansible.builtin.constructed
compose:
  microcode_state: microcode | fleet.microcode.state
keyed_groups:
  - {key: microcode_state, prefix: microcode}
"""

RETURN = r"""
_value:
  description: >-
    V(cpus_differ), V(not_loaded) where newer is on the disk and the next boot will not load it, V(no_file), V(pending_reboot), V(nothing_newer),
    V(not_applicable), or V(unknown).
  type: str
"""


def state(facts):
    """The state's word; facts that are none have the state unknown."""
    return report.assess([{"ansible_facts": {"microcode": facts}}])["state"]


class FilterModule:
    def filters(self):
        return {"state": state}
