# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of an assessment: where the fleet stands, what needs a person, all hosts. What it is made of is in page.py."""
from collections import Counter

from ansible_collections.fleet.microcode.plugins.plugin_utils.page import (
    SAID, Fleet, alike, bars, by_text, code, distribution, element, frame, hosts_in_words, hosts_part, kind_card, kinds_card, listing, models, natural,
    said_list, section, titled, totalled, whole, words)
from ansible_collections.fleet.microcode.plugins.plugin_utils.report import STATES, cells, clean, items, lacking, number, part, quantity

PERSON = ("cpus_differ", "not_loaded", "no_file", "not_reached", "unknown")  # states that a person must look into; the others need none, or a reboot
MEANINGS = {
    "cpus_differ": "CPUs of one host run different revisions.",
    "not_loaded": "A file on the host is newer than what runs, and the next boot would not load it.",
    "no_file": "Nothing on the host's disk is for its processor.",
    "not_reached": "The host was unreachable, or reading its facts failed.",
    "unknown": "The facts leave open what it takes to tell.",
    "pending_reboot": "The next boot of the default kernel loads a newer revision.",
    "nothing_newer": "What runs is at least as new as the newest valid file on the host. That may be of an old package: this is not \"up to date\".",
    "not_applicable": "A guest or a container, whose host loads microcode; or a processor of neither Intel nor AMD.",
}
REVISIONS = ("signature", "running", "at_hand", "next_boot")
COLUMNS = (("name", "Host", False), ("kind", "State", False), ("cpu", "CPU", False), ("running", "Runs", True), ("at_hand", "At hand", True),
           ("next_boot", "Next boot", True), ("distribution", "Distribution", False), ("path", "Path", True))
DETAILS = (("because", "Why"), ("warnings", "Warnings"), ("vulnerable", "Vulnerable for want of newer microcode"), ("boots", "Next boot"),
           ("files", "On the disk"), ("late", "Late loading"), ("loader", "Boot loader"), ("processor", "Processor"), ("hypervisor", "Hypervisor"),
           ("kernel", "Kernel"), ("firmware", "Firmware"))


# --- what hosts say, in words ---

def count(value):
    """A number of things, or None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1000000 else None


def on_xen(facts):
    """Whether Xen is who loads microcode."""
    return part(facts, "hypervisor", "type") == "xen"


def path(facts):
    """How newer microcode gets onto a host's CPUs as it is set up now: by whom, early, late, or neither."""
    loads, possible = part(facts, "early", "loads"), part(facts, "late", "available")
    if part(facts, "hypervisor", "role") not in ("none", "host"):
        return "not known"
    if loads == "update":
        how = "early or late" if possible is True else "early"
    elif loads == "none":
        how = "late only" if possible is True else "neither" if possible is False else "not known"
    else:
        how = "late; early not known" if possible is True else "not known"
    return "%s: %s" % ("Xen" if on_xen(facts) else "Linux", how)


def default_kernel(facts):
    """What the facts say of the kernel that boots next, or None."""
    return next((each for each in items(part(facts, "early", "kernels")) if part(each, "default") is True), None)


def boots(facts):
    """What early loading would do at the next boot."""
    kernel, early = default_kernel(facts), part(facts, "early")
    loads, revision = part(early, "loads"), clean(part(kernel, "revision"), 10)
    tool, option = (clean(part(early, key), 40) for key in ("tool", "xen_ucode"))
    source = clean(part(kernel, "image"), 200) or clean(part(kernel, "initrd"), 200)
    carried = "%s in %s" % (revision, source) if revision and source else None
    if loads == "update":
        does = "finds " + (carried or "microcode for this CPU")
    elif loads == "none":
        does = "loads none" + (", though there is " + carried if carried else "")
    else:
        does = "what it loads is not known"
    return words(does, "ucode=" + option if option and on_xen(facts) and option not in ("none", "off") else None,
                 "the kernel's loader is switched off" if part(early, "disabled") is True else None, "initrd by " + tool if tool else None)


def late(facts):
    """What could be done at run time."""
    available, interface, why = part(facts, "late", "available"), clean(part(facts, "late", "interface"), 40), clean(part(facts, "late", "why_not"))
    if available is True:
        forced = part(facts, "late", "min_revision_forced") is True
        return words("possible through %s" % interface, "which takes only updates that declare from which revision on they may be loaded" if forced else None)
    return ("not possible" if available is False else "not known") + (": " + why if why else "")


def loader(facts):
    """What boots the host, and whether one entry can be booted just once."""
    boot = part(facts, "boot")
    system, once, why = clean(part(boot, "system"), 40), part(boot, "one_time_entry"), clean(part(boot, "why_not"))
    if not system:
        return None
    can = "an entry can be booted just once" if once is True else "no entry can be booted just once" if once is False else None
    return words(system, can, why, "reboots through kexec" if part(boot, "reboot_is_kexec") is True else None)


def processor(facts):
    """Which CPU, and how many."""
    cpu = part(facts, "cpu")
    triple = [count(part(cpu, key)) for key in ("family", "model", "stepping")]
    online, present, physical = count(part(cpu, "online")), count(part(cpu, "present")), count(part(facts, "hypervisor", "xen", "physical_cpus"))
    source = clean(part(cpu, "revision_source"), 20)
    return words(clean(part(cpu, "name"), 100), clean(part(cpu, "vendor"), 20), None if None in triple else "%02x-%02x-%02x" % tuple(triple),
                 "platform mask " + clean(part(cpu, "pf_mask"), 10) if clean(part(cpu, "pf_mask")) else None,
                 "%d of %d CPUs online" % (online, present) if online and present else None, "%d physical CPUs" % physical if physical else None,
                 "revision from " + source if source else None)


def hypervisor(facts):
    """What runs above or below the host's kernel."""
    said, role = part(facts, "hypervisor"), part(facts, "hypervisor", "role")
    name = words(" ".join(filter(None, (clean(part(said, "type"), 20), clean(part(said, "version"), 30)))))
    guests, mode = count(part(said, "guests", "count")), clean(part(said, "xen", "dom0"), 10)
    if role not in ("host", "guest"):
        return "none" if role == "none" else "not known"
    return words(("guest of " if role == "guest" else "host of ") + (name or "an unknown hypervisor"), "dom0 is " + mode if mode else None,
                 quantity(guests, "guest") if guests is not None else None)


def on_disk(each):
    """One file with microcode for this processor."""
    said = {key: clean(part(each, key), 200) for key in ("path", "revision", "problem", "date", "min_revision", "package", "caveat")}
    return "%s: %s" % (said["path"] or "?", words(
        said["revision"] or said["problem"] or "nothing for this CPU", said["date"], said["package"],
        "late only from %s on" % said["min_revision"] if said["min_revision"] else None,
        "microcode_ctl may hold it back (%s)" % said["caveat"] if said["caveat"] else None,
        "for early loading only" if part(each, "early_only") is True else None))


def told(name, entry):
    """All that the page shows of a host: {column: text, or several texts}; the texts are clean."""
    facts, state = entry["facts"], entry["state"]
    because = clean(entry["because"], 500) or ""
    warnings = [text for text in map(clean, items(part(facts, "warnings"))) if text and text not in because] + [clean(text, 500) for text in entry["notes"]]
    row = dict.fromkeys([each[0] for each in COLUMNS + DETAILS], "")
    row.update(zip(("cpu",) + REVISIONS, cells(entry)))
    row.update(name=clean(name, 253) or "?", kind=state, because=because, warnings=tuple(dict.fromkeys(warnings))[:SAID], vulnerable=(), files=(),
               signed=part(facts, "cpu", "vendor") == "GenuineIntel")
    if state != "not_reached":
        made = words(*(clean(part(facts, "firmware", key), 60) for key in ("vendor", "product", "bios_version", "bios_date")))
        row.update(distribution=distribution(facts), path="its host's" if part(facts, "hypervisor", "role") == "guest" else "none", firmware=made or "",
                   processor=processor(facts) or "", hypervisor=hypervisor(facts), kernel=clean(part(facts, "kernel"), 100) or "",
                   vulnerable=tuple(sorted(lacking(entry))[:SAID]))
    if state not in ("not_reached", "not_applicable"):
        row.update(path=path(facts), boots=boots(facts), late=late(facts), loader=loader(facts) or "",
                   files=tuple(map(on_disk, items(part(facts, "files"))[:SAID])))
    return row


# --- the parts ---

def by_cpu(fleet):
    """Which revisions run and lie at hand for each signature."""
    found = {}
    for row in fleet.rows:
        if row["kind"] not in ("not_applicable", "not_reached"):
            found.setdefault(row["signature"], []).append(row)
    groups = []
    for signature, rows in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        called, runs, at_hand = models(rows), {}, Counter(row["at_hand"] for row in rows)
        for row in rows:
            runs.setdefault(row["running"], Counter())[row["kind"]] += 1
        lines = []
        for revision in sorted(set(runs) | {each for each in at_hand if each.startswith("0x")}, key=lambda text: newest_first(text, rows[0]["signed"])):
            label, ran, lies = "%s %s" % (called, revision), runs.get(revision, {}), at_hand[revision] if revision.startswith("0x") else 0
            further = [totalled(fleet, sum(ran.values()), "runs: " + label, signature=[signature], running=[revision]),
                       totalled(fleet, lies, "at hand: " + label, signature=[signature], at_hand=[revision])]
            lines.append((code(revision), ran, further))
        groups.append((titled(called, len(rows), code(signature), " "), lines))
    if not groups:
        return None
    about = "Which revisions run, newest first. The line beneath a bar: hosts that have it at hand, as the newest one on their disk." + left_out(fleet)
    return section("cpus", "CPUs and revisions", about, bars(STATES, ("Revision", "Hosts by state", "Run it", "At hand"), groups, "%d more CPUs"))


def newest_first(revision, signed):
    """Key that sorts what stands for revisions: numbers first, from the newest on."""
    value = number(revision, signed)
    return (value is None, -(value or 0), revision)


def by_distribution(fleet):
    """How microcode gets loaded, for each distribution."""
    found = {}
    for row in fleet.rows:
        if row["kind"] not in ("not_applicable", "not_reached"):
            found.setdefault(row["distribution"], {}).setdefault(row["path"], Counter())[row["kind"]] += 1
    groups = []
    for name, paths in sorted(found.items(), key=lambda item: (-sum(sum(each.values()) for each in item[1].values()), natural(item[0]))):
        lines = [(each, states_of, [totalled(fleet, sum(states_of.values()), "%s, %s" % (name, each), distribution=[name], path=[each])])
                 for each, states_of in sorted(paths.items(), key=lambda item: (-sum(item[1].values()), item[0]))]
        groups.append((titled(name, sum(sum(each.values()) for each in paths.values())), lines))
    if not groups:
        return None
    about = ("Who loads microcode, and how, as the hosts are set up now. Early: the next boot finds some for this CPU. Late: the kernel or Xen takes it "
             "at run time; whether it should is another question." + left_out(fleet))
    return section("distributions", "Distributions and paths", about, bars(STATES, ("Path", "Hosts by state", "Hosts"), groups, "%d more distributions"))


def left_out(fleet):
    """A sentence on the hosts that these pictures do not show."""
    texts = {"not_applicable": "%s that microcode does not apply to", "not_reached": "%s not reached"}
    found = [text % hosts_in_words(fleet.counts[state]) for state, text in texts.items() if fleet.counts[state]]
    return " Left out: %s." % ", ".join(found) if found else ""


def vulnerabilities(fleet, vulnerable):
    """What the kernels say that newer microcode would close; nothing where none does."""
    lines = by_text(fleet, "vulnerable")
    if not lines:
        return None
    about = "%s, as the kernel saw it at boot. The colours tell in which state the hosts are." % hosts_in_words(vulnerable["hosts"])
    return section("vulnerable", "Vulnerable for want of newer microcode", about,
                   bars(STATES, ("Vulnerability", "Hosts by state", "Hosts"), [(None, lines)], ""))


def needs_a_person(fleet):
    """The states that a person must look into, with reasons."""
    found = [each for each in (listing(fleet, state, REVISIONS[1:]) for state in PERSON) if each]
    about = "Hosts with the same reason stand together; \u2026 stands for what differs between them." if found else "Nothing."
    return section("person", "What needs a person", about, *found)


def warnings(fleet):
    """What else the facts say, and on how many hosts; nothing where they say nothing."""
    found = alike((row["name"], text) for row in fleet.rows for text in row["warnings"])
    return section("warnings", "Warnings", "What the hosts\u2019 facts say beside that.", said_list(found)) if found else None


def render(hosts, posture, gathered):
    """The page of {name: what assess() returned}, what posture() returned of it, and when that was."""
    fleet = Fleet([told(name, each) for name, each in hosts.items()], STATES, MEANINGS, COLUMNS, DETAILS, REVISIONS)
    calm = [state for state in STATES if state not in PERSON]
    first = whole(fleet, "Posture", kinds_card(fleet, "need a person", "#person", PERSON), *[kind_card(fleet, state) for state in calm])
    about = element("p", "Those that need a person stand above, with their reasons." if fleet.rows else "None.", class_="quiet")
    return frame(fleet, "Microcode of " + hosts_in_words(len(hosts)), gathered, [
        ("whole", "Posture", first),
        [("cpus", "CPUs", by_cpu(fleet)), ("distributions", "Distributions", by_distribution(fleet)),
         ("vulnerable", "Vulnerable", vulnerabilities(fleet, posture["vulnerable"]))],
        ("person", "Needs a person", needs_a_person(fleet)), ("warnings", "Warnings", warnings(fleet)),
        ("hosts", "Hosts", hosts_part(fleet, "State", about, *[listing(fleet, state, REVISIONS[1:]) for state in calm]))])
