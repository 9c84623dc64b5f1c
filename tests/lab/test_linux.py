# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real Linux without Xen: microcode_facts against the processor's own log, early loading through GRUB, late loading through sysfs, kexec, lost features."""
import re

import pytest

from ansible_collections.fleet.microcode.tests.lab.truth import check, taken

OLD, NEW = "0x02000050", "0x02007006"
RELOAD = "/sys/devices/system/cpu/microcode/reload"
TRANSACTION = """\
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("c7f800000000c3"))  # xbegin, whose fallback is the next instruction: ret
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""


def test_amd_early(machine):
    one = machine("bookworm-dracut", kind="epyc-rome")
    facts = one.facts()
    check(facts, one)
    (offered,) = [entry["revision"] for entry in facts["files"]]
    assert taken(one) == [(0, offered), (1, offered)]
    assert (facts["cpu"]["signature"], facts["cpu"]["revision"], facts["cpu"]["unread"], facts["pending"]) == ("0x00830f10", offered, 0, None)
    assert facts["early"]["tool"] == "dracut"


def test_a_newer_package_is_pending_until_the_boot_and_kexec_keeps_what_runs(machine):
    one = machine("bookworm-dracut", kind="sapphire-rapids")
    facts = one.facts()
    check(facts, one)
    older = facts["cpu"]["revision"]
    assert (older, facts["pending"], facts["boot"]["reboot_is_kexec"]) == (taken(one)[0][1], None, False)  # though kexec-tools' LOAD_KEXEC is true
    one.sh("kexec -l /boot/vmlinuz-* --reuse-cmdline --initrd=\"$(ls /boot/initrd.img-*)\"")
    assert one.facts()["boot"]["reboot_is_kexec"] is True
    since = len(one.events())
    one.reboot(["shutdown", "-r", "now"])  # what ansible.builtin.reboot runs
    assert not [event for event in one.events()[since:] if event["event"] in ("reset", "update")]
    facts = one.facts()
    check(facts, one)
    assert (facts["cpu"]["revision"], facts["boot"]["reboot_is_kexec"]) == (older, False)

    one.sh("apt-get -q update; apt-get -qy install intel-microcode", seconds=900)
    facts = one.facts()
    newer = facts["pending"]
    assert newer > older and (facts["cpu"]["revision"], facts["boot"]["reboot_is_kexec"]) == (older, False)
    assert newer in [entry["revision"] for entry in facts["files"]]
    since = len(one.events())
    one.reboot()
    assert any(event["event"] == "reset" for event in one.events()[since:])
    assert taken(one, since) == [(0, newer), (1, newer)]
    facts = one.facts()
    check(facts, one)
    assert (facts["cpu"]["revision"], facts["pending"]) == (newer, None)


def test_cpus_that_took_different_revisions(machine):
    one = machine("bookworm-dracut", faults=["ucode-cpus=1"])
    assert one.revisions() == {0: NEW, 1: OLD}
    facts = one.facts()
    check(facts, one)
    assert (facts["cpu"]["revision"], facts["cpu"]["revisions"], facts["cpu"]["unread"]) == (None, {NEW: [0], OLD: [1]}, 0)
    assert any("different revisions" in text for text in facts["warnings"])


@pytest.mark.parametrize("version", ["6.12", "6.1"])
def test_late_through_sysfs(machine, version):
    one = machine("bookworm-late", threads=2)
    if version == "6.1":  # the newest is the default
        ids = re.findall(r"menuentry_id_option '(gnulinux-(?:6\.1\.\d+-late-)?advanced-[^']+)'", one.sh("cat /boot/grub/grub.cfg"))
        one.ssh("grub-reboot", ">".join(ids))
        one.reboot()
    facts = one.facts()
    check(facts, one)
    assert facts["kernel"].startswith(version + ".")
    assert (facts["cpu"]["revision"], facts["cpu"]["smt"], facts["late"]["interface"], facts["late"]["available"]) == (OLD, True, "sysfs", True)
    since = len(one.events())
    one.sh("echo 1 | tee " + RELOAD)
    assert one.revisions() == {0: NEW, 1: NEW}
    assert taken(one, since) == [(0, NEW)] and one.events()[-1]["event"] == "sibling"  # Intel's siblings share an update
    facts = one.facts()
    check(facts, one)
    assert (facts["cpu"]["revision"], facts["cpu"]["revision_source"], facts["tainted"] & 4) == (NEW, "sysfs", 4)
    print(one.sh("dmesg | grep -i microcode"))


@pytest.mark.real("a processor whose instructions go")
def test_late_loading_takes_a_feature_away_from_programs_that_use_it(machine):
    one = machine("bookworm-late", kind="haswell", faults=["ucode-withdraw=0x28/7/0/ebx/0x810"])
    facts = one.facts()
    assert (facts["cpu"]["signature"], facts["cpu"]["tsx"]) == ("0x000306c3", True)
    assert [entry["early_only"] for entry in facts["files"]] == [True]  # Debian's name for it keeps Linux from loading it late
    one.write("/root/transaction.py", TRANSACTION)
    program = "python3 /root/transaction.py; echo $?"
    assert one.ssh("sh", "-c", program).stdout.split() == ["0"]
    one.sh("cp /lib/firmware/intel-ucode/06-3c-03.initramfs /lib/firmware/intel-ucode/06-3c-03; echo 1 >" + RELOAD)
    assert set(one.revisions().values()) == {"0x00000028"}
    assert one.ssh("sh", "-c", program).stdout.split() == ["132"]  # 128 + SIGILL
    check(one.facts(), one)


@pytest.mark.on_demand
@pytest.mark.real("an image that changes daily")
def test_unstable_early(machine):
    one = machine("sid")
    facts = one.facts()
    check(facts, one)
    assert (facts["cpu"]["revision"], facts["distro"]["release"], facts["pending"]) == (NEW, None, None)  # testing calls itself the same
    one.sh("echo 'deb http://deb.debian.org/debian sid main' >/etc/apt/sources.list")
    assert one.facts()["distro"]["release"] == "unstable"
