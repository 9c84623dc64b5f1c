#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

DOCUMENTATION = r"""
module: microcode_file_info
short_description: What microcode files, initrds or folders of them hold
version_added: 0.1.0
author: The fleet.microcode authors (@fleet)
description:
  - Lists the updates in Intel microcode files, AMD containers and the early cpio archive of an initrd, one item for each signature.
  - For Intel files it lists what C(iucode_tool -l) lists, and says what is wrong with an update that is not valid.
options:
  path:
    description:
      - Files to read, and folders whose files, with those of their subfolders, are read.
    type: list
    elements: path
    required: true
  sysroot:
    description:
      - Folder of a mounted image or a captured tree in which O(path) lies; links are followed inside it only.
    type: path
    default: /
  checksums:
    description:
      - Whether to read whole updates and check their sums; without it only headers and tables are read.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: There is no difference to show.
  platform:
    support: full
    platforms: posix
    description: Reads files only.
"""

EXAMPLES = r"""
- name: List what the distribution's Intel microcode holds
  fleet.microcode.microcode_file_info:
    path: /lib/firmware/intel-ucode
  register: microcode

- name: List what the microcode files of a mounted image hold
  fleet.microcode.microcode_file_info:
    sysroot: /mnt/image
    path: /lib/firmware/intel-ucode

- name: List what an initrd carries
  fleet.microcode.microcode_file_info:
    path: /boot/initrd.img-6.1.0-41-amd64
"""

RETURN = r"""
containers:
  description: One item for each file, and for each microcode member of an initrd.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    member:
      description: Name inside the initrd's early cpio archive; V(null) for a file of its own.
      type: str
    vendor:
      description: V(GenuineIntel), V(AuthenticAMD), or V(null) where it is no microcode.
      type: str
    problem:
      description: Why nothing, or nothing more, could be read; V(null) where all of it was.
      type: str
    entries:
      description: Updates, one item for each signature.
      type: list
      elements: dict
      contains:
        signature:
          description: CPUID leaf 1 EAX of the processors it is for.
          type: str
        pf_mask:
          description: Intel's platform mask; V(null) for AMD.
          type: str
        revision:
          description: Revision.
          type: str
        date:
          description: Day of its making; V(null) where the header holds none.
          type: str
        size:
          description: Bytes.
          type: int
        min_revision:
          description: Revision that must run before it is late-loaded; V(null) where none is declared.
          type: str
        valid:
          description: Whether nothing wrong was found.
          type: bool
        problems:
          description: What is wrong.
          type: list
          elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fleet.microcode.plugins.module_utils import listing
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host, refusal


def main():
    module = AnsibleModule(
        argument_spec={"path": {"type": "list", "elements": "path", "required": True}, "sysroot": {"type": "path", "default": "/"},
                       "checksums": {"type": "bool", "default": True}},
        supports_check_mode=True,
    )
    problem = refusal(module.params["sysroot"])
    if problem:
        module.fail_json(msg=problem)
    host = Host(module.params["sysroot"])
    containers = listing.containers(host, module.params["path"], module.params["checksums"])
    if host.warnings and not containers:
        module.fail_json(msg="nothing could be read: " + "; ".join(host.warnings))
    for text in host.warnings:
        module.warn(text)
    module.exit_json(containers=containers)


if __name__ == "__main__":
    main()
