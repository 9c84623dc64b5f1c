# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What late loading could do here, and why not where it cannot."""
import re
import zlib

from .hypervisor import numbers

RELOAD = "/sys/devices/system/cpu/microcode/reload"
OPTIONS = ("MICROCODE", "MICROCODE_INTEL", "MICROCODE_AMD", "MICROCODE_LATE_LOADING", "MICROCODE_LATE_FORCE_MINREV")


def config_text(host, release, running=True):
    """The configuration of a kernel, "" where it cannot be read; of the one that runs the kernel itself may tell."""
    texts = (host.text(path % release, 4 << 20) for path in ("/boot/config-%s", "/lib/modules/%s/config", "/usr/lib/modules/%s/config") if release)
    return next((text for text in texts if text), "") or (_packed_config(host) if running else "")


def kernel_config(host, release):
    """{option: "y", "m" or "n"} of the options that decide about microcode; None where no configuration can be read."""
    text = config_text(host, release)
    if "CONFIG_" not in text:
        return None
    values = dict(re.findall(r"^CONFIG_(MICROCODE\w*)=(\w)", text, re.M))
    return dict((option, values.get(option, "n")) for option in OPTIONS)


def _packed_config(host):
    packed, tool = host.read("/proc/config.gz"), zlib.decompressobj(31)
    try:
        text = tool.decompress(packed or b"", 4 << 20).decode("ascii", "replace")
        if packed and not tool.eof:
            raise zlib.error("cut off, or too large")
        return text
    except zlib.error as exc:
        host.warn("/proc/config.gz: %s; the kernel's configuration is not known" % exc)
        return ""


def facts(host, hypervisor, config, command_line):
    """Section late: {"interface": sysfs, xen-ucode or none, "available": bool or None, "why_not": str or None, "min_revision_forced": bool or None}.

    The reload file is looked for first: that it exists is the test (LNX-core); on Xen there is none, and xen-ucode takes its place.
    """
    found = {"interface": "none", "available": False, "why_not": None, "min_revision_forced": None}
    role, xen = hypervisor["role"], hypervisor["xen"]
    if role is None:
        found.update(available=None, why_not="it is not known whether this is a guest; see the warnings")
    elif role == "guest":
        found["why_not"] = "this is a guest (%s); its hypervisor's host loads microcode" % (hypervisor["type"] or "of an unknown hypervisor")
    elif xen:
        version = numbers(hypervisor["version"])
        if version is None:
            found.update(available=None, why_not="Xen's version is not known")
        elif xen["tool"] and version >= (4, 13):
            found.update(interface="xen-ucode", available=True)
        elif version < (4, 13):
            found["why_not"] = "Xen %s has no xen-ucode; it came with 4.13" % hypervisor["version"]
        else:
            found["why_not"] = "xen-ucode is not installed; the xen-utils that match Xen %s bring it" % hypervisor["version"]
    elif host.exists(RELOAD):
        found.update(interface="sysfs", available=True)
        # root may change the parameter while the kernel runs; kernels without it take the option of the list alone
        said = host.text("/sys/module/microcode/parameters/force_minrev", 64)
        switch = re.search(r"(?:^|\s)microcode\.force_minrev(?:=(\S*)|(?!\S))|(?:^|\s)microcode=\S*\bforce_minrev\b", command_line or "")
        found["min_revision_forced"] = ((said or switch.group(1) or "y")[0] in "yY1" if said or switch
                                        else config["MICROCODE_LATE_FORCE_MINREV"] == "y" if config else None)
    elif host.is_dir("/sys/devices/system/cpu/microcode") or config:
        late = config and config["MICROCODE_LATE_LOADING"] == "y"
        found["why_not"] = ("the kernel has no reload file%s; only a kernel built with CONFIG_MICROCODE_LATE_LOADING has one"
                            % (" although it is configured: its microcode loader is switched off or its driver not loaded" if late else ""))
    elif host.is_dir("/sys/devices/system/cpu"):
        found["why_not"] = "the kernel has no microcode folder in sysfs: its loader is switched off or not built in"
    else:
        found.update(available=None, why_not="sysfs cannot be read")
    return found
