# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which processor: signature, platform mask, and the revision of every CPU."""
import re

from .update import Processor, hex8

CPU = "/sys/devices/system/cpu/"
VENDORS = ("GenuineIntel", "AuthenticAMD")
EACH = ("processor", "vendor_id", "cpu family", "model", "stepping", "microcode", "physical id")
MOST = 8192  # CPUs, the most that a kernel can be built for (Linux arch/x86/Kconfig)
CPUINFO_LIMIT = 16 << 20  # some 1.5 KiB a CPU


def number(text, base=0):
    """int of text, or None; base 0 takes 0x as well as decimal."""
    try:
        return int(text, base) if len(text) < 99 else None  # digits without end take hours in older Pythons
    except (TypeError, ValueError):
        return None


def cpu_list(text):
    """[0, 1, 2, 5] of the kernel's "0-2,5"; None where the text is something else or beyond 65536."""
    found = []
    for part in (text or "").split(","):
        match = re.match(r"(\d{1,5})(?:-(\d{1,5}))?$", part.strip())
        if match and len(found) <= 65536:
            found.extend(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
        elif part.strip():
            return None
    return found


def signature(family, model, stepping):
    """CPUID leaf 1 EAX of the family, model and stepping that /proc/cpuinfo shows in decimal (Intel SDM, AMD APM)."""
    return (max(0, family - 15) << 20 | (model >> 4) << 16 | min(family, 15) << 8 | (model & 15) << 4 | stepping & 15)


def blocks(text):
    """One dict for each CPU of /proc/cpuinfo: all fields of the first, of the others those that may differ."""
    found = []
    for block in re.split(r"\n\s*\n", text or ""):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        fields = dict((key.strip(), value.strip()) for key, value in pairs if not found or key.strip() in EACH)
        if number(fields.get("processor"), 10) is not None:
            found.append(fields)
        if len(found) == MOST:
            break
    return found


def group(revisions):
    """{"0x…": [cpu, …]} of {cpu: revision}, for a reply that stays small."""
    grouped = {}
    for index in sorted(revisions):
        grouped.setdefault(hex8(revisions[index]), []).append(index)
    return grouped


def agreed(values):
    """The one value that all share, else None."""
    values = set(values)
    return values.pop() if len(values) == 1 else None


def read(host):
    """(facts of section cpu, Processor, flags of CPU 0 as a set or None). What cannot be told is None, and a warning says why."""
    cpus = blocks(host.text("/proc/cpuinfo", CPUINFO_LIMIT))
    first = cpus[0] if cpus else {}
    vendor = agreed(fields.get("vendor_id") for fields in cpus)
    facts = dict.fromkeys(("vendor", "name", "family", "model", "stepping", "signature", "signatures", "pf_mask", "online", "present", "offline", "smt",
                           "revision", "revisions", "revision_source", "boot_revision", "unread", "tsx", "llc_per_core"))
    facts.update(vendor=vendor, name=re.sub(r"\s+", " ", first.get("model name", "")) or None)
    online = cpu_list(host.text(CPU + "online")) or [int(fields["processor"]) for fields in cpus] or None
    present = cpu_list(host.text(CPU + "present")) or None
    facts.update(online=online and len(online), present=present and len(present),
                 offline=sorted(set(present) - set(online)) if present and online else None)
    smt = host.text(CPU + "smt/active")
    facts["smt"] = smt == "1" if smt in ("0", "1") else None
    if not cpus or vendor not in VENDORS:
        host.warn("/proc/cpuinfo: %s; Intel and AMD processors take microcode from the operating system, nothing is known of others"
                  % ("vendor is %s" % vendor if vendor else "names no processor of one x86 vendor" if cpus else
                     "is not there or lists no CPU; an image needs the one of its machine"))
        return facts, Processor(vendor or ("other" if cpus else None), None, None, None), None
    triples = [tuple(number(fields.get(key), 10) for key in ("cpu family", "model", "stepping")) for fields in cpus]
    signatures = sorted(set(signature(*triple) for triple in triples if None not in triple))
    one = agreed(triples)
    if one is None:
        host.warn("the CPUs differ in family, model or stepping: each kind needs an update of its own, so no single signature is given")
    elif None in one:
        host.warn("/proc/cpuinfo: family, model or stepping is missing, so the signature is not known")
    else:
        facts.update(zip(("family", "model", "stepping"), one))
    value = signatures[0] if len(signatures) == 1 and one else None
    flags = set(first.get("flags", "").split())
    facts.update(signature=hex8(value), signatures=[hex8(each) for each in signatures], tsx=bool(flags & {"rtm", "hle"}) if flags else None)
    facts["llc_per_core"] = _llc_per_core(host, vendor, first)
    pf_mask = _pf_mask(host, cpus) if vendor == VENDORS[0] else None
    facts["pf_mask"] = hex8(pf_mask)
    source, revisions = _revisions(host, cpus)
    unread = len(online) - len(revisions) + len(facts["offline"] or ())
    if facts["offline"]:
        host.warn("CPUs %s are offline: their revision cannot be read" % ", ".join(str(each) for each in facts["offline"]))
    running = settle(host, facts, revisions, source, unread)
    return facts, Processor(vendor, value, pf_mask, running), flags


def settle(host, facts, revisions, source, unread):
    """Enter {cpu: revision} from its source into the facts and return the one revision that all CPUs read agree on."""
    running = agreed(revisions.values())
    if len(set(revisions.values())) > 1 and facts["signature"]:
        host.warn("CPUs of one signature run different revisions: %s" % ", ".join(sorted(group(revisions))))
    facts.update(revision=hex8(running), revisions=group(revisions), revision_source=source if revisions else None, unread=unread)
    return running


def _revisions(host, cpus):
    """(source, {cpu: revision}): sysfs where it answers for every CPU, else /proc/cpuinfo; both show the number as hex."""
    shown = dict((int(fields["processor"]), number(fields.get("microcode"))) for fields in cpus)
    asked = {}
    if host.is_dir(CPU + "cpu%d/microcode" % min(shown)):
        for index in shown:  # 0400 on older kernels: without root /proc/cpuinfo serves
            asked[index] = number(host.text(CPU + "cpu%d/microcode/version" % index, 64), 16)
            if asked[index] is None:
                break
    if len(asked) == len(shown) and None not in asked.values():
        return "sysfs", asked
    known = dict((index, value) for index, value in shown.items() if value is not None)
    if len(known) < len(shown):
        host.warn("/proc/cpuinfo: %d of %d CPUs show no microcode revision" % (len(shown) - len(known), len(shown)))
    return "cpuinfo", known


def _pf_mask(host, cpus):
    """The platform mask (one bit, from MSR 0x17) that all packages share, or None."""
    packages = {}
    for fields in cpus:
        packages.setdefault(fields.get("physical id"), fields["processor"])
    masks = [number(host.text(CPU + "cpu%s/microcode/processor_flags" % index, 64), 16) for index in packages.values()]
    if len(set(masks)) > 1:
        host.warn("the platform masks of the packages differ or some cannot be read: %s" % ", ".join(str(hex8(mask)) for mask in masks))
    return agreed(masks)


def _llc_per_core(host, vendor, fields):
    """Bytes of last-level cache for each core: Intel as the kernel's erratum check counts (LNX-intel), AMD from sysfs."""
    if vendor == VENDORS[0]:
        size, cores = number(fields.get("cache size", "").partition(" ")[0], 10), number(fields.get("cpu cores"), 10)
    else:
        base = CPU + "cpu%s/" % fields["processor"]
        size = number((host.text(base + "cache/index3/size") or "").rstrip("K"), 10)
        sharing = cpu_list(host.text(base + "cache/index3/shared_cpu_list"))
        threads = cpu_list(host.text(base + "topology/thread_siblings_list"))
        cores = len(sharing) // len(threads) if sharing and threads else None
    return size * 1024 // cores if size and cores else None
