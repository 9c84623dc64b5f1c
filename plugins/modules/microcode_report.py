#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

DOCUMENTATION = r"""
module: microcode_report
short_description: Show what the microcode facts of all hosts of a play come to
version_added: 0.1.0
author: The fleet.microcode authors (@fleet)
description:
  - Prints the posture of the fleet and a table of which CPU runs which microcode, what newer microcode is at hand on the host, what the
    next boot would load, and where nothing can be said. Writes all of it as JSON, and as one HTML page.
  - Reads the results that M(fleet.microcode.microcode_facts) was registered in. A host that has none, or that failed, is in the report
    with the reason. The role P(fleet.microcode.assess#role) does both.
options:
  results:
    description:
      - Names of the variables in which each host's attempts at M(fleet.microcode.microcode_facts) were registered, in the order of the attempts.
        The last one that is defined counts.
    type: list
    elements: str
    required: true
  path:
    description:
      - File on the controller that receives the report as JSON, readable for its owner only. Its folder must be there.
      - It is replaced as a whole, and not touched in check mode. Without it none is written.
    type: path
  page:
    description:
      - File on the controller that receives the report as a page for a browser, written like O(path).
      - One file that loads nothing from anywhere - pictures of the fleet, what needs a person and why, and a table of all hosts to search and
        sort. All of it can be read without scripts and on paper.
    type: path
attributes:
  action:
    support: full
    description: Runs on the controller and needs no connection.
  bypass_host_loop:
    support: full
    description: One task for all hosts of the play, so the strategies P(ansible.builtin.free#strategy) and P(ansible.builtin.host_pinned#strategy)
      refuse it. Options are taken from the variables of the first host.
  check_mode:
    support: full
    description: Prints the report, writes no file, and says so.
  diff_mode:
    support: none
    description: No host is changed.
  platform:
    support: full
    platforms: all
    description: Runs on the controller.
notes:
  - Do not use it with C(serial) - each batch would report all hosts, the later ones as not reached.
seealso:
  - module: fleet.microcode.microcode_facts
"""

EXAMPLES = r"""
- name: Read the facts
  fleet.microcode.microcode_facts:
  become: true
  register: facts_of_host
  ignore_unreachable: true
  ignore_errors: true

- name: Report
  fleet.microcode.microcode_report:
    results: [facts_of_host]
    path: /var/lib/fleet/microcode.json
    page: /var/lib/fleet/microcode.html

- name: Fail the hosts that could not be read, now that they are in the report
  ansible.builtin.fail:
    msg: "{{ facts_of_host.msg }}"
  when: facts_of_host is failed or facts_of_host is unreachable
"""

RETURN = r"""
posture:
  description:
    - C(hosts) counts all hosts, C(states) those in each state, C(warnings) those whose facts hold warnings.
    - C(vulnerable) holds C(hosts), how many hosts have a kernel that misses newer microcode, and C(names), how many for each vulnerability.
    - It is also set as the statistic C(microcode_posture), which AWX keeps as an artifact of the job.
  returned: success
  type: dict
hosts:
  description:
    - C(state) and C(because) of each host; V(null) where this would be more than 256 KiB.
    - The states are V(cpus_differ), V(not_loaded), V(no_file), V(not_reached), V(unknown), V(pending_reboot), V(nothing_newer), V(not_applicable).
  returned: success
  type: dict
path:
  description: Where the JSON was written; V(null) where none was.
  returned: success
  type: str
page:
  description: Where the page was written; V(null) where none was.
  returned: success
  type: str
"""
