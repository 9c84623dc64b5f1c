#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

DOCUMENTATION = r"""
module: microcode_gate
short_description: Judge a rollout before each of its waves
version_added: 0.1.0
author: The fleet.microcode authors (@fleet)
description:
  - Opens a rollout of a plan, says before each wave whether it may begin, and closes the rollout with what became of every host.
  - Every planned host of the earlier waves is judged, also one that was lost on the way, and so does not run this task any more. A host is done where
    its facts, read afresh, say that every CPU runs what the plan wants; nothing else is.
  - It fails no host where the rollout stops. The playbook C(fleet.microcode.rollout) shows how it is meant.
options:
  state:
    description:
      - V(opened) - who is worked on in which order, by the facts of now. Hosts that are done are skipped, those that changed since the plan are left.
      - V(wave) - whether the wave of this batch of hosts may begin.
      - V(ended) - what became of every host, now that no wave begins any more, and which hosts are to be rolled back.
      - V(closed) - the end of it, with the table, the JSON and the page.
    type: str
    choices: [opened, wave, ended, closed]
    required: true
  approved:
    description: The plan, as in M(fleet.microcode.microcode_plan). Required.
    type: raw
  digest:
    description: The plan's digest. A plan that has another one, or that was edited, is refused.
    type: str
    required: true
  run:
    description: What O(state=opened) returned as RV(run). Required for the other states.
    type: dict
  budget:
    description:
      - How many hosts of the whole fleet may be lost, fail, or run another revision than planned, as a number or a percentage of the hosts that the plan acts
        on. One more, and no wave begins. A canary stops the rollout in any case.
      - Used with O(state=opened), like O(domain_budget), O(deadline) and O(on_stop).
    type: raw
    default: 0
  domain_budget:
    description: How many hosts of one failure domain (the plan's C(domains)) may be.
    type: raw
    default: 0
  on_stop:
    description:
      - What becomes of the wave that was worked on last where the rollout stops for what became of hosts, or for O(objection).
      - V(leave) - nothing.
      - V(roll_back) - O(state=ended) names its hosts in RV(undo), but for those that are lost.
    type: str
    choices: [leave, roll_back]
    default: leave
  deadline:
    description: Moment from which on no wave and no host is begun, with its time zone, such as V(2026-11-24T04:00:00Z).
    type: str
  objection:
    description: What the operator's own check says against going on; the wave then does not begin.
    type: str
  path:
    description:
      - File on the controller that holds what became of each host so far, as JSON, readable for its owner only. It is written anew before each wave.
      - While the rollout goes on, a file of this name with C(.lock) keeps a second one on this controller from beginning.
    type: path
  page:
    description: File on the controller that O(state=closed) writes the page for a browser to.
    type: path
attributes:
  action:
    support: full
    description: Runs on the controller and needs no connection.
  bypass_host_loop:
    support: full
    description: One task for all hosts of the play, so the strategies P(ansible.builtin.free#strategy) and P(ansible.builtin.host_pinned#strategy)
      refuse it. Use C(run_once), which has all hosts know what was registered.
  check_mode:
    support: full
    description: Judges what check mode found, and writes no file.
  diff_mode:
    support: none
    description: No host is changed.
  platform:
    support: full
    platforms: all
    description: Runs on the controller.
seealso:
  - module: fleet.microcode.microcode_plan
"""

EXAMPLES = r"""
- name: May this wave begin?
  fleet.microcode.microcode_gate:
    state: wave
    approved: /var/lib/fleet/plan.json
    digest: "{{ approved_digest }}"
    run: "{{ opened.run }}"
  run_once: true
  any_errors_fatal: true
  register: gate

- name: Stop, where the gate says so
  ansible.builtin.meta: end_play
  when: gate.stop is not none
"""

RETURN = r"""
run:
  description: How the rollout goes - C(order), the hosts that are worked on, C(serial), how many of them in each wave, C(done), C(lost), C(left) and more.
  returned: with O(state=opened)
  type: dict
stop:
  description: Why no wave begins any more; V(null) where one may.
  returned: with the other states
  type: str
counts:
  description: Hosts by what became of them.
  returned: with the other states
  type: dict
  sample: {"done": 12, "lost": 1, "waiting": 87}
trouble:
  description: Hosts that count against the budget.
  returned: with the other states
  type: list
  elements: str
undo:
  description: Hosts that are to be rolled back.
  returned: with O(state=ended)
  type: list
  elements: str
wave:
  description: Number of this wave in the plan.
  returned: with O(state=wave)
  type: int
after_canaries:
  description: Whether this is the first wave after those of the canaries.
  returned: with O(state=wave)
  type: bool
decisions:
  description: What the plan decided for the hosts of this wave, or those in RV(undo); empty where the wave does not begin.
  returned: with O(state=wave) and O(state=ended)
  type: dict
"""
