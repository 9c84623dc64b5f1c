#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

DOCUMENTATION = r"""
module: microcode_plan
short_description: Decide for all hosts of a play which microcode they are to load, how, in which wave, and why
version_added: 0.1.0
author: The fleet.microcode authors (@fleet)
description:
  - Takes the microcode facts of every host of the play, judges each change of revision by the collection's rules - withdrawn and dangerous revisions,
    transitions that hang, what firmware must come first, what each distribution and each Xen allows - and decides for each host whether newer
    microcode is loaded early, at the next boot, or late, at run time, or not at all.
  - Every decision carries the rules that led to it, with their sources. What is not known is said to be not known, and such a host is left.
  - Orders the hosts to be worked on in waves - first one host of each kind of hardware and software, then waves that grow.
  - Prints the plan, and writes it as JSON and as one HTML page. Contacts no host and changes none.
  - A digest stands for all that was decided. It can be approved, and a plan that is made anew from the same facts has the same one.
  - Given an approved plan (O(approved)), it decides nothing anew, and says which hosts are done, pending or changed since.
requirements:
  - jmespath, a Python package, where Ansible runs
options:
  facts:
    description:
      - The microcode facts of a recorded fleet, by host, each as M(fleet.microcode.microcode_facts) returns it in
        RV(fleet.microcode.microcode_facts#module:ansible_facts.microcode).
      - Without it, those of the hosts of the play, from this run or from the fact cache. A host that dropped out of the play has none.
    type: dict
  approved:
    description:
      - The plan that was approved - the path of its JSON, what is in it, or what the statistic C(microcode_plan) has as C(packed). O(digest) is needed with it.
      - Decisions, waves and digest are then those of that plan, and RV(states) says what has become of its hosts, of those of this play.
      - The options that decide are those that it was made with, whatever stands here.
    type: raw
  digest:
    description:
      - The digest that was approved. Another one is an error, and nothing is written.
      - Without O(approved) the plan is made anew, which has this digest only while nothing has changed - no host finished, lost, added or otherwise changed.
    type: str
  rules:
    description:
      - Rules of your own, a list of them or the path of a YAML file that has them below C(rules), in the shape of those in the collection's
        C(plugins/plugin_utils/rules). They stand before the collection's.
      - One that is wrong is an error that names it, and nothing is planned.
    type: raw
  late:
    description:
      - Whether microcode may be loaded at run time. With V(allowed) this path is taken where the distribution, the file, the platform and every rule allow
        it, else the early one, with what was missing.
    type: str
    choices: [never, allowed]
    default: never
  guests:
    description: Whether guests are paused during a late load. Xen and Linux do not need it.
    type: str
    choices: [none, pause]
    default: none
  hold_days:
    description: Microcode that is younger than this many days is held back. In 2020 and 2026 releases were withdrawn within a week.
    type: int
    default: 0
  accept:
    description: Rules of the effect C(review) that you have read and accept, by their names.
    type: list
    elements: str
    default: []
  target:
    description:
      - V(newest_staged) is the newest revision on the host's disk that no rule withdraws.
      - V(advisory) is that revision only where a rule requires a newer one than runs.
      - A mapping of signatures to revisions names the revision itself. Quote both.
    type: raw
    default: newest_staged
  domains:
    description:
      - Failure domains, and how many hosts of one may be worked on at once - a mapping of a variable of the hosts, such as C(rack) or C(pool), to the most
        hosts with one of its values in a wave.
      - A host without the variable is limited by nothing, which the plan says. A variable that no host has is an error.
    type: dict
    default: {}
  wave_sizes:
    description: How many hosts the waves of the canaries have at most, and again those after them. The last number holds for all waves that follow.
    type: list
    elements: int
    default: [5, 20, 80, 320, 1280]
  explain:
    description: Hosts for which the whole chain of reasoning is printed, too. P(fleet.microcode.explain#filter) gives the same from a plan's JSON.
    type: list
    elements: str
    default: []
  path:
    description:
      - File on the controller that receives the plan as JSON, readable for its owner only. Its folder must be there.
      - It is replaced as a whole, and not touched in check mode. Without it none is written.
    type: path
  page:
    description:
      - File on the controller that receives the plan as a page for a browser, written like O(path).
      - One file that loads nothing from anywhere - which path how many hosts take, the waves, who is left and why, and a table of all hosts to search and
        sort, with every reason. All of it can be read without scripts and on paper.
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
    description: Prints the plan, writes no file, and says so.
  diff_mode:
    support: none
    description: No host is changed.
  platform:
    support: full
    platforms: all
    description: Runs on the controller.
notes:
  - Put it into the play of the hosts. A play on localhost is skipped by C(--limit).
  - Do not use it with C(serial) - hosts of later batches have no facts yet.
  - The JSON has RV(digest), RV(summary), RV(waves) and C(hosts), where each host has C(action), V(early), V(late), V(firmware_first), V(blocked), V(unknown)
    or V(none); C(from), C(to), C(file), C(sha256) and C(package); C(guests), C(reboot) and C(wave); C(because), what each rule that spoke said, with
    C(rule), C(effect), C(text) and C(source); and C(brings), C(takes) and C(closes), what comes and goes with the update.
seealso:
  - module: fleet.microcode.microcode_facts
  - plugin: fleet.microcode.explain
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read the facts
  fleet.microcode.microcode_facts:
  become: true

- name: Plan
  fleet.microcode.microcode_plan:
    late: allowed
    hold_days: 14
    domains:
      rack: 4
      pool: 1
    path: /var/lib/fleet/plan.json
    page: /var/lib/fleet/plan.html
  register: plan

- name: Look what has become of the plan that was approved
  fleet.microcode.microcode_plan:
    approved: "{{ microcode_plan.packed }}"
    digest: "{{ approved_digest }}"

- name: Plan with a rule of our own
  fleet.microcode.microcode_plan:
    rules:
      - id: our-databases-late-never
        match: "facts.firmware.product == 'PowerEdge R740'"
        effect: early_only
        text: Our databases stand on these. They are restarted in their own window.
        source: operations handbook, chapter 4
        added: "2026-11-01"
"""

RETURN = r"""
digest:
  description:
    - SHA-256 of all that was decided, on which grounds, and in which waves. It does not change with the time.
    - Once hosts are finished, a new plan is another plan, with another digest; one that was approved (O(approved)) keeps its own.
  returned: success
  type: str
waves:
  description: The waves, in their order.
  returned: success
  type: list
  elements: dict
  contains:
    wave:
      description: Its number, from 1 on.
      type: int
    canaries:
      description: Whether it consists of one host of each kind.
      type: bool
    count:
      description: How many hosts it has.
      type: int
    hosts:
      description: Their names; V(null) where the names of all waves would be more than 256 KiB.
      type: list
      elements: str
summary:
  description:
    - C(hosts) counts all hosts, C(actions) those of each action, C(reboots) those that are rebooted, C(guests) those whose guests are touched, by how,
      C(waves) the waves, and C(without_domain), by variable, the hosts in waves that no limit holds for.
    - C(left) has those that something stands against, by C(action) and C(rule) with their C(count) and the first of the C(hosts).
    - It is also, with RV(digest) and C(packed), the whole plan as a text for O(approved), set as the statistic C(microcode_plan), which AWX keeps as an
      artifact of the job. C(packed) is V(null) where it would be more than 256 KiB.
  returned: success
  type: dict
states:
  description:
    - Of the hosts of an approved plan those that are C(done), C(pending), C(stale), which have changed since or were not reached, and the hosts that are C(new)
      to it. Each has C(count) and C(hosts), which is V(null) where the names would be more than 256 KiB.
    - V(null) without O(approved).
  returned: success
  type: dict
packed:
  description: Where no JSON was written, the whole plan as a text for O(approved), as far as it is no more than 256 KiB; else V(null).
  returned: success
  type: str
path:
  description: Where the JSON was written; V(null) where none was.
  returned: success
  type: str
page:
  description: Where the page was written; V(null) where none was.
  returned: success
  type: str
"""
