# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import cpu
from ansible_collections.fleet.microcode.tests.fleet.machine import cpuinfo

SYS = "/sys/devices/system/cpu/"


def sysfs(revisions, flags="0x80"):
    files = {}
    for index, revision in enumerate(revisions):
        files[SYS + "cpu%d/microcode/version" % index] = revision + "\n"
        files[SYS + "cpu%d/microcode/processor_flags" % index] = flags + "\n"
    return files


@pytest.mark.parametrize("family, model, stepping, signature", [
    (6, 85, 4, 0x50654), (6, 154, 4, 0x906a4), (6, 63, 2, 0x306f2),  # DEB-I: 06-55-04, 06-9a-04, 06-3f-02
    (15, 4, 9, 0xf49), (5, 2, 12, 0x52c), (6, 5, 0, 0x650),  # Pentium 4 and older
    (25, 1, 1, 0xa00f11), (23, 49, 0, 0x830f10), (26, 2, 1, 0xb00f21), (16, 4, 3, 0x100f43),  # DEB-A
    (19, 1, 0, 0x400f10),  # extended family of an Intel-style high family
])
def test_the_signature_is_that_of_cpuid(family, model, stepping, signature):
    assert cpu.signature(family, model, stepping) == signature


@given(st.integers(0, 0xff), st.integers(0, 0xff), st.integers(0, 15))
def test_the_signature_can_be_taken_apart_again(family, model, stepping):
    value = cpu.signature(family, model, stepping)
    base = value >> 8 & 15
    assert (base + (value >> 20 & 255 if base == 15 else 0), (value >> 4 & 15) | (value >> 12 & 0xf0), value & 15) == (family, model, stepping)


@pytest.mark.parametrize("text, expected", [
    ("0-3", [0, 1, 2, 3]), ("0,2-3,8\n", [0, 2, 3, 8]), ("", []), (None, []), ("0-", None), ("rubbish", None), ("0-99999999", None), ("3-1", []),
])
def test_cpu_lists(text, expected):
    assert cpu.cpu_list(text) == expected


def test_sysfs_is_preferred_and_every_cpu_is_read(machine):
    files = {"/proc/cpuinfo": cpuinfo(4), SYS + "online": "0-3", SYS + "present": "0-3", SYS + "smt/active": "1"}
    facts, processor, flags = cpu.read(machine(dict(files, **sysfs(["0x2006b06"] * 4))))
    assert facts["revision"] == "0x02006b06"
    assert facts["revisions"] == {"0x02006b06": [0, 1, 2, 3]}
    assert (facts["revision_source"], facts["unread"], facts["smt"]) == ("sysfs", 0, True)
    assert (facts["signature"], facts["pf_mask"]) == ("0x00050654", "0x00000080")
    assert facts["llc_per_core"] == 1441792
    assert facts["tsx"] is True
    assert processor == ("GenuineIntel", 0x50654, 0x80, 0x2006b06)


def test_without_a_microcode_folder_cpuinfo_serves(machine):
    facts, processor, _flags = cpu.read(machine({"/proc/cpuinfo": cpuinfo(2)}))
    assert (facts["revision"], facts["revision_source"]) == ("0x02000050", "cpuinfo")
    assert facts["pf_mask"] is None
    assert processor.pf_mask is None


def test_sysfs_that_answers_for_some_cpus_only_gives_way_to_cpuinfo(machine):
    files = dict(sysfs(["0x2006b06", "rubbish"]), **{"/proc/cpuinfo": cpuinfo(2)})
    facts, _processor, _flags = cpu.read(machine(files))
    assert (facts["revision"], facts["revision_source"]) == ("0x02000050", "cpuinfo")


def test_differing_revisions_leave_no_single_revision(machine):
    host = machine({"/proc/cpuinfo": cpuinfo(3, revision=["0x2000050", "0x2007006", "0x2000050"])})
    facts, processor, _flags = cpu.read(host)
    assert facts["revision"] is None
    assert processor.revision is None
    assert facts["revisions"] == {"0x02000050": [0, 2], "0x02007006": [1]}
    assert any("different revisions" in text for text in host.warnings)


def test_differing_steppings_leave_no_single_signature(machine):
    second = cpuinfo(2, stepping=7).split("\n\n")[1] + "\n\n"
    host = machine({"/proc/cpuinfo": cpuinfo(1) + second})
    facts, processor, _flags = cpu.read(host)
    assert facts["signature"] is None
    assert facts["signatures"] == ["0x00050654", "0x00050657"]
    assert processor.signature is None
    assert any("CPUs differ" in text for text in host.warnings)


def test_an_offline_cpu_is_unread_and_said(machine):
    files = {"/proc/cpuinfo": cpuinfo(3), SYS + "online": "0-2", SYS + "present": "0-3", SYS + "possible": "0-127"}
    host = machine(files)
    facts, _processor, _flags = cpu.read(host)
    assert (facts["online"], facts["present"], facts["offline"], facts["unread"]) == (3, 4, [3], 1)
    assert any("CPUs 3 are offline" in text for text in host.warnings)


def test_differing_platform_masks_are_not_known(machine):
    files = dict(sysfs(["0x2006b06"] * 2), **{"/proc/cpuinfo": cpuinfo(2, sockets=2)})
    files[SYS + "cpu1/microcode/processor_flags"] = "0x1\n"
    host = machine(files)
    assert cpu.read(host)[0]["pf_mask"] is None
    assert any("platform masks" in text for text in host.warnings)


def test_amd_has_no_platform_mask_and_takes_its_cache_from_sysfs(machine):
    files = {"/proc/cpuinfo": cpuinfo(2, vendor="AuthenticAMD", family=25, model=1, stepping=1, revision="0xa0011d5", cache=512, flags="fpu"),
             SYS + "cpu0/cache/index3/size": "32768K\n", SYS + "cpu0/cache/index3/shared_cpu_list": "0-7,64-71\n",
             SYS + "cpu0/topology/thread_siblings_list": "0,64\n"}
    facts, processor, _flags = cpu.read(machine(files))
    assert (facts["signature"], facts["pf_mask"], facts["llc_per_core"], facts["tsx"]) == ("0x00a00f11", None, 4 << 20, False)
    assert processor == ("AuthenticAMD", 0xa00f11, None, 0xa0011d5)


@pytest.mark.parametrize("text", [
    None, "", "rubbish", "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n",  # arm64
    "vendor_id       : IBM/S390\n# processors    : 2\nprocessor 0: version = FF,  identification = 0133E8,  machine = 2964\n",
    "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: six\nmodel\t: 85\nstepping\t: unknown\n\n", "processor : 99999999999999999999\n\n", "\0" * 4096,
])
def test_what_is_no_x86_processor_is_not_known(machine, text):
    host = machine({} if text is None else {"/proc/cpuinfo": text})
    facts, processor, _flags = cpu.read(host)
    assert facts["signature"] is None
    assert facts["revision"] is None
    assert processor.signature is None
    assert host.warnings


@given(st.text(max_size=300) | st.lists(st.sampled_from(cpuinfo(2).splitlines() + ["", "microcode\t: 0x", "model\t: -1"])).map("\n".join))
def test_any_text_is_read_without_an_exception(text):
    class Canned(object):
        live, warnings = False, []

        def text(self, path, limit=0):
            return text if path == "/proc/cpuinfo" else None

        def is_dir(self, path):
            return False

        def warn(self, text):
            pass
    facts, _processor, _flags = cpu.read(Canned())
    assert facts["revision"] is None or len(facts["revisions"]) == 1


def test_hostile_numbers_and_lists_cost_nothing():
    assert cpu.number("9" * 1000000, 10) is None  # hours in Python 3.6
    assert cpu.cpu_list("0-99999," * 1000) is None
