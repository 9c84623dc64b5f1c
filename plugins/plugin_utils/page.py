# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the collection's HTML pages are made of: escaping, pictures, lists, the table of all hosts, the frame. page_*.py make them.

Each is one file that loads nothing. What it says is there without scripts and on paper; the script (page.js) adds a table of all hosts that can be searched
and sorted. Whatever comes from a host passes Html's escaping, or JSON's in the script's data. A page is plain ASCII, and page.css and page.js are too.
"""
import base64
import hashlib
import html
import json
import os
import re
from collections import Counter

from ansible_collections.fleet.microcode.plugins.plugin_utils.report import clean, part

ICONS = {  # of kinds of hosts, on a grid of 16 by 16: they are told apart by shape, too; their colours are in page.css
    "cpus_differ": "M3 6h10M3 10h10M10.5 2.5l-5 11",
    "not_loaded": "M8 2v7M4.8 6.2L8 9.4l3.2-3.2M2.5 13.5l11-2.5",
    "no_file": "M4 2h5.5L12 4.5V14H4zM6.2 7l3.6 4M9.8 7l-3.6 4",
    "not_reached": "M3.5 3.5l9 9M12.5 3.5l-9 9",
    "unknown": "M5.4 5.7a2.6 2.6 0 1 1 3.7 2.4c-.8.4-1.1.9-1.1 1.9M8 13v.1",
    "pending_reboot": "M13 8.5a5 5 0 1 1-1.6-4.1M13.2 2v3.2H10",
    "nothing_newer": "M3 6h10M3 10h10",
    "not_applicable": "M4 8h8",
    "late": "M9.5 2L4 9h4l-1.5 5L12 7H8z",
    "firmware_first": "M4.5 4.5h7v7h-7zM6.5 1.8v2.7M9.5 1.8v2.7M6.5 11.5v2.7M9.5 11.5v2.7",
    "blocked": "M13.5 8a5.5 5.5 0 1 1-11 0a5.5 5.5 0 1 1 11 0M4.2 11.8l7.6-7.6",
}
ICONS.update(early=ICONS["pending_reboot"], none=ICONS["not_applicable"], done="M3 8.5l3.5 3.5L13 4.5", prepared=ICONS["pending_reboot"],
             checked=ICONS["nothing_newer"], lost=ICONS["not_reached"], failed=ICONS["blocked"], wrong=ICONS["cpus_differ"], begun=ICONS["not_loaded"],
             waiting=ICONS["not_applicable"], stale=ICONS["no_file"], new=ICONS["unknown"])
TEXTURES = {"not_loaded": "rotate(45)", "no_file": "rotate(90)", "not_reached": "rotate(0)", "unknown": "rotate(135)",  # in bars, beside their colours
            "lost": "rotate(0)", "wrong": "rotate(45)", "stale": "rotate(90)",
            "late": "rotate(0)", "firmware_first": "rotate(90)", "blocked": "rotate(45)"}
DISTRIBUTIONS = {  # names of os-release's ids
    "almalinux": "AlmaLinux", "alpine": "Alpine", "amzn": "Amazon Linux", "arch": "Arch Linux", "centos": "CentOS", "debian": "Debian", "fedora": "Fedora",
    "gentoo": "Gentoo", "ol": "Oracle Linux", "opensuse-leap": "openSUSE Leap", "opensuse-microos": "openSUSE MicroOS", "proxmox": "Proxmox VE",
    "opensuse-tumbleweed": "openSUSE Tumbleweed", "rhel": "RHEL", "rocky": "Rocky Linux", "sles": "SLES", "ubuntu": "Ubuntu", "xcp-ng": "XCP-ng",
}
NAMES = 12     # hosts of a row that are seen at once; of more, half of that, and the others unfold
PICTURED = 8   # groups of a picture that are seen at once
REASONS = 60   # of one kind, each by itself
SAID = 20      # texts of one sort of one host
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


def icon(kind):
    """A kind's sign; the words stand beside it."""
    return element("svg", element("use", href="#i-" + kind), class_="i " + kind, viewBox="0 0 16 16", aria_hidden="true")


def code(text):
    """A revision or signature; words that stand in for one are words."""
    return element("code", text) if text.startswith("0x") else element("span", text, class_="word") if text else Html("&#8211;")


# --- words ---

def figure(value):
    """A number of hosts as it is read."""
    return format(value, ",")


def hosts_in_words(value):
    """"1 host", "10,000 hosts"."""
    return figure(value) + (" host" if value == 1 else " hosts")


def words(*texts):
    """Texts that are known, in one line."""
    return ", ".join(filter(None, texts)) or None


def distribution(facts):
    """"Debian 12", "Debian unstable (forky)"."""
    name, version, release, codename = (clean(part(facts, "distro", key), 40) for key in ("id", "version", "release", "codename"))
    if not name:
        return "not known"
    return " ".join(filter(None, (DISTRIBUTIONS.get(name, name), version or release, "(%s)" % codename if codename and not version else None)))


def natural(value):
    """Sorts numbers in texts as numbers: node9 before node10; what is empty comes last."""
    text = "\n".join(value) if isinstance(value, tuple) else value
    return [not text] + [int(piece) if index % 2 else piece for index, piece in enumerate(re.split("([0-9]+)", text))]


class Fleet:
    """All hosts in the order of their names, and what stands in the table of them.

    rows: {"name", "kind", and what columns, details and revisions name: a text, of a detail also several in a tuple}; the texts are clean.
    kinds: {kind: its words}, in the order in which people are shown them; meanings: {kind: a sentence}. columns: (key, head, whether a phone shows the head);
    details: (key, label); revisions: keys of what holds revisions and signatures.
    values: the distinct texts of each key, in the order in which they sort.
    """

    def __init__(self, rows, kinds, meanings, columns, details, revisions):
        self.rows, self.kinds, self.meanings = sorted(rows, key=lambda row: natural(row["name"])), kinds, meanings
        self.columns, self.details, self.revisions = columns, details, revisions
        seen = Counter()
        for row in self.rows:  # names that came to be the same when they were cleaned
            seen[row["name"]] += 1
            row["name"] += " (%d)" % seen[row["name"]] if seen[row["name"]] > 1 else ""
        keys = dict.fromkeys([each[0] for each in columns + details if each[0] not in ("name", "kind")] + list(revisions))
        self.values = {key: sorted({row[key] for row in self.rows}, key=(lambda text: (not text, text)) if key in revisions else natural) for key in keys}
        self.values["kind"] = list(kinds)
        self.places = {key: {value: place for place, value in enumerate(values)} for key, values in self.values.items()}
        counts = Counter(row["kind"] for row in self.rows)
        self.counts = {kind: counts[kind] for kind in kinds}

    def data(self):
        """What the script reads: of each column the values, and which of them each host has; of several texts, which ones they are."""
        texts = {}
        values = {key: [[texts.setdefault(text, len(texts)) for text in value] if isinstance(value, tuple) else value for value in found]
                  for key, found in self.values.items()}
        return {"names": [row["name"] for row in self.rows], "kinds": self.kinds, "columns": [(key, head if told else "") for key, head, told in self.columns],
                "details": self.details, "revisions": self.revisions, "texts": list(texts), "values": values,
                "of": {key: [places[row[key]] for row in self.rows] for key, places in self.places.items()}}

    def link(self, text, label, **wanted):
        """A link to the table of the hosts whose columns hold one of these values."""
        pick = " ".join("%s:%s" % (key, ",".join(str(self.places[key][value]) for value in values)) for key, values in wanted.items())
        return element("a", text, href="#hosts", data_pick=pick, data_label=label)


# --- pictures ---

def drawn(kinds, counts, share=100.0, height=14, line=None, before=0.0):
    """A bar of the hosts of each kind, that long in percent, after a pale one that stands for those before.

    Beneath it, where one is wanted, a line of a length of its own.
    """
    shown, total = [(kind, counts[kind]) for kind in kinds if counts.get(kind)], sum(counts.values())
    widths = [max(found / total * share, 0.7) for _kind, found in shown]  # so that nobody is too few to be seen
    scale = min(1.0, 100 / sum(widths)) if shown else 1.0
    start, pieces = min(before, 100 - sum(widths) * scale), []
    if before:
        pieces.append(element("rect", class_="before", y=height / 2 - 1, width="%.2f%%" % start, height="2"))
    for (kind, found), width in zip(shown, widths):
        pieces.append(element("g", element("title", "%s: %d" % (kinds[kind], found)),
                              element("rect", x="%.2f%%" % start, width="%.2f%%" % (width * scale), height=height,
                                      fill="url(#p-%s)" % kind if kind in TEXTURES else None), class_=kind))
        start += width * scale
    if line is not None:
        pieces.append(element("rect", class_="line", y=height, width="%.2f%%" % line, height="3"))
    label = "; ".join("%s: %d" % (kinds[kind], found) for kind, found in shown) or "no host"
    return element("svg", *pieces, class_="bar", height=height + (3 if line is not None else 0), role="img", aria_label=label)


def folded(seen, text, rest):
    """Content, and more of it behind a text. On paper all of it is seen: so the rest stands beside <details>, not in it."""
    return joined(seen, element("details", element("summary", text), class_="more"), rest)


def bars(kinds, heads, groups, more):
    """Tables of bars, those of the first groups to be seen at once. groups: [(title or None, [(label, counts, further numbers as links)])].

    A second further number has the line beneath the bar.
    """
    top = max((max([sum(counts.values())] + [found for found, _link in further]) for _title, rows in groups for _label, counts, further in rows), default=0)
    bodies = []
    for title, rows in groups:
        lines = [bar_row(label, drawn(kinds, counts, sum(counts.values()) / top * 100, line=further[1][0] / top * 100 if further[1:] else None),
                         *[link for _found, link in further]) for label, counts, further in rows]
        title = title and element("tr", element("th", title, scope="rowgroup", colspan=len(heads)), class_="title")
        bodies.append(element("tbody", title, *lines))
    return bar_table(heads, bodies, more)


def bar_row(label, *cells):
    """A row of a table of bars."""
    return element("tr", element("th", label, scope="row"), *[element("td", each) for each in cells])


def bar_table(heads, bodies, more, most=PICTURED):
    """A table of bars: its label, the bar, numbers. Of the bodies the first ones are seen at once."""
    columns = element("colgroup", element("col", class_="label"), element("col"), *[element("col", class_="figure") for _head in heads[2:]])
    head = element("thead", element("tr", *[element("th", text, scope="col") for text in heads]))
    seen, rest = (element("table", columns, head, *some, class_="bars") for some in (bodies[:most], bodies[most:]))
    return folded(seen, more % len(bodies[most:]), rest) if bodies[most:] else seen


def totalled(fleet, found, label, **wanted):
    """(a number of hosts, a link to them where there are any)."""
    return found, fleet.link(figure(found), label, **wanted) if found else element("span", "0", class_="quiet")


def titled(name, found, *more):
    """The title of a group in a picture: what it is, and how many hosts are in it."""
    return joined(name, " ", *more, element("span", hosts_in_words(found), class_="quiet"))


def by_text(fleet, key):
    """Lines of a picture: each text of a detail with the hosts of which it is said, the most frequent first."""
    found = {}
    for row in fleet.rows:
        for text in row[key]:
            found.setdefault(text, Counter())[row["kind"]] += 1
    return [(text, counts, [totalled(fleet, sum(counts.values()), text, **{key: [each for each in fleet.values[key] if text in each]})])
            for text, counts in sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0]))]


def models(rows):
    """What these rows call their CPU."""
    names = [name for name, _count in Counter(row["cpu"] for row in rows).most_common() if name not in ("unknown", "")]
    return ", ".join(names[:3]) + (" and %d more" % len(names[3:]) if names[3:] else "") or "CPU not known"


def section(name, title, about, *content):
    """A part of the page with its heading and a line on how to read it."""
    return element("section", element("h2", title, id="h-" + name, tabindex="-1"), element("p", about, class_="quiet") if about else None, *content,
                   id=name, aria_labelledby="h-" + name)


def whole(fleet, title, *cards):
    """The part that stands first: one bar of all hosts, and beneath it what the kinds come to."""
    total, start, labels = len(fleet.rows), 0.0, []
    for found in fleet.counts.values():
        share, text = found / total * 100 if total else 0, figure(found)
        if share > 1.2 * len(text):  # else the number has no room; it stands in the cards, too
            labels.append(element("text", text, x="%.2f%%" % (start + share / 2), y="11", class_=None if share > 3 * len(text) else "tight"))
        start += share
    return section("whole", title, None, element("svg", *labels, class_="over", height="16", aria_hidden="true"), drawn(fleet.kinds, fleet.counts, height=28),
                   element("div", *[element("div", card, class_="card") for card in cards], class_="cards"))


def kinds_card(fleet, text, href, kinds):
    """A card of several kinds: how many hosts they have together, and each."""
    lines = [element("li", icon(kind), " ", fleet.link(fleet.kinds[kind], fleet.kinds[kind], kind=[kind]), " ", element("b", figure(fleet.counts[kind])),
                     class_=None if fleet.counts[kind] else "zero") for kind in kinds]
    total = element("b", figure(sum(fleet.counts[kind] for kind in kinds)))
    return joined(element("p", total, " ", element("a", text, href=href)), element("ul", *lines))


def kind_card(fleet, kind):
    """A card of one kind."""
    return joined(element("p", icon(kind), element("b", figure(fleet.counts[kind])), " ", fleet.link(fleet.kinds[kind], fleet.kinds[kind], kind=[kind])),
                  element("p", fleet.meanings[kind], class_="quiet"))


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


def several(rows):
    """[(reason, names)] of these rows: reasons that are alike are one; what is said by few beside many others is not told by itself."""
    groups = alike((row["name"], "\n".join(row["because"]) if isinstance(row["because"], tuple) else row["because"]) for row in rows)
    further = [name for _text, names in groups[REASONS:] for name in names]
    if further:
        groups[REASONS:] = [("Further reasons, each of few hosts: see the table or the JSON.", further)]
    return groups


def listing(fleet, kind, columns, grouped=several, name=""):
    """All hosts of one kind, those together that grouped() puts together, and of these those alike in the columns; nothing where there are none.

    grouped(rows) -> [(text, names, more to be said of them)].
    """
    rows = {row["name"]: row for row in fleet.rows if row["kind"] == kind}
    if not rows:
        return None
    heads, bodies = {key: head for key, head, _told in fleet.columns}, []
    for text, names, *about in grouped(list(rows.values())):
        alike_rows = {}
        for each in names:
            alike_rows.setdefault(tuple(rows[each][key] for key in ("cpu", "signature") + columns), []).append(each)
        lines = []
        for (cpu, signature, *said), same in sorted(alike_rows.items(), key=lambda item: -len(item[1])):
            first = [element("th", cpu, " ", code(signature) if signature != cpu else None, scope="row")] + [
                element("td", code(each) if key in fleet.revisions else each or Html("&#8211;"), data_head=heads[key].lower())
                for key, each in zip(columns, said)]
            found = hosts_list(same)
            lines.append(element("tr", *first, element("td", found)) if cpu else element("tr", element("td", found, colspan=len(columns) + 2)))
        title = element("tr", element("th", text, " ", these(names), *about, scope="rowgroup", colspan=len(columns) + 2), class_="title") if text else None
        bodies.append(element("tbody", title, *lines))
    head = element("thead", element("tr", *[element("th", text, scope="col") for text in ["CPU"] + [heads[key] for key in columns] + ["Hosts"]]))
    title = "h-%s%s" % (name, kind)
    return element("section", element("h3", icon(kind), " ", fleet.kinds[kind], " ", fleet.link(hosts_in_words(len(rows)), fleet.kinds[kind], kind=[kind]),
                                      id=title), element("p", fleet.meanings[kind], class_="quiet"),
                   element("table", head if any(row["cpu"] for row in rows.values()) else None, *bodies, class_="list"),
                   class_="state " + kind, aria_labelledby=title)


def said_list(said):
    """Texts and the hosts that say them: [(text, names)]."""
    lines = [element("li", element("p", text, " ", these(names)), hosts_list(names)) for text, names in said[:REASONS]]
    if said[REASONS:]:
        lines.append(element("li", "%d further ones: see the table or the JSON." % len(said[REASONS:])))
    return element("ul", *lines, class_="said")


def hosts_part(fleet, label, *listed):
    """A table that the script fills, and what takes its place without a script and on paper. label: of the field that chooses a kind."""
    options = [element("option", "all", value="")] + [element("option", text, value="kind:%d" % index) for index, text in enumerate(fleet.kinds.values())]
    form = element("form", element("label", "Search ", element("input", type="search", id="words", autocomplete="off", spellcheck="false",
                                                               placeholder="name, CPU, revision, reason \u2026")),
                   element("label", label + " ", element("select", *options, id="kind")), element("button", type="button", id="picked", hidden=""),
                   element("output", id="count", aria_live="polite"), role="search")
    heads = [element("th", element("button", text, type="button", data_key=key), scope="col") for key, text, _told in fleet.columns]
    table = element("table", element("thead", element("tr", *heads)), element("tbody", id="rows"), class_="hosts", aria_labelledby="h-hosts")
    return section("hosts", "Hosts", None, element("div", form, table, element("button", type="button", id="more"), id="live", hidden=""),
                   element("div", *listed, id="listed"))


# --- the page ---

def beside(name):
    """Text of a file that lies beside this one."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="ascii") as stream:
        return Html(stream.read())


def allowed(text):
    """How a content security policy names this very text."""
    return "'sha256-%s'" % base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def frame(fleet, title, made, parts, *about):
    """The page. made: when; parts: [(id, what the navigation calls it, content or None)], where a list of such parts stands side by side; about: more of
    what stands at the top."""
    style, script = beside("page.css"), beside("page.js")
    policy = ("default-src 'none'; style-src %s; script-src %s; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
              % (allowed(style), allowed(script)))
    data = json.dumps(fleet.data(), separators=(",", ":"))
    for char in "<>&":  # in JSON they stand in texts alone
        data = data.replace(char, "\\u%04x" % ord(char))
    shown = [[part for part in (each if isinstance(each, list) else [each]) if part[2]] for each in parts]
    links = [element("li", element("a", text, href="#" + name)) for some in shown for name, text, _content in some]
    textures = [element("pattern", element("rect", width="6", height="6"), element("path", d="M1 0v6"), id="p-" + kind, class_=kind, width="6", height="6",
                        patternUnits="userSpaceOnUse", patternTransform=turned) for kind, turned in TEXTURES.items() if kind in fleet.kinds]
    symbols = [element("symbol", element("path", d=ICONS[kind]), id="i-" + kind, viewBox="0 0 16 16") for kind in fleet.kinds]
    head = element("head", element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=policy),
                   element("meta", name="viewport", content="width=device-width, initial-scale=1"), element("meta", name="referrer", content="no-referrer"),
                   element("title", "%s, %s" % (title, made[:10])), element("style", style))
    body = element(
        "body", element("a", "Skip to the hosts", href="#hosts", class_="skip"), element("svg", *textures, *symbols, class_="defs", aria_hidden="true"),
        element("header", element("h1", title),
                element("p", "as of ", element("time", made.replace("T", " ").replace("Z", " UTC"), datetime=made), class_="quiet"), *about,
                element("nav", element("ul", *links), aria_label="Parts of this page")),
        element("main", *[beside_each_other(some) if isinstance(each, list) else content for each, some in zip(parts, shown) for _n, _t, content in some[:1]]),
        element("footer", element("p", "fleet.microcode. This page loads nothing and sends nothing.")),
        element("script", Html(data), type="application/json", id="data"), element("script", script))
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"


def beside_each_other(parts):
    """The first part to the left, the others to its right."""
    (_name, _text, first), *others = parts
    return element("div", first, element("div", *[content for _name, _text, content in others]), class_="pictures")
