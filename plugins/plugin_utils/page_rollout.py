# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of a rollout: how far it came, its waves in time, who is in trouble and why, all hosts. What it is made of is in page.py."""
from collections import Counter

from ansible_collections.fleet.microcode.plugins.plugin_utils.page import (
    Fleet, bar_row, bar_table, drawn, element, figure, frame, hosts_in_words, hosts_part, joined, kind_card, kinds_card, listing, section, whole, words)
from ansible_collections.fleet.microcode.plugins.plugin_utils.report import clean, quantity
from ansible_collections.fleet.microcode.plugins.plugin_utils.rollout import STATES, TROUBLE, seconds

OPEN = ("prepared", "begun", "waiting", "checked", "stale", "new")  # neither done nor in trouble
MEANINGS = {
    "done": "Every CPU runs what the plan wants, by facts that were read afresh.",
    "prepared": "The next boot loads it; nobody has booted it yet.",
    "checked": "Check mode has looked at what would be done, and changed nothing.",
    "lost": "Nothing was heard of it any more. Whether it runs must be seen there.",
    "failed": "A step failed, and says why. Its guests were cared for before that was noted.",
    "wrong": "The facts, read afresh, speak of another revision than the plan.",
    "begun": "It was being worked on when this was written.",
    "waiting": "Its wave did not begin. The next run of the same plan does.",
    "stale": "Its facts are no longer those that were decided on. It takes a new plan.",
    "new": "The plan does not know it. It takes a new plan.",
}
REVISIONS = ("running", "to")
COLUMNS = (("name", "Host", False), ("kind", "State", False), ("action", "Path", False), ("running", "From", True), ("to", "To", True), ("wave", "Wave", True),
           ("began", "Began", True), ("took", "Took", True), ("why", "Why", False))
DETAILS = (("because", "Why"), ("course", "What was done"), ("undone", "Afterwards"), ("domains", "Failure domains"))
LISTED = ("action", "to", "wave")
WAVES = 24  # that are seen at once


def lasted(since, until):
    """Time between two moments, in words."""
    found = int(seconds(since, until)) if since and until else None
    if found is None:
        return None
    return "%d:%02d:%02d h" % (found // 3600, found // 60 % 60, found % 60) if found >= 3600 else "%d:%02d min" % (found // 60, found % 60)


def told(name, host, decision, wave):
    """All that the page shows of a host: {column: text, or several texts}; the texts are clean."""
    row = dict.fromkeys([each[0] for each in COLUMNS + DETAILS], "")
    row["cpu"] = row["signature"] = clean(decision["signature"], 20) or "" if decision else ""
    row.update(name=clean(name, 253) or "?", kind=host["state"], why=clean(host["why"], 300) or "", because=clean(host["why"], 2000) or "",
               wave=str(wave or ""), began=(host.get("began") or "")[11:16], took=lasted(host.get("began"), host.get("ended")) or "",
               undone=host.get("undone") or "",
               domains=tuple("%s %s" % (clean(str(key), 60), clean(str(value), 100)) for key, value in host["domains"].items()))
    if decision:
        row.update(action=clean(decision["action"], 20) or "", running=clean(decision["from"], 20) or "", to=clean(decision["to"], 20) or "")
    row["course"] = words("rebooted, back after %d s" % host["rebooted"] if host.get("rebooted") else None,
                          "guests held %s s at most" % format(host["held"], ".3g") if host.get("held") else None) or ""
    return row


def first_part(fleet, found):
    """How far it came."""
    passed = lasted(found["started"], found["ended"])
    about = element("p", element("b", "Stopped: "), clean(found["stopped"], 4000), class_="stopped") if found["stopped"] else None
    cards = kind_card(fleet, "done"), kinds_card(fleet, "in trouble", "#trouble", list(TROUBLE)), kinds_card(fleet, "not done", "#hosts", OPEN)
    return joined(about, whole(fleet, "What became of it, after " + passed, *cards))


def waves_part(fleet, found):
    """One bar for each wave that was begun, where it stands in time; nothing where none was."""
    end, bodies = max(1.0, seconds(found["started"], found["ended"])), []
    for wave in found["waves"]:
        hosts = [found["hosts"][name] for name in wave["hosts"]]
        began, ended = ([host[key] for host in hosts if host.get(key)] for key in ("began", "ended"))
        if not began:
            continue
        since = seconds(found["started"], min(began))
        until = seconds(found["started"], max(ended)) if len(ended) == len(began) else end
        held, boots = ([host[key] for host in hosts if host.get(key)] for key in ("held", "rebooted"))
        note = words("%s to %s" % (min(began)[11:19], max(ended)[11:19] if ended else "?"), boots and "%s, the longest %d s" % (
            quantity(len(boots), "reboot"), max(boots)), held and "guests held on %s, at most %s s" % (hosts_in_words(len(held)), format(max(held), ".3g")))
        label = joined("%d " % wave["wave"], element("b", "canaries") if wave["canaries"] else None)
        stretch = drawn(STATES, Counter(host["state"] for host in hosts), max((until - since) / end * 100, 1), before=since / end * 100)
        bodies.append(element("tbody", bar_row(label, joined(stretch, element("p", note, class_="quiet")),
                                               fleet.link(figure(len(hosts)), "wave %d" % wave["wave"], wave=[str(wave["wave"])]))))
    about = "Each stands where it was in the time of this run, %s to %s UTC." % (found["started"][11:19], found["ended"][11:19])
    return section("waves", "Waves in time", about, bar_table(("Wave", "From its first host to its last", "Hosts"), bodies, "%d more waves", WAVES)) \
        if bodies else None


def trouble_part(fleet):
    """Who is in trouble, with the reason."""
    found = [each for each in (listing(fleet, kind, LISTED, name="trouble-") for kind in TROUBLE) if each]
    return section("trouble", "Who is in trouble, and why", None if found else "Nobody.", *found)


def render(plan, found):
    """The page of a rollout's record (rollout.record) and the plan that it carried out."""
    waves = {name: wave["wave"] for wave in plan["waves"] for name in wave["hosts"]}
    fleet = Fleet([told(name, each, plan["hosts"].get(name), waves.get(name)) for name, each in found["hosts"].items()], STATES, MEANINGS, COLUMNS, DETAILS,
                  REVISIONS)
    return frame(fleet, "Microcode rollout over " + hosts_in_words(len(fleet.rows)), found["ended"], [
        ("whole", "What became of it", first_part(fleet, found)), ("waves", "Waves in time", waves_part(fleet, found)),
        ("trouble", "Trouble", trouble_part(fleet)), ("hosts", "Hosts", hosts_part(fleet, "State", *[listing(fleet, kind, LISTED) for kind in STATES]))],
        element("p", "plan ", element("code", found["digest"]), class_="quiet digest"))
