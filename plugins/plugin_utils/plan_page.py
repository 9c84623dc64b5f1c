# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan as one HTML page that loads nothing and has no script: how many by which path, the waves as a picture, and who is left and why.

The looks and the escaping are those of page.py.
"""
from collections import Counter

from ansible_collections.fleet.microcode.plugins.plugin_utils.page import (
    ICONS, REASONS, TEXTURES, allowed, alike, beside, code, element, figure, folded, hosts_in_words, hosts_list, icon, joined, section)
from ansible_collections.fleet.microcode.plugins.plugin_utils.plan import ACTED, ACTIONS, first_reason
from ansible_collections.fleet.microcode.plugins.plugin_utils.report import clean, quantity

MEANINGS = {
    "early": "The host is rebooted, and its kernel or Xen loads the newer revision as it starts.",
    "late": "The running kernel or Xen loads it. Distribution, file, platform and every rule allow it.",
    "firmware_first": "Newer firmware must come before newer microcode.",
    "blocked": "A rule stands against it, or what is asked for is not at hand.",
    "unknown": "What it takes to decide is not known. Such a host is left as it is.",
    "none": "Nothing newer is at hand, or microcode is not this host\u2019s business.",
}
SIGNS = {  # on a grid of 16 by 16, as page.py has them for states
    "early": ICONS["pending_reboot"], "late": "M9 1.5L3.5 9H8l-1 5.5L12.5 7H8z",
    "firmware_first": "M4.5 4.5h7v7h-7zM6.5 2v2.5M9.5 2v2.5M6.5 11.5V14M9.5 11.5V14",
    "blocked": "M13.5 8a5.5 5.5 0 1 1-11 0a5.5 5.5 0 1 1 11 0M4.2 11.8l7.6-7.6", "unknown": ICONS["unknown"], "none": ICONS["not_applicable"],
}
WAVES = 24  # that are seen at once


def _bar(counts, top, height=14):
    """A bar of hosts by action, as long as they are of top."""
    start, pieces, shown = 0.0, [], [(action, counts[action]) for action in ACTIONS if counts.get(action)]
    for action, found in shown:
        width = max(found / top * 100, 0.7)  # so that nobody is too few to be seen
        pieces.append(element("g", element("title", "%s: %d" % (ACTIONS[action], found)),
                              element("rect", x="%.2f%%" % start, width="%.2f%%" % width, height=height), class_=action))
        start += width
    label = "; ".join("%s: %d" % (ACTIONS[action], found) for action, found in shown) or "no host"
    return element("svg", *pieces, class_="bar", height=height, role="img", aria_label=label)


def _posture(plan):
    """All hosts by action."""
    counts = plan["summary"]
    cards = [element("div", element("p", icon(action), element("b", figure(counts["actions"][action])), " ", text),
                     element("p", MEANINGS[action], class_="quiet"), class_="card") for action, text in ACTIONS.items() if counts["actions"][action]]
    more = ["%s to be rebooted" % hosts_in_words(counts["reboots"])] if counts["reboots"] else []
    more += ["guests %sd on %s" % (how, hosts_in_words(found)) for how, found in sorted(counts["guests"].items())]
    more += ["%s without the variable %s, for which no limit holds" % (hosts_in_words(found), clean(name))
             for name, found in sorted(counts["without_domain"].items()) if found]
    return section("plan", "What is done", "; ".join(more) or None, _bar(counts["actions"], counts["hosts"] or 1, 28), element("div", *cards, class_="cards"))


def _waves(plan):
    """One bar for each wave; nothing where there is none."""
    if not plan["waves"]:
        return None
    top, lines = max(len(wave["hosts"]) for wave in plan["waves"]), []
    for wave in plan["waves"]:
        counts = Counter(plan["hosts"][name]["action"] for name in wave["hosts"])
        label = joined("%d " % wave["wave"], element("span", "one of each kind", class_="quiet") if wave["canaries"] else None)
        lines.append(element("tr", element("th", label, scope="row"), element("td", _bar(counts, top)),
                             element("td", element("b", figure(len(wave["hosts"]))), " ", hosts_list([clean(name, 253) or "?" for name in wave["hosts"]]))))
    columns = element("colgroup", element("col", class_="label"), element("col"), element("col", class_="figure"))
    head = element("thead", element("tr", *[element("th", text, scope="col") for text in ("Wave", "Hosts by path", "Hosts")]))
    seen, rest = (element("table", columns, head, element("tbody", *some), class_="bars") for some in (lines[:WAVES], lines[WAVES:]))
    limits = ", ".join("%d of one %s" % (most, clean(name)) for name, most in sorted(plan["options"]["domains"].items()))
    about = "First one host of each kind of hardware and software, then waves that grow.%s" % (" At most %s at once." % limits if limits else "")
    return section("waves", "Waves", about, folded(seen, quantity(len(lines) - WAVES, "more wave"), rest) if lines[WAVES:] else seen)


def _paths(plan):
    """From which revision to which one; nothing where nothing is loaded."""
    rows = {}
    for name, each in plan["hosts"].items():
        if each["action"] in ACTED:
            rows.setdefault((each["action"], each["signature"] or "", each["from"] or "", each["to"]), []).append(name)
    if not rows:
        return None
    lines = []
    for (action, signature, runs, to), names in sorted(rows.items(), key=lambda row: (row[0][0] != "late", -len(row[1]), row[0])):
        closes = dict.fromkeys(text for name in names for text in plan["hosts"][name]["closes"])
        lines.append(element("tr", element("th", icon(action), " ", ACTIONS[action], scope="row"), element("td", code(signature)), element("td", code(runs)),
                             element("td", code(to)), element("td", ", ".join(clean(text, 60) or "?" for text in closes)),
                             element("td", element("b", figure(len(names))), " ", hosts_list([clean(name, 253) or "?" for name in names]))))
    head = element("thead", element("tr", *[element("th", text, scope="col") for text in ("Path", "Signature", "Runs", "To", "Closes", "Hosts")]))
    return section("paths", "From which revision to which", None, element("table", head, element("tbody", *lines)))


def _left(plan):
    """Who is not acted on, with the reason that counted most."""
    found = []
    for action, title in ACTIONS.items():
        rules = {}
        for name, each in plan["hosts"].items():
            if each["action"] == action and action not in ACTED:
                first = first_reason(each)
                rules.setdefault((first["rule"], first["source"]), []).append((clean(name, 253) or "?", clean(first["text"], 2000) or ""))
        lines = []
        for (rule, source), said in sorted(rules.items(), key=lambda item: (-len(item[1]), item[0][0])):
            texts = alike(said)
            if texts[REASONS:]:
                texts[REASONS:] = [("Likewise, with other values: see the JSON.", [name for _text, names in texts[REASONS:] for name in names])]
            about = "Rule %s%s" % (rule, "; source: %s" % source if source else "")
            lines += [element("li", element("p", text), element("p", about, class_="quiet"), element("b", hosts_in_words(len(names))), " ", hosts_list(names))
                      for text, names in texts]
        if lines:
            heading = element("h3", icon(action), " ", title, " ", element("span", hosts_in_words(plan["summary"]["actions"][action]), class_="quiet"))
            found.append(element("section", heading, element("ul", *lines, class_="said"), class_="state " + action))
    return section("left", "Who is left, and why", "\u2026 stands for what differs between hosts.", *found) if found else None


def render(plan):
    """The page of a plan."""
    style = joined(beside("page.css"), beside("plan.css"))
    policy = "default-src 'none'; style-src %s; base-uri 'none'; form-action 'none'" % allowed(style)
    title = "Microcode plan for " + hosts_in_words(plan["summary"]["hosts"])
    parts = [("plan", "What is done", _posture(plan)), ("waves", "Waves", _waves(plan)),
             ("paths", "Revisions", _paths(plan)), ("left", "Who is left", _left(plan))]
    head = element("head", element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=policy),
                   element("meta", name="viewport", content="width=device-width, initial-scale=1"), element("meta", name="referrer", content="no-referrer"),
                   element("title", "%s, %s" % (title, plan["planned"][:10])), element("style", style))
    texture = element("pattern", element("rect", width="6", height="6"), element("path", d="M1 0v6"), id="p-unknown", class_="unknown", width="6", height="6",
                      patternUnits="userSpaceOnUse", patternTransform=TEXTURES["unknown"])
    symbols = [element("symbol", element("path", d=line), id="i-" + action, viewBox="0 0 16 16") for action, line in SIGNS.items()]
    body = element(
        "body", element("svg", texture, *symbols, class_="defs", aria_hidden="true"),
        element("header", element("h1", title), element("p", "as of ", element("time", plan["planned"].replace("T", " ").replace("Z", " UTC"),
                                                                               datetime=plan["planned"]), class_="quiet"),
                element("p", "Digest ", element("code", plan["digest"], class_="digest")),
                element("nav", element("ul", *[element("li", element("a", text, href="#" + name)) for name, text, content in parts if content]),
                        aria_label="Parts of this page")),
        element("main", *[content for _name, _text, content in parts]),
        element("footer", element("p", "fleet.microcode. This page loads nothing and sends nothing.")))
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"
