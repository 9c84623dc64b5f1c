# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import json
import os

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import facts, files, hypervisor
from ansible_collections.fleet.microcode.tests.fleet import made_intel
from ansible_collections.fleet.microcode.tests.fleet.machine import cpuinfo

PATH = "/lib/firmware/intel-ucode/06-55-04"
SERVER = {"/proc/cpuinfo": cpuinfo(2), "/proc/sys/kernel/osrelease": "6.1.0-41-amd64\n", "/proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet secret=1\n",
          "/etc/os-release": 'ID=debian\nVERSION_ID="12"\n', "/sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
          "/sys/class/dmi/id/product_name": "PowerEdge R740\n",
          "/sys/class/dmi/id/bios_version": "2.19.1\n", "/sys/class/dmi/id/bios_date": "06/04/2023\n", PATH: made_intel.update(),
          "/sys/devices/system/cpu/vulnerabilities/gather_data_sampling": "Vulnerable: No microcode\n"}


@pytest.mark.parametrize("wanted, expected", [
    (["all"], facts.SUBSETS), ([], facts.SUBSETS), (["min"], ()), (["!all"], ()), (["files"], ("files",)), (["min", "late"], ("late",)),
    (["!guests"], set(facts.SUBSETS) - {"guests"}), (["all", "!early", "!late"], set(facts.SUBSETS) - {"early", "late"}), (["!all", "files"], ("files",)),
])
def test_subsets(wanted, expected):
    assert facts.subsets(wanted) == set(expected)


def test_a_mistyped_subset_is_named_with_what_would_be_right():
    with pytest.raises(ValueError, match="'fiels' is none of all, min, guests"):
        facts.subsets(["fiels"])


def test_a_server(machine):
    found = facts.gather(machine(SERVER))
    assert found["applicable"] is True
    assert found["cpu"]["revision"] == "0x02000050"
    assert found["firmware"] == {"vendor": "Dell Inc.", "product": "PowerEdge R740", "bios_version": "2.19.1", "bios_date": "2023-06-04"}
    assert [entry["revision"] for entry in found["files"]] == ["0x02007006"]
    assert found["vulnerabilities"] == {"gather_data_sampling": "Vulnerable: No microcode"}
    assert "internal error" not in str(found["warnings"])


def test_the_command_line_is_given_only_where_it_bears_on_microcode(machine):
    assert facts.gather(machine(SERVER))["command_line"] == []
    options = dict(SERVER, **{"/proc/cmdline": "root=/dev/sda1 dis_ucode_ldr microcode.force_minrev=Y nosmt rd.iscsi.password=secret"})
    assert facts.gather(machine(options))["command_line"] == ["dis_ucode_ldr", "microcode.force_minrev=Y", "nosmt"]


def test_what_is_left_out_is_null_and_not_read(machine, monkeypatch):
    host = machine(SERVER)
    opened = []
    monkeypatch.setattr(host, "open", lambda path, real=host.open: opened.append(path) or real(path))
    found = facts.gather(host, ["min"])
    assert [found[name] for name in ("early", "boot", "late", "files", "firmware", "vulnerabilities", "pending")] == [None] * 7
    assert PATH not in opened


@pytest.mark.parametrize("change", [{"/proc/cpuinfo": cpuinfo(2, flags="fpu hypervisor")}, {"/.dockerenv": ""}])
def test_in_a_guest_or_container_the_revision_says_nothing(machine, change):
    found = facts.gather(machine(dict(SERVER, **change)))
    assert (found["applicable"], found["pending"], found["files"], found["early"]) == (False, None, None, None)
    assert "guest" in found["late"]["why_not"]


def test_another_architecture_is_not_applicable_and_said(machine):
    found = facts.gather(machine(dict(SERVER, **{"/proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n"})))
    assert found["applicable"] is False
    assert not any("guest" in text for text in found["warnings"])
    assert found["cpu"]["signature"] is None
    assert any("/proc/cpuinfo" in text for text in found["warnings"])


def test_a_mistake_in_one_reader_costs_no_other_section(machine, monkeypatch):
    def broken(*_arguments):
        raise KeyError("surprise")
    monkeypatch.setattr(files, "facts", broken)
    found = facts.gather(machine(SERVER))
    assert found["files"] is None
    assert found["firmware"] is not None
    assert "files: internal error, please report it: KeyError: 'surprise'" in found["warnings"]


def test_a_mistake_while_asking_xen_leaves_no_stale_revision(machine, monkeypatch):
    def broken(*_arguments):
        raise KeyError("surprise")
    monkeypatch.setattr(hypervisor, "xen_revisions", broken)
    found = facts.gather(machine(dict(SERVER, **{"/sys/hypervisor/type": "xen\n", "/proc/xen/capabilities": "control_d\n"})))
    assert (found["cpu"]["revision"], found["cpu"]["revisions"], found["pending"]) == (None, None, None)
    assert any("internal error" in text for text in found["warnings"])


def test_an_empty_tree_still_answers(machine):
    found = facts.gather(machine({}))
    assert found["applicable"] is None
    assert found["cpu"]["revision"] is None
    assert found["warnings"]


def test_hostile_files_everywhere_cost_nothing_but_warnings(machine, tmp_path):
    host = machine(SERVER)
    for path in list(SERVER):
        place = tmp_path / path.lstrip("/")
        place.unlink()
        os.mkfifo(str(place))
    found = facts.gather(host)
    assert found["cpu"]["revision"] is None
    assert "internal error" not in str(found["warnings"])
    assert "/proc/cpuinfo: not a regular file" in found["warnings"]


VULNERABILITIES = {  # of a Xeon Gold 6148 on Linux 6.1, long ones among them
    "gather_data_sampling": "Vulnerable: No microcode", "indirect_target_selection": "Not affected", "itlb_multihit": "KVM: Mitigation: VMX disabled",
    "l1tf": "Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable", "mds": "Mitigation: Clear CPU buffers; SMT vulnerable",
    "meltdown": "Mitigation: PTI", "mmio_stale_data": "Mitigation: Clear CPU buffers; SMT vulnerable", "reg_file_data_sampling": "Not affected",
    "retbleed": "Mitigation: IBRS", "spec_rstack_overflow": "Not affected", "spec_store_bypass": "Mitigation: Speculative Store Bypass disabled via prctl",
    "spectre_v1": "Mitigation: usercopy/swapgs barriers and __user pointer sanitization",
    "spectre_v2": "Mitigation: IBRS; IBPB: conditional; STIBP: conditional; RSB filling; PBRSB-eIBRS: Not affected; BHI: Not affected",
    "srbds": "Not affected", "tsa": "Not affected", "tsx_async_abort": "Mitigation: Clear CPU buffers; SMT vulnerable",
    "vmscape": "Mitigation: IBPB before exit to userspace"}


def test_the_reply_for_128_cpus_stays_under_4_kib(machine):
    tree = dict(SERVER, **{"/proc/cpuinfo": cpuinfo(128)})
    tree.update(("/sys/devices/system/cpu/vulnerabilities/" + name, text) for name, text in VULNERABILITIES.items())
    for kernel in ("6.1.0-41-amd64", "6.1.0-40-amd64", "6.1.0-39-amd64"):
        tree.update({"/boot/vmlinuz-" + kernel: "x", "/boot/initrd.img-" + kernel: b"\x1f\x8b" + b"\0" * 100, "/lib/modules/%s/modules.dep" % kernel: ""})
    reply = json.dumps({"ansible_facts": {"microcode": facts.gather(machine(tree))}, "invocation": {"module_args": {"sysroot": "/", "gather_subset": ["all"]}}})
    assert len(reply) <= 4096
