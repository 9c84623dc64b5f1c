# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""microcode_facts inside guests, which load no microcode, and on the hosts that carry them."""
from ansible_collections.fleet.microcode.tests.lab.machine import Guest
from ansible_collections.fleet.microcode.tests.lab.truth import check

BRIDGE = "ip link add guests type bridge; ip link set guests up"
XEN = """\
name = "debian"
type = "pv"
memory = 448
vcpus = 1
kernel = "{kernel}"
ramdisk = "{initrd}"
extra = "root=/dev/xvda1 ro console=hvc0 net.ifnames=0"
disk = ["phy:/dev/vdb,xvda,w"]
vif = ["mac=00:16:3e:00:00:01,bridge=guests"]
"""


def newest(one, pattern):
    """The last of the files that fit on a machine."""
    return one.sh("ls -v %s | tail -1" % pattern).strip()


def test_a_xen_guest(machine):
    one = machine("bookworm-xen", disk_of="bookworm-dracut", memory=2048)
    one.sh(BRIDGE)
    one.write("/root/debian.cfg", XEN.format(kernel=newest(one, "/boot/vmlinuz-*"), initrd=newest(one, "/boot/initrd.img-*")))
    one.ssh("xl", "create", "/root/debian.cfg")
    guest = Guest(one, "debian", "fe80::216:3eff:fe00:1%guests", "bookworm-dracut")
    guest.wait_up()
    facts = guest.facts()
    assert (facts["applicable"], facts["hypervisor"]["role"], facts["hypervisor"]["type"]) == (False, "guest", "xen")
    assert facts["late"]["available"] is False and "guest" in facts["late"]["why_not"]
    assert facts["pending"] is None
    facts = one.facts()
    check(facts, one)
    assert facts["hypervisor"]["guests"] == {"count": 1, "states": {"running": 1}}
