# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real Xen and its dom0: microcode_facts against the processor's own log, late loading by xen-ucode, early loading through GRUB, guests that count aloud."""
import re

import pytest

from ansible_collections.fleet.microcode.tests.lab.truth import check, taken

INTEL = "/lib/firmware/intel-ucode/06-55-04"
OLD, NEW = "0x02000050", "0x02007006"
UPDATED = "updated from revision 0x2000050 to 0x2007006, date = 2023-03-06"
AMD = "/lib/firmware/amd-ucode/microcode_amd_fam17h.bin"
SCAN = "echo 'GRUB_CMDLINE_XEN_DEFAULT=\"ucode=scan\"' >>/etc/default/grub; update-grub"
LINUX = "Debian GNU/Linux"  # GRUB's entry without Xen
RELEASES = [pytest.param("bullseye-xen", "4.14", "5.10", id="4.14"), pytest.param("bookworm-xen", "4.17", "6.1", id="4.17", marks=pytest.mark.smoke),
            pytest.param("trixie-xen", "4.20", "6.12", id="4.20")]


@pytest.mark.parametrize("image, xen, linux", RELEASES)
def test_late_by_xen_ucode_then_early_by_linux_then_early_by_xen(machine, image, xen, linux):
    one = machine(image)
    facts = one.facts()
    check(facts, one)
    hypervisor, cpu = facts["hypervisor"], facts["cpu"]
    assert (hypervisor["role"], hypervisor["type"], hypervisor["xen"]["dom0"], hypervisor["xen"]["physical_cpus"]) == ("host", "xen", "pv", 2)
    assert hypervisor["version"].startswith(xen + ".") and facts["kernel"].startswith(linux + ".")
    assert (cpu["signature"], cpu["revision"], facts["pending"]) == ("0x00050654", OLD, None)
    assert (facts["early"]["xen_ucode"], facts["early"]["loads"]) == ("none", "none")
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
    assert one.sh("xl dmesg").count(UPDATED) == 2

    one.ssh("grub-reboot", LINUX)
    one.reboot()
    facts = one.facts()
    check(facts, one)
    assert (facts["hypervisor"]["role"], facts["cpu"]["revision"], facts["cpu"]["revision_source"], facts["cpu"]["unread"]) == ("none", NEW, "sysfs", 0)
    assert (facts["cpu"]["pf_mask"], facts["late"]["available"]) == ("0x00000080", False)
    assert re.search("updated early to revision 0x2007006|Updated early from: 0x02000050", one.sh("dmesg"))

    one.reboot()
    facts = one.facts()
    check(facts, one)
    assert (facts["hypervisor"]["role"], facts["cpu"]["revision"], facts["pending"], facts["boot"]["next_entry"]) == ("host", NEW, None, None)
    assert one.sh("xl dmesg").count(UPDATED) == 2


def test_amd_on_xen_late_then_early(machine):
    one = machine("bookworm-xen", kind="epyc-rome")
    facts = one.facts()
    check(facts, one)
    (offered,) = [entry["revision"] for entry in facts["files"]]
    assert (facts["cpu"]["vendor"], facts["cpu"]["signature"], facts["cpu"]["pf_mask"]) == ("AuthenticAMD", "0x00830f10", None)
    assert (facts["cpu"]["revision"], facts["late"]["interface"]) == ("0x08301025", "xen-ucode") and offered > "0x08301025"
    one.ssh("xen-ucode", AMD)
    assert one.revisions() == {0: offered, 1: offered}
    check(one.facts(), one)
    one.sh(SCAN)
    since = len(one.events())
    one.reboot()
    assert taken(one, since) == [(0, offered), (1, offered)]
    facts = one.facts()
    check(facts, one)
    assert (facts["cpu"]["revision"], facts["pending"]) == (offered, None)


def test_late_on_some_cpus_only_is_told_by_the_facts(machine):
    one = machine("bookworm-xen", faults=["ucode-cpus=1"])
    done = one.ssh("xen-ucode", INTEL, check=False)
    assert (done.returncode, done.stderr) == (1, "Failed to update microcode. (err: Input/output error)\n")
    assert one.revisions() == {0: NEW, 1: OLD}
    facts = one.facts()
    check(facts, one)
    assert (facts["cpu"]["revision"], facts["cpu"]["revisions"], facts["cpu"]["unread"]) == (None, {NEW: [0], OLD: [1]}, 0)
    assert any("different revisions" in text for text in facts["warnings"])


def test_a_hang_in_early_loading_ends_with_the_power_and_the_default_entry_comes_back(machine):
    one = machine("bookworm-xen", faults=["ucode-hang=" + NEW])
    one.ssh("grub-reboot", LINUX)
    before, since = one.boot_id(), len(one.console)
    one.ssh("systemctl", "reboot", check=False)
    one.wait(lambda: any(event.get("result") == "hang" for event in one.events()), "the processor does not hang")
    assert "Linux version" not in one.console[since:]  # before the first line, as in the field
    assert one.silent()
    one.reset()
    one.wait_up()
    facts = one.facts()
    check(facts, one)
    assert one.boot_id() != before
    assert (facts["hypervisor"]["type"], facts["cpu"]["revision"], facts["boot"]["next_entry"]) == ("xen", OLD, None)


@pytest.mark.real("guests that run")
def test_a_guest_that_counts_shows_a_pause_and_a_loss(machine):
    one = machine("bookworm-xen")

    def count(name):
        said = re.findall(r"^%s count=(\d+) uptime=([\d.]+)" % name, one.guests, re.M)
        return (int(said[-1][0]), float(said[-1][1])) if said else (0, 0.0)

    def goes_on(name):
        before = count(name)[0]
        return one.wait(lambda: count(name)[0] > before + 2, name + " does not count")
    for name in ("g1", "g2"):
        one.ssh("xl", "create", "/srv/guests/%s.cfg" % name)
        one.wait(lambda name=name: count(name)[0] > 3, name + " does not count")
    one.ssh("xl", "pause", "g1")
    goes_on("g2")  # what g1 had still to say has come by now
    held = count("g1")
    goes_on("g2")
    assert count("g1") == held
    one.network(False)
    goes_on("g2")  # guests are heard though nobody can be reached
    assert one.silent()
    one.network(True)
    one.wait_up()
    one.ssh("xl", "unpause", "g1")
    goes_on("g1")
    said = [(int(number), float(uptime)) for number, uptime in re.findall(r"^g1 count=(\d+) uptime=([\d.]+)", one.guests, re.M)]
    assert [number for number, _uptime in said] == list(range(said[-1][0] + 1))  # nothing was lost
    assert max(after - before for (_n, before), (_m, after) in zip(said, said[1:])) > 1  # and the pause shows as a jump of its clock
    facts = one.facts()
    assert facts["hypervisor"]["guests"]["count"] == 2
    one.ssh("xl", "destroy", "g2")
    goes_on("g1")
    lost = count("g2")
    goes_on("g1")
    assert count("g2") == lost
