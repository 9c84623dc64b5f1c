# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report as one HTML page that loads nothing: pictures first, then what needs a person, then all hosts.

What it says is there without scripts and on paper; the script (page.js) adds a table of all hosts that can be searched and sorted.
Whatever comes from a host passes Html's escaping, or JSON's in the script's data. The page is plain ASCII, and page.css and page.js are too.
"""
import base64
import hashlib
import html
import json
import os
import re
from collections import Counter

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
ICONS = {  # on a grid of 16 by 16: states are told apart by shape, too
    "cpus_differ": "M3 6h10M3 10h10M10.5 2.5l-5 11",
    "not_loaded": "M8 2v7M4.8 6.2L8 9.4l3.2-3.2M2.5 13.5l11-2.5",
    "no_file": "M4 2h5.5L12 4.5V14H4zM6.2 7l3.6 4M9.8 7l-3.6 4",
    "not_reached": "M3.5 3.5l9 9M12.5 3.5l-9 9",
    "unknown": "M5.4 5.7a2.6 2.6 0 1 1 3.7 2.4c-.8.4-1.1.9-1.1 1.9M8 13v.1",
    "pending_reboot": "M13 8.5a5 5 0 1 1-1.6-4.1M13.2 2v3.2H10",
    "nothing_newer": "M3 6h10M3 10h10",
    "not_applicable": "M4 8h8",
}
TEXTURES = {"not_loaded": "rotate(45)", "no_file": "rotate(90)", "not_reached": "rotate(0)", "unknown": "rotate(135)"}  # in bars, beside their colours
DISTRIBUTIONS = {  # names of os-release's ids
    "almalinux": "AlmaLinux", "alpine": "Alpine", "amzn": "Amazon Linux", "arch": "Arch Linux", "centos": "CentOS", "debian": "Debian", "fedora": "Fedora",
    "gentoo": "Gentoo", "ol": "Oracle Linux", "opensuse-leap": "openSUSE Leap", "opensuse-microos": "openSUSE MicroOS", "proxmox": "Proxmox VE",
    "opensuse-tumbleweed": "openSUSE Tumbleweed", "rhel": "RHEL", "rocky": "Rocky Linux", "sles": "SLES", "ubuntu": "Ubuntu", "xcp-ng": "XCP-ng",
}
REVISIONS = ("signature", "running", "at_hand", "next_boot")
COLUMNS = (("name", "Host"), ("state", "State"), ("cpu", "CPU"), ("running", "Runs"), ("at_hand", "At hand"), ("next_boot", "Next boot"),
           ("distribution", "Distribution"), ("path", "Path"))
DETAILS = (("because", "Why"), ("warnings", "Warnings"), ("vulnerable", "Vulnerable for want of newer microcode"), ("boots", "Next boot"),
           ("files", "On the disk"), ("late", "Late loading"), ("loader", "Boot loader"), ("processor", "Processor"), ("hypervisor", "Hypervisor"),
           ("kernel", "Kernel"), ("firmware", "Firmware"))
NAMES = 12     # hosts of a row that are seen at once; of more, half of that, and the others unfold
PICTURED = 8   # CPUs and distributions that are seen at once
REASONS = 60   # of one state, each by itself
SAID = 20      # texts of one kind of one host
VOID = ("col", "input", "meta")  # elements without content and end
VARYING = re.compile(r"(\x00|\b\w*[0-9]\w*(?:[-+~.,:/ ]{1,2}\w*[0-9]\w*)*)")  # numbers, addresses, versions; NUL stands for the host's name


# --- HTML ---

class Html(str):
    """Text that is HTML already; all other text is escaped where it goes into an element."""


def escaped(text):
    """HTML of any text."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)).encode("ascii", "xmlcharrefreplace").decode("ascii"))


def element(tag, *content, **attributes):
    """HTML of an element. A None among content or attributes is left out; class_ is class, aria_label aria-label."""
    named = "".join(' %s="%s"' % (key.rstrip("_").replace("_", "-"), escaped(value)) for key, value in attributes.items() if value is not None)
    return Html("<%s%s>" % (tag, named) if tag in VOID else "<%s%s>%s</%s>" % (tag, named, joined(*content), tag))


def joined(*content):
    """HTML of several things, one after the other."""
    return Html("".join(escaped(each) for each in content if each is not None))


def icon(state):
    """A state's sign; the words stand beside it."""
    return element("svg", element("use", href="#i-" + state), class_="i " + state, viewBox="0 0 16 16", aria_hidden="true")


def code(text):
    """A revision or signature; words that stand in for one are words."""
    return element("code", text) if text.startswith("0x") else element("span", text, class_="word") if text else Html("&#8211;")


# --- what hosts say, in words ---

def figure(value):
    """A number of hosts as it is read."""
    return format(value, ",")


def hosts_in_words(value):
    """"1 host", "10,000 hosts"."""
    return figure(value) + (" host" if value == 1 else " hosts")


def count(value):
    """A number of things, or None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1000000 else None


def words(*texts):
    """Texts that are known, in one line."""
    return ", ".join(filter(None, texts)) or None


def distribution(facts):
    """"Debian 12", "Debian unstable (forky)"."""
    name, version, release, codename = (clean(part(facts, "distro", key), 40) for key in ("id", "version", "release", "codename"))
    if not name:
        return "not known"
    return " ".join(filter(None, (DISTRIBUTIONS.get(name, name), version or release, "(%s)" % codename if codename and not version else None)))


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
    row = dict.fromkeys([key for key, _label in COLUMNS + DETAILS], "")
    row.update(zip(("cpu",) + REVISIONS, cells(entry)))
    row.update(name=clean(name, 253) or "?", state=state, because=because, warnings=tuple(dict.fromkeys(warnings))[:SAID], vulnerable=(), files=(),
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


def natural(value):
    """Sorts numbers in texts as numbers: node9 before node10."""
    return [int(piece) if index % 2 else piece for index, piece in enumerate(re.split("([0-9]+)", "\n".join(value) if isinstance(value, tuple) else value))]


class Fleet:
    """All hosts in the order of their names. rows: what told() returned; values: the distinct ones of each column in the order in which they sort."""

    def __init__(self, hosts):
        self.rows = sorted((told(name, each) for name, each in hosts.items()), key=lambda row: natural(row["name"]))
        seen = Counter()
        for row in self.rows:  # names that came to be the same when they were cleaned
            seen[row["name"]] += 1
            row["name"] += " (%d)" % seen[row["name"]] if seen[row["name"]] > 1 else ""
        self.values = {key: sorted({row[key] for row in self.rows}, key=None if key in REVISIONS else natural)
                       for key in dict.fromkeys([key for key, _label in COLUMNS + DETAILS if key not in ("name", "state")] + list(REVISIONS))}
        self.values["state"] = list(STATES)
        self.places = {key: {value: place for place, value in enumerate(values)} for key, values in self.values.items()}

    def data(self):
        """What the script reads: of each column the values, and which of them each host has."""
        return {"names": [row["name"] for row in self.rows], "states": STATES, "columns": [key for key, _label in COLUMNS], "details": DETAILS,
                "values": self.values, "of": {key: [places[row[key]] for row in self.rows] for key, places in self.places.items()}}

    def link(self, text, label, **wanted):
        """A link to the table of the hosts whose columns hold one of these values."""
        pick = " ".join("%s:%s" % (key, ",".join(str(self.places[key][value]) for value in values)) for key, values in wanted.items())
        return element("a", text, href="#hosts", data_pick=pick, data_label=label)


# --- pictures ---

def drawn(states, share=100.0, height=14, line=None):
    """A bar of the hosts in each state, that long in percent; beneath it, where one is wanted, a line of a length of its own."""
    shown, total = [(state, states[state]) for state in STATES if states.get(state)], sum(states.values())
    widths = [max(found / total * share, 0.7) for _state, found in shown]  # so that nobody is too few to be seen
    scale, start, pieces = min(1.0, 100 / sum(widths)) if shown else 1.0, 0.0, []
    for (state, found), width in zip(shown, widths):
        pieces.append(element("g", element("title", "%s: %d" % (STATES[state], found)),
                              element("rect", x="%.2f%%" % start, width="%.2f%%" % (width * scale), height=height), class_=state))
        start += width * scale
    if line is not None:
        pieces.append(element("rect", class_="line", y=height, width="%.2f%%" % line, height="3"))
    label = "; ".join("%s: %d" % (STATES[state], found) for state, found in shown) or "no host"
    return element("svg", *pieces, class_="bar", height=height + (3 if line is not None else 0), role="img", aria_label=label)


def folded(seen, text, rest):
    """Content, and more of it behind a text. On paper all of it is seen: so the rest stands beside <details>, not in it."""
    return joined(seen, element("details", element("summary", text), class_="more"), rest)


def bars(heads, groups, more):
    """Tables of bars, those of the first groups to be seen at once. groups: [(title or None, [(label, states, further numbers as links)])].

    A second further number has the line beneath the bar.
    """
    top = max((max([sum(states.values())] + [found for found, _link in further]) for _title, rows in groups for _label, states, further in rows), default=0)
    bodies = []
    for title, rows in groups:
        lines = [element("tr", element("th", label, scope="row"),
                         element("td", drawn(states, sum(states.values()) / top * 100, line=further[1][0] / top * 100 if further[1:] else None)),
                         *[element("td", link) for _found, link in further]) for label, states, further in rows]
        title = title and element("tr", element("th", title, scope="rowgroup", colspan=len(heads)), class_="title")
        bodies.append(element("tbody", title, *lines))
    columns = element("colgroup", element("col", class_="label"), element("col"), *[element("col", class_="figure") for _head in heads[2:]])
    head = element("thead", element("tr", *[element("th", text, scope="col") for text in heads]))
    seen, rest = (element("table", columns, head, *some, class_="bars") for some in (bodies[:PICTURED], bodies[PICTURED:]))
    return folded(seen, more % len(bodies[PICTURED:]), rest) if bodies[PICTURED:] else seen


def section(name, title, about, *content):
    """A part of the page with its heading and a line on how to read it."""
    return element("section", element("h2", title, id="h-" + name, tabindex="-1"), element("p", about, class_="quiet") if about else None, *content,
                   id=name, aria_labelledby="h-" + name)


def posture_part(fleet, states):
    """All hosts by state: one bar, and beneath it what the states ask for."""
    total, start, labels = len(fleet.rows), 0.0, []
    for state in STATES:
        share, text = states[state] / total * 100 if total else 0, figure(states[state])
        if share > 1.2 * len(text):  # else the number has no room; it stands in the list, too
            labels.append(element("text", text, x="%.2f%%" % (start + share / 2), y="11", class_=None if share > 3 * len(text) else "tight"))
        start += share
    named = {state: fleet.link(text, text, state=[state]) for state, text in STATES.items()}
    numbers = {state: element("b", figure(states[state])) for state in STATES}
    lines = [element("li", icon(state), " ", named[state], " ", numbers[state], class_=None if states[state] else "none") for state in PERSON]
    person = element("p", element("b", figure(sum(states[state] for state in PERSON))), " ", element("a", "need a person", href="#person"))
    cards = [joined(person, element("ul", *lines))]
    for state in STATES:
        if state not in PERSON:
            cards.append(joined(element("p", icon(state), numbers[state], " ", named[state]), element("p", MEANINGS[state], class_="quiet")))
    return section("posture", "Posture", None, element("svg", *labels, class_="over", height="16", aria_hidden="true"), drawn(states, height=28),
                   element("div", *[element("div", card, class_="card") for card in cards], class_="cards"))


def by_cpu(fleet, states):
    """Which revisions run and lie at hand for each signature."""
    found = {}
    for row in fleet.rows:
        if row["state"] not in ("not_applicable", "not_reached"):
            found.setdefault(row["signature"], []).append(row)
    groups = []
    for signature, rows in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        names = [name for name, _count in Counter(row["cpu"] for row in rows).most_common() if name != "unknown"]
        called = ", ".join(names[:3]) + (" and %d more" % len(names[3:]) if names[3:] else "") or "CPU not known"
        runs, at_hand = {}, Counter(row["at_hand"] for row in rows)
        for row in rows:
            runs.setdefault(row["running"], Counter())[row["state"]] += 1
        lines = []
        for revision in sorted(set(runs) | {each for each in at_hand if each.startswith("0x")}, key=lambda text: newest_first(text, rows[0]["signed"])):
            label, ran, lies = "%s %s" % (called, revision), runs.get(revision, {}), at_hand[revision] if revision.startswith("0x") else 0
            further = [totalled(fleet, sum(ran.values()), "runs: " + label, signature=[signature], running=[revision]),
                       totalled(fleet, lies, "at hand: " + label, signature=[signature], at_hand=[revision])]
            lines.append((code(revision), ran, further))
        groups.append((joined(called, " ", code(signature), " ", element("span", hosts_in_words(len(rows)), class_="quiet")), lines))
    if not groups:
        return None
    about = "Which revisions run, newest first. The line beneath a bar: hosts that have it at hand, as the newest one on their disk." + left_out(states)
    return section("cpus", "CPUs and revisions", about, bars(("Revision", "Hosts by state", "Run it", "At hand"), groups, "%d more CPUs"))


def totalled(fleet, found, label, **wanted):
    """(a number of hosts, a link to them where there are any)."""
    return found, fleet.link(figure(found), label, **wanted) if found else element("span", "0", class_="quiet")


def newest_first(revision, signed):
    """Key that sorts what stands for revisions: numbers first, from the newest on."""
    value = number(revision, signed)
    return (value is None, -(value or 0), revision)


def by_distribution(fleet, states):
    """How microcode gets loaded, for each distribution."""
    found = {}
    for row in fleet.rows:
        if row["state"] not in ("not_applicable", "not_reached"):
            found.setdefault(row["distribution"], {}).setdefault(row["path"], Counter())[row["state"]] += 1
    groups = []
    for name, paths in sorted(found.items(), key=lambda item: (-sum(sum(each.values()) for each in item[1].values()), natural(item[0]))):
        lines = [(each, states_of, [totalled(fleet, sum(states_of.values()), "%s, %s" % (name, each), distribution=[name], path=[each])])
                 for each, states_of in sorted(paths.items(), key=lambda item: (-sum(item[1].values()), item[0]))]
        groups.append((joined(name, " ", element("span", hosts_in_words(sum(sum(each.values()) for each in paths.values())), class_="quiet")), lines))
    if not groups:
        return None
    about = ("Who loads microcode, and how, as the hosts are set up now. Early: the next boot finds some for this CPU. Late: the kernel or Xen takes it "
             "at run time; whether it should is another question." + left_out(states))
    return section("distributions", "Distributions and paths", about, bars(("Path", "Hosts by state", "Hosts"), groups, "%d more distributions"))


def left_out(states):
    """A sentence on the hosts that these pictures do not show."""
    texts = {"not_applicable": "%s that microcode does not apply to", "not_reached": "%s not reached"}
    found = [text % hosts_in_words(states[state]) for state, text in texts.items() if states[state]]
    return " Left out: %s." % ", ".join(found) if found else ""


def vulnerabilities(fleet, vulnerable):
    """What the kernels say that newer microcode would close; nothing where none does."""
    found = {}
    for row in fleet.rows:
        for name in row["vulnerable"]:
            found.setdefault(name, Counter())[row["state"]] += 1
    if not found:
        return None
    lines = [(name, states_of, [totalled(fleet, sum(states_of.values()), name, vulnerable=[each for each in fleet.values["vulnerable"] if name in each])])
             for name, states_of in sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0]))]
    about = "%s, as the kernel saw it at boot. The colours tell in which state the hosts are." % hosts_in_words(vulnerable["hosts"])
    return section("vulnerable", "Vulnerable for want of newer microcode", about, bars(("Vulnerability", "Hosts by state", "Hosts"), [(None, lines)], ""))


# --- lists ---

def alike(said):
    """[(text with gaps, names)] of [(name, text)]: texts that differ in numbers or the host's own name alone are one, the most frequent first."""
    groups = {}
    for name, text in said:
        pieces = VARYING.split(text.replace(name, "\0") if len(name) > 3 else text)
        groups.setdefault(tuple(pieces[::2]), []).append((name, [piece.replace("\0", name) for piece in pieces[1::2]]))
    found = []
    for fixed, members in groups.items():
        gaps = [values[0] if len(set(values)) == 1 else element("i", Html("&#8230;")) for values in zip(*(pieces for _name, pieces in members))]
        text = joined(*(piece for pair in zip(fixed, gaps + [""]) for piece in pair))
        found.append((text, list(dict.fromkeys(name for name, _pieces in members))))
    return sorted(found, key=lambda item: -len(item[1]))


def hosts_list(names):
    """Names, the first ones to be seen at once."""
    first = len(names) if len(names) <= NAMES else NAMES // 2
    seen, rest = (element("ul", *[element("li", name) for name in some], class_="n") for some in (names[:first], names[first:]))
    return folded(seen, "%s more" % figure(len(names) - first), rest) if names[first:] else seen


def these(names):
    """A link to the table of the hosts that are listed with it."""
    return element("a", hosts_in_words(len(names)), href="#hosts", data_these="")


def listing(fleet, state):
    """All hosts of one state, those together that have the same reason, and of these those alike; nothing where there are none."""
    rows = {row["name"]: row for row in fleet.rows if row["state"] == state}
    if not rows:
        return None
    groups = alike((name, row["because"]) for name, row in rows.items())
    further = [name for _text, names in groups[REASONS:] for name in names]
    if further:
        groups[REASONS:] = [("Further reasons, each of few hosts: see the table or the JSON.", further)]
    bodies = []
    for text, names in groups:
        alike_rows = {}
        for name in names:
            alike_rows.setdefault(tuple(rows[name][key] for key in ("cpu",) + REVISIONS), []).append(name)
        lines = []
        for (cpu, signature, *numbers), same in sorted(alike_rows.items(), key=lambda item: -len(item[1])):
            about = [element("th", cpu, " ", code(signature) if signature != cpu else None, scope="row")] + [element("td", code(each)) for each in numbers]
            lines.append(element("tr", *about, element("td", hosts_list(same))) if cpu else element("tr", element("td", hosts_list(same), colspan="5")))
        title = element("tr", element("th", text, " ", these(names), scope="rowgroup", colspan="5"), class_="title") if text else None
        bodies.append(element("tbody", title, *lines))
    heads = [element("th", text, scope="col") for text in (("CPU", "Runs", "At hand", "Next boot", "Hosts") if state != "not_reached" else ())]
    head = element("thead", element("tr", *heads)) if heads else None
    return element("section", element("h3", icon(state), " ", STATES[state], " ", fleet.link(hosts_in_words(len(rows)), STATES[state], state=[state]),
                                      id="h-" + state), element("p", MEANINGS[state], class_="quiet"),
                   element("table", head, *bodies, class_="list"), class_="state " + state, aria_labelledby="h-" + state)


def needs_a_person(fleet):
    """The states that a person must look into, with reasons."""
    found = [each for each in (listing(fleet, state) for state in PERSON) if each]
    about = "Hosts with the same reason stand together; \u2026 stands for what differs between them." if found else "Nothing."
    return section("person", "What needs a person", about, *found)


def warnings(fleet):
    """What else the facts say, and on how many hosts; nothing where they say nothing."""
    found = alike((row["name"], text) for row in fleet.rows for text in row["warnings"])
    if not found:
        return None
    lines = [element("li", element("p", text, " ", these(names)), hosts_list(names)) for text, names in found[:REASONS]]
    if found[REASONS:]:
        lines.append(element("li", "%d further ones: see the table or the JSON." % len(found[REASONS:])))
    return section("warnings", "Warnings", "What the hosts\u2019 facts say beside that.", element("ul", *lines, class_="said"))


def hosts_part(fleet):
    """A table that the script fills, and the list that takes its place without a script and on paper."""
    options = [element("option", "all states", value="")] + [element("option", text, value="state:%d" % index) for index, text in enumerate(STATES.values())]
    form = element("form", element("label", "Search ", element("input", type="search", id="words", autocomplete="off", spellcheck="false",
                                                               placeholder="name, CPU, revision, reason \u2026")),
                   element("label", "State ", element("select", *options, id="state")), element("button", type="button", id="picked", hidden=""),
                   element("output", id="count", aria_live="polite"), role="search")
    heads = [element("th", element("button", text, type="button", data_key=key), scope="col") for key, text in COLUMNS]
    table = element("table", element("thead", element("tr", *heads)), element("tbody", id="rows"), class_="hosts", aria_labelledby="h-hosts")
    listed = [each for each in (listing(fleet, state) for state in STATES if state not in PERSON) if each]
    return section("hosts", "Hosts", None, element("div", form, table, element("button", type="button", id="more"), id="live", hidden=""),
                   element("div", element("p", "Those that need a person stand above, with their reasons." if fleet.rows else "None.", class_="quiet"), *listed,
                           id="listed"))


# --- the page ---

def beside(name):
    """Text of a file that lies beside this one."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="ascii") as stream:
        return Html(stream.read())


def allowed(text):
    """How a content security policy names this very text."""
    return "'sha256-%s'" % base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def render(hosts, posture, gathered):
    """The page of {name: what assess() returned}, what posture() returned of it, and when that was."""
    fleet, states = Fleet(hosts), posture["states"]
    style, script = beside("page.css"), beside("page.js")
    policy = ("default-src 'none'; style-src %s; script-src %s; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
              % (allowed(style), allowed(script)))
    data = json.dumps(fleet.data(), separators=(",", ":"))
    for char in "<>&":  # in JSON they stand in texts alone
        data = data.replace(char, "\\u%04x" % ord(char))
    title = "Microcode of " + hosts_in_words(len(hosts))
    parts = [("posture", "Posture", posture_part(fleet, states)), ("cpus", "CPUs", by_cpu(fleet, states)),
             ("distributions", "Distributions", by_distribution(fleet, states)), ("vulnerable", "Vulnerable", vulnerabilities(fleet, posture["vulnerable"])),
             ("person", "Needs a person", needs_a_person(fleet)), ("warnings", "Warnings", warnings(fleet)), ("hosts", "Hosts", hosts_part(fleet))]
    made = {name: content for name, _text, content in parts}
    links = [element("li", element("a", text, href="#" + name)) for name, text, content in parts if content]
    textures = [element("pattern", element("rect", width="6", height="6"), element("path", d="M1 0v6"), id="p-" + state, class_=state, width="6", height="6",
                        patternUnits="userSpaceOnUse", patternTransform=turned) for state, turned in TEXTURES.items()]
    symbols = [element("symbol", element("path", d=line), id="i-" + state, viewBox="0 0 16 16") for state, line in ICONS.items()]
    head = element("head", element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=policy),
                   element("meta", name="viewport", content="width=device-width, initial-scale=1"), element("meta", name="referrer", content="no-referrer"),
                   element("title", "%s, %s" % (title, gathered[:10])), element("style", style))
    body = element(
        "body", element("a", "Skip to the hosts", href="#hosts", class_="skip"), element("svg", *textures, *symbols, class_="defs", aria_hidden="true"),
        element("header", element("h1", title),
                element("p", "as of ", element("time", gathered.replace("T", " ").replace("Z", " UTC"), datetime=gathered), class_="quiet"),
                element("nav", element("ul", *links), aria_label="Parts of this page")),
        element("main", made["posture"], element("div", made["cpus"], element("div", made["distributions"], made["vulnerable"]), class_="pictures")
                if made["cpus"] else None, made["person"], made["warnings"], made["hosts"]),
        element("footer", element("p", "fleet.microcode. This page loads nothing and sends nothing.")),
        element("script", Html(data), type="application/json", id="data"), element("script", script))
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"
