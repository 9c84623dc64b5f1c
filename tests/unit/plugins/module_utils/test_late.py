# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import gzip

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import late

BARE = {"role": "none", "type": None, "version": None, "xen": None}
SYS = "/sys/devices/system/cpu"


def dom0(version, tool):
    return {"role": "host", "type": "xen", "version": version, "xen": {"tool": tool}}


@pytest.mark.parametrize("files, below, expected, reason", [
    ({late.RELOAD: ""}, BARE, ("sysfs", True), None),
    ({SYS + "/microcode": None}, BARE, ("none", False), "CONFIG_MICROCODE_LATE_LOADING"),
    ({SYS: None}, BARE, ("none", False), "no microcode folder"),
    ({}, BARE, ("none", None), "sysfs cannot be read"),
    ({late.RELOAD: ""}, {"role": "guest", "type": "kvm", "xen": None}, ("none", False), "guest (kvm)"),
    ({late.RELOAD: ""}, {"role": None, "type": "xen", "xen": None}, ("none", None), "not known whether this is a guest"),
    ({late.RELOAD: ""}, dom0("4.17.7", None), ("none", False), "xen-ucode is not installed"),  # never sysfs on Xen
    ({}, dom0("4.17.7", "/usr/sbin/xen-ucode"), ("xen-ucode", True), None),
    ({}, dom0("4.13.0", "/usr/sbin/xen-ucode"), ("xen-ucode", True), None),
    ({}, dom0("4.4.1", "/usr/sbin/xen-ucode"), ("none", False), "came with 4.13"),
    ({}, dom0(None, "/usr/sbin/xen-ucode"), ("none", None), "version is not known"),
    ({}, dom0("unstable", "/usr/sbin/xen-ucode"), ("none", None), "version is not known"),
])
def test_the_interface_and_why_not(machine, files, below, expected, reason):
    found = late.facts(machine(files), below, None, "")
    assert (found["interface"], found["available"]) == expected
    assert reason is None and found["why_not"] is None or reason in found["why_not"]


@pytest.mark.parametrize("command_line, config, forced", [
    ("quiet", "y", True), ("quiet", "n", False), ("microcode.force_minrev=N", "y", False), ("microcode.force_minrev=1", "n", True),
    ("microcode=dbg,force_minrev", "n", True), ("microcode.force_minrev", "n", True), ("microcode.force_minrevs", "n", False), ("quiet", None, None),
])
def test_whether_the_kernel_insists_on_a_minimum_revision(machine, command_line, config, forced):
    options = config and {"MICROCODE_LATE_FORCE_MINREV": config}
    assert late.facts(machine({late.RELOAD: ""}), BARE, options, command_line)["min_revision_forced"] is forced


@pytest.mark.parametrize("said, forced", [("Y\n", True), ("N\n", False)])
def test_the_parameter_that_root_may_change_counts_before_the_options(machine, said, forced):
    host = machine({late.RELOAD: "", "/sys/module/microcode/parameters/force_minrev": said})
    options = {"MICROCODE_LATE_FORCE_MINREV": "n" if forced else "y"}
    assert late.facts(host, BARE, options, "microcode.force_minrev=%d" % (not forced))["min_revision_forced"] is forced


CONFIG = "CONFIG_MICROCODE=y\nCONFIG_MICROCODE_INTEL=y\n# CONFIG_MICROCODE_LATE_LOADING is not set\nCONFIG_X86_MSR=m\n"
WANTED = {"MICROCODE": "y", "MICROCODE_INTEL": "y", "MICROCODE_AMD": "n", "MICROCODE_LATE_LOADING": "n", "MICROCODE_LATE_FORCE_MINREV": "n"}


@pytest.mark.parametrize("files", [
    {"/boot/config-6.1": CONFIG}, {"/lib/modules/6.1/config": CONFIG}, {"/usr/lib/modules/6.1/config": CONFIG},
    {"/proc/config.gz": gzip.compress(CONFIG.encode())},
])
def test_the_kernels_configuration(machine, files):
    assert late.kernel_config(machine(files), "6.1") == WANTED


@pytest.mark.parametrize("files", [{}, {"/proc/config.gz": b"rubbish"}, {"/proc/config.gz": gzip.compress(b"x")[:12]}])
def test_a_configuration_that_cannot_be_read_is_not_known(machine, files):
    assert late.kernel_config(machine(files), "6.1") is None


def test_a_configuration_packed_to_explode_stays_small(machine):
    host = machine({"/proc/config.gz": gzip.compress(CONFIG.encode() + b"\0" * (64 << 20))})
    assert late.kernel_config(host, "6.1") is None
    assert "too large" in host.warnings[0]
