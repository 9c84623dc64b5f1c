# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything about one machine's microcode, as ansible_facts.microcode; each section comes from the file of its name."""
import re
import time

from . import boot, cpu, distro, files, hypervisor, initrd, late

SUBSETS = ("guests", "early", "late", "files", "firmware", "vulnerabilities")  # the rest costs next to nothing and always comes
VULNERABILITIES = "/sys/devices/system/cpu/vulnerabilities/"


def subsets(wanted):
    """Names of SUBSETS for a gather_subset such as ["all", "!guests"] or ["min", "files"]; ValueError names what is none of them."""
    unknown = set(each.lstrip("!") for each in wanted) - set(SUBSETS + ("all", "min"))
    if unknown:
        raise ValueError("gather_subset: '%s' is none of all, min, %s" % ("', '".join(sorted(unknown)), ", ".join(SUBSETS)))
    plain = set(each for each in wanted if not each.startswith("!"))
    chosen = set(SUBSETS) if "all" in plain or not plain else plain & set(SUBSETS)
    if "!all" in wanted:
        chosen = plain & set(SUBSETS)
    return chosen - set(each[1:] for each in wanted if each.startswith("!"))


def gather(host, wanted=("all",)):
    """The facts of one machine, shaped as the module microcode_facts documents. Never raises: what fails is null, with a warning."""
    chosen = subsets(wanted)

    def section(name, call, *arguments):
        """The result of a reader; a mistake of our own must not cost the operator the other sections."""
        try:
            return call(*arguments)
        except Exception as exc:  # pylint: disable=broad-except
            host.warn("%s: internal error, please report it: %s: %s" % (name, type(exc).__name__, exc))
            return None

    command_line = host.text("/proc/cmdline", 64 << 10)
    release = host.text("/proc/sys/kernel/osrelease", 256)
    facts = {
        "schema": 1, "gathered": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "boot_id": host.text("/proc/sys/kernel/random/boot_id", 256), "kernel": release, "tainted": cpu.number(host.text("/proc/sys/kernel/tainted", 256)),
        # only options that bear on microcode: a command line may hold secrets
        "command_line": None if command_line is None else re.findall(r"(?:^|\s)(dis_ucode_ldr|(?:microcode[.=]|nosmt|mitigations=|tsx=)\S*)", command_line),
        "distro": section("distro", distro.facts, host),
        "kernel_config": None, "early": None, "boot": None, "late": None, "files": None, "firmware": None, "vulnerabilities": None,
        "pending": None, "applicable": None,
    }
    dmi = dict((name, host.text("/sys/class/dmi/id/" + name, 4096) or None) for name in ("sys_vendor", "product_name", "bios_version", "bios_date"))
    facts["cpu"], processor, flags = section("cpu", cpu.read, host) or (None, None, None)
    below = None
    if processor:
        machine = " ".join(dmi[name] or "" for name in ("sys_vendor", "product_name"))
        below = section("hypervisor", hypervisor.facts, host, flags, machine, "guests" in chosen)
    facts["hypervisor"] = below
    if below and (below["role"] == "guest" or processor.vendor not in (None,) + cpu.VENDORS):
        facts["applicable"] = False
    elif below and below["role"] and processor.vendor:
        facts["applicable"] = True
    if "firmware" in chosen and any(dmi.values()):
        date = re.match(r"(\d\d)/(\d\d)/(\d{4})$", dmi["bios_date"] or "")
        facts["firmware"] = {"vendor": dmi["sys_vendor"], "product": dmi["product_name"], "bios_version": dmi["bios_version"],
                             "bios_date": "-".join(date.group(3, 1, 2)) if date else None}
    if "vulnerabilities" in chosen and host.is_dir(VULNERABILITIES):
        facts["vulnerabilities"] = dict((name, host.text(VULNERABILITIES + name, 4096)) for name in host.names(VULNERABILITIES))
    if facts["applicable"]:
        _loading(host, facts, processor, chosen, command_line, section)
    elif below and "late" in chosen:
        facts["late"] = section("late", late.facts, host, below, None, command_line)
    facts["warnings"] = host.warnings
    return facts


def _loading(host, facts, processor, chosen, command_line, section):
    """The sections that only mean something where this kernel or this Xen loads microcode itself."""
    xen = facts["hypervisor"]["xen"]
    version = bool(xen) and (hypervisor.numbers(facts["hypervisor"]["version"]) or True)
    if xen:
        asked = section("xen", hypervisor.xen_revisions, host, facts["cpu"], xen)
        if asked is None:  # what dom0 sees may be stale
            facts["cpu"].update(revision=None, revisions=None, revision_source=None, unread=None)
        running, pf_mask = asked or (None, None)
        processor = processor._replace(revision=running, pf_mask=processor.pf_mask or pf_mask)
        facts["cpu"]["pf_mask"] = cpu.hex8(processor.pf_mask)
        xen["ucode"] = boot.xen_ucode(xen["command_line"])
    if "early" in chosen:
        facts["boot"] = section("boot", boot.facts, host, command_line)
        entry = section("boot", boot.default_entry, host)
        early = section("early", initrd.facts, host, processor, entry, version, facts["kernel"], command_line)
        facts["early"], facts["pending"] = early if early else (None, None)
    if "late" in chosen:
        config = facts["kernel_config"] = section("late", late.kernel_config, host, facts["kernel"])
        facts["late"] = section("late", late.facts, host, facts["hypervisor"], config, command_line)
    if "files" in chosen:
        facts["files"] = section("files", files.facts, host, processor, facts["kernel"], version)
