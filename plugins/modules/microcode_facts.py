#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

DOCUMENTATION = r"""
module: microcode_facts
short_description: Which microcode a host's CPUs run, what is at hand, and what the next boot would load
version_added: 0.1.0
author: The fleet.microcode authors (@fleet)
description:
  - Reads the processor's signature, the revision of every CPU, the hypervisor's role, what early and late loading would do, and the
    microcode files on the disk for this processor.
  - Changes nothing. What cannot be told is V(null), and RV(ansible_facts.microcode.warnings) says why.
  - In a guest or a container the revision says nothing; RV(ansible_facts.microcode.applicable) is then V(false).
options:
  sysroot:
    description:
      - Folder of a mounted image or a captured tree to read instead of the live machine. No command is run then.
      - An image does not say which processor it is for. With a copy of that machine's C(/proc/cpuinfo) as C(proc/cpuinfo) in it the facts tell
        what its initrds and files hold for it; without one they tell the distribution only.
    type: path
    default: /
  gather_subset:
    description:
      - Which sections to gather - V(all), V(min), V(guests), V(early), V(late), V(files), V(firmware), V(vulnerabilities), or one of them with
        an V(!) before it to leave it out. What is left out is V(null).
    type: list
    elements: str
    default: [all]
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: There is no difference to show.
  facts:
    support: full
    description: Returns C(ansible_facts).
  platform:
    support: full
    platforms: Linux
    description: Linux and Xen on x86; elsewhere it says what is not known.
notes:
  - Root is needed to read some initrds, Xen and older kernels' sysfs; without it the warnings name what could not be read.
  - To have plain fact gathering collect these facts too, set E(ANSIBLE_FACTS_MODULES=ansible.builtin.setup,fleet.microcode.microcode_facts)
    and the variable C(ansible_facts_parallel=false) - two SSH operations instead of 18.
"""

EXAMPLES = r"""
- name: Gather microcode facts
  fleet.microcode.microcode_facts:
  become: true

- name: Show hosts where a reboot would load newer microcode
  ansible.builtin.debug:
    msg: "{{ ansible_facts['microcode']['cpu']['revision'] }} -> {{ ansible_facts['microcode']['pending'] }}"
  when: ansible_facts['microcode']['pending'] is not none

- name: Read a mounted image
  fleet.microcode.microcode_facts:
    sysroot: /mnt/image
"""

RETURN = r"""
ansible_facts:
  description: Facts of the host.
  returned: always
  type: dict
  contains:
    microcode:
      description: All that could be told; revisions and signatures are hexadecimal with 8 digits.
      type: dict
      returned: always
      contains:
        schema:
          description: Version of this shape.
          type: int
        gathered:
          description: When, in UTC.
          type: str
        boot_id:
          description: The kernel's identifier of this boot.
          type: str
        applicable:
          description:
            - Whether microcode is this host's own business; V(false) in guests, containers and on other architectures.
            - Where it is not V(true), C(kernel_config), C(early), C(boot), C(files) and C(pending) are V(null).
          type: bool
        kernel:
          description: Release of the running kernel.
          type: str
        kernel_config:
          description:
            - V(y), V(m) or V(n) for C(MICROCODE), C(MICROCODE_INTEL), C(MICROCODE_AMD), C(MICROCODE_LATE_LOADING) and C(MICROCODE_LATE_FORCE_MINREV).
          type: dict
        command_line:
          description: Options of the running kernel that bear on microcode.
          type: list
          elements: str
        tainted:
          description: The kernel's taint bits; V(4) is set by a late load without minimum revision.
          type: int
        distro:
          description: C(id), C(family), C(version), C(codename), and C(release) - V(stable), V(testing), V(unstable) or V(rolling).
          type: dict
        cpu:
          description:
            - C(vendor), C(name), C(family), C(model), C(stepping), C(signature), C(signatures) of all CPUs, C(pf_mask), C(smt), C(tsx),
              C(llc_per_core) in bytes.
            - C(online), C(present) count CPUs (on Xen those that dom0 sees), C(offline) lists them, C(unread) counts CPUs whose revision could not be read.
            - C(revision) is V(null) when CPUs differ; C(revisions) maps each to its CPUs; C(revision_source) is V(cpuinfo), V(sysfs), V(xen-ucode)
              or V(xl-dmesg); C(boot_revision), on Xen, is what dom0 saw at its boot.
          type: dict
        hypervisor:
          description:
            - C(role) is V(none), V(host) or V(guest); C(type), C(version), C(guests) with C(count) and C(states).
            - C(xen), in dom0, holds C(dom0), C(physical_cpus), C(command_line), C(ucode), C(tool), C(tool_features), C(livepatches).
          type: dict
        early:
          description:
            - C(tool) that builds initrds, C(disabled) where a kernel option switches the loader off, C(xen_ucode) of the next boot, and C(kernels)
              with C(version), C(running), C(default), and the C(revision) that each one's C(initrd), or an C(image) loaded before it, carries
              for this processor.
            - C(carries) of a kernel and C(loads) of the next boot are V(update), V(none) where there is nothing for this processor, or V(null)
              where that is not known.
          type: dict
        boot:
          description:
            - C(system), C(reboot_is_kexec), C(one_time_entry), whether an entry can be booted just once, with C(why_not), and C(next_entry),
              the one that is armed already.
          type: dict
        late:
          description: C(interface) is V(sysfs), V(xen-ucode) or V(none); C(available), C(why_not), C(min_revision_forced).
          type: dict
        files:
          description:
            - Files that by their name concern this processor, with C(path), C(revision), C(date), C(min_revision), C(sha256), C(package),
              C(early_only), and C(caveat), the name of the microcode_ctl folder that may hold it back.
            - Where C(revision) is V(null), C(problem) says why it is not known, or is V(null) too where the file holds nothing for this processor.
          type: list
          elements: dict
        firmware:
          description: C(vendor), C(product), C(bios_version), C(bios_date).
          type: dict
        vulnerabilities:
          description: What the kernel said at boot of each vulnerability it knows.
          type: dict
        pending:
          description: Revision that the next boot of the default kernel would load, if newer than the running one.
          type: str
        warnings:
          description: Why something is not known.
          type: list
          elements: str
"""

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
