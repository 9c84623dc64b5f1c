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
LIBVIRT = """\
<domain type="kvm">
  <name>debian</name>
  <memory unit="MiB">768</memory>
  <vcpu>1</vcpu>
  <os><type arch="x86_64">hvm</type></os>
  <features><acpi/></features>
  <cpu mode="host-passthrough"/>
  <devices>
    <disk type="block" device="disk"><driver name="qemu" type="raw"/><source dev="/dev/vdb"/><target dev="vda" bus="virtio"/></disk>
    <interface type="bridge"><mac address="52:54:00:00:00:01"/><source bridge="guests"/><model type="virtio"/></interface>
    <serial type="pty"/>
  </devices>
</domain>
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


def test_a_libvirt_host_and_its_guest(machine):
    one = machine("trixie-libvirt", kind="epyc-rome", disk_of="bookworm-dracut", memory=3072)  # KVM works on it, by emulated SVM
    facts = one.facts()
    check(facts, one)
    assert (facts["hypervisor"]["role"], facts["hypervisor"]["type"]) == ("host", "kvm")
    assert facts["hypervisor"]["guests"]["count"] == 0
    one.sh(BRIDGE)
    one.write("/root/debian.xml", LIBVIRT)
    one.sh("virsh define /root/debian.xml && virsh start debian")
    guest = Guest(one, "debian", "fe80::5054:ff:fe00:1%guests", "bookworm-dracut")
    guest.wait_up()
    facts = guest.facts()
    assert (facts["applicable"], facts["hypervisor"]["role"], facts["hypervisor"]["type"]) == (False, "guest", "kvm")
    assert facts["late"]["available"] is False and "guest" in facts["late"]["why_not"]
    assert facts["pending"] is None
    since = len(one.events())
    assert one.sh("virsh suspend debian; virsh domstate debian").split()[-1] == "paused"
    facts = one.facts()
    check(facts, one)
    assert facts["hypervisor"]["guests"]["count"] == 1
    assert len(one.events()) == since  # whatever the guest's kernel wrote, no CPU took
