# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""xen-livepatch of a hypervisor to which no patch was applied (XEN tools/misc/xen-livepatch.c)."""


def main(machine, name, argv):
    """xen-livepatch list"""
    del name
    if machine.state()["xen"] is None or argv[:1] != ["list"]:
        return 1
    print("Nothing to list")
    return 0
