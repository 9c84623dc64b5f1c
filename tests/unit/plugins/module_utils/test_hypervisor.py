# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import cpu, hypervisor
from ansible_collections.fleet.microcode.tests.fleet.machine import cpuinfo

BARE = {"fpu", "vme"}
GUEST = BARE | {"hypervisor"}
XEN = {"/sys/hypervisor/type": "xen\n", "/sys/hypervisor/version/major": "4\n", "/sys/hypervisor/version/minor": "17\n",
       "/sys/hypervisor/version/extra": ".7\n"}
DOM0 = dict(XEN, **{"/proc/xen/capabilities": "control_d\n", "/sys/hypervisor/guest_type": "PV\n"})
INFO = "release                : 6.1.0-41-amd64\nnr_cpus                : 2\nxen_version            : 4.17.7\nxen_commandline        : placeholder ucode=scan\n"
BANNER = "(XEN) Xen version 4.17.7 (Debian 4.17.7-1) (someone@example.org) debug=n\n"
BSP = "(XEN) BSP microcode revision: 0x02000050\n"
LATE = "(XEN) 2 cores are to update their microcode\n" + "".join(
    "(XEN) microcode: CPU%d updated from revision 0x2000050 to 0x2007006, date = 2023-03-06\n" % index for index in (0, 1))  # LAB


def role(host, flags=frozenset(BARE), machine=None):
    found = hypervisor.facts(host, flags, machine)
    return found["role"], found["type"]


@pytest.mark.parametrize("files, flags, firmware, expected", [
    ({}, BARE, "Dell Inc. PowerEdge R740", ("none", None)),
    ({}, BARE, "Supermicro Super Server", ("none", None)),
    ({"/sys/module/kvm_intel/refcnt": "0\n"}, BARE, None, ("none", None)),  # a laptop with the module loaded
    ({"/sys/module/kvm_intel/refcnt": "3\n"}, BARE, None, ("host", "kvm")),
    ({"/sys/module/kvm_amd/refcnt": "0\n", "/etc/libvirt/qemu": None}, BARE, None, ("host", "kvm")),
    ({"/sys/module/kvm_amd/refcnt": "0\n", "/etc/pve": None}, BARE, None, ("host", "kvm")),
    ({}, GUEST, "QEMU Standard PC (Q35 + ICH9, 2009)", ("guest", "kvm")),
    ({"/sys/module/kvm_intel/refcnt": "2\n", "/etc/libvirt/qemu": None}, GUEST, "QEMU Standard PC", ("guest", "kvm")),  # nested
    ({}, GUEST, "Amazon EC2 m6i.large", ("guest", "kvm")),
    ({}, BARE, "Amazon EC2 m6i.metal", ("none", None)),
    ({}, BARE, "Nutanix NX-3060-G5", ("none", None)),  # a cloud's or vendor's own machine, not a virtual one of it
    ({}, GUEST, "Nutanix AHV", ("guest", "kvm")),
    ({}, GUEST, "VMware, Inc. VMware7,1", ("guest", "vmware")),
    ({}, GUEST, "Microsoft Corporation Virtual Machine", ("guest", "hyper-v")),
    ({}, BARE, "Microsoft Corporation Surface Pro", ("none", None)),
    ({}, GUEST, "Xen HVM domU", ("guest", "xen")),
    ({}, GUEST, "Some Vendor Some Product", ("guest", None)),
    ({}, BARE, "QEMU Standard PC", ("guest", "kvm")),  # the bit is hidden, the firmware is not
    ({"/.dockerenv": ""}, BARE, "Dell Inc. PowerEdge", ("guest", "docker")),
    ({"/run/.containerenv": ""}, BARE, None, ("guest", "podman")),
    ({"/run/systemd/container": "lxc\n"}, BARE, None, ("guest", "lxc")),
    ({"/proc/1/environ": "PATH=/bin\0container=systemd-nspawn\0"}, BARE, None, ("guest", "systemd-nspawn")),
    ({"/proc/1/cgroup": "0::/kubepods/besteffort/pod1\n"}, BARE, None, ("guest", "kubepods")),
    (DOM0, GUEST, None, ("host", "xen")),
    (dict(XEN, **{"/proc/xen/capabilities": ""}), GUEST, None, ("guest", "xen")),
    (dict(XEN, **{"/sys/hypervisor/properties/features": "00000c01\n"}), GUEST, None, ("host", "xen")),  # xenfs not mounted; bit 11
    (dict(XEN, **{"/sys/hypervisor/properties/features": "00000705\n"}), GUEST, None, ("guest", "xen")),
    (XEN, GUEST, None, (None, "xen")),
    ({}, set(), None, (None, None)),
])
def test_the_role(machine, files, flags, firmware, expected):
    assert role(machine(files), flags, firmware) == expected


def test_a_machine_started_from_a_containers_image_is_no_container(machine, tmp_path):
    host = machine({"/.dockerenv": "", "/proc/self/ns": None})
    for name, number in hypervisor.INITIAL.items():
        (tmp_path / "proc/self/ns" / name).symlink_to("%s:[%d]" % (name, number))
    assert role(host) == ("none", None)
    (tmp_path / "proc/self/ns/pid").unlink()
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026532201]")
    assert role(host) == ("guest", "docker")


def test_a_role_that_cannot_be_told_is_explained(machine):
    host = machine({})
    role(host, set())
    assert "whether this is a guest is not known" in host.warnings[-1]
    host = machine(XEN)
    role(host)
    assert "neither xenfs" in host.warnings[0]


def test_a_container_that_nothing_names_is_seen_by_its_process_numbers(machine, tmp_path):
    host = machine({"/proc/self/ns": None})
    for name, number in dict(hypervisor.INITIAL, ipc=4026532999).items():
        (tmp_path / "proc/self/ns" / name).symlink_to("%s:[%d]" % (name, number))
    assert role(host) == ("none", None)  # a service with a namespace of its own
    (tmp_path / "proc/self/ns/pid").unlink()
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026532998]")
    assert role(host) == ("guest", "container")


def test_a_guests_denied_version_is_not_a_version(machine):
    host = machine(dict(XEN, **{"/proc/xen/capabilities": "", "/sys/hypervisor/version/extra": "<denied>"}))
    assert hypervisor.facts(host, BARE, None)["version"] is None


def test_guests_of_a_kvm_host_are_counted_only_where_module_and_records_agree(machine):
    files = {"/sys/module/kvm_intel/refcnt": "2\n", "/run/libvirt/qemu/web.pid": "11\n", "/run/libvirt/qemu/db.pid": "12\n"}
    assert hypervisor.facts(machine(files), BARE, None)["guests"] == {"count": 2, "states": None}
    host = machine(dict(files, **{"/sys/module/kvm_intel/refcnt": "0\n"}))
    assert hypervisor.facts(host, BARE, None)["guests"] is None
    assert "how many guests there are is not known" in host.warnings[0]


def test_dom0_tells_of_the_hypervisor(machine):
    listing = ("Name                                        ID   Mem VCPUs\tState\tTime(s)\n"
               "Domain-0                                     0  1024     2     r-----      23.4\n"
               "web 1                                        1   128     1     -b----       3.0\n"
               "db                                           2   128     1     --p---       2.9\n")
    patches = " ID         | status     | metadata\n------------+------------+---------\nxsa-400     | APPLIED    |\nxsa-401     | CHECKED    |\n"
    found = hypervisor.facts(machine(DOM0, {"xl info": INFO, "xl list": listing, "xen-livepatch list": patches}), GUEST, None)
    assert (found["role"], found["type"], found["version"]) == ("host", "xen", "4.17.7")
    assert (found["xen"]["dom0"], found["xen"]["physical_cpus"], found["xen"]["command_line"]) == ("pv", 2, "placeholder ucode=scan")
    assert found["xen"]["livepatches"] == ["xsa-400"]
    assert found["guests"] == {"count": 2, "states": {"running": 1, "paused": 1}}


def test_dom0_whose_xl_does_not_answer_says_so(machine):
    host = machine(DOM0, {"xl info": (127, "", "xl: cannot execute")})
    found = hypervisor.facts(host, GUEST, None)
    assert (found["version"], found["xen"]["physical_cpus"], found["guests"]) == ("4.17.7", None, None)
    assert "xl info: no answer" in host.warnings[0]


def test_without_xl_dom0s_kernel_counts_the_machines_cpus(machine):
    files = dict(DOM0, **{"/sys/devices/system/xen_cpu/xen_cpu%d/online" % index: "1\n" for index in range(4)})
    assert hypervisor.facts(machine(files), GUEST, None)["xen"]["physical_cpus"] == 4


def ask(machine, commands, files=None, physical=2):
    """(facts of section cpu, section xen, (revision, pf_mask), warnings) of a dom0 that saw 0x2000050 when it booted."""
    host = machine(dict(DOM0, **dict({"/proc/cpuinfo": cpuinfo(2)}, **(files or {}))), commands)
    facts, _processor, _flags = cpu.read(host)
    xen = {"physical_cpus": physical, "command_line": None, "tool": None, "tool_features": None}
    answer = hypervisor.xen_revisions(host, facts, xen)
    return facts, xen, answer, host.warnings


def test_after_a_late_load_the_log_tells_and_the_stale_cpuinfo_does_not(machine):
    facts, _xen, answer, warnings = ask(machine, {"xl dmesg": BANNER + BSP + LATE})
    assert (facts["revision"], facts["revisions"], facts["unread"]) == ("0x02007006", {"0x02007006": [0, 1]}, 0)
    assert (facts["revision_source"], facts["boot_revision"]) == ("xl-dmesg", "0x02000050")
    assert facts["tsx"] is facts["smt"] is facts["llc_per_core"] is None  # of dom0's virtual CPUs
    assert answer == (0x2007006, None)
    assert warnings == []


def test_two_loads_leave_the_last_one(machine):
    again = LATE.replace("0x2007006", "0x2007008").replace("0x2000050", "0x2007006")
    assert ask(machine, {"xl dmesg": BANNER + BSP + LATE + again})[0]["revision"] == "0x02007008"


@pytest.mark.parametrize("path", hypervisor.LOG_FILES)
def test_only_the_log_since_the_last_boot_counts(machine, path):
    facts = ask(machine, {}, {path: BANNER + BSP + LATE + BANNER + BSP})[0]
    assert (facts["revision"], facts["revisions"], facts["unread"]) == ("0x02000050", {"0x02000050": [0]}, 1)


def test_of_a_kept_log_the_end_counts_however_long_it_is(machine):
    line = "(XEN) d1v0 " + "x" * 80 + "\n"
    log = BANNER + BSP + LATE + line * (5 << 20 >> 6)
    assert ask(machine, {}, {hypervisor.LOG_FILES[0]: log})[0]["revisions"] == {}  # it may have been booted since
    assert ask(machine, {}, {hypervisor.LOG_FILES[0]: log + BANNER + BSP})[0]["revisions"] == {"0x02000050": [0]}


def test_without_xl_the_kept_log_tells_xens_command_line(machine):
    log = BANNER + "(XEN) Command line: placeholder dom0_mem=1G ucode=scan\n" + BSP
    assert ask(machine, {}, {hypervisor.LOG_FILES[0]: log})[1]["command_line"] == "placeholder dom0_mem=1G ucode=scan"


def test_cpus_that_took_different_revisions_are_seen(machine):
    facts, _xen, answer, warnings = ask(machine, {"xl dmesg": BANNER + BSP + LATE.replace("CPU1 updated from revision 0x2000050 to 0x2007006", "")})
    assert facts["revisions"] == {"0x02007006": [0]}
    assert facts["unread"] == 1
    assert any("1 of the machine's 2 CPUs" in text for text in warnings)
    facts, _xen, answer, warnings = ask(machine, {"xl dmesg": BANNER + LATE.replace("0x2007006", "0x2006b06", 1)})
    assert facts["revision"] is None
    assert answer == (None, None)


def test_a_cpu_on_which_the_load_failed_tells_what_it_runs(machine):
    log = BANNER + BSP + LATE.splitlines(True)[1] + "(XEN) microcode: CPU1 update rev 0x2000050 to 0x2007006 failed, result 0x2000050\n"  # LAB
    facts, _xen, answer, warnings = ask(machine, {"xl dmesg": log})
    assert (facts["revision"], facts["revisions"], facts["unread"]) == (None, {"0x02007006": [0], "0x02000050": [1]}, 0)
    assert answer == (None, None)
    assert any("different revisions" in text for text in warnings)
    assert ask(machine, {"xl dmesg": log.replace("result 0x2000050", "result 0")})[0]["unread"] == 1


def test_a_log_that_lost_its_beginning_proves_nothing_by_silence(machine):
    facts, _xen, answer, warnings = ask(machine, {"xl dmesg": "(XEN) some later line\n"})
    assert (facts["revision"], facts["revisions"], facts["revision_source"], facts["boot_revision"]) == (None, {}, None, "0x02000050")
    assert answer == (None, None)
    assert "lost its beginning" in warnings[-1]


@pytest.mark.parametrize("line", ["(d1) (XEN) microcode: CPU0 updated from revision 0x2000050 to 0x2007006, date = 2023-03-06\n",
                                  "(XEN) d1v0 microcode: CPU0 updated from revision 0x2000050 to 0x2007006, date = 2023-03-06\n",
                                  "(d1) Xen version 4.17\n", "(XEN) d1v0 BSP microcode revision: 0x02007006\n"])
def test_what_a_guest_writes_to_the_log_is_not_believed(machine, line):
    assert ask(machine, {"xl dmesg": "(XEN) some later line\n" + line})[0]["revisions"] == {}
    assert ask(machine, {"xl dmesg": BANNER + BSP + line})[0]["revisions"] == {"0x02000050": [0]}


@pytest.mark.parametrize("stamp", ["(XEN) [2026-11-22 10:00:00] ", "(XEN) [    4.017042] ", "[2026-11-02 06:11:40] (XEN) "])
def test_a_log_with_times_is_read(machine, stamp):
    assert ask(machine, {"xl dmesg": (BANNER + BSP + LATE).replace("(XEN) ", stamp)})[0]["revisions"] == {"0x02007006": [0, 1]}


def test_an_old_xen_without_a_line_about_the_first_cpu_is_believed_when_its_log_is_whole(machine):
    facts = ask(machine, {"xl dmesg": BANNER})[0]
    assert (facts["revision"], facts["revision_source"], facts["unread"]) == ("0x02000050", "cpuinfo", 1)


UPSTREAM = "CPU signature 06-55-04 (raw 0x00050654) pf 0x80 revision 0x02007006\n"
XCPNG = ("Current CPU signature is: 06-55-04 (raw 0x50654)\nCurrent CPU microcode revision is: 0x2007006\nCurrent CPU processor flags are: 0x80\n")
USAGE = "xen-ucode: Xen microcode updating tool\nUsage: /usr/sbin/xen-ucode %s\n"


@pytest.mark.parametrize("commands, features", [
    ({"/usr/sbin/xen-ucode": (2, "", USAGE % "[<microcode file> | show-cpu-info]" + UPSTREAM)}, ["show-cpu-info"]),  # 4.18, 4.19
    ({"/usr/sbin/xen-ucode": (2, "", USAGE % "[<microcode file> | show-cpu-info]"), "/usr/sbin/xen-ucode show-cpu-info": UPSTREAM}, ["show-cpu-info"]),
    ({"/usr/sbin/xen-ucode": (2, "", USAGE % "[microcode file] [options]\n -s, --show-cpu-info\n -f, --force"),
      "/usr/sbin/xen-ucode --show-cpu-info": UPSTREAM}, ["force", "show-cpu-info"]),  # 4.20
    ({"/usr/sbin/xen-ucode": (0, "", USAGE % "<microcode blob> <parallel|sequential>" + XCPNG)}, ["show-cpu-info"]),
])
def test_xen_ucode_is_asked_where_it_can_answer(machine, commands, features):
    facts, xen, answer, _warnings = ask(machine, dict(commands, **{"xl dmesg": "(XEN) a log that lost its beginning\n"}), {"/usr/sbin/xen-ucode": ""})
    assert (facts["revision"], facts["revisions"], facts["revision_source"], facts["unread"]) == ("0x02007006", {"0x02007006": [0]}, "xen-ucode", 1)
    assert answer == (0x2007006, 0x80)
    assert (xen["tool"], xen["tool_features"]) == ("/usr/sbin/xen-ucode", features)


def test_xen_ucode_speaks_of_cpu_0_only_and_the_log_of_the_others(machine):
    commands = {"/usr/sbin/xen-ucode": (2, "", USAGE % "[<microcode file> | show-cpu-info]" + UPSTREAM), "xl dmesg": BANNER + BSP + LATE}
    facts = ask(machine, commands, {"/usr/sbin/xen-ucode": ""})[0]
    assert (facts["revisions"], facts["unread"], facts["revision_source"]) == ({"0x02007006": [0, 1]}, 0, "xen-ucode")


def test_a_log_that_contradicts_xen_ucode_is_not_believed_about_the_others(machine):
    commands = {"/usr/sbin/xen-ucode": (2, "", USAGE % "[<microcode file> | show-cpu-info]" + UPSTREAM),
                "xl dmesg": BANNER + BSP + LATE.replace("0x2007006", "0x2006b06")}
    facts = ask(machine, commands, {"/usr/sbin/xen-ucode": ""})[0]
    assert (facts["revisions"], facts["unread"]) == ({"0x02007006": [0]}, 1)


def test_an_old_xen_ucode_has_no_features(machine):
    xen = ask(machine, {"/usr/sbin/xen-ucode": (2, "", USAGE % "<microcode blob>"), "xl dmesg": BANNER + BSP}, {"/usr/sbin/xen-ucode": ""})[1]
    assert xen["tool_features"] == []


def test_debians_wrapper_without_the_utils_that_match_is_no_tool(machine):
    commands = {"/usr/sbin/xen-ucode": (127, "", "/usr/lib/xen-common/bin/xen-ucode: not found\n"), "xl dmesg": BANNER + BSP}
    xen = ask(machine, commands, {"/usr/sbin/xen-ucode": ""})[1]
    assert (xen["tool"], xen["tool_features"]) == (None, None)


def test_nothing_but_questions_is_asked_of_the_hypervisor(machine):
    host = machine(dict(DOM0, **{"/proc/cpuinfo": cpuinfo(2), "/usr/sbin/xen-ucode": ""}), {"/usr/sbin/xen-ucode": (2, "", USAGE % "show-cpu-info")})
    found = hypervisor.facts(host, GUEST, None)
    hypervisor.xen_revisions(host, cpu.read(host)[0], found["xen"])
    assert set(host.ran) == {"xl info", "xl list", "xl dmesg", "xen-livepatch list", "/usr/sbin/xen-ucode", "/usr/sbin/xen-ucode show-cpu-info"}
