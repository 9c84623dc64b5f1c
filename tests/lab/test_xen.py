# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real Xen and its dom0: microcode_facts against the processor's own log, late loading by xen-ucode, early loading through GRUB, guests that count aloud."""
import re

import pytest

INTEL = "/lib/firmware/intel-ucode/06-55-04"
OLD, NEW = "0x02000050", "0x02007006"
SCAN = "echo 'GRUB_CMDLINE_XEN_DEFAULT=\"ucode=scan\"' >>/etc/default/grub; update-grub"
LINUX = "Debian GNU/Linux"  # GRUB's entry without Xen
RELEASES = [pytest.param("bullseye-xen", "4.14", "5.10", id="4.14"), pytest.param("bookworm-xen", "4.17", "6.1", id="4.17", marks=pytest.mark.smoke),
            pytest.param("trixie-xen", "4.20", "6.12", id="4.20")]


def check(facts, one):
    """The facts' revisions are those that the processor itself says it runs, for every CPU that the facts claim to know."""
    truth, told = one.revisions(), dict((cpu, revision) for revision, cpus in facts["cpu"]["revisions"].items() for cpu in cpus)
    assert told, "no revision was told"
    assert told == dict((cpu, truth[cpu]) for cpu in told)
    assert len(told) + facts["cpu"]["unread"] == len(truth)
    assert facts["cpu"]["revision"] in set(truth.values())


@pytest.mark.parametrize("image, xen, linux", RELEASES)
def test_late_by_xen_ucode_then_early_by_linux_then_early_by_xen(machine, image, xen, linux):
    one = machine(image)
    facts = one.facts()
    check(facts, one)
    hypervisor, cpu = facts["hypervisor"], facts["cpu"]
    assert (hypervisor["role"], hypervisor["type"], hypervisor["xen"]["dom0"], hypervisor["xen"]["physical_cpus"]) == ("host", "xen", "pv", 2)
    assert hypervisor["version"].startswith(xen + ".") and facts["kernel"].startswith(linux + ".")
    assert (cpu["signature"], cpu["revision"], facts["early"]["xen_ucode"], facts["early"]["loads"], facts["pending"]) == ("0x00050654", OLD, "none", "none", None)
    assert (facts["late"]["interface"], facts["late"]["available"]) == ("xen-ucode", True)
    assert facts["warnings"] == [text for text in facts["warnings"] if "does not show" in text]

    one.sh(SCAN)
    facts = one.facts()
    assert (facts["early"]["xen_ucode"], facts["pending"], facts["cpu"]["revision"]) == ("scan", NEW, OLD)

    one.ssh("xen-ucode", INTEL)
    assert one.revisions() == {0: NEW, 1: NEW}
    facts = one.facts()
    check(facts, one)
    assert (facts["cpu"]["revision"], facts["cpu"]["unread"], facts["cpu"]["boot_revision"], facts["pending"]) == (NEW, 0, OLD, None)
    assert set(re.findall(r"^microcode\s*: (\w+)", one.sh("cat /proc/cpuinfo"), re.M)) == {"0x2000050"}  # stale, so that the facts must not rely on it
    print(one.sh("xl dmesg | grep -i -e microcode -e ucode"))

    one.ssh("grub-reboot", LINUX)
    one.reboot()
    facts = one.facts()
    check(facts, one)
    assert (facts["hypervisor"]["role"], facts["cpu"]["revision"], facts["cpu"]["revision_source"], facts["cpu"]["unread"]) == ("none", NEW, "sysfs", 0)
    assert (facts["cpu"]["pf_mask"], facts["late"]["available"]) == ("0x00000080", False)
    print(one.sh("dmesg | grep microcode"))

    one.reboot()
    facts = one.facts()
    check(facts, one)
    assert (facts["hypervisor"]["role"], facts["cpu"]["revision"], facts["pending"], facts["boot"]["next_entry"]) == ("host", NEW, None, None)
    print(one.sh("xl dmesg | grep -i -e microcode -e ucode"))
