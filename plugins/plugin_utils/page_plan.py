# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of a plan: which path how many hosts take, the waves, who is left and why, all hosts with every reason. What it is made of is in page.py."""
from collections import Counter

from ansible_collections.fleet.microcode.plugins.plugin_utils.page import (
    Fleet, Html, alike, bar_row, bar_table, bars, by_text, code, distribution, drawn, element, figure, frame, hosts_in_words, hosts_list, hosts_part, joined,
    kind_card, kinds_card, listing, models, natural, section, titled, totalled, whole, words)
from ansible_collections.fleet.microcode.plugins.plugin_utils.plan import ACTED, ACTIONS, reason, sourced
from ansible_collections.fleet.microcode.plugins.plugin_utils.report import clean, items, part, quantity, short_name

LEFT = ("firmware_first", "blocked", "unknown")
MEANINGS = {
    "early": "Booted anew, the kernel or Xen loads it as it starts.",
    "late": "The running kernel or Xen takes it. Distribution, file, platform and every rule allow that.",
    "firmware_first": "Newer firmware must come before newer microcode. Update it, and plan again.",
    "blocked": "A rule stands against it, or what is asked for is not at hand. Each text says what would change that.",
    "unknown": "What it takes to decide is not known, and nobody guesses. Such a host is left as it is.",
    "none": "Nothing newer is at hand, wanted or useful, or microcode is not this host\u2019s business.",
}
REVISIONS = ("signature", "running", "to")
COLUMNS = (("name", "Host", False), ("kind", "Action", False), ("cpu", "CPU", False), ("running", "Runs", True), ("to", "To", True), ("wave", "Wave", True),
           ("distribution", "Distribution", False), ("rule", "First reason", False))
DETAILS = (("because", "Why"), ("does", "What is done"), ("file", "From the file"), ("brings", "It brings"), ("takes", "It takes"), ("closes", "It closes"),
           ("domains", "Failure domains"))
LISTED = ("running", "to", "wave")  # columns of the lists
WAVES = 24     # that are seen at once
LATE = {"never": "never: at the next boot alone", "allowed": "allowed, where distribution, file, platform and every rule allow it"}
GUESTS = {"none": "left as they are", "pause": "paused during a late load"}
TARGETS = {"newest_staged": "the newest revision on the host\u2019s disk that no rule withdraws",
           "advisory": "that revision only where a rule asks for a newer one"}
ARROW = Html(" &#8594; ")


# --- what the plan says, in words ---

def file_in_words(said):
    """Which file holds the revision."""
    return words(said["file"], said["package"] and "of " + said["package"], said["sha256"] and "SHA-256 " + said["sha256"])


def told(name, decision, facts, domains, waves):
    """All that the page shows of a host: {column: text, or several texts}; the texts are clean."""
    said = {key: clean(part(decision, key), 4096) for key in ("action", "from", "to", "file", "sha256", "package", "guests", "signature")}
    because, wave, row = items(part(decision, "because")), part(decision, "wave"), dict.fromkeys([each[0] for each in COLUMNS + DETAILS], "")
    known = isinstance(facts, dict)
    row.update(name=clean(name, 253) or "?", kind=said["action"], running=said["from"] or ("unknown" if known else ""), to=said["to"] or "",
               cpu=(short_name(part(facts, "cpu")) or "unknown") if known else "", signature=said["signature"] or ("unknown" if known else ""),
               distribution=distribution(facts) if known else "", because=tuple("\n".join(reason(each)) for each in because),
               first=because[0] if because else {}, rule=(clean(part(because[0], "rule"), 100) if because else None) or "", file=file_in_words(said) or "",
               domains=tuple("%s %s" % (clean(str(key), 60), clean(value, 100) or "?") for key, value in domains.items()))
    for key in ("brings", "takes", "closes"):
        row[key] = tuple(filter(None, (clean(each, 300) for each in items(part(decision, key)))))
    if said["action"] in ACTED:
        row["wave"] = str(wave)
        row["does"] = words("rebooted" if part(decision, "reboot") else "not rebooted",
                            "guests are paused meanwhile" if said["guests"] == "pause" else "guests are left as they are",
                            "in wave %d of %d" % (wave, len(waves)), "as the first of its kind" if waves[wave]["canaries"] else None)
    return row


# --- the parts ---

def first_part(fleet, plan):
    """How many take which path, and how many are left."""
    counts = plan["summary"]
    acted = [kinds_card(fleet, "to be worked on, in " + quantity(len(plan["waves"]), "wave"), "#waves", ACTED)] if plan["waves"] else []
    more = [element("li", icon_less(text), element("b", figure(found)), class_=None if found else "zero") for text, found in [
        ("reboots", counts["reboots"])] + [("hosts whose guests are %sd" % clean(how, 20), found) for how, found in sorted(counts["guests"].items())]]
    if acted:
        acted = [joined(acted[0], element("ul", *more))]
    return whole(fleet, "What is done", *acted, kinds_card(fleet, "left, with a reason", "#left", LEFT), kind_card(fleet, "none"))


def icon_less(text):
    """A text of a card that stands where others have theirs, after a sign."""
    return joined(element("span"), element("span", text))


def asked_part(plan):
    """The options that the plan was made with."""
    options, target = plan["options"], plan["options"]["target"]
    if isinstance(target, dict):
        target = ", ".join("%s for %s" % (clean(str(to), 20), clean(str(signature), 20)) for signature, to in target.items()) or "none"
    lines = [
        ("Late loading", LATE[options["late"]]), ("Guests", GUESTS[options["guests"]]), ("Target", TARGETS.get(target, target)),
        ("Held back", "what is younger than %s" % quantity(options["hold_days"], "day") if options["hold_days"] else "nothing for its age"),
        ("Accepted", ", ".join(clean(each, 100) or "?" for each in options["accept"]) or "no rule"),
        ("Wave sizes", ", ".join(map(figure, options["wave_sizes"])) + (" and so on" if options["wave_sizes"][1:] else " each")),
        ("At once", ", ".join("at most %s of one %s" % (figure(most), clean(name, 60)) for name, most in options["domains"].items())
         or "as many as a wave has"),
    ] + [("No limit", "for %s in waves without the variable %s" % (hosts_in_words(found), clean(name, 60)))
         for name, found in plan["summary"]["without_domain"].items() if found]
    return section("asked", "What was asked for", None, element("dl", *[joined(element("dt", label), element("dd", text)) for label, text in lines]))


def rules_part(plan):
    """The rules of the user's own that the plan was made with; nothing where there are none."""
    spoke = Counter(rule for each in plan["hosts"].values() for rule in {clean(part(said, "rule"), 100) for said in items(part(each, "because"))})
    lines = []
    for rule in plan["rules"]:
        name, effect, text, match, source = (clean(part(rule, key), 2000) or "?" for key in ("id", "effect", "text", "match", "source"))
        told = words("spoke of " + hosts_in_words(spoke[clean(name, 100)]), "retracted" if part(rule, "retracted") else None)
        lines.append(joined(element("dt", name), element("dd", reason({"effect": effect, "text": text})[0], element("br"), element("code", match),
                                                         element("p", told, sourced(source), class_="quiet"))))
    about = "They stand before the collection's, which the reasons name with their sources."
    return section("rules", "Rules of your own", about, element("dl", *lines)) if lines else None


def by_transition(fleet):
    """From which revision to which, for each signature."""
    found, total = {}, 0
    for row in fleet.rows:
        if row["to"]:
            found.setdefault(row["signature"], []).append(row)
            total += 1
    groups = []
    for signature, rows in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        counts, called = {}, models(rows)
        for row in rows:
            counts.setdefault((row["running"], row["to"]), Counter())[row["kind"]] += 1
        lines = [(joined(code(runs), ARROW, code(to)), of_kind,
                  [totalled(fleet, sum(of_kind.values()), "%s: %s to %s" % (called, runs, to), signature=[signature], running=[runs], to=[to])])
                 for (runs, to), of_kind in sorted(counts.items(), key=lambda item: (-sum(item[1].values()), item[0]))]
        groups.append((titled(called, len(rows), code(signature), " "), lines))
    if not groups:
        return None
    rest = len(fleet.rows) - total
    about = "What runs, and what is to run or would, had nothing stood against it.%s" % (
        " Left out: %s for which nothing is to be loaded." % hosts_in_words(rest) if rest else "")
    return section("transitions", "CPUs and transitions", about, bars(ACTIONS, ("From and to", "Hosts by action", "Hosts"), groups, "%d more CPUs"))


def by_distribution(fleet):
    """Which path the hosts of each distribution take."""
    found = {}
    for row in fleet.rows:
        if row["distribution"]:
            found.setdefault(row["distribution"], Counter())[row["kind"]] += 1
    groups = [(None, [(name, counts, [totalled(fleet, sum(counts.values()), name, distribution=[name])])])
              for name, counts in sorted(found.items(), key=lambda item: (-sum(item[1].values()), natural(item[0])))]
    return section("distributions", "Distributions", None, bars(ACTIONS, ("Distribution", "Hosts by action", "Hosts"), groups, "%d more distributions")) \
        if groups else None


def changes(fleet):
    """What comes and goes with the updates; nothing where no rule says so."""
    groups = [(text, by_text(fleet, key)) for key, text in (("takes", "It takes"), ("brings", "It brings"), ("closes", "It closes"))]
    groups = [group for group in groups if group[1]]
    about = "As far as the rules know. What a late load leaves as the kernel chose it at boot is not closed by it."
    return section("changes", "What comes and goes", about, bars(ACTIONS, ("What", "Hosts by action", "Hosts"), groups, "%d more")) if groups else None


def waves_part(fleet, plan, domains):
    """One bar for each wave, behind those before it; nothing where there is none."""
    done, total, bodies = 0, sum(len(wave["hosts"]) for wave in plan["waves"]), []
    for wave in plan["waves"]:
        counts, size = Counter(plan["hosts"][name]["action"] for name in wave["hosts"]), len(wave["hosts"])
        note = words("one of each kind" if wave["canaries"] else None, *wave_in_words(plan, wave, domains))
        label = joined("%d " % wave["wave"], element("b", "canaries") if wave["canaries"] else None)
        stretch = joined(drawn(ACTIONS, counts, size / total * 100, before=done / total * 100), element("p", note, class_="quiet"))
        bodies.append(element("tbody", bar_row(label, stretch, fleet.link(figure(size), "wave %d" % wave["wave"], wave=[str(wave["wave"])]))))
        done += size
    if not bodies:
        return None
    about = "First canaries, one host of each kind of hardware and software, then waves that grow. A wave stands where those before it end."
    return section("waves", "Waves", about, bar_table(("Wave", "Hosts by path", "Hosts"), bodies, "%d more waves", WAVES))


def wave_in_words(plan, wave, domains):
    """What happens in a wave."""
    hosts = [plan["hosts"][name] for name in wave["hosts"]]
    late, reboots, paused = (sum(map(bool, some)) for some in zip(*((each["action"] == "late", each["reboot"], each["guests"] == "pause") for each in hosts)))
    yield "%s late" % figure(late) if late else None
    yield quantity(reboots, "reboot") if reboots else None
    yield "guests paused on %s" % hosts_in_words(paused) if paused else None
    for variable in plan["options"]["domains"]:
        most = Counter(domains[name][variable] for name in wave["hosts"] if variable in domains.get(name, {})).most_common(1)
        yield "at most %s of one %s" % (figure(most[0][1]), clean(variable, 60)) if most else None


def by_rule(rows):
    """[(text, names, rule and source)] of the reason that counted most, those of one rule after each other."""
    rules = {}
    for row in rows:
        rules.setdefault((row["rule"], clean(row["first"].get("source"), 2000), row["first"].get("effect")), []).append(row)
    found = []
    for (rule, source, effect), some in sorted(rules.items(), key=lambda item: (-len(item[1]), str(item[0]))):
        lines = ["Rule ", element("b", rule or "none"), sourced(source)]
        if effect == "review":
            lines += [". Who has read this and accepts it names the rule in ", element("code", "accept"), "."]
        about = element("small", *lines)
        said = [(row["name"], clean(row["first"].get("text"), 2000) or "No reason is given.") for row in some]
        found += [(text, names, about) for text, names in alike(said)]
    return found


def left_part(fleet):
    """Who is not worked on though there is something to say, with the reason that counted most."""
    found = [each for each in (listing(fleet, kind, LISTED[:2], by_rule, "left-") for kind in LEFT) if each]
    about = "Hosts of the same reason stand together; \u2026 stands for what differs between them. All their reasons stand with the hosts."
    return section("left", "Who is left, and why", about if found else "Nobody.", *found)


def by_wave(plan):
    """The names of all waves."""
    lines = [element("li", element("p", "Wave %d%s: %s" % (wave["wave"], ", canaries" if wave["canaries"] else "", hosts_in_words(len(wave["hosts"])))),
                     hosts_list([clean(name, 253) or "?" for name in wave["hosts"]])) for wave in plan["waves"]]
    return joined(element("h3", "By wave"), element("ul", *lines, class_="said")) if lines else None


def render(plan, facts, domains):
    """The page of a plan, with the facts that it was made of, {host: facts or None}, and the hosts' failure domains, {host: {variable: value}}."""
    facts, domains = ({str(name): each for name, each in some.items()} for some in (facts, domains))  # as the plan names them
    waves = {wave["wave"]: wave for wave in plan["waves"]}
    fleet = Fleet([told(name, each, facts.get(name), domains.get(name, {}), waves) for name, each in plan["hosts"].items()], ACTIONS, MEANINGS, COLUMNS,
                  DETAILS, REVISIONS)
    listed = [listing(fleet, kind, LISTED) for kind in ACTIONS]
    return frame(fleet, "Microcode plan for " + hosts_in_words(len(fleet.rows)), plan["planned"], [
        ("whole", "What is done", first_part(fleet, plan)), ("asked", "What was asked for", asked_part(plan)), ("rules", "Your rules", rules_part(plan)),
        ("waves", "Waves", waves_part(fleet, plan, domains)),
        [("transitions", "CPUs", by_transition(fleet)), ("distributions", "Distributions", by_distribution(fleet)), ("changes", "Changes", changes(fleet))],
        ("left", "Who is left", left_part(fleet)), ("hosts", "Hosts", hosts_part(fleet, "Action", by_wave(plan), *listed))],
        element("p", "digest ", element("code", plan["digest"]), class_="quiet digest"))
